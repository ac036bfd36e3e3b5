//! The pointwise half: multiplies tiles by the pointwise filter, adding up in the order that the numerics ask for.

mod packed;
mod pieces;
mod sum_steps;
mod sums;

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Arc;

use ndarray::ArrayView2;
use rayon::ThreadPool;

use super::block::Step;
use super::epilogue::Epilogue;
use super::memory::Output;
use super::tile::Tile;
use super::{Block, Kernel, Rows};
use crate::element::{Element, is_sum};
use crate::error::Error;
use crate::numerics::{Numerics, Products};
pub use packed::Packed;
use packed::{in_place, pack, pack_panel};
use sums::{Order, Sums, within, without};

/// A filter, taken in column panels two vectors wide (the last one may be one vector wide), and the order of the sum.
pub struct Pointwise<'a, T: Element> {
    kernel: &'static Kernel<T>,
    k: usize,
    columns: usize,
    filter: Filter<'a, T>,
    sums: Sums<T>,
    epilogue: Option<Epilogue<T>>,
}

enum Filter<'a, T: Element> {
    Packed(Arc<Packed<T>>),
    /// Each panel is read where it lies, if it can be, or packed into scratch where it is used.
    Given(ArrayView2<'a, T>),
}

/// A column panel, packed or where it lies in the filter.
#[derive(Clone, Copy)]
struct Panel<T> {
    start: *const T,
    /// Elements from one product to the next.
    stride: usize,
    /// If the next panel is not packed: where a row of it ends, and the bytes to the next row.
    next: Option<(*const u8, isize)>,
}

impl<T: Element> Pointwise<'static, T> {
    /// With that filter; none if it is not [for](Packed::is_for) that kernel and order.
    pub fn packed(kernel: &'static Kernel<T>, filter: Arc<Packed<T>>, numerics: &Numerics) -> Option<Self> {
        let [k, columns] = filter.shape();
        let sums = Sums::of(kernel, k, numerics);
        let suits = filter.suits(kernel, &sums);
        suits.then_some(Self { kernel, k, columns, filter: Filter::Packed(filter), sums, epilogue: None })
    }
}

impl<'a, T: Element> Pointwise<'a, T> {
    /// With that filter where it lies, for one call. The sum is as long as it is high.
    pub fn once(kernel: &'static Kernel<T>, filter: ArrayView2<'a, T>, numerics: &Numerics) -> Self {
        let (k, columns) = filter.dim();
        let sums = Sums::of(kernel, k, numerics);
        Self { kernel, k, columns, filter: Filter::Given(filter), sums, epilogue: None }
    }

    /// The same with steps behind it, for [`multiply`](Self::multiply).
    pub fn finished(self, epilogue: Epilogue<T>) -> Self {
        Self { epilogue: Some(epilogue).filter(|epilogue| !epilogue.is_empty()), ..self }
    }

    /// Packs all of the filter, on the calling thread and as many in all of the pool, or of rayon's current one.
    pub fn pack(&mut self, pool: Option<&ThreadPool>, threads: usize) -> Result<(), Error> {
        if let Filter::Given(filter) = self.filter {
            self.filter = Filter::Packed(Arc::new(pack(self.kernel, &self.sums, filter, pool, threads)?));
        }
        Ok(())
    }

    pub fn filter_shape(&self) -> [usize; 2] {
        [self.k, self.columns]
    }

    /// Elements of scratch that `multiply` needs for so many rows: sums that cannot lie in the output, partial sums, a
    /// panel of a filter that is not packed.
    pub fn scratch(&self, rows: usize) -> usize {
        (self.sums.levels + 1) * self.level_elements(rows) + self.room()
    }

    /// Elements of scratch for a panel.
    fn room(&self) -> usize {
        if let Filter::Given(_) = self.filter { 2 * self.kernel.lanes * self.sums.length } else { 0 }
    }

    /// Whether it takes pairs of the storage type.
    pub fn in_pairs(&self) -> bool {
        self.sums.dots.is_some()
    }

    /// How many rows behind a tile are needed.
    pub fn following(&self) -> usize {
        // Those that are taken in pairs all have their partners.
        let overrun = self.sums.orders.iter().any(|order| order.products == Products::Overrun);
        (overrun && self.sums.dots.is_none()).into()
    }

    fn level_elements(&self, rows: usize) -> usize {
        rows * 2 * self.kernel.lanes
    }

    /// The tile times some column panels of the filter, into the output's rows from `first` on. Meanwhile asks for what is
    /// `ahead`: so many bytes from there on.
    ///
    /// # Safety
    /// The tile has been filled since the last call, and no other thread uses these panels of these output rows meanwhile.
    pub unsafe fn multiply(
        &self,
        tile: &mut Tile<T::Sum>,
        panels: Range<usize>,
        output: &Output<T>,
        first: usize,
        (mut ahead, bytes): (*const u8, usize),
        scratch: &mut [MaybeUninit<T::Sum>],
    ) {
        assert!(scratch.len() >= self.scratch(tile.rows()));
        if let Some(dots) = self.sums.dots {
            // SAFETY: the tile is filled; the kernel's existence proves the instruction set of its functions.
            unsafe { tile.pair(dots.pair_columns) };
        }
        let (room, scratch) = scratch.split_at_mut(self.room());
        // Late, as it would not stay in the cache while all of the filter passes.
        let asking = panels.end - self.asking_panels(tile.rows(), bytes).min(panels.len());
        for panel in panels {
            let column = panel * 2 * self.kernel.lanes;
            let place = [first..first + tile.rows(), column..self.columns.min(column + 2 * self.kernel.lanes)];
            let mut ahead = (panel >= asking).then_some(&mut ahead);
            let panel = self.panel(column, room);
            // SAFETY: the caller's promise.
            let mut run = |order, part| unsafe {
                self.run(order, tile, first, column, panel, ahead.as_deref_mut(), output, part, scratch)
            };
            for (index, order) in self.sums.orders.iter().enumerate() {
                // Most of many are elsewhere.
                let some = |part: &[Range<usize>; 2]| part.iter().all(|range| !range.is_empty());
                let mut later = self.sums.orders[index + 1..].iter();
                let part =
                    later.try_fold(within(&place, order), |part, later| some(&part).then(|| without(part, later)));
                if let Some(part) = part.filter(some) {
                    run(order, part);
                }
            }
        }
    }

    /// How many blocks of rows it takes to ask for all that follows of the filter.
    fn asking_blocks(&self) -> usize {
        if self.sums.length * self.columns * size_of::<T::Sum>() <= CACHED_FILTER {
            return 0;
        }
        (2 * self.kernel.lanes * size_of::<T::Sum>() * self.kernel.unrolled).div_ceil(CACHE_LINE)
    }

    /// In how many panels the other blocks ask for so many bytes.
    fn asking_panels(&self, rows: usize, bytes: usize) -> usize {
        let first = self.asking_blocks();
        if first == 0 {
            return usize::MAX;
        }
        let blocks = rows.div_ceil(self.kernel.rows()).saturating_sub(first);
        bytes.div_ceil(CACHE_LINE).div_ceil((blocks * self.sums.length / self.kernel.unrolled).max(1))
    }

    /// Some rows of the tile times the panel from `column` on, in that order; of the columns, some go into the output.
    #[expect(clippy::too_many_arguments, reason = "the loop variables of `multiply`")]
    unsafe fn run(
        &self,
        order: &Order,
        tile: &Tile<T::Sum>,
        first: usize,
        column: usize,
        panel: Panel<T::Sum>,
        mut ahead: Option<&mut *const u8>,
        output: &Output<T>,
        [rows, part]: [Range<usize>; 2],
        scratch: &mut [MaybeUninit<T::Sum>],
    ) {
        let vectors = (self.columns - column).div_ceil(self.kernel.lanes).min(2);
        let columns = vectors * self.kernel.lanes;
        let (level, levels) = scratch.split_at_mut(self.level_elements(tile.rows()));
        let level: *mut T::Sum = level.as_mut_ptr().cast();
        let pairs = self.sums.dots.is_some() && self.epilogue.is_none();
        let narrow = pairs && matches!(&order.groups[..], [steps] if steps.len() == 1);
        let direct = (is_sum::<T>() || narrow) && part.len() == columns;
        let target = output.at(rows.start, part.start);
        let nothing = (panel.start.cast(), 0);
        let mut block = Block {
            pixels: tile.rows_from(rows.start - first, rows.len()),
            panel_stride: tile.panel_stride(),
            filter: panel.start,
            filter_stride: panel.stride,
            ahead: nothing,
            steps: &[],
            overrun: order.products == Products::Overrun,
            targets: [
                if direct {
                    (target.cast(), output.columns() * size_of::<T>())
                } else {
                    (level, columns * size_of::<T::Sum>())
                },
                (levels.as_mut_ptr().cast(), columns * size_of::<T::Sum>()),
            ],
            narrow: narrow && direct,
            finish: &[],
            numbers: std::ptr::null(),
            level_stride: self.level_elements(tile.rows()),
            k: self.k,
        };
        let products = self.sums.dots.map_or(self.kernel.product[order.products as usize], |dots| dots.product);
        let product = products[vectors - 1];
        // Evenly: a block of two rows would leave most of the arithmetic units idle.
        let blocks = rows.len().div_ceil(product.len());
        let (height, higher) = (rows.len() / blocks, rows.len() % blocks);
        // The first blocks ask for what follows of the filter, the others for what is ahead, if for anything.
        let asking = self.asking_blocks();
        let last = order.groups.last().and_then(|steps| steps.last());
        let by_product = is_sum::<T>()
            && self.kernel.finishes
            && order.products == Products::Fused
            && matches!(last, Some(Step::Chain { level: 0, .. }));
        let mut begin = 0;
        for (n, steps) in order.groups.iter().enumerate() {
            if let (true, true, Some(epilogue)) = (by_product, n + 1 == order.groups.len(), &self.epilogue) {
                (block.finish, block.numbers) = epilogue.steps(column);
            }
            let end = steps.iter().map(Step::end).max().unwrap_or(0);
            block.steps = steps;
            block.ahead = match panel.next {
                Some((next, stride)) => (next.wrapping_offset(self.sums.products(begin) as isize * stride), stride),
                None => (panel.start.wrapping_add(end * columns).cast(), CACHE_LINE as isize),
            };
            begin = end;
            let (mut block, mut done) = (block, 0);
            while done < blocks {
                let (height, same) = if done < higher { (height + 1, higher) } else { (height, blocks) };
                let count = if done < asking { same.min(asking) } else { same } - done;
                if done >= asking {
                    block.ahead = ahead.as_deref().map_or(nothing, |&ahead| (ahead, CACHE_LINE as isize));
                }
                // SAFETY: the kernel's existence proves its instruction set; the tile has the rows, the filter the panel,
                // the output (or the scratch in its place) the rows and columns, the scratch all levels; the steps come
                // from `add_steps`, which writes each level before it reads it.
                block.ahead.0 = unsafe { product[height - 1](&block, count) };
                if let (true, Some(ahead)) = (done >= asking, ahead.as_deref_mut()) {
                    *ahead = block.ahead.0;
                }
                block = block.skip_rows(height * count);
                done += count;
            }
        }
        if let (false, Some(epilogue)) = (by_product, &self.epilogue) {
            let (start, stride) = block.targets[0];
            // SAFETY: the rows of level 0, which have just been computed, whether in the output or not.
            unsafe { epilogue.finish((start, stride as isize), [rows.len(), columns], column) };
        }
        if !direct {
            let narrow = Rows {
                from: level.wrapping_add(part.start - column),
                from_stride: columns,
                to: target,
                to_stride: output.columns() as isize,
                rows: rows.len(),
                columns: part.len(),
            };
            // SAFETY: the part lies inside the rows of level 0, which have just been computed, and inside the output; the
            // kernel's existence proves its instruction set.
            unsafe { self.sums.dots.map_or(self.kernel.narrow, |dots| dots.narrow)(&narrow) };
        }
    }

    /// The panel from that column on: where it lies if it can be read there, otherwise packed in the room for it, if it is not
    /// yet.
    fn panel(&self, column: usize, room: &mut [MaybeUninit<T::Sum>]) -> Panel<T::Sum> {
        let width = (self.columns - column).div_ceil(self.kernel.lanes).min(2) * self.kernel.lanes;
        let filter = match &self.filter {
            Filter::Packed(filter) => {
                return Panel {
                    start: filter.elements.as_ptr().wrapping_add(column * self.sums.length),
                    stride: width,
                    next: None,
                };
            }
            Filter::Given(filter) => filter,
        };
        // Where rows begin within a cache line, this panel has read the line in which the next one begins.
        let last = self.columns.min(column + 4 * self.kernel.lanes) - 1;
        let next = Some((filter.as_ptr().wrapping_add(last).cast(), filter.strides()[0] * size_of::<T>() as isize));
        if let Some((start, stride)) = in_place(filter, column, width) {
            return Panel { start, stride, next };
        }
        let room = &mut room[..width * self.sums.length];
        pack_panel(self.kernel, &self.sums, filter, 0..self.k, column, room);
        Panel { start: room.as_ptr().cast(), stride: width, next }
    }

    /// How many column panels there are.
    pub fn panels(&self) -> usize {
        self.columns.div_ceil(2 * self.kernel.lanes)
    }
}

/// Bytes of a filter that is in a near cache anyway: nobody asks for it, and all blocks for the image.
const CACHED_FILTER: usize = 32 << 10;

/// Bytes.
const CACHE_LINE: usize = 64;
