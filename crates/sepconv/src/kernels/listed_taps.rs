//! The depthwise sums of a run of pixels, in whatever order a list says.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that its caller states")]
#![expect(clippy::needless_range_loop, reason = "indices into arrays of registers are unrolled; iterators hide that")]

use super::Run;
use super::pixel::{FIRST, SPREAD, WHOLE, load_pixel, store_sums};
use super::run::Entry;
use super::sharing::PIXELS;
use super::vector::{FUSED, SEPARATE, Widen, accumulate};
use crate::element::Element;

/// The depthwise sums of a run of pixels in the order of its list, whatever their products and roundings are.
///
/// # Safety
/// What [`Run`] says of its pointers holds, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn listed<S: Element<Sum = V::Element>, V: Widen<S>>(run: &Run<S>) {
    let mut pixel = 0;
    while pixel < run.count {
        let four = V::REGISTERS > 0 && pixel + PIXELS <= run.count;
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
    store_sums::<S, V, 1, P, 1, false>(run, pixel, k, &[totals.map(|total| [total])]);
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
