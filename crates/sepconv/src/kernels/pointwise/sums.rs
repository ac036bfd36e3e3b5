//! How the sums of a product are taken: in which order where, by which instructions, from which rows of a packed panel.

use std::ops::Range;

use super::sum_steps::{add_steps, groups};
use crate::element::Element;
use crate::kernels::Kernel;
use crate::kernels::block::Step;
use crate::kernels::kernel::Dots;
use crate::numerics::{self, Numerics, Products, Subnormals, Sum};

/// How the sums are taken.
pub(super) struct Sums<T: Element> {
    /// Rows of a packed panel: for each product one, or for each pair.
    pub(super) length: usize,
    /// If all products are taken in pairs, by instructions for that: then steps count pairs.
    pub(super) dots: Option<&'static Dots<T>>,
    /// The last whose place holds an element counts; the first one's place is everywhere.
    pub(super) orders: Vec<Order>,
    /// Levels of partial sums beside the result.
    pub(super) levels: usize,
}

pub(super) struct Order {
    /// Rows and columns.
    pub(super) place: [Range<usize>; 2],
    pub(super) products: Products,
    /// Steps over products that all rows of a tile take before any takes the next.
    pub(super) groups: Vec<Vec<Step>>,
}

/// What a part of the result shares with an order's place.
pub(super) fn within(part: &[Range<usize>; 2], order: &Order) -> [Range<usize>; 2] {
    [0, 1].map(|axis| part[axis].start.max(order.place[axis].start)..part[axis].end.min(order.place[axis].end))
}

/// The part but for rows at its ends that have the order throughout.
pub(super) fn without([mut rows, columns]: [Range<usize>; 2], order: &Order) -> [Range<usize>; 2] {
    let [not_rows, all_columns] = &order.place;
    if all_columns.start <= columns.start && columns.end <= all_columns.end {
        if rows.end <= not_rows.end {
            rows.end = rows.end.min(not_rows.start);
        } else if not_rows.start <= rows.start {
            rows.start = rows.start.max(not_rows.end);
        }
    }
    [rows, columns]
}

impl<T: Element> Sums<T> {
    pub(super) fn of(kernel: &'static Kernel<T>, k: usize, numerics: &Numerics) -> Self {
        let Numerics { subnormals, pointwise: numerics::Pointwise { products, sum, elsewhere }, .. } = numerics;
        let order = |place, products, sum: &Sum| {
            let (mut steps, mut length) = (Vec::new(), 0);
            add_steps(sum, k, &mut length, 0, true, &mut steps);
            assert_eq!(length, k, "the sum's length has been checked");
            (place, products, steps)
        };
        let mut orders = vec![order([0..usize::MAX, 0..usize::MAX], *products, sum)];
        orders.extend(elsewhere.iter().map(|e| order([e.rows.clone(), e.columns.clone()], e.products, &e.sum)));
        let in_pairs =
            |products: Products| products == Products::Paired || products == Products::Overrun && k.is_multiple_of(2);
        let dots = kernel.dots.as_ref().filter(|_| *subnormals == Subnormals::Flushed).filter(|_| {
            orders.iter().all(|(_, products, steps)| in_pairs(*products) && steps.iter().all(|step| step.pairs_up(k)))
        });
        if dots.is_some() {
            orders.iter_mut().flat_map(|(_, _, steps)| steps).for_each(Step::count_pairs);
        }
        let order = |(place, products, steps)| Order { place, products, groups: groups(steps, kernel.group) };
        let orders: Vec<_> = orders.into_iter().map(order).collect();
        let steps = orders.iter().flat_map(|order| order.groups.iter().flatten());
        let levels = steps.map(Step::level).max().unwrap_or(0);
        Self { length: if dots.is_some() { k.div_ceil(2) } else { k }, dots, orders, levels }
    }

    /// How many products so many rows of a packed panel have.
    pub(super) fn products(&self, rows: usize) -> usize {
        if self.dots.is_some() { 2 * rows } else { rows }
    }

    /// Where a packed panel has that product; an even one, or none behind it.
    pub(super) fn row(&self, product: usize) -> usize {
        if self.dots.is_some() { product.div_ceil(2) } else { product }
    }
}
