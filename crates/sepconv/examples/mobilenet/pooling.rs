//! The mean over an image's pixels, added up as TensorFlow's `Mean` does on x86-64: eight channels at a time, the pixels by
//! turns to four sums where there are sixteen or more; where eight would reach beyond the image's channels, one by one, to one
//! sum. Neither oneDNN nor the number of threads changes that.

use ndarray::{Array4, ArrayView4, Axis};

/// How many numbers a vector of TensorFlow's holds.
const VECTOR: usize = 8;
const SUMS: usize = 4;
/// Pixels from which on there are several sums.
const LEAST: usize = 16;

/// From (batch, height, width, channels) to (batch, 1, 1, channels).
pub fn mean(input: ArrayView4<f32>, output: &mut Array4<f32>) {
    let (batch, height, width, channels) = input.dim();
    let pixels = height * width;
    let by_turns = if pixels < LEAST { 0 } else { pixels / SUMS * SUMS };
    let mut sums = vec![[0.0f32; SUMS]; channels];
    for (number, (image, mut means)) in input.outer_iter().zip(output.outer_iter_mut()).enumerate() {
        sums.fill([0.0; SUMS]);
        for (pixel, values) in image.lanes(Axis(2)).into_iter().enumerate() {
            if pixel == by_turns {
                sums.iter_mut().for_each(|sums| sums[0] = total(sums));
            }
            let turn = if pixel < by_turns { pixel % SUMS } else { 0 };
            sums.iter_mut().zip(values).for_each(|(sums, value)| sums[turn] += value);
        }
        for (channel, mean) in means.iter_mut().enumerate() {
            // Vectors are cut from the channels of all images in a row.
            let start = (number * channels + channel) / VECTOR * VECTOR;
            let whole = start % channels + VECTOR <= channels && start + VECTOR <= batch * channels;
            let sum = match &sums[channel] {
                _ if !whole => image.lanes(Axis(2)).into_iter().fold(0.0, |sum, values| sum + values[channel]),
                sums if by_turns == pixels => total(sums),
                sums => sums[0],
            };
            *mean = sum / pixels as f32;
        }
    }
}

fn total(&[a, b, c, d]: &[f32; SUMS]) -> f32 {
    ((a + b) + c) + d
}
