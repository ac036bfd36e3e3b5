//! The pointwise half: multiplies tiles by the pointwise filter, adding up in the order that the numerics ask for.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Arc;

use ndarray::ArrayView2;
use rayon::ThreadPool;

use super::block::{Step, Then};
use super::epilogue::Epilogue;
use super::kernel::Dots;
use super::memory::{Buffer, Output};
use super::tile::Tile;
use super::{Block, Kernel, Pack, Rows};
use crate::element::{Element, is_sum};
use crate::error::Error;
use crate::numerics::{self, Numerics, Products, Subnormals, Sum};
use crate::team;

/// A filter, taken in column panels two vectors wide (the last one may be one vector wide), and the order of the sum.
pub struct Pointwise<'a, T: Element> {
    kernel: Kernel<T>,
    k: usize,
    columns: usize,
    filter: Filter<'a, T>,
    sums: Sums<T>,
    epilogue: Option<Epilogue<T>>,
}

/// How the sums are taken.
struct Sums<T: Element> {
    /// Rows of a packed panel: for each product one, or for each pair.
    length: usize,
    /// If all products are taken in pairs, by instructions for that: then steps count pairs.
    dots: Option<Dots<T>>,
    /// The last whose place holds an element counts; the first one's place is everywhere.
    orders: Vec<Order>,
    /// Levels of partial sums beside the result.
    levels: usize,
}

enum Filter<'a, T: Element> {
    Packed(Arc<Packed<T>>),
    /// Each panel is read where it lies, if it can be, or packed into scratch where it is used.
    Given(ArrayView2<'a, T>),
}

/// A filter for many calls: all panels, one after the other, [k][columns], padded with zeros.
pub struct Packed<T: Element> {
    /// The kernel's name.
    kernel: &'static str,
    shape: [usize; 2],
    /// Whether its rows are pairs of the filter's.
    in_pairs: bool,
    elements: Buffer<T::Sum>,
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

struct Order {
    /// Rows and columns.
    place: [Range<usize>; 2],
    products: Products,
    /// Steps over products that all rows of a tile take before any takes the next.
    groups: Vec<Vec<Step>>,
}

impl<T: Element> Packed<T> {
    /// On the calling thread and as many in all of the pool, or of rayon's current one. The sum is as long as the filter is
    /// high, as [`crate::Numerics::check`] sees to.
    pub fn new(
        kernel: &Kernel<T>,
        filter: ArrayView2<T>,
        numerics: &Numerics,
        pool: Option<&ThreadPool>,
        threads: usize,
    ) -> Result<Self, Error> {
        pack(kernel, &Sums::of(kernel, filter.nrows(), numerics), filter, pool, threads)
    }

    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Whether sums are taken up from it with that kernel and in that order.
    pub fn is_for(&self, kernel: &Kernel<T>, numerics: &Numerics) -> bool {
        // Without instructions for pairs there are none.
        let single = kernel.dots.is_none() && kernel.name == self.kernel;
        single || self.suits(kernel, &Sums::of(kernel, self.shape[0], numerics))
    }

    fn suits(&self, kernel: &Kernel<T>, sums: &Sums<T>) -> bool {
        self.kernel == kernel.name && self.in_pairs == sums.dots.is_some()
    }
}

impl<T: Element> Pointwise<'static, T> {
    /// With that filter; none if it is not [for](Packed::is_for) that kernel and order.
    pub fn packed(kernel: Kernel<T>, filter: Arc<Packed<T>>, numerics: &Numerics) -> Option<Self> {
        let [k, columns] = filter.shape;
        let sums = Sums::of(&kernel, k, numerics);
        let suits = filter.suits(&kernel, &sums);
        suits.then_some(Self { kernel, k, columns, filter: Filter::Packed(filter), sums, epilogue: None })
    }
}

impl<'a, T: Element> Pointwise<'a, T> {
    /// With that filter where it lies, for one call. The sum is as long as it is high.
    pub fn once(kernel: Kernel<T>, filter: ArrayView2<'a, T>, numerics: &Numerics) -> Self {
        let (k, columns) = filter.dim();
        let sums = Sums::of(&kernel, k, numerics);
        Self { kernel, k, columns, filter: Filter::Given(filter), sums, epilogue: None }
    }

    /// The same with steps behind it, for [`multiply`](Self::multiply).
    pub fn finished(self, epilogue: Epilogue<T>) -> Self {
        Self { epilogue: Some(epilogue).filter(|epilogue| !epilogue.is_empty()), ..self }
    }

    /// Packs all of the filter, on the calling thread and as many in all of the pool, or of rayon's current one.
    pub fn pack(&mut self, pool: Option<&ThreadPool>, threads: usize) -> Result<(), Error> {
        if let Filter::Given(filter) = self.filter {
            self.filter = Filter::Packed(Arc::new(pack(&self.kernel, &self.sums, filter, pool, threads)?));
        }
        Ok(())
    }

    /// For one call whose sums take so many products at a time, of tiles that have a row for each; none where the order or
    /// the instruction set does not allow that. Otherwise as [`once`](Self::once).
    pub fn in_pieces(
        kernel: Kernel<T>,
        filter: ArrayView2<'a, T>,
        numerics: &numerics::Pointwise,
        length: usize,
    ) -> Option<Self> {
        let (k, columns) = filter.dim();
        let products = numerics.products;
        let loops = kernel.product_across.get(products as usize)?;
        if loops.iter().any(|by_rows| by_rows.is_empty()) || !numerics.elsewhere.is_empty() {
            return None;
        }
        let (mut steps, mut added) = (Vec::new(), 0);
        add_steps(&numerics.sum, k, &mut added, 0, true, &mut steps);
        let groups = pieces(steps, k, length)?;
        let levels = groups.iter().flatten().map(Step::level).max().unwrap_or(0);
        let order = Order { place: [0..usize::MAX, 0..usize::MAX], products, groups };
        let sums = Sums { length: k, dots: None, orders: vec![order], levels };
        Some(Self { kernel, k, columns, filter: Filter::Given(filter), sums, epilogue: None })
    }

    /// Elements of scratch for the sums of so many rows, with all levels, and for so many products of the panels.
    pub fn scratch_of_pieces(&self, rows: usize, panels: usize, products: usize) -> usize {
        panels * ((self.sums.levels + 1) * self.level_elements(rows) + 2 * self.kernel.lanes * products)
    }

    /// Adds one piece's products to the sums of some panels, which are in the scratch or the output, and stay there for the
    /// next piece. Of the tile's rows, one for each product, these elements are the factors of successive rows of the
    /// result, from the output's row `first` on.
    ///
    /// # Safety
    /// The tile has been filled with the piece's products; the pieces before it have been taken, with the same scratch. No
    /// other thread uses these panels of these output rows meanwhile.
    #[expect(clippy::too_many_arguments, reason = "a piece, and where its sums are")]
    pub unsafe fn multiply_piece(
        &self,
        tile: &Tile<T::Sum>,
        elements: Range<usize>,
        piece: usize,
        products: Range<usize>,
        panels: Range<usize>,
        output: &Output<T>,
        first: usize,
        scratch: &mut [MaybeUninit<T::Sum>],
    ) {
        let Filter::Given(filter) = &self.filter else { unreachable!("made for one call") };
        let order = &self.sums.orders[0];
        let level = self.level_elements(elements.len());
        let panel_length = 2 * self.kernel.lanes * products.len();
        let (sums, packed) = scratch.split_at_mut(panels.len() * (self.sums.levels + 1) * level);
        let vectors = |panel: usize| (self.columns - panel * 2 * self.kernel.lanes).div_ceil(self.kernel.lanes).min(2);
        let in_place =
            |panel: usize| in_place(filter, panel * 2 * self.kernel.lanes, vectors(panel) * self.kernel.lanes);
        // Some rows for all panels, then the next: as memory likes it best.
        for start in products.clone().step_by(PACKED_AT_ONCE) {
            let rows = start..products.end.min(start + PACKED_AT_ONCE);
            let panels = panels.clone().zip(packed.chunks_exact_mut(panel_length));
            for (panel, packed) in panels.filter(|(panel, _)| in_place(*panel).is_none()) {
                let width = vectors(panel) * self.kernel.lanes;
                let to = &mut packed[(start - products.start) * width..][..rows.len() * width];
                pack_rows(&self.kernel, filter, rows.clone(), panel * 2 * self.kernel.lanes, to);
            }
        }
        let packed = packed.chunks_exact(panel_length);
        for ((panel, sums), packed) in panels.zip(sums.chunks_exact_mut((self.sums.levels + 1) * level)).zip(packed) {
            let vectors = vectors(panel);
            let columns = vectors * self.kernel.lanes;
            let (own, levels) = sums.split_at_mut(level);
            let (own, levels): (*mut T::Sum, *mut T::Sum) = (own.as_mut_ptr().cast(), levels.as_mut_ptr().cast());
            let (own, stride) = if self.sums_in_output(panel) {
                (output.at(first, panel * 2 * self.kernel.lanes).cast(), output.columns())
            } else {
                (own, columns)
            };
            let (of_panel, filter_stride) = match in_place(panel) {
                Some((start, stride)) => (start.wrapping_add(products.start * stride), stride),
                None => (packed.as_ptr().cast(), columns),
            };
            let product = self.kernel.product_across[order.products as usize][vectors - 1];
            for (place, part) in tile.parts(elements.clone()) {
                let (mut pixels, mut row) = (place, part.start - elements.start);
                let blocks = part.len().div_ceil(product.len());
                let (height, higher) = (part.len() / blocks, part.len() % blocks);
                for (height, count) in [(height + 1, higher), (height, blocks - higher)] {
                    if count == 0 {
                        continue;
                    }
                    let to =
                        |sums: *mut T::Sum, stride| (sums.wrapping_add(row * stride), stride * size_of::<T::Sum>());
                    let block = Block {
                        pixels,
                        panel_stride: tile.panel_stride(),
                        filter: of_panel,
                        filter_stride,
                        ahead: (std::ptr::null(), 0),
                        steps: &order.groups[piece],
                        overrun: false,
                        targets: [to(own, stride), to(levels, columns)],
                        narrow: false,
                        finish: &[],
                        numbers: std::ptr::null(),
                        level_stride: level,
                        k: products.len(),
                    };
                    // SAFETY: the kernel's existence proves its instruction set; the tile has the elements, the filter, or
                    // what is packed of it, the panel, the scratch all levels and perhaps the output the first, each of which
                    // this piece's steps, or those before, write before they read it.
                    unsafe { product[height - 1](&block, count) };
                    pixels = pixels.wrapping_add(height * count);
                    row += height * count;
                }
            }
        }
    }

    /// The sums of some panels, after the last piece, into the output's rows from `first` on, if they are not there already.
    ///
    /// # Safety
    /// As for [`multiply`](Self::multiply).
    pub unsafe fn finish_pieces(
        &self,
        rows: usize,
        panels: Range<usize>,
        output: &Output<T>,
        first: usize,
        scratch: &[MaybeUninit<T::Sum>],
    ) {
        let stride = (self.sums.levels + 1) * self.level_elements(rows);
        let sums = panels.zip(scratch.chunks_exact(stride));
        for (panel, sums) in sums.filter(|(panel, _)| !self.sums_in_output(*panel)) {
            let column = panel * 2 * self.kernel.lanes;
            let vectors = (self.columns - column).div_ceil(self.kernel.lanes).min(2);
            let narrow = Rows {
                from: sums.as_ptr().cast(),
                from_stride: vectors * self.kernel.lanes,
                to: output.at(first, column),
                to_stride: output.columns() as isize,
                rows,
                columns: (self.columns - column).min(2 * self.kernel.lanes),
            };
            // SAFETY: level 0 of each row is complete, and the output has the rows and columns.
            unsafe { self.kernel.narrow(&narrow) };
        }
    }

    /// Whether the sums of a panel lie in the output: whole vectors that are stored as they are, of so few pieces that copying
    /// them would take noticeably longer.
    fn sums_in_output(&self, panel: usize) -> bool {
        let columns = (self.columns - panel * 2 * self.kernel.lanes).min(2 * self.kernel.lanes);
        is_sum::<T>() && columns.is_multiple_of(self.kernel.lanes) && self.sums.orders[0].groups.len() <= FEW_PIECES
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
                let part = self.sums.orders[index + 1..].iter().fold(within(&place, order), without);
                if part.iter().all(|range| !range.is_empty()) {
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
        pack_panel(&self.kernel, &self.sums, filter, 0..self.k, column, room);
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

/// What a part of the result shares with an order's place.
fn within(part: &[Range<usize>; 2], order: &Order) -> [Range<usize>; 2] {
    [0, 1].map(|axis| part[axis].start.max(order.place[axis].start)..part[axis].end.min(order.place[axis].end))
}

/// The part but for rows at its ends that have the order throughout.
fn without([mut rows, columns]: [Range<usize>; 2], order: &Order) -> [Range<usize>; 2] {
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
    fn of(kernel: &Kernel<T>, k: usize, numerics: &Numerics) -> Self {
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
        let dots = kernel.dots.filter(|_| *subnormals == Subnormals::Flushed).filter(|_| {
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
    fn products(&self, rows: usize) -> usize {
        if self.dots.is_some() { 2 * rows } else { rows }
    }

    /// Where a packed panel has that product; an even one, or none behind it.
    fn row(&self, product: usize) -> usize {
        if self.dots.is_some() { product.div_ceil(2) } else { product }
    }
}

impl Step {
    /// Whether its products are pairs of an even one and the next, but for the last of all.
    fn pairs_up(&self, k: usize) -> bool {
        match self {
            Self::Chain { products, stride, .. } => {
                *stride == 1
                    && products.start.is_multiple_of(2)
                    && (products.end.is_multiple_of(2) || products.end == k)
            }
            Self::Fold { .. } => true,
        }
    }

    /// Makes a step over products that [pair up](Self::pairs_up) one over the pairs.
    fn count_pairs(&mut self) {
        if let Self::Chain { products, .. } = self {
            *products = products.start / 2..products.end.div_ceil(2);
        }
    }

    /// Behind its last product.
    fn end(&self) -> usize {
        if let Self::Chain { products, .. } = self { products.end } else { 0 }
    }

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

/// The steps dealt out to groups of about so many products (an even number). Chains that are longer go on in the next
/// group.
fn groups(steps: Vec<Step>, products: usize) -> Vec<Vec<Step>> {
    let most = products.saturating_add(products / 4);
    let (mut groups, mut group, mut room) = (Vec::new(), Vec::new(), most);
    for step in steps.into_iter().flat_map(|step| cut(step, products, most)) {
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

/// The step, as several of that length if it is a chain of more products than `most`. So are pieces of the chain from
/// the first product on in whole panels of the tile.
fn cut(step: Step, length: usize, most: usize) -> Vec<Step> {
    let Step::Chain { products, stride: 1, level, then } = step.clone() else { return vec![step] };
    if products.len() <= most {
        return vec![step];
    }
    let mut start = products.start;
    let pieces = std::iter::from_fn(|| {
        let rest = products.end - start;
        let piece = start..start + if rest <= most { rest } else { length };
        start = piece.end;
        (rest > 0).then_some(piece)
    });
    // What is added to a value must be complete first.
    let own = level + usize::from(then == Then::Add);
    let first = if then == Then::Add { Then::Store } else { then };
    let then_of = |piece: &Range<usize>| if piece.start == products.start { first } else { Then::Continue };
    let mut steps: Vec<_> =
        pieces.map(|piece| Step::Chain { then: then_of(&piece), products: piece, stride: 1, level: own }).collect();
    if then == Then::Add {
        steps.push(Step::Fold { level: own });
    }
    steps
}

/// The steps by pieces of so many products, counted from each piece's first one; none if one takes products far apart.
fn pieces(steps: Vec<Step>, k: usize, length: usize) -> Option<Vec<Vec<Step>>> {
    let mut pieces = vec![Vec::new(); k.div_ceil(length)];
    let (mut at, last) = (0, pieces.len() - 1);
    for step in steps {
        let Step::Chain { products, stride, level, then } = step else {
            pieces[at].push(step);
            continue;
        };
        if stride != 1 {
            return None;
        }
        let cuts = (products.start / length + 1..products.end.div_ceil(length)).map(|piece| piece * length);
        let ends: Vec<usize> = cuts.chain([products.end]).collect();
        // What is added to a value must be complete first.
        let apart = then == Then::Add && ends.len() > 1;
        let own = level + usize::from(apart);
        let mut start = products.start;
        for end in ends {
            at = (start / length).min(last);
            let then = match then {
                _ if start > products.start => Then::Continue,
                Then::Add if apart => Then::Store,
                then => then,
            };
            let products = start - at * length..end - at * length;
            pieces[at].push(Step::Chain { products, stride, level: own, then });
            start = end;
        }
        if apart {
            pieces[at].push(Step::Fold { level: own });
        }
    }
    Some(pieces)
}

/// Of more pieces, sums that lie close together are faster, by more than what copying them takes.
const FEW_PIECES: usize = 4;

/// Rows of a filter that are packed for all panels before the next ones: so they are read from end to end, as memory
/// likes it best.
const PACKED_AT_ONCE: usize = 8;

/// The filter in column panels, and zeros beyond the last column.
fn pack<T: Element>(
    kernel: &Kernel<T>,
    sums: &Sums<T>,
    filter: ArrayView2<T>,
    pool: Option<&ThreadPool>,
    threads: usize,
) -> Result<Packed<T>, Error> {
    let (k, columns) = filter.dim();
    let stored = columns.next_multiple_of(kernel.lanes);
    let mut elements = Buffer::<T::Sum>::new(sums.length.saturating_mul(stored))?;
    let panels = columns.div_ceil(2 * kernel.lanes);
    let tasks = threads.min(panels);
    // One column for each row of each panel: no two tasks have the same.
    let to = Output::new(elements.as_mut_slice(), 1);
    // Columns that are collected lie along the memory's lines.
    let at_once = if filter.strides()[1] == 1 { PACKED_AT_ONCE } else { usize::MAX };
    team::for_each(pool, threads, tasks, &|task| {
        for start in (0..k).step_by(at_once) {
            let rows = start..k.min(start.saturating_add(at_once));
            let [first, end] = [rows.start, rows.end].map(|row| sums.row(row));
            for panel in task * panels / tasks..(task + 1) * panels / tasks {
                let column = panel * 2 * kernel.lanes;
                let width = (stored - column).min(2 * kernel.lanes);
                let place = to.at(column * sums.length + first * width, 0);
                // SAFETY: these rows of the panel, which only this task writes.
                let part = unsafe { std::slice::from_raw_parts_mut(place.cast(), (end - first) * width) };
                pack_panel(kernel, sums, &filter, rows.clone(), column, part);
            }
        }
        Ok(())
    })?;
    Ok(Packed { kernel: kernel.name, shape: [k, columns], in_pairs: sums.dots.is_some(), elements })
}

/// Some rows of the panel that begins with that column, as the sums take them up: from an even row on, if in pairs.
fn pack_panel<T: Element>(
    kernel: &Kernel<T>,
    sums: &Sums<T>,
    filter: &ArrayView2<T>,
    rows: Range<usize>,
    column: usize,
    to: &mut [MaybeUninit<T::Sum>],
) {
    let Some(dots) = sums.dots else { return pack_rows(kernel, filter, rows, column, to) };
    if rows.is_empty() {
        return;
    }
    let width = to.len() / rows.len().div_ceil(2);
    let mut widened = [const { MaybeUninit::uninit() }; PACKED_AT_ONCE * WIDEST];
    for (start, to) in rows.clone().step_by(PACKED_AT_ONCE).zip(to.chunks_mut(PACKED_AT_ONCE / 2 * width)) {
        let rows = start..rows.end.min(start + PACKED_AT_ONCE);
        let widened = &mut widened[..rows.len() * width];
        pack_rows(kernel, filter, rows.clone(), column, widened);
        let pairs = Rows {
            from: widened.as_ptr().cast(),
            from_stride: width,
            to: to.as_mut_ptr().cast(),
            to_stride: width as isize,
            rows: rows.len(),
            columns: width,
        };
        // SAFETY: the kernel's existence proves its instruction set; the rows have just been written, and there is room for
        // a pair of each two of them.
        unsafe { (dots.pair_rows)(&pairs) };
    }
}

/// Columns of the widest panel that there is.
const WIDEST: usize = 32;

/// Where the panel of so many columns from that one on begins, and the elements from one of its rows to the next, if it has
/// them all and they are what sums are made of. It is read there: the few rows of a tile do not make up for packing it.
fn in_place<T: Element>(filter: &ArrayView2<T>, column: usize, width: usize) -> Option<(*const T::Sum, usize)> {
    let [row_stride, column_stride] = *filter.strides() else { unreachable!("two dimensions") };
    let whole = is_sum::<T>() && column + width <= filter.ncols() && column_stride == 1;
    let stride = usize::try_from(row_stride).ok()?;
    whole.then(|| (filter.as_ptr().wrapping_add(column).cast(), stride))
}

/// Some rows of the panel that begins with that column.
fn pack_rows<T: Element>(
    kernel: &Kernel<T>,
    filter: &ArrayView2<T>,
    rows: Range<usize>,
    column: usize,
    to: &mut [MaybeUninit<T::Sum>],
) {
    assert!(rows.end <= filter.nrows() && column <= filter.ncols());
    if rows.is_empty() {
        return;
    }
    let stored = to.len() / rows.len();
    let width = stored.min(filter.ncols() - column);
    let [row_stride, column_stride] = *filter.strides() else { unreachable!("two dimensions") };
    let place = |row: usize, column: usize| row as isize * row_stride + column as isize * column_stride;
    let from = filter.as_ptr().wrapping_offset(place(rows.start, column));
    if width == stored && column_stride == 1 {
        let pack = Pack { from, row_stride, k: rows.len(), to: to.as_mut_ptr().cast() };
        // SAFETY: the kernel's existence proves its instruction set; the filter has the columns, the panel all of `to`.
        unsafe { kernel.pack[stored / kernel.lanes - 1](&pack) };
        return;
    }
    if row_stride == 1 {
        // Its columns are rows in memory.
        let (from_stride, to_stride) = (column_stride as usize, stored as isize);
        let to = to.as_mut_ptr().cast();
        // SAFETY: the filter has the columns, the panel all of `to`, which is whole vectors.
        unsafe { kernel.transpose(&Rows { from, from_stride, to, to_stride, rows: width, columns: rows.len() }) };
        return;
    }
    for (row, to) in rows.zip(to.chunks_exact_mut(stored)) {
        for (i, to) in to.iter_mut().enumerate() {
            to.write(if i < width { filter[(row, column + i)].widen() } else { T::Sum::ZERO });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_go_on_with_what_was_begun() {
        let (mut steps, sum) = (Vec::new(), Sum::blocks(&[3, 6]));
        add_steps(&sum, 9, &mut 0, 0, true, &mut steps);
        let chain = |products, level, then| Step::Chain { products, stride: 1, level, then };
        let expected = vec![
            vec![chain(0..3, 0, Then::Store), chain(3..4, 1, Then::Store)],
            vec![chain(0..4, 1, Then::Continue)],
            vec![chain(0..1, 1, Then::Continue), Step::Fold { level: 1 }],
        ];
        assert_eq!(pieces(steps, 9, 4), Some(expected));
    }

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
