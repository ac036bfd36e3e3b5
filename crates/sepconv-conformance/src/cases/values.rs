//! What the arrays of a case hold: data that shows rounding, and special values that show which path was taken.

use super::Case;
use crate::random::Random;

/// What the arrays hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Uniform between -1 and 1.
    Uniform,
    /// A few infinities and NaNs in each array: which elements they reach.
    NonFinite,
    /// Infinite taps at the filter's edges: whether padding is multiplied.
    InfiniteTaps,
    /// Mostly zeros of both signs: where a sum starts, and whether padding is added.
    SignedZeros,
    /// Around the smallest normal number: what is flushed, and when.
    Subnormal,
    /// Magnitudes of all sizes, some overflowing.
    Wide,
    /// The second half of every pointwise sum takes back the first: only what was rounded away is left, which shows the
    /// order of the sum, and in 16 bits nothing else does.
    Cancelling,
}

/// The three arrays of a case, in TensorFlow's layouts.
#[derive(Clone, Debug, PartialEq)]
pub struct Operands<T> {
    pub input: Vec<T>,
    pub depthwise_filter: Vec<T>,
    pub pointwise_filter: Vec<T>,
}

impl Case {
    /// The data, from the case's own seed.
    pub fn operands<T: sepconv::Element>(&self) -> Operands<T> {
        let [height, width] = self.kernel;
        let channels = self.input[3] * self.channel_multiplier;
        let mut random = Random::new(self.seed);
        let mut array = |length| (0..length).map(|_| self.values.draw(&mut random)).collect::<Vec<T>>();
        let mut operands = Operands {
            input: array(self.input.iter().product()),
            depthwise_filter: array(height * width * channels),
            pointwise_filter: array(channels * self.out_channels),
        };
        match self.values {
            Values::NonFinite => {
                let arrays = [&mut operands.input, &mut operands.depthwise_filter, &mut operands.pointwise_filter];
                arrays.into_iter().for_each(|array| scatter_non_finite(array, &mut random));
            }
            Values::InfiniteTaps => {
                // One channel only, so that the others still show their bits where nothing infinite is met.
                let channel = random.below(channels);
                for tap in [0, width - 1, (height - 1) * width, height * width - 1] {
                    operands.depthwise_filter[tap * channels + channel] = T::from_f64(f64::INFINITY);
                }
            }
            Values::Cancelling => operands.cancel(self.input[3], self.channel_multiplier, self.out_channels),
            _ => {}
        }
        operands
    }
}

impl<T: sepconv::Element> Operands<T> {
    /// Gives the last channels the pixels and depthwise weights of the first, from the middle outwards, and the opposite
    /// pointwise weights.
    fn cancel(&mut self, in_channels: usize, channel_multiplier: usize, out_channels: usize) {
        for pixel in self.input.chunks_exact_mut(in_channels) {
            (0..in_channels / 2).for_each(|c| pixel[in_channels - 1 - c] = pixel[c]);
        }
        let k = in_channels * channel_multiplier;
        for tap in self.depthwise_filter.chunks_exact_mut(k) {
            (0..k / 2).for_each(|n| tap[k - 1 - n] = tap[n]);
        }
        for (n, m) in (0..k).map(|n| (n, k - 1 - n)).skip(k / 2) {
            for column in 0..out_channels {
                let opposite = -self.pointwise_filter[m * out_channels + column].to_f64();
                let weight = if n == m { 0.0 } else { opposite };
                self.pointwise_filter[n * out_channels + column] = T::from_f64(weight);
            }
        }
    }
}

impl Values {
    /// One element, before anything is scattered.
    fn draw<T: sepconv::Element>(self, random: &mut Random) -> T {
        let uniform = random.uniform();
        let (most, least) = (T::LARGEST.log2(), T::SMALLEST_NORMAL.log2());
        T::from_f64(match self {
            Self::Uniform | Self::NonFinite | Self::InfiniteTaps => uniform,
            // What is left must be a normal number in 16 bits too.
            Self::Cancelling => uniform * 16.0,
            Self::SignedZeros if random.below(8) > 0 => 0f64.copysign(uniform),
            Self::SignedZeros => uniform,
            // Either an operand or a product of two or three of them is near the smallest normal number.
            Self::Subnormal => {
                let part = [1.0, 0.5, 1.0 / 3.0, 0.0][random.below(4)];
                uniform * (least * part + 2.0).exp2() * (random.uniform() * 4.0).exp2()
            }
            // Products of three rarely overflow, but do.
            Self::Wide => uniform * (random.uniform() * 0.35 * most).exp2(),
        })
    }
}

fn scatter_non_finite<T: sepconv::Element>(array: &mut [T], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let value = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN][random.below(3)];
        array[random.below(array.len())] = T::from_f64(value);
    }
}
