//! The inner loop of the depthwise filter's gradient: sums over pixels, of some taps and channels at a time.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that its caller states")]
#![expect(clippy::needless_range_loop, reason = "indices into arrays of registers are unrolled; iterators hide that")]

use std::ops::Range;

use super::pixel::{FIRST, WHOLE};
use super::vector::{Widen, accumulate};
use crate::element::Element;

/// Rows of output pixels, equally far apart in the image and in the gradient, for the sums of the depthwise filter's gradient
/// over them: of some taps and some channels.
pub struct Correlation<'a, T: Element> {
    /// Where tap (0, 0) of the first pixel would read channel 0, perhaps outside the image, and the elements to where that of
    /// the next row's first and the next pixel would. Only the listed taps are there, with all channels.
    pub image: (*const T, [isize; 2]),
    /// The same of the gradient.
    pub gradient: (*const T, [isize; 2]),
    /// Rows, and pixels of each.
    pub pixels: [usize; 2],
    /// For each tap, the elements from where tap (0, 0) would read to where it does, and from the first sum to its own.
    pub taps: &'a [(isize, usize)],
    pub channels: Range<usize>,
    /// Writable in whole vectors for each tap.
    pub sums: *mut T::Sum,
}

/// Adds to each tap's sum the products of its pixel values and the gradients, row after row, pixel after pixel.
///
/// # Safety
/// What [`Correlation`] says of its pointers holds, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn correlate<S: Element<Sum = V::Element>, V: Widen<S>, const PRODUCTS: usize>(c: &Correlation<S>) {
    let mut taps = c.taps;
    while !taps.is_empty() {
        // Of so many independent sums, with two vectors each where there are few, that these hide the latency of the
        // additions.
        taps = match taps.len() {
            9.. => correlate_taps::<S, V, PRODUCTS, 9, 1>(c, taps),
            6.. => correlate_taps::<S, V, PRODUCTS, 6, 1>(c, taps),
            3.. => correlate_taps::<S, V, PRODUCTS, 3, 2>(c, taps),
            2 => correlate_taps::<S, V, PRODUCTS, 2, 2>(c, taps),
            _ => correlate_taps::<S, V, PRODUCTS, 1, 2>(c, taps),
        };
    }
}

/// All channels of the first `N` taps; gives the others.
#[inline(always)]
unsafe fn correlate_taps<
    'a,
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const PRODUCTS: usize,
    const N: usize,
    const VECTORS: usize,
>(
    c: &Correlation<S>,
    taps: &'a [(isize, usize)],
) -> &'a [(isize, usize)] {
    let Some((taps, rest)) = taps.split_first_chunk::<N>() else { return &[] };
    let mut k = c.channels.start;
    while k + VECTORS * V::LANES <= c.channels.end {
        correlate_vectors::<S, V, PRODUCTS, N, VECTORS, WHOLE>(c, taps, k);
        k += VECTORS * V::LANES;
    }
    if VECTORS > 1 && k + V::LANES <= c.channels.end {
        correlate_vectors::<S, V, PRODUCTS, N, 1, WHOLE>(c, taps, k);
        k += V::LANES;
    }
    if k < c.channels.end {
        correlate_vectors::<S, V, PRODUCTS, N, 1, FIRST>(c, taps, k);
    }
    rest
}

#[inline(always)]
unsafe fn correlate_vectors<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const PRODUCTS: usize,
    const N: usize,
    const VECTORS: usize,
    const LOAD: u8,
>(
    c: &Correlation<S>,
    taps: &[(isize, usize); N],
    k: usize,
) {
    let to = |t: usize, v: usize| c.sums.wrapping_add(taps[t].1 + k - c.channels.start + v * V::LANES);
    let mut sums = [[V::splat(V::Element::ZERO); VECTORS]; N];
    for t in 0..N {
        for v in 0..VECTORS {
            sums[t][v] = V::load(to(t, v));
        }
    }
    let ((mut image_row, of_image), (mut gradient_row, of_gradient)) = (c.image, c.gradient);
    let [rows, pixels] = c.pixels;
    for _ in 0..rows {
        let (mut image, mut gradient) = (image_row, gradient_row);
        for _ in 0..pixels {
            let gradients = load_channels::<S, V, VECTORS, LOAD>(c, gradient, k);
            for t in 0..N {
                let values = load_channels::<S, V, VECTORS, LOAD>(c, image.wrapping_offset(taps[t].0), k);
                for v in 0..VECTORS {
                    sums[t][v] = accumulate::<V, PRODUCTS>(values[v], gradients[v], sums[t][v]);
                }
            }
            (image, gradient) = (image.wrapping_offset(of_image[1]), gradient.wrapping_offset(of_gradient[1]));
        }
        image_row = image_row.wrapping_offset(of_image[0]);
        gradient_row = gradient_row.wrapping_offset(of_gradient[0]);
    }
    for t in 0..N {
        for v in 0..VECTORS {
            sums[t][v].store(to(t, v));
        }
    }
}

/// Vectors of the channels from `k` on, of which channel 0 is at `from`.
#[inline(always)]
unsafe fn load_channels<S: Element<Sum = V::Element>, V: Widen<S>, const VECTORS: usize, const LOAD: u8>(
    c: &Correlation<S>,
    from: *const S,
    k: usize,
) -> [V; VECTORS] {
    let mut values = [V::splat(V::Element::ZERO); VECTORS];
    for v in 0..VECTORS {
        let from = from.wrapping_add(k + v * V::LANES);
        values[v] = if LOAD == FIRST { V::widen_first(from, c.channels.end - k) } else { V::widen(from) };
    }
    values
}
