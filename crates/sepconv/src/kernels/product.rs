//! The pointwise product: rows of a tile times a column panel of the filter, in the order of the block's steps.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that its caller states")]
#![expect(clippy::needless_range_loop, reason = "indices into arrays of registers are unrolled; iterators hide that")]

use std::ops::Range;

use super::Block;
use super::block::{Step, Then};
use super::steps::{AsSummed, take_steps};
use super::tile::{panel, row_stride};
use super::vector::{FUSED, PAIRED, SEPARATE, Vector, accumulate, unpredicted};
use crate::element::Element;

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
                        Then::Store | Then::AddToZero if *level == 0 => prefetch::<V, ROWS, VECTORS>(target),
                        Then::Continue => load::<V, ROWS, VECTORS>(target, &mut sums),
                        _ => {}
                    }
                    if ACROSS {
                        chain_across::<V, ROWS, VECTORS, PRODUCTS>(block, pixels, products, &mut sums);
                    } else {
                        chain::<V, ROWS, VECTORS, PRODUCTS>(block, pixels, products, *stride, &mut ahead, &mut sums);
                    }
                    match then {
                        Then::Add => add_to::<V, ROWS, VECTORS>(target, &mut sums),
                        Then::AddToZero => sums = sums.map(|row| row.map(|sum| V::splat(V::Element::ZERO).add(sum))),
                        Then::Store | Then::Continue => {}
                    }
                    if finishes::<V, PRODUCTS, ACROSS>() && n + 1 == block.steps.len() {
                        take_steps::<V, AsSummed, 1, ROWS, VECTORS>(
                            block.finish,
                            block.numbers,
                            std::array::from_mut(&mut sums),
                        );
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
    cfg!(target_arch = "x86_64") && V::REGISTERS > 0 && PRODUCTS == FUSED && !ACROSS
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
    // A value that the compiler does not know to be the same is a factor from memory for each vector. Loaded once for both, it
    // would wait for the adders: of fused products these do nothing else.
    let again = if V::FACTORS_FROM_MEMORY && PRODUCTS == SEPARATE { unpredicted(pixels) } else { pixels };
    for r in 0..ROWS {
        for v in 0..VECTORS {
            let x = V::splat(*if v == 0 { pixels } else { again }.add(r * apart));
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
