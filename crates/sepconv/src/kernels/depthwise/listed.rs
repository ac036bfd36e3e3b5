//! Depthwise sums in an order that has no loops of its own: as lists of taps, for each pixel its own.

use super::{Depthwise, Place};
use crate::element::Element;
use crate::geometry::Axis;
use crate::kernels::run::Entry;
use crate::numerics::{Depthwise as Numerics, Products, Rounding, TapOrder};
use crate::tap_order::{self, Block, Term};

/// The image's rows or columns that count where an order is listed: those in every `stride`-th
/// group of so many successive ones, counted from so many before the image.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    pub group: usize,
    pub stride: usize,
    pub before: usize,
}

impl Counted {
    pub const ALL: Self = Self { group: 1, stride: 1, before: 0 };

    fn counts(&self, at: isize) -> bool {
        at < 0 || ((at as usize + self.before) / self.group).is_multiple_of(self.stride)
    }
}

/// Whether there are loops for this order; others take up a list.
pub(super) fn usual(numerics: Numerics) -> bool {
    let Numerics { order, products, rounding, .. } = numerics;
    let each = rounding == Rounding::Each;
    order == TapOrder::Rows && (products == Products::Separate || products == Products::Fused && !each)
}

impl<T: Element> Depthwise<T> {
    /// Where the filter has weights of +0.
    fn zeros(&self) -> usize {
        self.geometry.height.kernel * self.geometry.width.kernel * self.filter_stride
    }

    /// The sum of a pixel, if it is not row-major with products that are usual there.
    pub(super) fn entries(&self, y: usize, column: &Place, steps: [isize; 2]) -> Vec<Entry> {
        let mut entries = Vec::new();
        if usual(self.numerics) || self.dots.is_some() {
            return entries;
        }
        let g = &self.geometry;
        let inside = |[i, j]: [isize; 2]| {
            let within = |axis: &Axis, origin: isize, tap: isize| {
                (0..axis.input as isize).contains(&(origin + tap * axis.rate as isize))
            };
            within(&g.height, self.rows[y].origin, i) && within(&g.width, column.origin, j)
        };
        let offset = |place: [isize; 2]| place[0].wrapping_mul(steps[0]).wrapping_add(place[1].wrapping_mul(steps[1]));
        let entry = |place, weights| Entry::Tap { place: offset(place), inside: inside(place), weights };
        let counts = |term: &Term| match *term {
            Term::Tap([i, j]) => {
                self.counted[0].counts(self.rows[y].origin + (i * g.height.rate) as isize)
                    && self.counted[1].counts(column.origin + (j * g.width.rate) as isize)
            }
            _ => true,
        };
        for Block { starts, mut terms } in tap_order::blocks(&self.numerics, g, &self.borders, [y, column.at]) {
            terms.retain(counts);
            if terms.is_empty() {
                continue;
            }
            entries.extend(terms.iter().map(|term| match *term {
                Term::Tap([i, j]) => entry([i as isize, j as isize], (i * g.width.kernel + j) * self.filter_stride),
                Term::Beyond(Some(place)) => entry(place, self.zeros()),
                Term::Channel([i, j], behind) if inside([i as isize, j as isize]) => Entry::Channel {
                    place: offset([i as isize, j as isize]),
                    behind: inside(behind).then(|| offset(behind)),
                },
                Term::Beyond(None) | Term::Channel(..) => Entry::Tap { place: 0, inside: false, weights: self.zeros() },
            }));
            entries.push(Entry::End { starts });
        }
        if entries.is_empty() {
            entries.push(Entry::End { starts: true });
        }
        entries
    }
}
