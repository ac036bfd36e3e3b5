//! The inner loops, written once over [`Vector`]. Everything is inlined into the wrappers of an instruction set, which
//! are what enables its instructions.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that its caller states")]
#![expect(clippy::needless_range_loop, reason = "indices into arrays of registers are unrolled; iterators hide that")]

use std::ops::Range;

use super::tile::{panel, row_stride};
use super::vector::{OVERRUN, PAIRED, Vector, Widen, accumulate, alone};
use super::{Block, Entry, Pack, Run, Step, Then};
use crate::element::Element;

/// How many pixels of a depthwise run share the loads of the filter: with two vectors each, eight independent sums hide
/// the latency of the additions.
const PIXELS: usize = 4;

/// Where a vector of pixel values comes from.
const WHOLE: u8 = 0;
/// The last channels, fewer than a vector.
const FIRST: u8 = 1;
/// Each channel as often as the multiplier says.
const SPREAD: u8 = 2;

/// The depthwise sums of a run of pixels, into successive rows of a tile.
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
    let mut pixel = 0;
    if !run.entries.is_empty() {
        while pixel + PIXELS <= run.pixels.len() {
            listed::<S, V, PIXELS, EACH, PRODUCTS, SPREAD_OUT>(run, pixel);
            pixel += PIXELS;
        }
        while pixel < run.pixels.len() {
            listed::<S, V, 1, EACH, PRODUCTS, SPREAD_OUT>(run, pixel);
            pixel += 1;
        }
        return;
    }
    let adjacent = run.adjacent && !SPREAD_OUT && run.inside[1].len() == run.kernel[1];
    while pixel + PIXELS <= run.pixels.len() {
        match run.kernel[1] {
            3 if adjacent => adjacent_pixels::<S, V, 3, EACH, PRODUCTS>(run, pixel),
            5 if adjacent => adjacent_pixels::<S, V, 5, EACH, PRODUCTS>(run, pixel),
            _ => pixels::<S, V, PIXELS, EACH, PRODUCTS, SPREAD_OUT>(run, pixel),
        }
        pixel += PIXELS;
    }
    while pixel < run.pixels.len() {
        pixels::<S, V, 1, EACH, PRODUCTS, SPREAD_OUT>(run, pixel);
        pixel += 1;
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
    let mut origins = [std::ptr::null::<S>(); P];
    for p in 0..P {
        origins[p] = *run.pixels.get_unchecked(pixel + p);
    }
    let zeros = [[V::splat(V::Element::ZERO); N]; P];
    let mut sums = zeros;
    let [rows, columns] = &run.counted;
    let [height, width] = &run.inside;
    for i in rows.clone() {
        let weights = run.filter.add(i * run.kernel[1] * run.filter_stride + k);
        let inside = if height.contains(&i) { width.clone() } else { columns.end..columns.end };
        for j in columns.start..inside.start {
            add_tap::<S, V, P, N, EACH, PRODUCTS>(&zeros, weights.add(j * run.filter_stride), &mut sums);
        }
        for j in inside.clone() {
            let place = (i as isize).wrapping_mul(run.steps[0]).wrapping_add((j as isize).wrapping_mul(run.steps[1]));
            let mut values = zeros;
            for p in 0..P {
                values[p] = load_pixel::<S, V, N, LOAD>(run, origins[p].wrapping_offset(place), k);
            }
            add_tap::<S, V, P, N, EACH, PRODUCTS>(&values, weights.add(j * run.filter_stride), &mut sums);
        }
        for j in inside.end..columns.end {
            add_tap::<S, V, P, N, EACH, PRODUCTS>(&zeros, weights.add(j * run.filter_stride), &mut sums);
        }
    }
    store_sums::<S, V, P, N, EACH>(run, pixel, k, &sums);
}

/// All channels of `P` pixels, in the order of the run's list.
#[inline(always)]
unsafe fn listed<
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
    for k in (0..run.k).step_by(V::LANES) {
        if SPREAD_OUT {
            listed_sums::<S, V, P, SPREAD, EACH, PRODUCTS>(run, pixel, k);
        } else if k + V::LANES <= run.k {
            listed_sums::<S, V, P, WHOLE, EACH, PRODUCTS>(run, pixel, k);
        } else {
            listed_sums::<S, V, P, FIRST, EACH, PRODUCTS>(run, pixel, k);
        }
    }
}

/// A vector of channels of `P` pixels, from channel `k` on, in the order of the run's list.
#[inline(always)]
unsafe fn listed_sums<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const P: usize,
    const LOAD: u8,
    const EACH: bool,
    const PRODUCTS: usize,
>(
    run: &Run<S>,
    pixel: usize,
    k: usize,
) {
    let zeros = [[V::splat(V::Element::ZERO); 1]; P];
    let (mut totals, mut sums) = (zeros, zeros);
    for entry in run.entries {
        match *entry {
            Entry::Tap { place, inside, weights } => {
                let mut values = zeros;
                for p in 0..P {
                    if inside {
                        let origin = *run.pixels.get_unchecked(pixel + p);
                        values[p] = load_pixel::<S, V, 1, LOAD>(run, origin.wrapping_offset(place), k);
                    }
                }
                add_tap::<S, V, P, 1, EACH, PRODUCTS>(&values, run.filter.add(weights + k), &mut sums);
            }
            Entry::Channel { place, behind, weights } => {
                let mut values = zeros;
                for p in 0..P {
                    let origin = *run.pixels.get_unchecked(pixel + p);
                    values[p] = [next_channels::<S, V>(run, origin, place, behind, k)];
                }
                add_tap::<S, V, P, 1, EACH, PRODUCTS>(&values, run.filter.add(weights + k), &mut sums);
            }
            Entry::End { starts } => {
                for p in 0..P {
                    totals[p][0] = if starts { sums[p][0] } else { totals[p][0].add(sums[p][0]) };
                }
                sums = zeros;
            }
        }
    }
    // Blocks that are added up are rounded again.
    store_sums::<S, V, P, 1, false>(run, pixel, k, &totals);
}

/// What lies behind the pixel values of the results from `k` on.
#[inline(always)]
unsafe fn next_channels<S: Element<Sum = V::Element>, V: Widen<S>>(
    run: &Run<S>,
    origin: *const S,
    place: isize,
    behind: Option<isize>,
    k: usize,
) -> V {
    let mut values = [S::ZERO; 16];
    for (l, value) in values.iter_mut().enumerate().take(V::LANES) {
        let next = (k + l) / (run.k / run.channels) + 1;
        if next < run.channels {
            *value = *origin.wrapping_offset(place).wrapping_add(next);
        } else if let Some(behind) = behind {
            *value = *origin.wrapping_offset(behind);
        }
    }
    V::widen(values.as_ptr())
}

/// As [`pixels`] for [`PIXELS`] pixels of a run that is [adjacent](Run::adjacent), all columns of taps, `WIDTH` of them,
/// being inside the image.
#[inline(always)]
unsafe fn adjacent_pixels<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const WIDTH: usize,
    const EACH: bool,
    const PRODUCTS: usize,
>(
    run: &Run<S>,
    pixel: usize,
) {
    let mut k = 0;
    while k + 2 * V::LANES <= run.k {
        adjacent_sums::<S, V, 2, WHOLE, WIDTH, EACH, PRODUCTS>(run, pixel, k);
        k += 2 * V::LANES;
    }
    if k + V::LANES <= run.k {
        adjacent_sums::<S, V, 1, WHOLE, WIDTH, EACH, PRODUCTS>(run, pixel, k);
        k += V::LANES;
    }
    if k < run.k {
        adjacent_sums::<S, V, 1, FIRST, WIDTH, EACH, PRODUCTS>(run, pixel, k);
    }
}

/// As [`sums`], with every pixel value loaded once for all the sums that it enters.
#[inline(always)]
unsafe fn adjacent_sums<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const N: usize,
    const LOAD: u8,
    const WIDTH: usize,
    const EACH: bool,
    const PRODUCTS: usize,
>(
    run: &Run<S>,
    pixel: usize,
    k: usize,
) {
    let origin = *run.pixels.get_unchecked(pixel);
    let zeros = [[V::splat(V::Element::ZERO); N]; PIXELS];
    let mut sums = zeros;
    for i in run.counted[0].clone() {
        let weights = run.filter.add(i * WIDTH * run.filter_stride + k);
        if !run.inside[0].contains(&i) {
            for j in 0..WIDTH {
                add_tap::<S, V, PIXELS, N, EACH, PRODUCTS>(&zeros, weights.add(j * run.filter_stride), &mut sums);
            }
            continue;
        }
        let mut taps = [[V::splat(V::Element::ZERO); N]; WIDTH];
        for j in 0..WIDTH {
            for v in 0..N {
                taps[j][v] = V::load(weights.add(j * run.filter_stride + v * V::LANES));
            }
        }
        let line = origin.wrapping_offset((i as isize).wrapping_mul(run.steps[0]));
        if i + 1 == run.inside[0].end {
            prefetch_pixels::<S, V, N>(line, run.steps[1], k);
        }
        for column in 0..PIXELS + WIDTH - 1 {
            let from = line.wrapping_offset((column as isize).wrapping_mul(run.steps[1]));
            let value = load_pixel::<S, V, N, LOAD>(run, from, k);
            for p in 0..PIXELS {
                if p <= column && column - p < WIDTH {
                    for v in 0..N {
                        sums[p][v] = add_product::<S, V, EACH, PRODUCTS>(value[v], taps[column - p][v], sums[p][v]);
                    }
                }
            }
        }
    }
    store_sums::<S, V, PIXELS, N, EACH>(run, pixel, k, &sums);
}

/// How many pixels of the lowest row of taps, which nobody has read before, are asked for ahead: some hundred cycles of
/// arithmetic with few channels, where the processor cannot make out the pattern by itself.
const PIXELS_AHEAD: isize = 12;

#[inline(always)]
unsafe fn prefetch_pixels<S: Element<Sum = V::Element>, V: Widen<S>, const N: usize>(
    line: *const S,
    step: isize,
    k: usize,
) {
    for p in 0..PIXELS as isize {
        for v in 0..N {
            let place = line.wrapping_offset(step.wrapping_mul(PIXELS_AHEAD + p)).wrapping_add(k + v * V::LANES);
            V::prefetch(place);
        }
    }
}

/// `N` vectors of a pixel whose channel 0 is at `from`, for the results from `k` on.
#[inline(always)]
unsafe fn load_pixel<S: Element<Sum = V::Element>, V: Widen<S>, const N: usize, const LOAD: u8>(
    run: &Run<S>,
    from: *const S,
    k: usize,
) -> [V; N] {
    let mut values = [V::splat(V::Element::ZERO); N];
    for v in 0..N {
        values[v] = match LOAD {
            WHOLE => V::widen(from.wrapping_add(k + v * V::LANES)),
            FIRST => V::widen_first(from.wrapping_add(k), run.k - k),
            _ => {
                let spread = run.spread.get_unchecked(k / V::LANES);
                V::widen_spread(from.wrapping_add(spread.channel), spread.count, &spread.lanes)
            }
        };
    }
    values
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

/// One tap's product, the sum rounded to the storage type if `EACH` is.
#[inline(always)]
unsafe fn add_product<S: Element<Sum = V::Element>, V: Widen<S>, const EACH: bool, const PRODUCTS: usize>(
    value: V,
    weight: V,
    sum: V,
) -> V {
    let sum = accumulate::<V, PRODUCTS>(value, weight, alone::<V, PRODUCTS>(sum));
    if EACH { sum.round() } else { sum }
}

/// Into the tile, rounded. The vectors lie in one panel of it, and as its rows are whole vectors long, the last one may be stored
/// whole.
#[inline(always)]
unsafe fn store_sums<S: Element<Sum = V::Element>, V: Widen<S>, const P: usize, const N: usize, const EACH: bool>(
    run: &Run<S>,
    pixel: usize,
    k: usize,
    sums: &[[V; N]; P],
) {
    let panel_length = panel::<S::Sum>();
    let target = run.target.add(k / panel_length * run.panel_stride + k % panel_length);
    for p in 0..P {
        for v in 0..N {
            let sum = if EACH { sums[p][v] } else { sums[p][v].round() };
            sum.store(target.add((pixel + p) * row_stride::<S::Sum>() + v * V::LANES));
        }
    }
}

/// `ROWS` rows of a tile times one column panel of the filter, `VECTORS` vectors wide, in the order of the steps. With
/// `COPY` the panel is read where it lies in the filter and left packed, at almost no cost beside the arithmetic.
///
/// # Safety
/// What [`Block`] says of its pointers holds, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn product<V: Vector, const ROWS: usize, const VECTORS: usize, const PRODUCTS: usize, const COPY: bool>(
    block: &Block<V::Element>,
) {
    for step in block.steps {
        match step {
            Step::Chain { products, stride, level, then } => {
                let target = block.target(*level);
                let mut sums = [[V::splat(V::Element::ZERO); VECTORS]; ROWS];
                match then {
                    Then::Store if *level == 0 => prefetch::<V, ROWS, VECTORS>(target),
                    Then::Continue => load::<V, ROWS, VECTORS>(target, &mut sums),
                    _ => {}
                }
                chain::<V, ROWS, VECTORS, PRODUCTS, COPY>(block, products.clone(), *stride, &mut sums);
                if *then == Then::Add {
                    add_to::<V, ROWS, VECTORS>(target, &mut sums);
                }
                store::<V, ROWS, VECTORS>(target, &sums);
            }
            Step::Fold { level } => {
                let mut sums = [[V::splat(V::Element::ZERO); VECTORS]; ROWS];
                load::<V, ROWS, VECTORS>(block.target(*level), &mut sums);
                add_to::<V, ROWS, VECTORS>(block.target(level - 1), &mut sums);
                store::<V, ROWS, VECTORS>(block.target(level - 1), &sums);
            }
        }
    }
}

/// How many rows of a filter that is read where it lies are asked for ahead: rows may be a page apart, where the
/// processor does not see them coming, and each takes some 30 cycles of arithmetic, the third-level cache some 200.
const AHEAD: isize = 16;

/// One ascending chain over every `stride`-th product, in registers from end to end.
#[inline(always)]
unsafe fn chain<V: Vector, const ROWS: usize, const VECTORS: usize, const PRODUCTS: usize, const COPY: bool>(
    block: &Block<V::Element>,
    products: Range<usize>,
    stride: usize,
    sums: &mut [[V; VECTORS]; ROWS],
) {
    let mut totals = *sums;
    let panel_length = panel::<V::Element>();
    let filter_stride = if COPY { block.filter_stride } else { (VECTORS * V::LANES) as isize };
    let pixels = |k: usize| block.pixels.add(k / panel_length * block.panel_stride + k % panel_length);
    let filter = |k: usize| block.filter.wrapping_offset(k as isize * filter_stride);
    let copy = |k: usize| if COPY { block.copy.add(k * VECTORS * V::LANES) } else { block.copy };
    if PRODUCTS == PAIRED || PRODUCTS == OVERRUN {
        for first in products.clone().step_by(2 * stride) {
            let second = first + stride;
            for k in [second, first] {
                if k < products.end {
                    step::<V, ROWS, VECTORS, PRODUCTS, COPY>(pixels(k), filter(k), filter_stride, copy(k), &mut totals);
                } else if PRODUCTS == PAIRED {
                    totals = totals.map(|row| row.map(|sum| alone::<V, PRODUCTS>(sum)));
                } else {
                    let next_row = if first + 1 < block.k { 0 } else { row_stride::<V::Element>() };
                    let behind = pixels((first + 1) % block.k).add(next_row);
                    for r in 0..ROWS {
                        let x = V::splat(*behind.add(r * row_stride::<V::Element>()));
                        totals[r] = totals[r].map(|sum| x.mul_add(V::splat(V::Element::ZERO), sum));
                    }
                }
            }
        }
        *sums = totals;
        return;
    }
    let (mut filter, mut copy) = (filter(products.start), copy(products.start));
    let mut k = products.start;
    while k < products.end {
        let mut pixels = pixels(k);
        let end = products.end.min((k / panel_length + 1) * panel_length);
        while k < end {
            step::<V, ROWS, VECTORS, PRODUCTS, COPY>(pixels, filter, filter_stride, copy, &mut totals);
            pixels = pixels.wrapping_add(stride);
            filter = filter.wrapping_offset(stride as isize * filter_stride);
            copy = if COPY { copy.wrapping_add(stride * VECTORS * V::LANES) } else { copy };
            k += stride;
        }
    }
    *sums = totals;
}

/// One product of every sum.
#[inline(always)]
unsafe fn step<V: Vector, const ROWS: usize, const VECTORS: usize, const PRODUCTS: usize, const COPY: bool>(
    pixels: *const V::Element,
    filter: *const V::Element,
    filter_stride: isize,
    copy: *mut V::Element,
    totals: &mut [[V; VECTORS]; ROWS],
) {
    let mut weights = [V::splat(V::Element::ZERO); VECTORS];
    for v in 0..VECTORS {
        weights[v] = V::load(filter.wrapping_add(v * V::LANES));
        if COPY {
            weights[v].store(copy.add(v * V::LANES));
            V::prefetch(filter.wrapping_offset(AHEAD * filter_stride).wrapping_add(v * V::LANES));
        }
    }
    for r in 0..ROWS {
        let x = V::splat(*pixels.add(r * row_stride::<V::Element>()));
        for v in 0..VECTORS {
            totals[r][v] = accumulate::<V, PRODUCTS>(x, weights[v], totals[r][v]);
        }
    }
}

type Target<T> = (*mut T, usize);

#[inline(always)]
unsafe fn load<V: Vector, const ROWS: usize, const VECTORS: usize>(
    (from, stride): Target<V::Element>,
    sums: &mut [[V; VECTORS]; ROWS],
) {
    for r in 0..ROWS {
        for v in 0..VECTORS {
            sums[r][v] = V::load(from.add(r * stride + v * V::LANES));
        }
    }
}

/// Asks for the lines of the output long before they are written.
#[inline(always)]
unsafe fn prefetch<V: Vector, const ROWS: usize, const VECTORS: usize>((to, stride): Target<V::Element>) {
    for r in 0..ROWS {
        for v in 0..VECTORS {
            V::prefetch(to.wrapping_add(r * stride + v * V::LANES));
        }
    }
}

/// `sums = what is there + sums`.
#[inline(always)]
unsafe fn add_to<V: Vector, const ROWS: usize, const VECTORS: usize>(
    (from, stride): Target<V::Element>,
    sums: &mut [[V; VECTORS]; ROWS],
) {
    for r in 0..ROWS {
        for v in 0..VECTORS {
            sums[r][v] = V::load(from.add(r * stride + v * V::LANES)).add(sums[r][v]);
        }
    }
}

#[inline(always)]
unsafe fn store<V: Vector, const ROWS: usize, const VECTORS: usize>(
    (to, stride): Target<V::Element>,
    sums: &[[V; VECTORS]; ROWS],
) {
    for r in 0..ROWS {
        for v in 0..VECTORS {
            sums[r][v].store(to.add(r * stride + v * V::LANES));
        }
    }
}

/// Copies a full column panel of the filter, `VECTORS` vectors wide.
///
/// # Safety
/// What [`Pack`] says of its pointers holds, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn pack<S: Element<Sum = V::Element>, V: Widen<S>, const VECTORS: usize>(pack: &Pack<S>) {
    for k in 0..pack.k {
        let from = pack.from.wrapping_offset(k as isize * pack.row_stride);
        let to = pack.to.add(k * VECTORS * V::LANES);
        for v in 0..VECTORS {
            V::widen(from.add(v * V::LANES)).store(to.add(v * V::LANES));
        }
    }
}

/// Rounds `count` sums to the storage type.
///
/// # Safety
/// They are there, there is room for the results, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn narrow<S: Element<Sum = V::Element>, V: Widen<S>>(from: *const V::Element, to: *mut S, count: usize) {
    let mut i = 0;
    while i + V::LANES <= count {
        V::load(from.add(i)).narrow(to.add(i));
        i += V::LANES;
    }
    while i < count {
        to.add(i).write(S::narrow(*from.add(i)));
        i += 1;
    }
}
