//! Pointwise filters in column panels, as the product reads them, with zeros beyond the last column.

use std::mem::MaybeUninit;
use std::ops::Range;

use ndarray::ArrayView2;
use rayon::ThreadPool;

use super::sums::Sums;
use crate::element::{Element, is_sum};
use crate::error::Error;
use crate::kernels::memory::{Buffer, Output};
use crate::kernels::{Kernel, Pack, Rows};
use crate::numerics::Numerics;
use crate::team;

/// A filter for many calls: all panels, one after the other, [k][columns], padded with zeros.
pub struct Packed<T: Element> {
    /// The kernel's name.
    kernel: &'static str,
    shape: [usize; 2],
    /// Whether its rows are pairs of the filter's.
    in_pairs: bool,
    pub(super) elements: Buffer<T::Sum>,
}

impl<T: Element> Packed<T> {
    /// On the calling thread and as many in all of the pool, or of rayon's current one. The sum is as long as the filter is
    /// high, as [`crate::Numerics::check`] sees to.
    pub fn new(
        kernel: &'static Kernel<T>,
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
    pub fn is_for(&self, kernel: &'static Kernel<T>, numerics: &Numerics) -> bool {
        // Without instructions for pairs there are none.
        let single = kernel.dots.is_none() && kernel.name == self.kernel;
        numerics.check(self.shape[0]).is_ok()
            && (single || self.suits(kernel, &Sums::of(kernel, self.shape[0], numerics)))
    }

    pub(super) fn suits(&self, kernel: &Kernel<T>, sums: &Sums<T>) -> bool {
        self.kernel == kernel.name && self.in_pairs == sums.dots.is_some()
    }
}

/// Rows of a filter that are packed for all panels before the next ones: so they are read from end to end, as memory
/// likes it best.
pub(super) const PACKED_AT_ONCE: usize = 8;

/// The filter in column panels, and zeros beyond the last column.
pub(super) fn pack<T: Element>(
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
    let to = Output::new(elements.as_mut_slice(), [sums.length * stored, 1]);
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
pub(super) fn pack_panel<T: Element>(
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
pub(super) fn in_place<T: Element>(
    filter: &ArrayView2<T>,
    column: usize,
    width: usize,
) -> Option<(*const T::Sum, usize)> {
    let [row_stride, column_stride] = *filter.strides() else { unreachable!("two dimensions") };
    let whole = is_sum::<T>() && column + width <= filter.ncols() && column_stride == 1;
    let stride = usize::try_from(row_stride).ok()?;
    whole.then(|| (filter.as_ptr().wrapping_add(column).cast(), stride))
}

/// Some rows of the panel that begins with that column.
pub(super) fn pack_rows<T: Element>(
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
