//! The depthwise sums of two lines of pixels with 3x3 taps, which share values with each other too.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that its caller states")]
#![expect(clippy::needless_range_loop, reason = "indices into arrays of registers are unrolled; iterators hide that")]

use std::ops::Range;

use super::Run;
use super::pixel::{add_product, store_sums};
use super::sharing::MANY;
use super::vector::{Vector, Widen};
use crate::element::Element;

/// The first and the last column of what pixels with three columns of taps read.
pub(super) struct Edges<V> {
    /// Where they are, from the first one's place, or their neighbours where they are outside the image.
    places: [isize; 2],
    /// Above 0 if they are inside, and if they are added up.
    inside: [V; 2],
    counted: [V; 2],
}

impl<V: Vector> Edges<V> {
    /// The last one's number, and which of the columns lie inside the image, counted from the first.
    #[inline(always)]
    pub(super) unsafe fn of<S: Element<Sum = V::Element>>(run: &Run<S>, columns: Range<isize>, last: usize) -> Self {
        let last = last as isize;
        let [left, right] = [columns.start <= 0, columns.end > last];
        let places = [isize::from(!left), last - isize::from(!right)];
        let flag = |holds: bool| V::Element::from_f64(if holds { 1.0 } else { 0.0 });
        Self {
            places: [places[0].wrapping_mul(run.steps[1]), places[1].wrapping_mul(run.steps[1])],
            inside: [V::splat(flag(left)), V::splat(flag(right))],
            counted: [V::splat(flag(left || run.padding)), V::splat(flag(right || run.padding))],
        }
    }
}

/// As `shared_sums` in [`shared_taps`](super::shared_taps), of one vector, for two lines of pixels with 3x3 taps; of
/// `WHOLE` vectors and lines that are all inside the image, or not. Without a condition for columns: there the compiler
/// would load what it has no registers for.
#[inline(always)]
pub(super) unsafe fn two_lines_sums<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const STRIDE: usize,
    const WHOLE: bool,
    const PRODUCTS: usize,
>(
    run: &Run<S>,
    pixel: usize,
    edges: &Edges<V>,
    k: usize,
) {
    let zero = V::splat(V::Element::ZERO);
    let (mut sums, mut taps) = ([[zero]; 2 * MANY], [[zero; 3]; 3]);
    for i in 0..3 {
        for j in 0..3 {
            taps[i][j] = V::load(run.filter.add((3 * i + j) * run.filter_stride + k));
        }
    }
    let lines = &run.counted[0];
    let mut line = run.origin(pixel).wrapping_offset(run.place(lines.start, 0)).wrapping_add(k);
    macro_rules! add_line {
        ($number:literal) => {
            line_of_two::<S, V, STRIDE, $number, WHOLE, PRODUCTS>(run, line, &taps, edges, run.k - k, &mut sums);
            line = line.wrapping_offset(run.steps[0]);
        };
    }
    if WHOLE || lines.start == 0 {
        add_line!(0);
    }
    add_line!(1);
    add_line!(2);
    if STRIDE == 2 {
        add_line!(3);
    }
    if WHOLE || lines.end == 3 + STRIDE {
        if STRIDE == 2 {
            add_line!(4);
        } else {
            add_line!(3);
        }
    }
    let _ = line;
    store_sums::<S, V, MANY, { 2 * MANY }, 1, false>(run, pixel, k, &sums);
}

/// A line of the image, by its number, for [`two_lines_sums`]: a row of taps for the sums of each line of pixels that reads it.
#[inline(always)]
unsafe fn line_of_two<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const STRIDE: usize,
    const LINE: usize,
    const WHOLE: bool,
    const PRODUCTS: usize,
>(
    run: &Run<S>,
    line: *const S,
    taps: &[[V; 3]; 3],
    edges: &Edges<V>,
    channels: usize,
    sums: &mut [[V; 1]; 2 * MANY],
) {
    let last = (MANY - 1) * STRIDE + 2;
    // By hand, as in `shared_row`.
    macro_rules! add_columns {
        ($($column:literal)*) => {$(
            if $column < last + 1 {
                let edge = if $column == 0 { Some(0) } else if $column == last { Some(1) } else { None };
                let from = line.wrapping_offset(edge.map_or($column * run.steps[1], |edge: usize| edges.places[edge]));
                let mut value = if WHOLE { V::widen(from) } else { V::widen_first(from, V::LANES.min(channels)) };
                if let Some(edge) = edge {
                    value = edges.inside[edge].if_positive(value, V::splat(V::Element::ZERO));
                }
                for p in 0..MANY {
                    for l in 0..2 {
                        let within = |tap: usize, first: usize| first <= tap && tap - first < 3;
                        if within($column, p * STRIDE) && within(LINE, l * STRIDE) {
                            let [before] = sums[l * MANY + p];
                            let tap = taps[LINE - l * STRIDE][$column - p * STRIDE];
                            let mut sum = add_product::<S, V, false, PRODUCTS>(value, tap, before);
                            if let Some(edge) = edge {
                                sum = edges.counted[edge].if_positive(sum, before);
                            }
                            sums[l * MANY + p] = [sum];
                        }
                    }
                }
            }
        )*};
    }
    add_columns!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}
