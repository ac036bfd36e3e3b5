//! The inner loops, written once over [`Vector`]. Everything is inlined into the wrappers of an instruction set, which
//! are what enables its instructions.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that its caller states")]
#![expect(clippy::needless_range_loop, reason = "indices into arrays of registers are unrolled; iterators hide that")]

use std::ops::Range;

use super::block::{Step, Then};
use super::run::Entry;
use super::steps::{As, AsSummed, take_steps};
use super::tile::{panel, row_stride};
use super::vector::{FUSED, PAIRED, SEPARATE, Vector, Widen, accumulate};
use super::{Block, Pack, Rows, Run};
use crate::element::Element;

/// How many pixels of a depthwise run share the loads of the filter: with two vectors each, eight independent sums hide
/// the latency of the additions.
pub const PIXELS: usize = 4;

/// Columns of taps and strides for which there are loops that share values between pixels.
pub const SHARED: [[usize; 2]; 3] = [[3, 1], [3, 2], [5, 1]];

/// How many pixels share values there: none, some, or, where there are registers enough for their sums, as many as take an
/// eighth less for each. No loops where they are much code for little, as 16-bit types spend their time on conversions.
pub const fn sharing<S: Element<Sum = V::Element>, V: Widen<S>>() -> [usize; 3] {
    match size_of::<V>() {
        _ if !V::CHEAP || !V::REGISTERS => [0; 3],
        64 => [0, PIXELS, MANY],
        _ => [0, PIXELS, PIXELS],
    }
}

const MANY: usize = 7;

/// Whether two lines of pixels share values as well: where there are registers for the sums and the filter.
pub const fn two_lines<V: Vector>() -> bool {
    V::REGISTERS && size_of::<V>() == 64
}

/// Which of the three suits so many pixels, [`PIXELS`] or more: the last ones may be computed twice.
pub fn sharing_of(pixels: usize) -> usize {
    let many = pixels >= MANY && 7 * pixels.next_multiple_of(MANY) <= 8 * pixels.next_multiple_of(PIXELS);
    1 + usize::from(many)
}

/// Where a vector of pixel values comes from.
pub const WHOLE: u8 = 0;
/// The last channels, fewer than a vector.
pub const FIRST: u8 = 1;
/// Each channel as often as the multiplier says.
const SPREAD: u8 = 2;

/// What pixels that share values read outside the image: nothing, half a kernel's columns at the left or at the right, or
/// whatever it may be.
const NO_EDGE: u8 = 0;
const LEFT_EDGE: u8 = 1;
const RIGHT_EDGE: u8 = 2;
const ANY_EDGE: u8 = 3;

/// The depthwise sums of a run of pixels, into successive rows of a tile; `SHARING` pixels share values, if not 0.
///
/// # Safety
/// What [`Run`] says of its pointers holds, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn depthwise<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const SHARING: usize,
    const EACH: bool,
    const PRODUCTS: usize,
    const SPREAD_OUT: bool,
>(
    run: &Run<S>,
) {
    if SHARING == 0 && (!V::REGISTERS || run.count < PIXELS) {
        for pixel in 0..run.count {
            pixels::<S, V, 1, EACH, PRODUCTS, SPREAD_OUT>(run, pixel);
        }
        return;
    }
    let at_once = if SHARING > 0 { SHARING } else { PIXELS };
    for pixel in (0..run.count).step_by(at_once) {
        // The last ones may be computed twice: that is cheaper than one by one.
        let pixel = pixel.min(run.count - at_once);
        // A constant, so that what is never called is not compiled.
        if const { SHARING > 0 } {
            match (run.kernel[1], run.shared) {
                (3, 1) => shared_pixels::<S, V, SHARING, 3, 1, EACH, PRODUCTS, SPREAD_OUT>(run, pixel),
                (3, 2) => shared_pixels::<S, V, SHARING, 3, 2, EACH, PRODUCTS, SPREAD_OUT>(run, pixel),
                _ => shared_pixels::<S, V, SHARING, 5, 1, EACH, PRODUCTS, SPREAD_OUT>(run, pixel),
            }
        } else {
            pixels::<S, V, PIXELS, EACH, PRODUCTS, SPREAD_OUT>(run, pixel);
        }
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
    store_sums::<S, V, P, P, N, EACH>(run, pixel, k, &sums);
}

/// The depthwise sums of a run of pixels in the order of its list, whatever their products and roundings are.
///
/// # Safety
/// What [`Run`] says of its pointers holds, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn listed<S: Element<Sum = V::Element>, V: Widen<S>>(run: &Run<S>) {
    let mut pixel = 0;
    while pixel < run.count {
        let four = V::REGISTERS && pixel + PIXELS <= run.count;
        for k in (0..run.k).step_by(V::LANES) {
            match (four, run.spread.is_empty(), k + V::LANES <= run.k) {
                (true, true, true) => listed_sums::<S, V, PIXELS, WHOLE>(run, pixel, k),
                (true, true, false) => listed_sums::<S, V, PIXELS, FIRST>(run, pixel, k),
                (true, false, _) => listed_sums::<S, V, PIXELS, SPREAD>(run, pixel, k),
                (false, true, true) => listed_sums::<S, V, 1, WHOLE>(run, pixel, k),
                (false, true, false) => listed_sums::<S, V, 1, FIRST>(run, pixel, k),
                (false, false, _) => listed_sums::<S, V, 1, SPREAD>(run, pixel, k),
            }
        }
        pixel += if four { PIXELS } else { 1 };
    }
}

/// A vector of channels of `P` pixels, from channel `k` on, in the order of the run's list.
#[inline(always)]
unsafe fn listed_sums<S: Element<Sum = V::Element>, V: Widen<S>, const P: usize, const LOAD: u8>(
    run: &Run<S>,
    pixel: usize,
    k: usize,
) {
    let zeros = [V::splat(V::Element::ZERO); P];
    let (mut totals, mut sums) = (zeros, zeros);
    for entry in run.entries {
        let (mut values, mut weight) = (zeros, V::splat(V::Element::ZERO));
        match *entry {
            Entry::Tap { place, inside, weights } => {
                weight = V::load(run.filter.add(weights + k));
                for p in 0..P {
                    if inside {
                        let origin = *run.pixels.get_unchecked(pixel + p);
                        [values[p]] = load_pixel::<S, V, 1, LOAD>(run, origin.wrapping_offset(place), k);
                    }
                }
            }
            Entry::Channel { place, behind } => {
                for p in 0..P {
                    let origin = *run.pixels.get_unchecked(pixel + p);
                    values[p] = next_channels::<S, V>(run, origin, place, behind, k);
                }
            }
            Entry::End { starts } => {
                for p in 0..P {
                    totals[p] = if starts { sums[p] } else { totals[p].add(sums[p]) };
                }
                sums = zeros;
                continue;
            }
        }
        for p in 0..P {
            let before = if run.paired { sums[p].add(zeros[p]) } else { sums[p] };
            let sum = if run.separate {
                accumulate::<V, SEPARATE>(values[p], weight, before)
            } else {
                accumulate::<V, FUSED>(values[p], weight, before)
            };
            sums[p] = if run.each { sum.round() } else { sum };
        }
    }
    // Blocks that are added up are rounded again.
    store_sums::<S, V, P, P, 1, false>(run, pixel, k, &totals.map(|total| [total]));
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

/// As [`pixels`] for pixels that lie `STRIDE` taps apart and have `WIDTH` columns of taps, inside the image
/// or not.
#[inline(always)]
unsafe fn shared_pixels<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const P: usize,
    const WIDTH: usize,
    const STRIDE: usize,
    const EACH: bool,
    const PRODUCTS: usize,
    const SPREAD_OUT: bool,
>(
    run: &Run<S>,
    pixel: usize,
) {
    // The columns of taps inside the image, counted from this pixel's first.
    let first = (pixel * STRIDE) as isize;
    let columns = run.across.start - first..run.across.end - first;
    if const { P == MANY && WIDTH == 3 && !EACH && !SPREAD_OUT } && run.below != 0 {
        let edges = Edges::of(run, columns, (MANY - 1) * STRIDE + 2);
        let mut k = 0;
        while run.counted[0] == (0..3 + STRIDE) && k + V::LANES <= run.k {
            two_lines_sums::<S, V, STRIDE, true, PRODUCTS>(run, pixel, &edges, k);
            k += V::LANES;
        }
        while k < run.k {
            two_lines_sums::<S, V, STRIDE, false, PRODUCTS>(run, pixel, &edges, k);
            k += V::LANES;
        }
        return;
    }
    let border = (WIDTH / 2) as isize;
    let width = ((P - 1) * STRIDE + WIDTH) as isize;
    let outside = (columns.start.max(0), (width - columns.end).max(0));
    let rows_inside = run.inside[0] == run.counted[0];
    let mut k = 0;
    macro_rules! whole_vectors {
        ($vectors:literal, $edge:ident) => {
            while k + $vectors * V::LANES <= run.k {
                shared_sums::<S, V, P, $vectors, WHOLE, WIDTH, STRIDE, EACH, PRODUCTS, $edge>(run, pixel, &columns, k);
                k += $vectors * V::LANES;
            }
        };
    }
    if SPREAD_OUT {
        while k < run.k {
            if rows_inside && outside == (0, 0) {
                shared_sums::<S, V, P, 1, SPREAD, WIDTH, STRIDE, EACH, PRODUCTS, NO_EDGE>(run, pixel, &columns, k);
            } else {
                shared_sums::<S, V, P, 1, SPREAD, WIDTH, STRIDE, EACH, PRODUCTS, ANY_EDGE>(run, pixel, &columns, k);
            }
            k += V::LANES;
        }
        return;
    }
    if rows_inside && outside == (0, 0) {
        whole_vectors!(2, NO_EDGE);
    } else if rows_inside && outside == (border, 0) {
        whole_vectors!(2, LEFT_EDGE);
    } else if rows_inside && outside == (0, border) {
        whole_vectors!(2, RIGHT_EDGE);
    }
    whole_vectors!(1, ANY_EDGE);
    if k < run.k {
        shared_sums::<S, V, P, 1, FIRST, WIDTH, STRIDE, EACH, PRODUCTS, ANY_EDGE>(run, pixel, &columns, k);
    }
}

/// As [`sums`], with every pixel value loaded once for all the sums that it enters.
#[inline(always)]
unsafe fn shared_sums<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const P: usize,
    const N: usize,
    const LOAD: u8,
    const WIDTH: usize,
    const STRIDE: usize,
    const EACH: bool,
    const PRODUCTS: usize,
    const EDGE: u8,
>(
    run: &Run<S>,
    pixel: usize,
    columns: &Range<isize>,
    k: usize,
) {
    let mut sums = [[V::splat(V::Element::ZERO); N]; P];
    let rows = run.counted[0].clone();
    let mut line = run.origin(pixel).wrapping_offset(run.place(rows.start, 0));
    let mut weights = run.filter.add(rows.start * WIDTH * run.filter_stride + k);
    macro_rules! add_row {
        ($i:expr) => {
            let inside = EDGE != ANY_EDGE || run.inside[0].contains(&$i);
            shared_row::<S, V, P, N, LOAD, WIDTH, STRIDE, EACH, PRODUCTS, EDGE>(
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
    } else {
        for i in rows {
            add_row!(i);
        }
    }
    let _ = (line, weights);
    store_sums::<S, V, P, P, N, EACH>(run, pixel, k, &sums);
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
    const EACH: bool,
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
                                sums[p][v] = add_product::<S, V, EACH, PRODUCTS>(value[v], tap, sums[p][v]);
                            }
                        }
                    }
                }
            }
        )*};
    }
    add_columns!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

/// The first and the last column of what pixels with three columns of taps read.
struct Edges<V> {
    /// Where they are, from the first one's place, or their neighbours where they are outside the image.
    places: [isize; 2],
    /// Above 0 if they are inside, and if they are added up.
    inside: [V; 2],
    counted: [V; 2],
}

impl<V: Vector> Edges<V> {
    /// The last one's number, and which of the columns lie inside the image, counted from the first.
    #[inline(always)]
    unsafe fn of<S: Element<Sum = V::Element>>(run: &Run<S>, columns: Range<isize>, last: usize) -> Self {
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

/// As [`shared_sums`], of one vector, for two lines of pixels with 3x3 taps; of `WHOLE` vectors and lines that are
/// all inside the image, or not. Without a condition for columns: there the compiler would load what it has no registers for.
#[inline(always)]
unsafe fn two_lines_sums<
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
                let from = from.wrapping_add(spread.channel);
                let few = run.channels < V::LANES;
                let channels = if few { V::widen_first(from, run.channels) } else { V::widen(from) };
                channels.spread(&spread.lanes)
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
    let sum = accumulate::<V, PRODUCTS>(value, weight, sum);
    if EACH { sum.round() } else { sum }
}

/// Into the target, rounded, after the steps: the sums of `P` pixels, or behind them those of the pixels below as well. The
/// vectors lie in one panel, and the last one may be stored whole.
#[inline(always)]
unsafe fn store_sums<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const P: usize,
    const SUMS: usize,
    const N: usize,
    const EACH: bool,
>(
    run: &Run<S>,
    pixel: usize,
    k: usize,
    sums: &[[V; N]; SUMS],
) {
    let place = |n: usize| {
        let place = (n / P) as isize * run.below + (pixel + n % P) as isize * run.target.next;
        place * size_of::<V::Element>() as isize
    };
    if V::NARROWS && run.narrow {
        let panel_length = panel::<S>();
        let target =
            run.target.start.add(k / panel_length * run.target.panel_stride).cast::<u16>().add(k % panel_length);
        for n in 0..SUMS {
            for v in 0..N {
                sums[n][v].store_narrow(target.byte_offset(place(n)).add(v * V::LANES));
            }
        }
        return;
    }
    let mut sums = *sums;
    // Not by closures, which are not always inlined, and then do without the instructions.
    for n in 0..SUMS {
        for v in 0..N {
            sums[n][v] = if EACH { sums[n][v] } else { sums[n][v].round() };
        }
    }
    if !run.finish.is_empty() {
        let numbers = run.numbers.wrapping_add(k);
        take_steps::<V, As<S>, SUMS, N>(run.finish, numbers, &mut sums);
    }
    let panel_length = panel::<S::Sum>();
    let target = run.target.start.add(k / panel_length * run.target.panel_stride + k % panel_length);
    for n in 0..SUMS {
        for v in 0..N {
            sums[n][v].store(target.byte_offset(place(n)).add(v * V::LANES));
        }
    }
}

/// `count` blocks of `ROWS` rows of a tile times one column panel of the filter, `VECTORS` vectors wide, in the order of
/// the steps. Gives what is to be asked for next. With `ACROSS`, a row of the tile has all rows' values of one product.
///
/// # Safety
/// What [`Block`] says of its pointers holds, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn product<V: Vector, const ROWS: usize, const VECTORS: usize, const PRODUCTS: usize, const ACROSS: bool>(
    block: &Block<V::Element>,
    count: usize,
) -> *const u8 {
    let mut ahead = block.ahead.0;
    let apart = if ACROSS { 1 } else { row_stride::<V::Element>() };
    for (n, step) in block.steps.iter().enumerate() {
        match step {
            Step::Chain { products, stride, level, then } => {
                let mut target = block.target(*level);
                let mut pixels = block.pixels;
                for _ in 0..count {
                    let mut sums = [[V::splat(V::Element::ZERO); VECTORS]; ROWS];
                    match then {
                        Then::Store if *level == 0 => prefetch::<V, ROWS, VECTORS>(target),
                        Then::Continue => load::<V, ROWS, VECTORS>(target, &mut sums),
                        _ => {}
                    }
                    if ACROSS {
                        chain_across::<V, ROWS, VECTORS, PRODUCTS>(block, pixels, products, &mut sums);
                    } else {
                        chain::<V, ROWS, VECTORS, PRODUCTS>(block, pixels, products, *stride, &mut ahead, &mut sums);
                    }
                    if *then == Then::Add {
                        add_to::<V, ROWS, VECTORS>(target, &mut sums);
                    }
                    if finishes::<V, PRODUCTS, ACROSS>() && n + 1 == block.steps.len() {
                        take_steps::<V, AsSummed, ROWS, VECTORS>(block.finish, block.numbers, &mut sums);
                    }
                    if V::NARROWS && block.narrow {
                        store_narrow::<V, ROWS, VECTORS>(target, &sums);
                    } else {
                        store::<V, ROWS, VECTORS>(target, &sums);
                    }
                    target.0 = target.0.wrapping_byte_add(ROWS * target.1);
                    pixels = pixels.wrapping_add(ROWS * apart);
                }
            }
            Step::Fold { level } => {
                let (mut from, mut target) = (block.target(*level), block.target(level - 1));
                for _ in 0..count {
                    let mut sums = [[V::splat(V::Element::ZERO); VECTORS]; ROWS];
                    load::<V, ROWS, VECTORS>(from, &mut sums);
                    add_to::<V, ROWS, VECTORS>(target, &mut sums);
                    store::<V, ROWS, VECTORS>(target, &sums);
                    from.0 = from.0.wrapping_byte_add(ROWS * from.1);
                    target.0 = target.0.wrapping_byte_add(ROWS * target.1);
                }
            }
        }
    }
    ahead
}

/// Whether the product takes the steps behind a sum itself: of the most usual products, and where no call has to begin again.
pub const fn finishes<V: Vector, const PRODUCTS: usize, const ACROSS: bool>() -> bool {
    cfg!(target_arch = "x86_64") && V::REGISTERS && PRODUCTS == FUSED && !ACROSS
}

/// [`chain`] over successive products, each of which has a row of the tile.
#[inline(always)]
unsafe fn chain_across<V: Vector, const ROWS: usize, const VECTORS: usize, const PRODUCTS: usize>(
    block: &Block<V::Element>,
    pixels: *const V::Element,
    products: &Range<usize>,
    sums: &mut [[V; VECTORS]; ROWS],
) {
    let mut totals = *sums;
    for k in products.clone() {
        let pixels = pixels.wrapping_add(k * row_stride::<V::Element>());
        let filter = block.filter.wrapping_add(k * block.filter_stride);
        step::<V, ROWS, VECTORS, PRODUCTS>((pixels, 1), filter, &mut totals);
    }
    *sums = totals;
}

/// One ascending chain over every `stride`-th product, in registers from end to end.
#[inline(always)]
unsafe fn chain<V: Vector, const ROWS: usize, const VECTORS: usize, const PRODUCTS: usize>(
    block: &Block<V::Element>,
    pixels: *const V::Element,
    products: &Range<usize>,
    stride: usize,
    ahead: &mut *const u8,
    sums: &mut [[V; VECTORS]; ROWS],
) {
    let mut totals = *sums;
    let panel_length = panel::<V::Element>();
    let (filter_stride, apart) = (block.filter_stride, row_stride::<V::Element>());
    let pixels = |k: usize| pixels.add(k / panel_length * block.panel_stride + k % panel_length);
    let filter = |k: usize| block.filter.wrapping_add(k * filter_stride);
    if PRODUCTS == PAIRED {
        for first in products.clone().step_by(2 * stride) {
            let second = first + stride;
            for k in [second, first] {
                if k < products.end {
                    step::<V, ROWS, VECTORS, PRODUCTS>((pixels(k), apart), filter(k), &mut totals);
                } else if !block.overrun {
                    totals = totals.map(|row| row.map(|sum| sum.add(V::splat(V::Element::ZERO))));
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
    let mut filter = filter(products.start);
    let mut k = products.start;
    while k < products.end {
        let mut pixels = pixels(k);
        let end = products.end.min((k / panel_length + 1) * panel_length);
        if stride == 1 {
            let unrolled = (end - k) / V::UNROLLED * V::UNROLLED;
            k += unrolled;
            let end = pixels.add(unrolled);
            while pixels < end {
                V::prefetch_far(*ahead);
                *ahead = ahead.wrapping_offset(block.ahead.1);
                for u in 0..V::UNROLLED {
                    let filter = filter.wrapping_add(u * filter_stride);
                    step::<V, ROWS, VECTORS, PRODUCTS>((pixels.add(u), apart), filter, &mut totals);
                }
                pixels = pixels.add(V::UNROLLED);
                filter = filter.wrapping_add(V::UNROLLED * filter_stride);
            }
        }
        while k < end {
            step::<V, ROWS, VECTORS, PRODUCTS>((pixels, apart), filter, &mut totals);
            pixels = pixels.wrapping_add(stride);
            filter = filter.wrapping_add(stride * filter_stride);
            k += stride;
        }
    }
    *sums = totals;
}

/// One product of every sum; of the first row's value, where it lies and the elements to the next row's.
#[inline(always)]
unsafe fn step<V: Vector, const ROWS: usize, const VECTORS: usize, const PRODUCTS: usize>(
    (pixels, apart): (*const V::Element, usize),
    filter: *const V::Element,
    totals: &mut [[V; VECTORS]; ROWS],
) {
    let mut weights = [V::splat(V::Element::ZERO); VECTORS];
    for v in 0..VECTORS {
        weights[v] = V::load(filter.wrapping_add(v * V::LANES));
    }
    for r in 0..ROWS {
        let x = V::splat(*pixels.add(r * apart));
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
            sums[r][v] = V::load(from.byte_add(r * stride).add(v * V::LANES));
        }
    }
}

/// Asks for the lines of the output long before they are written.
#[inline(always)]
unsafe fn prefetch<V: Vector, const ROWS: usize, const VECTORS: usize>((to, stride): Target<V::Element>) {
    for r in 0..ROWS {
        for v in 0..VECTORS {
            V::prefetch(to.wrapping_byte_add(r * stride).wrapping_add(v * V::LANES));
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
            sums[r][v] = V::load(from.byte_add(r * stride).add(v * V::LANES)).add(sums[r][v]);
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
            sums[r][v].store(to.byte_add(r * stride).add(v * V::LANES));
        }
    }
}

#[inline(always)]
unsafe fn store_narrow<V: Vector, const ROWS: usize, const VECTORS: usize>(
    (to, stride): Target<V::Element>,
    sums: &[[V; VECTORS]; ROWS],
) {
    for r in 0..ROWS {
        for v in 0..VECTORS {
            sums[r][v].store_narrow(to.byte_add(r * stride).cast::<u16>().add(v * V::LANES));
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

/// Makes sums of numbers as they are stored, behind the last ones zeros to the end of a vector.
///
/// # Safety
/// The rows are there, those of the results in whole vectors, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn widen_rows<S: Element<Sum = V::Element>, V: Widen<S>>(stored: &Rows<S, V::Element>) {
    for row in 0..stored.rows {
        let (from, to) = (stored.from.add(row * stored.from_stride), stored.to.offset(row as isize * stored.to_stride));
        let mut i = 0;
        while i + V::LANES <= stored.columns {
            V::widen(from.add(i)).store(to.add(i));
            i += V::LANES;
        }
        if i < stored.columns {
            V::widen_first(from.add(i), stored.columns - i).store(to.add(i));
        }
    }
}

/// Makes columns of sums of rows of numbers as they are stored, behind the last ones zeros to the end of a vector.
///
/// # Safety
/// The rows are there, those of the results in whole vectors, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn transpose<S: Element<Sum = V::Element>, V: Widen<S>>(stored: &Rows<S, V::Element>) {
    match V::LANES {
        16 => transpose_squares::<S, V, 16>(stored),
        8 => transpose_squares::<S, V, 8>(stored),
        4 => transpose_squares::<S, V, 4>(stored),
        2 => transpose_squares::<S, V, 2>(stored),
        _ => unreachable!("no vector has other numbers of lanes"),
    }
}

#[inline(always)]
unsafe fn transpose_squares<S: Element<Sum = V::Element>, V: Widen<S>, const LANES: usize>(
    stored: &Rows<S, V::Element>,
) {
    for row in (0..stored.rows).step_by(LANES) {
        for column in (0..stored.columns).step_by(LANES) {
            let there = [stored.rows - row, stored.columns - column].map(|count| count.min(LANES));
            let from = stored.from.wrapping_add(row.wrapping_mul(stored.from_stride)).wrapping_add(column);
            let to = stored.to.wrapping_offset(column as isize * stored.to_stride).wrapping_add(row);
            if there == [LANES; 2] {
                // Of lengths that the compiler knows.
                transpose_square::<S, V, LANES>((from, stored.from_stride), (to, stored.to_stride), [LANES; 2]);
            } else {
                transpose_square::<S, V, LANES>((from, stored.from_stride), (to, stored.to_stride), there);
            }
        }
    }
}

/// Of a square of which so many rows and columns are there: by perfect shuffles of its rows.
#[inline(always)]
unsafe fn transpose_square<S: Element<Sum = V::Element>, V: Widen<S>, const LANES: usize>(
    (from, from_stride): (*const S, usize),
    (to, to_stride): (*mut V::Element, isize),
    [rows, columns]: [usize; 2],
) {
    let mut square = [V::splat(V::Element::ZERO); LANES];
    for r in 0..LANES {
        if r < rows {
            let from = from.wrapping_add(r.wrapping_mul(from_stride));
            square[r] = if columns == LANES { V::widen(from) } else { V::widen_first(from, columns) };
        }
    }
    let mut turns = 1;
    while turns < LANES {
        let before = square;
        for r in 0..LANES / 2 {
            [square[2 * r], square[2 * r + 1]] = before[r].interleave(before[r + LANES / 2]);
        }
        turns *= 2;
    }
    for c in 0..LANES {
        if c < columns {
            square[c].store(to.wrapping_offset(c as isize * to_stride));
        }
    }
}

/// Rounds sums to the storage type.
///
/// # Safety
/// The rows are there, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn narrow_rows<S: Element<Sum = V::Element>, V: Widen<S>>(sums: &Rows<V::Element, S>) {
    for row in 0..sums.rows {
        let (from, to) = (sums.from.add(row * sums.from_stride), sums.to.offset(row as isize * sums.to_stride));
        let mut i = 0;
        while i + V::LANES <= sums.columns {
            V::load(from.add(i)).narrow(to.add(i));
            i += V::LANES;
        }
        while i < sums.columns {
            to.add(i).write(S::narrow(*from.add(i)));
            i += 1;
        }
    }
}
