//! What all loops over taps do with a pixel: load its values, add a product to its sums, store them.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that its caller states")]
#![expect(clippy::needless_range_loop, reason = "indices into arrays of registers are unrolled; iterators hide that")]

use super::Run;
use super::steps::{As, take_steps};
use super::tile::panel;
use super::vector::{Widen, accumulate};
use crate::element::Element;

/// Where a vector of pixel values comes from.
pub const WHOLE: u8 = 0;
/// The last channels, fewer than a vector.
pub const FIRST: u8 = 1;
/// Each channel as often as the multiplier says.
pub(super) const SPREAD: u8 = 2;

/// `N` vectors of a pixel whose channel 0 is at `from`, for the results from `k` on.
#[inline(always)]
pub(super) unsafe fn load_pixel<S: Element<Sum = V::Element>, V: Widen<S>, const N: usize, const LOAD: u8>(
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

/// One tap's product, the sum rounded to the storage type if `EACH` is.
#[inline(always)]
pub(super) unsafe fn add_product<S: Element<Sum = V::Element>, V: Widen<S>, const EACH: bool, const PRODUCTS: usize>(
    value: V,
    weight: V,
    sum: V,
) -> V {
    let sum = accumulate::<V, PRODUCTS>(value, weight, sum);
    if EACH { sum.round() } else { sum }
}

/// Into the target, rounded, after the steps: the sums of `P` pixels, and those of the pixels below if there are two `LINES`.
/// The vectors lie in one panel, and the last one may be stored whole.
#[inline(always)]
pub(super) unsafe fn store_sums<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const LINES: usize,
    const P: usize,
    const N: usize,
    const EACH: bool,
>(
    run: &Run<S>,
    pixel: usize,
    k: usize,
    sums: &[[[V; N]; P]; LINES],
) {
    let place = |l: usize, p: usize| {
        let place = l as isize * run.below + (pixel + p) as isize * run.target.next;
        place * size_of::<V::Element>() as isize
    };
    if V::NARROWS && run.narrow {
        let panel_length = panel::<S>();
        let target =
            run.target.start.add(k / panel_length * run.target.panel_stride).cast::<u16>().add(k % panel_length);
        for l in 0..LINES {
            for p in 0..P {
                for v in 0..N {
                    sums[l][p][v].store_narrow(target.byte_offset(place(l, p)).add(v * V::LANES));
                }
            }
        }
        return;
    }
    let mut sums = *sums;
    // Not by closures, which are not always inlined, and then do without the instructions.
    for l in 0..LINES {
        for p in 0..P {
            for v in 0..N {
                sums[l][p][v] = if EACH { sums[l][p][v] } else { sums[l][p][v].round() };
            }
        }
    }
    if !run.finish.is_empty() {
        let numbers = run.numbers.wrapping_add(k);
        take_steps::<V, As<S>, LINES, P, N>(run.finish, numbers, &mut sums);
    }
    let panel_length = panel::<S::Sum>();
    let target = run.target.start.add(k / panel_length * run.target.panel_stride + k % panel_length);
    for l in 0..LINES {
        for p in 0..P {
            for v in 0..N {
                sums[l][p][v].store(target.byte_offset(place(l, p)).add(v * V::LANES));
            }
        }
    }
}
