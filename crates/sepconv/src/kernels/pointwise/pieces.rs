//! Products that are taken piece by piece: between them the sums stay where they are, in scratch or in the output.

use std::mem::MaybeUninit;
use std::ops::Range;

use ndarray::ArrayView2;

use super::packed::{PACKED_AT_ONCE, in_place, pack_rows};
use super::sum_steps::{add_steps, ends, pieces};
use super::sums::{Order, Sums};
use super::{Filter, Pointwise};
use crate::element::{Element, is_sum};
use crate::kernels::block::Step;
use crate::kernels::memory::Output;
use crate::kernels::tile::Tile;
use crate::kernels::{Block, Kernel, Rows};
use crate::numerics;

/// Of more pieces, sums that lie close together are faster, by more than what copying them takes.
const FEW_PIECES: usize = 4;

impl<'a, T: Element> Pointwise<'a, T> {
    /// For one call whose sums take so many products at a time, at `most`, of tiles that have a row for each, and the products of
    /// these pieces; none where the order or the instruction set does not allow that. Otherwise as [`once`](Self::once). Pieces of
    /// one chain are multiples of the first of these units that will do.
    pub fn in_pieces(
        kernel: &'static Kernel<T>,
        filter: ArrayView2<'a, T>,
        numerics: &numerics::Pointwise,
        most: usize,
        units: [usize; 2],
    ) -> Option<(Self, Vec<Range<usize>>)> {
        let (k, columns) = filter.dim();
        let products = numerics.products;
        let loops = kernel.product_across.get(products as usize)?;
        if loops.iter().any(|by_rows| by_rows.is_empty()) || !numerics.elsewhere.is_empty() {
            return None;
        }
        let (mut steps, mut added) = (Vec::new(), 0);
        add_steps(&numerics.sum, k, &mut added, 0, true, &mut steps);
        let ends = ends(&steps, most, units);
        let groups = pieces(steps, &ends)?;
        let levels = groups.iter().flatten().map(Step::level).max().unwrap_or(0);
        let order = Order { place: [0..usize::MAX, 0..usize::MAX], products, groups };
        let sums = Sums { length: k, dots: None, orders: vec![order], levels };
        let products = [0].iter().chain(&ends).zip(&ends).map(|(&start, &end)| start..end).collect();
        Some((Self { kernel, k, columns, filter: Filter::Given(filter), sums, epilogue: None }, products))
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
                pack_rows(self.kernel, filter, rows.clone(), panel * 2 * self.kernel.lanes, to);
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
}
