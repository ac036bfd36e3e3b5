//! The depthwise sums of a run of pixels that share no values, row-major: each value is loaded anew for each tap.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that its caller states")]
#![expect(clippy::needless_range_loop, reason = "indices into arrays of registers are unrolled; iterators hide that")]

use super::Run;
use super::pixel::{FIRST, SPREAD, WHOLE, add_product, load_pixel, store_sums};
use super::sharing::PIXELS;
use super::vector::Widen;
use crate::element::Element;

/// The depthwise sums of a run of pixels that share no values, into successive rows of a tile.
///
/// # Safety
/// What [`Run`] says of its pointers holds, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn depthwise<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const EACH: bool,
    const PRODUCTS: usize,
    const SPREAD_OUT: bool,
>(
    run: &Run<S>,
) {
    if V::REGISTERS == 0 || run.count < PIXELS {
        for pixel in 0..run.count {
            pixels::<S, V, 1, EACH, PRODUCTS, SPREAD_OUT>(run, pixel);
        }
        return;
    }
    for pixel in (0..run.count).step_by(PIXELS) {
        // The last ones may be computed twice: that is cheaper than one by one.
        pixels::<S, V, PIXELS, EACH, PRODUCTS, SPREAD_OUT>(run, pixel.min(run.count - PIXELS));
    }
}

/// All channels of `P` pixels.
#[inline(always)]
unsafe fn pixels<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const P: usize,
    const EACH: bool,
    const PRODUCTS: usize,
    const SPREAD_OUT: bool,
>(
    run: &Run<S>,
    pixel: usize,
) {
    let mut k = 0;
    if SPREAD_OUT {
        while k < run.k {
            sums::<S, V, P, 1, SPREAD, EACH, PRODUCTS>(run, pixel, k);
            k += V::LANES;
        }
        return;
    }
    while P == 1 && k + 4 * V::LANES <= run.k {
        sums::<S, V, P, 4, WHOLE, EACH, PRODUCTS>(run, pixel, k);
        k += 4 * V::LANES;
    }
    while k + 2 * V::LANES <= run.k {
        sums::<S, V, P, 2, WHOLE, EACH, PRODUCTS>(run, pixel, k);
        k += 2 * V::LANES;
    }
    if k + V::LANES <= run.k {
        sums::<S, V, P, 1, WHOLE, EACH, PRODUCTS>(run, pixel, k);
        k += V::LANES;
    }
    if k < run.k {
        sums::<S, V, P, 1, FIRST, EACH, PRODUCTS>(run, pixel, k);
    }
}

/// `N` vectors of channels of `P` pixels, from channel `k` on.
#[inline(always)]
unsafe fn sums<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const P: usize,
    const N: usize,
    const LOAD: u8,
    const EACH: bool,
    const PRODUCTS: usize,
>(
    run: &Run<S>,
    pixel: usize,
    k: usize,
) {
    let zeros = [[V::splat(V::Element::ZERO); N]; P];
    let mut sums = zeros;
    let [rows, columns] = &run.counted;
    let [height, width] = &run.inside;
    let mut line = [std::ptr::null::<S>(); P];
    for p in 0..P {
        let origin = *run.pixels.get_unchecked(pixel + p);
        line[p] = origin.wrapping_offset(run.place(rows.start, width.start));
    }
    for i in rows.clone() {
        let mut weights = run.filter.add((i * run.kernel[1] + columns.start) * run.filter_stride + k);
        let inside = if height.contains(&i) { width.clone() } else { columns.end..columns.end };
        for _ in columns.start..inside.start {
            add_tap::<S, V, P, N, EACH, PRODUCTS>(&zeros, weights, &mut sums);
            weights = weights.add(run.filter_stride);
        }
        let mut place = line;
        for _ in inside.clone() {
            let mut values = zeros;
            for p in 0..P {
                values[p] = load_pixel::<S, V, N, LOAD>(run, place[p], k);
                place[p] = place[p].wrapping_offset(run.steps[1]);
            }
            add_tap::<S, V, P, N, EACH, PRODUCTS>(&values, weights, &mut sums);
            weights = weights.wrapping_add(run.filter_stride);
        }
        for _ in inside.end..columns.end {
            add_tap::<S, V, P, N, EACH, PRODUCTS>(&zeros, weights, &mut sums);
            weights = weights.wrapping_add(run.filter_stride);
        }
        line = line.map(|line| line.wrapping_offset(run.steps[0]));
    }
    store_sums::<S, V, 1, P, N, EACH>(run, pixel, k, &[sums]);
}

#[inline(always)]
unsafe fn add_tap<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const P: usize,
    const N: usize,
    const EACH: bool,
    const PRODUCTS: usize,
>(
    values: &[[V; N]; P],
    weights: *const V::Element,
    sums: &mut [[V; N]; P],
) {
    for v in 0..N {
        let weight = V::load(weights.add(v * V::LANES));
        for p in 0..P {
            sums[p][v] = add_product::<S, V, EACH, PRODUCTS>(values[p][v], weight, sums[p][v]);
        }
    }
}
