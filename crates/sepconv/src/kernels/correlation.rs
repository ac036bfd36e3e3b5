//! The inner loop of the depthwise filter's gradient: sums over pixels, of some taps and channels at a time.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that its caller states")]
#![expect(clippy::needless_range_loop, reason = "indices into arrays of registers are unrolled; iterators hide that")]

use std::ops::Range;

use super::pixel::{FIRST, WHOLE};
use super::vector::{Widen, accumulate, unpredicted};
use crate::element::Element;

/// Rows of output pixels, equally far apart in the image and in the gradient, for the sums of the depthwise filter's gradient
/// over them: of some taps and some channels.
pub struct Correlation<'a, T: Element> {
    /// Where tap (0, 0) of the first pixel would read channel 0, perhaps outside the image, and the elements to where that of
    /// the next row's first and the next pixel would. Only the listed taps are there, with all channels.
    pub image: (*const T, [isize; 2]),
    /// The same of the gradient.
    pub gradient: (*const T, [isize; 2]),
    pub rows: usize,
    /// Those of each row that have all taps.
    pub pixels: usize,
    /// If taps come in threes, those of a line, equally far apart in all lines.
    pub threes: Option<Threes>,
    /// For each tap, the elements from where tap (0, 0) would read to where it does, and from the first sum to its own.
    pub taps: &'a [(isize, usize)],
    pub channels: Range<usize>,
    /// Writable in whole vectors for each tap.
    pub sums: *mut T::Sum,
}

/// What rows have beside pixels with all taps.
#[derive(Clone, Copy)]
pub struct Threes {
    /// Pixels before them that lack the first of three taps.
    pub before: usize,
    /// Pixels behind them that lack the last one.
    pub behind: usize,
    /// Whether zeros are in the place of what they lack.
    pub zeros: bool,
}

/// How taps lie, as the constant that a loop is compiled for: anyhow, or in threes that are not there at borders, or zeros.
const ANYHOW: u8 = 0;
const THREES: u8 = 1;
const ZEROS: u8 = 2;

/// Adds to each tap's sum the products of its pixel values and the gradients, row after row, pixel after pixel.
///
/// # Safety
/// What [`Correlation`] says of its pointers holds, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn correlate<S: Element<Sum = V::Element>, V: Widen<S>, const PRODUCTS: usize>(c: &Correlation<S>) {
    match c.threes {
        None => correlate_all::<S, V, PRODUCTS, ANYHOW>(c),
        Some(Threes { zeros: false, .. }) => correlate_all::<S, V, PRODUCTS, THREES>(c),
        Some(Threes { zeros: true, .. }) => correlate_all::<S, V, PRODUCTS, ZEROS>(c),
    }
}

#[inline(always)]
unsafe fn correlate_all<S: Element<Sum = V::Element>, V: Widen<S>, const PRODUCTS: usize, const LIE: u8>(
    c: &Correlation<S>,
) {
    let mut taps = c.taps;
    while !taps.is_empty() {
        // Of so many independent sums that these hide the latency of the additions; with two vectors each if there are
        // registers for them, as cache lines that lie beside each other come sooner.
        taps = match taps.len() {
            9.. if V::REGISTERS > 18 => correlate_taps::<S, V, PRODUCTS, LIE, 9, 2>(c, taps),
            6.. => correlate_taps::<S, V, PRODUCTS, LIE, 6, 2>(c, taps),
            3.. => correlate_taps::<S, V, PRODUCTS, LIE, 3, 2>(c, taps),
            2 if LIE == ANYHOW => correlate_taps::<S, V, PRODUCTS, LIE, 2, 2>(c, taps),
            _ if LIE == ANYHOW => correlate_taps::<S, V, PRODUCTS, LIE, 1, 2>(c, taps),
            _ => unreachable!("they come in threes"),
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
    const LIE: u8,
    const N: usize,
    const VECTORS: usize,
>(
    c: &Correlation<S>,
    taps: &'a [(isize, usize)],
) -> &'a [(isize, usize)] {
    let Some((taps, rest)) = taps.split_first_chunk::<N>() else { return &[] };
    let mut k = c.channels.start;
    while k + VECTORS * V::LANES <= c.channels.end {
        correlate_vectors::<S, V, PRODUCTS, LIE, N, VECTORS, WHOLE>(c, taps, k);
        k += VECTORS * V::LANES;
    }
    if k + V::LANES <= c.channels.end {
        correlate_vectors::<S, V, PRODUCTS, LIE, N, 1, WHOLE>(c, taps, k);
        k += V::LANES;
    }
    if k < c.channels.end {
        correlate_vectors::<S, V, PRODUCTS, LIE, N, 1, FIRST>(c, taps, k);
    }
    rest
}

#[inline(always)]
unsafe fn correlate_vectors<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const PRODUCTS: usize,
    const LIE: u8,
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
    let (channels, of_image, of_gradient) = (c.channels.end - k, c.image.1, c.gradient.1);
    let [mut image_row, mut gradient_row] = [c.image.0, c.gradient.0].map(|row| row.wrapping_add(k));
    let (taps_of_line, apart) = if LIE == ANYHOW { (N, 0) } else { (3, taps[1].0.wrapping_sub(taps[0].0)) };
    let place = |t: usize| if LIE == ANYHOW { taps[t].0 } else { (t % 3) as isize * apart };
    for _ in 0..c.rows {
        let (mut lines, mut gradient) = ([image_row; N], gradient_row);
        for line in 0..N / taps_of_line {
            let t = line * taps_of_line;
            lines[line] = image_row.wrapping_offset(taps[t].0.wrapping_sub(place(t)));
        }
        macro_rules! add_up {
            ($pixels:expr, $there:pat) => {
                for _ in 0..$pixels {
                    let gradients = load_channels::<S, V, VECTORS, LOAD>(gradient, channels);
                    for t in 0..N {
                        let values = if matches!(t % 3, $there) {
                            let from = lines[t / taps_of_line].wrapping_offset(place(t));
                            load_channels::<S, V, VECTORS, LOAD>(from, channels)
                        } else if LIE == ZEROS {
                            [V::splat(V::Element::ZERO); VECTORS]
                        } else {
                            continue;
                        };
                        for v in 0..VECTORS {
                            sums[t][v] = accumulate::<V, PRODUCTS>(values[v], gradients[v], sums[t][v]);
                        }
                    }
                    for line in 0..N / taps_of_line {
                        lines[line] = unpredicted(lines[line].wrapping_offset(of_image[1]));
                    }
                    gradient = gradient.wrapping_offset(of_gradient[1]);
                }
            };
        }
        if let (Some(threes), true) = (c.threes, LIE != ANYHOW) {
            add_up!(threes.before, 1 | 2);
        }
        add_up!(c.pixels, _);
        if let (Some(threes), true) = (c.threes, LIE != ANYHOW) {
            add_up!(threes.behind, 0 | 1);
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

/// Vectors of channels, of which the first is at `from`; with `FIRST` so many.
#[inline(always)]
unsafe fn load_channels<S: Element<Sum = V::Element>, V: Widen<S>, const VECTORS: usize, const LOAD: u8>(
    from: *const S,
    channels: usize,
) -> [V; VECTORS] {
    let mut values = [V::splat(V::Element::ZERO); VECTORS];
    for v in 0..VECTORS {
        let from = from.wrapping_add(v * V::LANES);
        values[v] = if LOAD == FIRST { V::widen_first(from, channels) } else { V::widen(from) };
    }
    values
}
