//! The pointwise half: multiplies tiles by the pointwise filter, adding up in the order that the numerics ask for.

use std::mem::MaybeUninit;
use std::ops::Range;

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::memory::{Buffer, Output};
use super::tile::Tile;
use super::{Block, Kernel, Pack, Step, Then};
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
    steps: Vec<Step>,
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
            Order { products, steps }
        };
        let elsewhere = |e: &numerics::Elsewhere| ([e.rows.clone(), e.columns.clone()], order(e.products, &e.sum));
        let elsewhere: Vec<_> = numerics.elsewhere.iter().map(elsewhere).collect();
        let order = order(numerics.products, &numerics.sum);
        let all = elsewhere.iter().map(|(_, order)| order).chain([&order]);
        let levels = all.flat_map(|order| &order.steps).map(Step::level).max().unwrap_or(0);
        Self { kernel, k, columns, filter: Filter::InPlace(filter), order, elsewhere, levels }
    }

    /// Packs the whole filter, for many rows; `parallel` on all threads.
    pub fn packed(self, parallel: bool) -> Result<Self, Error> {
        let Filter::InPlace(filter) = self.filter else { return Ok(self) };
        let kernel = self.kernel;
        let mut packed = Buffer::new(self.k.saturating_mul(self.columns.next_multiple_of(kernel.lanes)))?;
        let panel_elements = self.panel_elements();
        let pack = |(panel, to): (usize, &mut [MaybeUninit<T::Sum>])| pack_panel(&kernel, filter, panel, to);
        if parallel {
            packed.as_mut_slice().par_chunks_mut(panel_elements).enumerate().for_each(pack);
        } else {
            packed.as_mut_slice().chunks_mut(panel_elements).enumerate().for_each(pack);
        }
        Ok(Self { filter: Filter::Packed(packed), ..self })
    }

    /// Elements of scratch that `multiply` needs: a column panel, sums where a panel is not full, partial sums.
    pub fn scratch(&self) -> usize {
        let panel = if matches!(self.filter, Filter::InPlace(_)) { self.panel_elements() } else { 0 };
        panel + (self.levels + 1) * self.level_elements()
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

    fn level_elements(&self) -> usize {
        self.kernel.rows() * 2 * self.kernel.lanes
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
        assert!(scratch.len() >= self.scratch());
        let (sums, packed) = scratch.split_at_mut((self.levels + 1) * self.level_elements());
        let blocks = tile.rows().div_ceil(self.kernel.rows());
        for index in panels {
            let mut panel = self.panel(index, packed);
            for block in 0..blocks {
                // Evenly: a block of two rows would leave most of the arithmetic units idle.
                let rows = block * tile.rows() / blocks..(block + 1) * tile.rows() / blocks;
                // SAFETY: the caller's promise.
                unsafe { self.block(tile, rows, &mut panel, output, first, sums) };
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
                    && !self.order.products.in_pairs()
                    && width == vectors * lanes
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

    /// Some rows of the tile times one column panel: in the order of the rest, then, where others hold, in theirs.
    unsafe fn block(
        &self,
        tile: &Tile<T::Sum>,
        rows: Range<usize>,
        panel: &mut Panel<T::Sum>,
        output: &Output<T>,
        first: usize,
        sums: &mut [MaybeUninit<T::Sum>],
    ) {
        let place = [first + rows.start..first + rows.end, panel.column..panel.column + panel.width];
        // SAFETY: the caller's promise.
        let mut run = |order, part| unsafe { self.run(order, tile, rows.clone(), panel, output, first, part, sums) };
        run(&self.order, place.clone());
        for (elsewhere, order) in &self.elsewhere {
            let part = [0, 1].map(|axis| both(&place[axis], &elsewhere[axis]));
            if part.iter().all(|range| !range.is_empty()) {
                run(order, part);
            }
        }
    }

    /// Some rows of the tile times one column panel, in that order; a part of them goes into the output.
    #[expect(clippy::too_many_arguments, reason = "the loop variables of `multiply` and `block`")]
    unsafe fn run(
        &self,
        order: &Order,
        tile: &Tile<T::Sum>,
        rows: Range<usize>,
        panel: &mut Panel<T::Sum>,
        output: &Output<T>,
        first: usize,
        part: [Range<usize>; 2],
        sums: &mut [MaybeUninit<T::Sum>],
    ) {
        let vectors = panel.vectors;
        let columns = vectors * self.kernel.lanes;
        let (edge, partial) = sums.split_at_mut(self.level_elements());
        let edge: *mut T::Sum = edge.as_mut_ptr().cast();
        let whole = part[0].len() == rows.len() && part[1].len() == columns;
        let direct = whole && is_sum::<T>();
        let target = output.at(first + rows.start, panel.column);
        let block = Block {
            pixels: tile.rows_from(rows.start, rows.len()),
            panel_stride: tile.panel_stride(),
            filter: panel.start,
            filter_stride: panel.row_stride,
            copy: panel.copy.unwrap_or(std::ptr::null_mut()),
            steps: &order.steps,
            targets: [
                if direct { (target.cast(), output.columns()) } else { (edge, columns) },
                (partial.as_mut_ptr().cast(), columns),
            ],
            rows: rows.len(),
            k: self.k,
        };
        let products = order.products as usize;
        let functions =
            if panel.copy.is_some() { self.kernel.copying[products] } else { self.kernel.product[products] };
        // SAFETY: the kernel's existence proves its instruction set; the tile has the rows, the filter the panel and
        // the scratch room for its copy, the output (or the scratch in its place) the rows and columns, the scratch all
        // levels; the steps come from `add_steps`, which writes each level before it reads it.
        unsafe { functions[vectors - 1][rows.len() - 1](&block) };
        panel.take_copy();
        for row in part[0].clone().filter(|_| !direct) {
            let from = (row - first - rows.start) * columns + (part[1].start - panel.column);
            // SAFETY: the part lies inside the block, which has just been computed, and inside the output.
            unsafe { self.kernel.narrow(edge.add(from), output.at(row, part[1].start), part[1].len()) };
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
