//! A tile of depthwise rows, one per output pixel: what the depthwise half leaves for the pointwise product.
//!
//! Layout: [panel][row][`PANEL_BYTES` and a pad]. So successive rows have a distance that the product's inner loop knows
//! when it is compiled, however long they are.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use bytemuck::Pod;

use super::kernel::PairFn;
use super::{Kernel, Rows, Target};
use crate::element::{Element, Number};

/// Long enough that a change of panels costs nothing, short enough that few channels waste no address space. Divisible
/// by two vectors, which therefore never straddle panels.
const PANEL_BYTES: usize = 1024;
/// One more cache line, so that rows do not all fall into the same few sets of the first-level cache.
const PAD_BYTES: usize = 64;

/// Elements of a row in one panel.
pub const fn panel<T>() -> usize {
    PANEL_BYTES / size_of::<T>()
}

/// Elements from one row to the next.
pub const fn row_stride<T>() -> usize {
    (PANEL_BYTES + PAD_BYTES) / size_of::<T>()
}

/// Elements of scratch that one row of `k` takes.
pub const fn row_elements<T>(k: usize) -> usize {
    k.div_ceil(panel::<T>()) * row_stride::<T>()
}

/// Some rows of depthwise results; `fill` before use.
pub struct Tile<'a, T> {
    start: *mut T,
    rows: usize,
    following: usize,
    k: usize,
    in_pairs: bool,
    _scratch: PhantomData<&'a mut [MaybeUninit<T>]>,
}

impl<'a, T: Pod> Tile<'a, T> {
    /// With the rows that follow, in a scratch of at least `(rows + following) * row_elements(k)`.
    pub fn new(scratch: &'a mut [MaybeUninit<T>], rows: usize, following: usize, k: usize) -> Self {
        assert!((rows + following) * row_elements::<T>(k) <= scratch.len());
        Self { start: scratch.as_mut_ptr().cast(), rows, following, k, in_pairs: false, _scratch: PhantomData }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Those that follow included.
    pub fn all_rows(&self) -> usize {
        self.rows + self.following
    }

    /// Elements from one panel to the next.
    pub fn panel_stride(&self) -> usize {
        self.all_rows() * row_stride::<T>()
    }

    /// All rows.
    pub fn target(&mut self) -> Target<T> {
        let next = row_stride::<T>() as isize;
        Target { start: self.start, next, panel_stride: self.panel_stride() }
    }

    /// Where some rows start in the first panel.
    pub fn rows_from(&self, first: usize, count: usize) -> *mut T {
        assert!(first + count <= self.all_rows());
        // SAFETY: inside the scratch.
        unsafe { self.start.add(first * row_stride::<T>()) }
    }

    /// Says whether what it is filled with are pairs of the storage type.
    pub fn set_in_pairs(&mut self, in_pairs: bool) {
        self.in_pairs = in_pairs;
    }

    /// Makes pairs of neighbours in each row, which take the place of the first half, where there are none yet.
    ///
    /// # Safety
    /// The tile has been filled, and such pairs are made by a function for this processor.
    pub unsafe fn pair(&mut self, pair: PairFn<T>) {
        if self.in_pairs {
            return;
        }
        self.in_pairs = true;
        for (first, from, columns) in self.pieces(0) {
            let to = self.start.wrapping_add(first / 2 / panel::<T>() * self.panel_stride() + first / 2 % panel::<T>());
            let (from_stride, to_stride) = (row_stride::<T>(), row_stride::<T>() as isize);
            let rows = Rows { from, from_stride, to, to_stride, rows: self.all_rows(), columns };
            // SAFETY: the rows are there, of whole vectors, and what is written over was read before.
            unsafe { pair(&rows) };
        }
    }

    /// Writes zeros from that row on.
    pub fn clear(&mut self, row: usize) {
        assert!(row <= self.all_rows());
        let rows = self.all_rows() - row;
        if rows == 0 {
            // Not free as a fill of no bytes: 7 % of a pointwise filter's gradient of 112x112x32.
            return;
        }
        let (start, panel_stride) = (self.rows_from(row, rows), self.panel_stride());
        for panel in 0..self.k.div_ceil(panel::<T>()) {
            // SAFETY: the rows' part in this panel, all bytes of which may be zero.
            unsafe { start.add(panel * panel_stride).write_bytes(0, rows * row_stride::<T>()) };
        }
    }

    /// Writes as many rows of these numbers as there are, zeros behind the last.
    pub fn set_rows<S: Element<Sum = T>>(&mut self, kernel: &Kernel<S>, values: &[S]) {
        let rows = self.all_rows().min(values.len() / self.k.max(1));
        // SAFETY: the values have the rows.
        unsafe { self.copy(kernel, 0..rows, values.as_ptr(), self.k as isize) };
        self.clear(rows);
    }

    /// Writes these rows: the first one's numbers from there on, each other one's so many elements further on.
    ///
    /// # Safety
    /// They are there.
    pub unsafe fn copy<S: Element<Sum = T>>(
        &mut self,
        kernel: &Kernel<S>,
        rows: Range<usize>,
        from: *const S,
        apart: isize,
    ) {
        self.in_pairs = false;
        let Some(last) = rows.len().checked_sub(1) else { return };
        // Numbers are read forwards; the last row's come first in an image that is turned round.
        let to_stride = row_stride::<T>() as isize;
        let (row, from, to_stride) = match apart {
            0.. => (rows.start, from, to_stride),
            _ => (rows.start + last, from.wrapping_offset(last as isize * apart), -to_stride),
        };
        assert!(rows.end <= self.all_rows());
        for (first, to, columns) in self.pieces(row) {
            let (from, from_stride) = (from.wrapping_add(first), apart.unsigned_abs());
            let rows = Rows { from, from_stride, to: to.cast_mut(), to_stride, rows: rows.len(), columns };
            // SAFETY: the caller's promise; this panel has the rows, of whole vectors.
            unsafe { kernel.widen(&rows) };
        }
    }

    /// Writes elements `first..first + count` of some rows, from a whole vector's on: element (column, row) of `from`, a place
    /// and the elements from one of its rows to the next.
    ///
    /// # Safety
    /// `from` has `count` rows of that stride, with an element for each of these rows.
    pub unsafe fn set_columns(
        &mut self,
        kernel: &Kernel<T>,
        rows: Range<usize>,
        first: usize,
        count: usize,
        (from, from_stride): (*const T, usize),
    ) where
        T: Number,
    {
        self.in_pairs = false;
        let (start, panel_stride) = (self.rows_from(rows.start, rows.len()), self.panel_stride());
        assert!(first + count <= self.k && first.is_multiple_of(kernel.lanes));
        let mut done = 0;
        while done < count {
            let at = first + done;
            let length = (panel::<T>() - at % panel::<T>()).min(count - done);
            let to = start.wrapping_add(at / panel::<T>() * panel_stride + at % panel::<T>());
            let (from, to_stride) = (from.wrapping_add(done * from_stride), row_stride::<T>() as isize);
            let columns = Rows { from, from_stride, to, to_stride, rows: length, columns: rows.len() };
            // SAFETY: the caller's promise; the elements lie in one panel of the tile's rows, which is whole vectors.
            unsafe { kernel.transpose(&columns) };
            done += length;
        }
    }

    /// Where these elements of the first row lie, panel by panel, and which lie there.
    pub fn parts(&self, elements: Range<usize>) -> impl Iterator<Item = (*const T, Range<usize>)> {
        assert!(elements.end <= self.k);
        self.pieces(0).filter_map(move |(first, place, length)| {
            let part = first.max(elements.start)..(first + length).min(elements.end);
            (!part.is_empty()).then(|| (place.wrapping_add(part.start - first), part))
        })
    }

    /// Hands the row out piece by piece: its first element's number, where it lies, how many lie there.
    pub fn pieces(&self, row: usize) -> impl Iterator<Item = (usize, *const T, usize)> {
        let (start, panel_stride, k) = (self.rows_from(row, 1), self.panel_stride(), self.k);
        (0..k).step_by(panel::<T>()).map(move |first| {
            let place = start.wrapping_add(first / panel::<T>() * panel_stride);
            (first, place.cast_const(), panel::<T>().min(k - first))
        })
    }
}
