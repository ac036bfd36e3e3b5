//! The depthwise sums of two lines of pixels with 3x3 or 5x5 taps, which share values with each other too.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that its caller states")]
#![expect(clippy::needless_range_loop, reason = "indices into arrays of registers are unrolled; iterators hide that")]

use super::Run;
use super::pixel::{add_product, store_sums};
use super::vector::Widen;
use crate::element::Element;

/// The outermost columns of what pixels with three or five columns of taps read: at the left and at the right, the first of
/// all or the last first.
struct Edges {
    /// Where they are, from the first one's place; those outside the image where the nearest column of it is.
    places: [[isize; 2]; 2],
    /// Whether they are inside, and whether they are added up.
    inside: [[bool; 2]; 2],
    counted: [[bool; 2]; 2],
}

impl Edges {
    /// Of pixels from this one on, whose last column has that number.
    #[inline(always)]
    fn of<S: Element>(run: &Run<S>, pixel: usize, last: usize) -> Self {
        let columns = run.columns(pixel);
        let last = last as isize;
        let numbers = [[0, 1], [last, last - 1]];
        let mut edges = Self { places: [[0; 2]; 2], inside: [[false; 2]; 2], counted: [[false; 2]; 2] };
        for side in 0..2 {
            for i in 0..2 {
                let number = numbers[side][i];
                let inside = columns.contains(&number);
                edges.places[side][i] = number.clamp(columns.start, columns.end - 1).wrapping_mul(run.steps[1]);
                edges.inside[side][i] = inside;
                edges.counted[side][i] = inside || run.padding;
            }
        }
        edges
    }
}

/// As [`shared`](super::shared_taps::shared), for two lines of pixels with as many rows of taps as columns.
///
/// # Safety
/// As for [`depthwise`](super::taps::depthwise).
#[inline(always)]
pub unsafe fn two_lines<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const P: usize,
    const WIDTH: usize,
    const STRIDE: usize,
    const PRODUCTS: usize,
>(
    run: &Run<S>,
) {
    for pixel in (0..run.count).step_by(P) {
        // The last ones may be computed twice.
        two_lines_pixels::<S, V, P, WIDTH, STRIDE, PRODUCTS>(run, pixel.min(run.count - P));
    }
}

/// All channels of `P` pixels of each line.
#[inline(always)]
unsafe fn two_lines_pixels<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const P: usize,
    const WIDTH: usize,
    const STRIDE: usize,
    const PRODUCTS: usize,
>(
    run: &Run<S>,
    pixel: usize,
) {
    let edges = Edges::of(run, pixel, (P - 1) * STRIDE + WIDTH - 1);
    let mut k = 0;
    while k < run.k {
        let whole = k + V::LANES <= run.k && run.counted[0] == (0..WIDTH + STRIDE);
        // The steps behind them are much code, which is not compiled for each.
        let sums = if whole {
            two_lines_sums::<S, V, P, WIDTH, STRIDE, true, PRODUCTS>(run, pixel, &edges, k)
        } else {
            two_lines_sums::<S, V, P, WIDTH, STRIDE, false, PRODUCTS>(run, pixel, &edges, k)
        };
        store_sums::<S, V, 2, P, 1, false>(run, pixel, k, &sums);
        k += V::LANES;
    }
}

/// One vector of them; of `WHOLE` vectors and lines that are all inside the image, or not. Without a condition for columns:
/// there the compiler would load what it has no registers for.
#[inline(always)]
unsafe fn two_lines_sums<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const P: usize,
    const WIDTH: usize,
    const STRIDE: usize,
    const WHOLE: bool,
    const PRODUCTS: usize,
>(
    run: &Run<S>,
    pixel: usize,
    edges: &Edges,
    k: usize,
) -> [[[V; 1]; P]; 2] {
    let mut sums = [[[V::splat(V::Element::ZERO)]; P]; 2];
    let lines = if WHOLE { 0..WIDTH + STRIDE } else { run.counted[0].clone() };
    let mut line = run.origin(pixel).wrapping_offset(run.place(lines.start, 0)).wrapping_add(k);
    let mut weights = run.filter.wrapping_add(lines.start * WIDTH * run.filter_stride + k);
    macro_rules! add_lines {
        ($numbers:expr, $upper:literal, $lower:literal) => {
            for _ in lines.start.max($numbers.start)..lines.end.min($numbers.end) {
                line_of_two::<S, V, P, WIDTH, STRIDE, $upper, $lower, WHOLE, PRODUCTS>(
                    run, line, weights, edges, k, &mut sums,
                );
                line = line.wrapping_offset(run.steps[0]);
                weights = weights.wrapping_add(WIDTH * run.filter_stride);
            }
        };
    }
    add_lines!((0..STRIDE), true, false);
    add_lines!((STRIDE..WIDTH), true, true);
    add_lines!((WIDTH..WIDTH + STRIDE), false, true);
    let _ = (line, weights);
    sums
}

/// A line of the image for [`two_lines_sums`]: a row of taps for the sums of each line of pixels that reads it, which for the
/// upper one is there.
#[inline(always)]
unsafe fn line_of_two<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const P: usize,
    const WIDTH: usize,
    const STRIDE: usize,
    const UPPER: bool,
    const LOWER: bool,
    const WHOLE: bool,
    const PRODUCTS: usize,
>(
    run: &Run<S>,
    line: *const S,
    weights: *const V::Element,
    edges: &Edges,
    k: usize,
    sums: &mut [[[V; 1]; P]; 2],
) {
    let zero = V::splat(V::Element::ZERO);
    let last = (P - 1) * STRIDE + WIDTH - 1;
    let within = |tap: usize, first: usize| first <= tap && tap - first < WIDTH;
    let mut taps = [[zero; WIDTH]; 2];
    for l in 0..2 {
        if [UPPER, LOWER][l] {
            let row = weights.wrapping_sub(l * STRIDE * WIDTH * run.filter_stride);
            for j in 0..WIDTH {
                taps[l][j] = V::load(row.add(j * run.filter_stride));
            }
        }
    }
    // By hand, as in `shared_row`.
    macro_rules! add_columns {
        ($($column:literal)*) => {$(
            if $column < last + 1 {
                let edge = match ($column, last - $column) {
                    (i, _) if i < WIDTH / 2 => Some((0, i)),
                    (_, i) if i < WIDTH / 2 => Some((1, i)),
                    _ => None,
                };
                let place = edge.map_or($column * run.steps[1], |(side, i): (usize, usize)| edges.places[side][i]);
                let from = line.wrapping_offset(place);
                let mut value = if WHOLE { V::widen(from) } else { V::widen_first(from, V::LANES.min(run.k - k)) };
                if let Some((side, i)) = edge {
                    value = V::choose(edges.inside[side][i], value, zero);
                }
                for p in 0..P {
                    for l in 0..2 {
                        if [UPPER, LOWER][l] && within($column, p * STRIDE) {
                            let [before] = sums[l][p];
                            let mut sum = add_product::<S, V, false, PRODUCTS>(value, taps[l][$column - p * STRIDE], before);
                            if let Some((side, i)) = edge {
                                sum = V::choose(edges.counted[side][i], sum, before);
                            }
                            sums[l][p] = [sum];
                        }
                    }
                }
            }
        )*};
    }
    add_columns!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}
