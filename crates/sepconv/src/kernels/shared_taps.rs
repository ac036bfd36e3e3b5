//! The depthwise sums of pixels that share values, each of which is loaded once for all the sums that it enters.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that its caller states")]
#![expect(clippy::needless_range_loop, reason = "indices into arrays of registers are unrolled; iterators hide that")]

use std::ops::Range;

use super::Run;
use super::pixel::{FIRST, SPREAD, WHOLE, add_product, load_pixel, store_sums};
use super::vector::Widen;
use crate::element::Element;

/// What pixels that share values read outside the image: nothing, half a kernel's columns at the left or at the right, or
/// whatever it may be.
const NO_EDGE: u8 = 0;
const LEFT_EDGE: u8 = 1;
const RIGHT_EDGE: u8 = 2;
const ANY_EDGE: u8 = 3;

/// The depthwise sums, rounded once, of a run of pixels that share values, `P` or more, which lie `STRIDE` taps apart and have `WIDTH` columns of
/// taps, into successive rows of a tile.
///
/// # Safety
/// As for [`depthwise`](super::taps::depthwise).
#[inline(always)]
pub unsafe fn shared<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const P: usize,
    const WIDTH: usize,
    const STRIDE: usize,
    const PRODUCTS: usize,
    const SPREAD_OUT: bool,
>(
    run: &Run<S>,
) {
    for pixel in (0..run.count).step_by(P) {
        // The last ones may be computed twice.
        shared_pixels::<S, V, P, WIDTH, STRIDE, PRODUCTS, SPREAD_OUT>(run, pixel.min(run.count - P));
    }
}

/// All channels of `P` pixels, whose taps lie inside the image or not.
#[inline(always)]
unsafe fn shared_pixels<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const P: usize,
    const WIDTH: usize,
    const STRIDE: usize,
    const PRODUCTS: usize,
    const SPREAD_OUT: bool,
>(
    run: &Run<S>,
    pixel: usize,
) {
    let columns = run.columns(pixel);
    let border = (WIDTH / 2) as isize;
    let width = ((P - 1) * STRIDE + WIDTH) as isize;
    let edge = match (columns.start.max(0), (width - columns.end).max(0)) {
        _ if run.inside[0] != run.counted[0] => ANY_EDGE,
        (0, 0) => NO_EDGE,
        (left, 0) if left == border => LEFT_EDGE,
        (0, right) if right == border => RIGHT_EDGE,
        _ => ANY_EDGE,
    };
    let mut k = 0;
    macro_rules! sums {
        ($vectors:literal, $load:ident, $edge:ident) => {
            shared_sums::<S, V, P, $vectors, $load, WIDTH, STRIDE, PRODUCTS, $edge>(run, pixel, &columns, k)
        };
    }
    // The steps behind them are much code, which is not compiled for each.
    if SPREAD_OUT {
        while k < run.k {
            let sums = if edge == NO_EDGE { sums!(1, SPREAD, NO_EDGE) } else { sums!(1, SPREAD, ANY_EDGE) };
            store_sums::<S, V, 1, P, 1, false>(run, pixel, k, &[sums]);
            k += V::LANES;
        }
        return;
    }
    while edge != ANY_EDGE && k + 2 * V::LANES <= run.k {
        let sums = match edge {
            NO_EDGE => sums!(2, WHOLE, NO_EDGE),
            LEFT_EDGE => sums!(2, WHOLE, LEFT_EDGE),
            _ => sums!(2, WHOLE, RIGHT_EDGE),
        };
        store_sums::<S, V, 1, P, 2, false>(run, pixel, k, &[sums]);
        k += 2 * V::LANES;
    }
    while k < run.k {
        let sums = if k + V::LANES <= run.k { sums!(1, WHOLE, ANY_EDGE) } else { sums!(1, FIRST, ANY_EDGE) };
        store_sums::<S, V, 1, P, 1, false>(run, pixel, k, &[sums]);
        k += V::LANES;
    }
}

/// As `sums` there, with every pixel value loaded once for all the sums that it enters.
#[inline(always)]
unsafe fn shared_sums<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const P: usize,
    const N: usize,
    const LOAD: u8,
    const WIDTH: usize,
    const STRIDE: usize,
    const PRODUCTS: usize,
    const EDGE: u8,
>(
    run: &Run<S>,
    pixel: usize,
    columns: &Range<isize>,
    k: usize,
) -> [[V; N]; P] {
    let mut sums = [[V::splat(V::Element::ZERO); N]; P];
    let rows = run.counted[0].clone();
    let mut line = run.origin(pixel).wrapping_offset(run.place(rows.start, 0));
    let mut weights = run.filter.add(rows.start * WIDTH * run.filter_stride + k);
    macro_rules! add_row {
        ($i:expr) => {
            let inside = EDGE != ANY_EDGE || run.inside[0].contains(&$i);
            shared_row::<S, V, P, N, LOAD, WIDTH, STRIDE, PRODUCTS, EDGE>(
                run, line, weights, inside, columns, k, &mut sums,
            );
            line = line.wrapping_offset(run.steps[0]);
            weights = weights.wrapping_add(WIDTH * run.filter_stride);
        };
    }
    if EDGE != ANY_EDGE && WIDTH == 3 && rows == (0..3) {
        // By hand, so that the next sums begin before these are done.
        add_row!(0);
        add_row!(1);
        add_row!(2);
    } else if EDGE != ANY_EDGE && WIDTH <= 2 && rows == (0..2) {
        add_row!(0);
        add_row!(1);
    } else {
        for i in rows {
            add_row!(i);
        }
    }
    let _ = (line, weights);
    sums
}

/// One row of taps of [`shared_sums`], whose values begin at `line`.
#[inline(always)]
unsafe fn shared_row<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const P: usize,
    const N: usize,
    const LOAD: u8,
    const WIDTH: usize,
    const STRIDE: usize,
    const PRODUCTS: usize,
    const EDGE: u8,
>(
    run: &Run<S>,
    line: *const S,
    weights: *const V::Element,
    row_inside: bool,
    columns: &Range<isize>,
    k: usize,
    sums: &mut [[V; N]; P],
) {
    let border = (WIDTH / 2) as isize;
    let width = ((P - 1) * STRIDE + WIDTH) as isize;
    let mut taps = [[V::splat(V::Element::ZERO); N]; WIDTH];
    for j in 0..WIDTH {
        for v in 0..N {
            taps[j][v] = V::load(weights.add(j * run.filter_stride + v * V::LANES));
        }
    }
    // By hand: the compiler does not unroll a loop with such a condition, and so keeps the sums in memory.
    macro_rules! add_columns {
        ($($column:literal)*) => {$(
            if $column < (P - 1) * STRIDE + WIDTH {
                let inside = match EDGE {
                    NO_EDGE => true,
                    LEFT_EDGE => $column >= border,
                    RIGHT_EDGE => $column < width - border,
                    _ => row_inside && columns.contains(&$column),
                };
                if inside || run.padding {
                    let mut value = [V::splat(V::Element::ZERO); N];
                    if inside {
                        value = load_pixel::<S, V, N, LOAD>(run, line.wrapping_offset($column * run.steps[1]), k);
                    }
                    for p in 0..P {
                        if p * STRIDE <= $column && $column - p * STRIDE < WIDTH {
                            for v in 0..N {
                                let tap = taps[$column - p * STRIDE][v];
                                sums[p][v] = add_product::<S, V, false, PRODUCTS>(value[v], tap, sums[p][v]);
                            }
                        }
                    }
                }
            }
        )*};
    }
    add_columns!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}
