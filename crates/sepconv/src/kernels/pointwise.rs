//! The pointwise half: multiplies tiles by the pointwise filter, adding up in the order that the numerics ask for.

use std::mem::MaybeUninit;
use std::ops::Range;

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::memory::{Buffer, Output};
use super::tile::{Tile, row_stride};
use super::{Block, Kernel, Narrow, Pack, Step, Then};
use crate::element::{Element, is_sum};
use crate::error::Error;
use crate::numerics::{self, Products, Sum};

/// A filter, in column panels two vectors wide (the last one may be one vector wide), and the order of the sum.
pub struct Pointwise<'a, T: Element> {
    kernel: Kernel<T>,
    k: usize,
    columns: usize,
    filter: Filter<'a, T>,
    order: Order,
    /// Places with an order of their own, rows and columns; the last that holds an element counts.
    elsewhere: Vec<([Range<usize>; 2], Order)>,
    /// Levels of partial sums beside the result.
    levels: usize,
}

struct Order {
    products: Products,
    /// Steps over products that all rows of a tile take before any takes the next.
    groups: Vec<Vec<Step>>,
}

enum Filter<'a, T: Element> {
    /// All panels packed, one after the other, padded with zeros.
    Packed(Buffer<T::Sum>),
    /// Each task packs each of its panels into its scratch: cheaper where there are not many rows to use it.
    InPlace(ArrayView2<'a, T>),
}

impl<'a, T: Element> Pointwise<'a, T> {
    /// The sum is as long as the filter is high, as [`crate::Numerics::check`] sees to.
    pub fn new(kernel: Kernel<T>, filter: ArrayView2<'a, T>, numerics: &numerics::Pointwise) -> Self {
        let (k, columns) = filter.dim();
        let order = |products, sum: &Sum| {
            let (mut steps, mut length) = (Vec::new(), 0);
            add_steps(sum, k, &mut length, 0, true, &mut steps);
            assert_eq!(length, k, "the sum's length has been checked");
            Order { products, groups: groups(steps, kernel.group) }
        };
        let elsewhere = |e: &numerics::Elsewhere| ([e.rows.clone(), e.columns.clone()], order(e.products, &e.sum));
        let elsewhere: Vec<_> = numerics.elsewhere.iter().map(elsewhere).collect();
        let order = order(numerics.products, &numerics.sum);
        let all = elsewhere.iter().map(|(_, order)| order).chain([&order]);
        let levels = all.flat_map(|order| order.groups.iter().flatten()).map(Step::level).max().unwrap_or(0);
        Self { kernel, k, columns, filter: Filter::InPlace(filter), order, elsewhere, levels }
    }

    /// Packs the whole filter, for many rows; `parallel` on all threads.
    pub fn packed<'p>(self, parallel: bool) -> Result<Pointwise<'p, T>, Error> {
        let panel_elements = self.panel_elements();
        let Self { kernel, k, columns, filter, order, elsewhere, levels } = self;
        let filter = match filter {
            Filter::Packed(packed) => packed,
            Filter::InPlace(filter) => {
                let mut packed = Buffer::new(k.saturating_mul(columns.next_multiple_of(kernel.lanes)))?;
                let pack = |(panel, to): (usize, &mut [MaybeUninit<T::Sum>])| pack_panel(&kernel, filter, panel, to);
                if parallel {
                    packed.as_mut_slice().par_chunks_mut(panel_elements).enumerate().for_each(pack);
                } else {
                    packed.as_mut_slice().chunks_mut(panel_elements).enumerate().for_each(pack);
                }
                packed
            }
        };
        Ok(Pointwise { kernel, k, columns, filter: Filter::Packed(filter), order, elsewhere, levels })
    }

    /// Elements of scratch that `multiply` needs for so many rows: sums that cannot lie in the output, partial sums, a
    /// column panel.
    pub fn scratch(&self, rows: usize) -> usize {
        let panel = if matches!(self.filter, Filter::InPlace(_)) { self.panel_elements() } else { 0 };
        (self.levels + 1) * self.level_elements(rows) + panel
    }

    /// How many rows behind a tile are needed.
    pub fn following(&self) -> usize {
        let mut orders = self.elsewhere.iter().map(|(_, order)| order).chain([&self.order]);
        orders.any(|order| order.products == Products::Overrun).into()
    }

    /// Elements of a full column panel.
    pub fn panel_elements(&self) -> usize {
        2 * self.kernel.lanes * self.k
    }

    fn level_elements(&self, rows: usize) -> usize {
        rows * 2 * self.kernel.lanes
    }

    /// The tile times some column panels of the filter, into the output's rows from `first` on.
    ///
    /// # Safety
    /// The tile has been filled, and no other thread uses these panels of these output rows meanwhile.
    pub unsafe fn multiply(
        &self,
        tile: &Tile<T::Sum>,
        panels: Range<usize>,
        output: &Output<T>,
        first: usize,
        scratch: &mut [MaybeUninit<T::Sum>],
    ) {
        assert!(scratch.len() >= self.scratch(tile.rows()));
        let (sums, packed) = scratch.split_at_mut((self.levels + 1) * self.level_elements(tile.rows()));
        for index in panels {
            let mut panel = self.panel(index, packed);
            let place = [first..first + tile.rows(), panel.column..panel.column + panel.width];
            // SAFETY: the caller's promise.
            let mut run = |order, part| unsafe { self.run(order, tile, first, &mut panel, output, part, sums) };
            run(&self.order, place.clone());
            for (elsewhere, order) in &self.elsewhere {
                let part = [0, 1].map(|axis| both(&place[axis], &elsewhere[axis]));
                if part.iter().all(|range| !range.is_empty()) {
                    run(order, part);
                }
            }
        }
    }

    /// A column panel, as it lies in the filter if it can be copied by the way, otherwise packed.
    fn panel(&self, index: usize, packed: &mut [MaybeUninit<T::Sum>]) -> Panel<T::Sum> {
        let lanes = self.kernel.lanes;
        let column = index * 2 * lanes;
        let width = (self.columns - column).min(2 * lanes);
        let vectors = width.div_ceil(lanes);
        let panel = |start| Panel { start, row_stride: 0, copy: None, column, width, vectors };
        match &self.filter {
            Filter::Packed(filter) => panel(filter.as_ptr().wrapping_add(column * self.k)),
            Filter::InPlace(filter)
                if is_sum::<T>()
                    && self.order.products == Products::Fused
                    && width == 2 * lanes
                    && filter.strides()[1] == 1 =>
            {
                Panel {
                    row_stride: filter.strides()[0],
                    copy: Some(packed.as_mut_ptr().cast()),
                    ..panel(filter.as_ptr().wrapping_add(column).cast())
                }
            }
            Filter::InPlace(filter) => {
                pack_panel(&self.kernel, *filter, index, &mut packed[..self.k * vectors * lanes]);
                panel(packed.as_ptr().cast())
            }
        }
    }

    /// Some rows of the tile times one column panel, in that order; of the columns, some go into the output.
    #[expect(clippy::too_many_arguments, reason = "the loop variables of `multiply`")]
    unsafe fn run(
        &self,
        order: &Order,
        tile: &Tile<T::Sum>,
        first: usize,
        panel: &mut Panel<T::Sum>,
        output: &Output<T>,
        [rows, part]: [Range<usize>; 2],
        sums: &mut [MaybeUninit<T::Sum>],
    ) {
        let columns = panel.vectors * self.kernel.lanes;
        let (level, levels) = sums.split_at_mut(self.level_elements(tile.rows()));
        let level: *mut T::Sum = level.as_mut_ptr().cast();
        let direct = is_sum::<T>() && part.len() == columns;
        let target = output.at(rows.start, part.start);
        let mut block = Block {
            pixels: tile.rows_from(rows.start - first, rows.len()),
            panel_stride: tile.panel_stride(),
            filter: panel.start,
            filter_stride: panel.row_stride,
            copy: panel.copy.unwrap_or(std::ptr::null_mut()),
            ahead: std::ptr::null(),
            steps: &[],
            overrun: order.products == Products::Overrun,
            targets: [
                if direct { (target.cast(), output.columns()) } else { (level, columns) },
                (levels.as_mut_ptr().cast(), columns),
            ],
            level_stride: self.level_elements(tile.rows()),
            k: self.k,
        };
        let product = self.kernel.product[order.products as usize][panel.vectors - 1];
        let blocks = rows.len().div_ceil(product.len());
        // Evenly: a block of two rows would leave most of the arithmetic units idle.
        let (height, higher) = (rows.len() / blocks, rows.len() % blocks);
        for steps in &order.groups {
            block.steps = steps;
            let taken = steps.iter().map(|step| if let Step::Chain { products, .. } = step { products.end } else { 0 });
            let packed = panel.copy.map_or(panel.start, <*mut _>::cast_const);
            block.ahead = packed.wrapping_add(taken.max().unwrap_or(0) * columns);
            let mut done = 0;
            // Rows, how many such blocks, whether the filter is copied on the way.
            let mut run = |height: usize, count: usize, copy: bool| {
                if count == 0 {
                    return;
                }
                let mut block = block;
                if !copy && let Some(copy) = panel.copy {
                    block.filter = copy;
                }
                // SAFETY: inside the tile's rows, and of each target's.
                unsafe {
                    block.pixels = block.pixels.add(done * row_stride::<T::Sum>());
                    block.targets = block.targets.map(|(start, stride)| (start.add(done * stride), stride));
                }
                let functions = if copy { self.kernel.copying } else { product };
                // SAFETY: the kernel's existence proves its instruction set; the tile has the rows, the filter the panel
                // and the scratch room for its copy, the output (or the scratch in its place) the rows and columns, the
                // scratch all levels; the steps come from `add_steps`, which writes each level before it reads it.
                unsafe { functions[height - 1](&block, count) };
                done += height * count;
            };
            let first = usize::from(panel.copy.is_some());
            let (first_high, first_low) = if higher > 0 { (first, 0) } else { (0, first) };
            run(height + 1, first_high, true);
            run(height + 1, higher - first_high, false);
            run(height, first_low, true);
            run(height, blocks - higher - first_low, false);
        }
        panel.take_copy();
        if !direct {
            let narrow = Narrow {
                from: level.wrapping_add(part.start - panel.column),
                from_stride: columns,
                to: target,
                to_stride: output.columns(),
                rows: rows.len(),
                columns: part.len(),
            };
            // SAFETY: the part lies inside the rows of level 0, which have just been computed, and inside the output.
            unsafe { self.kernel.narrow(&narrow) };
        }
    }

    /// How many column panels there are.
    pub fn panels(&self) -> usize {
        self.columns.div_ceil(2 * self.kernel.lanes)
    }
}

/// What two ranges share.
fn both(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// One column panel of the filter, packed; or as it lies in the filter, to be packed on the first use.
struct Panel<T> {
    start: *const T,
    /// Of a panel that is not packed.
    row_stride: isize,
    copy: Option<*mut T>,
    column: usize,
    /// Columns of the filter in it.
    width: usize,
    vectors: usize,
}

impl<T> Panel<T> {
    /// After the first use.
    fn take_copy(&mut self) {
        if let Some(copy) = self.copy.take() {
            self.start = copy;
        }
    }
}

impl Step {
    fn level(&self) -> usize {
        match self {
            Self::Chain { level, .. } | Self::Fold { level } => *level,
        }
    }
}

/// The steps that compute the sum over the products from `next` on, as the value of `level` or added to it.
fn add_steps(sum: &Sum, k: usize, next: &mut usize, level: usize, first: bool, steps: &mut Vec<Step>) {
    let then = if first { Then::Store } else { Then::Add };
    let rest = k - *next;
    let mut chain = |length: usize| {
        let products = *next..*next + length;
        *next = products.end;
        steps.push(Step::Chain { products, stride: 1, level, then });
    };
    match sum {
        Sum::Whole => chain(rest),
        Sum::Chain(length) => chain(*length),
        Sum::Blocks(sums) if sums.is_empty() => chain(0),
        Sum::Blocks(sums) => {
            // What is added to a value must be complete first.
            let own = if first { level } else { level + 1 };
            for (i, sum) in sums.iter().enumerate() {
                add_steps(sum, k, next, own, i == 0, steps);
            }
            if !first {
                steps.push(Step::Fold { level: own });
            }
        }
        Sum::Lanes { folds, each, tail } => {
            let own = if first { level } else { level + 1 };
            let dealt = *next..*next + folds.lanes() * each;
            add_lanes(dealt.clone(), folds.lanes(), folds.distances(), own, true, steps);
            *next = dealt.end + tail;
            if *tail > 0 {
                steps.push(Step::Chain { products: dealt.end..*next, stride: 1, level: own, then: Then::Continue });
            }
            if !first {
                steps.push(Step::Fold { level: own });
            }
        }
    }
}

/// The steps for the lanes that are folded by these distances, from the one that begins with the first of the products:
/// what the last distance adds up comes last.
fn add_lanes(products: Range<usize>, stride: usize, folds: &[usize], level: usize, first: bool, steps: &mut Vec<Step>) {
    let Some((last, folds)) = folds.split_last() else {
        let then = if first { Then::Store } else { Then::Add };
        return steps.push(Step::Chain { products, stride, level, then });
    };
    let own = if first { level } else { level + 1 };
    add_lanes(products.clone(), stride, folds, own, true, steps);
    add_lanes(products.start + last..products.end, stride, folds, own, false, steps);
    if !first {
        steps.push(Step::Fold { level: own });
    }
}

/// The steps dealt out to groups of about so many products. Chains that are longer go on in the next group.
fn groups(steps: Vec<Step>, most: usize) -> Vec<Vec<Step>> {
    let most = most.saturating_add(most / 4);
    let (mut groups, mut group, mut room) = (Vec::new(), Vec::new(), most);
    for step in steps.into_iter().flat_map(|step| cut(step, most)) {
        let length = if let Step::Chain { products, .. } = &step { products.len() } else { 0 };
        if length > room {
            groups.push(std::mem::take(&mut group));
            room = most;
        }
        room = room.saturating_sub(length);
        group.push(step);
    }
    groups.push(group);
    groups.retain(|group: &Vec<Step>| !group.is_empty());
    groups
}

/// The step, as several if it is a chain of more products.
fn cut(step: Step, most: usize) -> Vec<Step> {
    let Step::Chain { products, stride: 1, level, then } = step.clone() else { return vec![step] };
    let pieces = products.len().div_ceil(most).max(1);
    if pieces == 1 {
        return vec![step];
    }
    // Of whole pairs.
    let length = products.len().div_ceil(pieces).next_multiple_of(2);
    // What is added to a value must be complete first.
    let own = level + usize::from(then == Then::Add);
    let mut steps: Vec<_> = products
        .clone()
        .step_by(length)
        .map(|start| {
            let then = match then {
                _ if start > products.start => Then::Continue,
                Then::Add => Then::Store,
                then => then,
            };
            Step::Chain { products: start..products.end.min(start + length), stride: 1, level: own, then }
        })
        .collect();
    if then == Then::Add {
        steps.push(Step::Fold { level: own });
    }
    steps
}

/// Copies one column panel, and zeros beyond the last column.
fn pack_panel<T: Element>(kernel: &Kernel<T>, filter: ArrayView2<T>, panel: usize, to: &mut [MaybeUninit<T::Sum>]) {
    let (k, columns) = filter.dim();
    let stored = to.len() / k;
    let column = panel * 2 * kernel.lanes;
    let width = stored.min(columns - column);
    if width == stored && filter.strides()[1] == 1 {
        let from = filter.as_ptr().wrapping_add(column);
        let pack = Pack { from, row_stride: filter.strides()[0], k, to: to.as_mut_ptr().cast() };
        // SAFETY: the kernel's existence proves its instruction set; the filter has the columns, the panel all of `to`.
        unsafe { kernel.pack[stored / kernel.lanes - 1](&pack) };
        return;
    }
    for (k, to) in to.chunks_exact_mut(stored).enumerate() {
        for (i, to) in to.iter_mut().enumerate() {
            to.write(if i < width { filter[(k, column + i)].widen() } else { T::Sum::ZERO });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_sum_is_complete_before_it_is_added() {
        let pair = |a, b| Sum::Blocks(vec![Sum::Chain(a), Sum::Chain(b)]);
        let mut steps = Vec::new();
        add_steps(&Sum::Blocks(vec![pair(1, 2), pair(3, 4)]), 10, &mut 0, 0, true, &mut steps);
        let chain = |products, level, then| Step::Chain { products, stride: 1, level, then };
        let expected = [
            chain(0..1, 0, Then::Store),
            chain(1..3, 0, Then::Add),
            chain(3..6, 1, Then::Store),
            chain(6..10, 1, Then::Add),
            Step::Fold { level: 1 },
        ];
        assert_eq!(steps, expected);
    }
}
