//! The inner loops of an element type in an instruction set, as functions to be called.

use super::sharing::{IN_TWO_LINES, SHARED};
use super::{Block, Correlation, Finish, Pack, Rows, Run};
use crate::element::Element;
use crate::numerics::Products;

/// The inner loops of one element type and instruction set. A value exists only where the processor has the instruction
/// set; what else the functions ask for is said by their arguments' types.
pub struct Kernel<T: Element> {
    /// Such as `avx512-f32`.
    pub name: &'static str,
    /// Elements of a vector of sums.
    pub lanes: usize,
    /// Products of a group: [`Vector::GROUP`](super::vector::Vector::GROUP).
    pub group: usize,
    /// Products for each cache line that is asked for: [`Vector::UNROLLED`](super::vector::Vector::UNROLLED).
    pub unrolled: usize,
    /// Taps in rows, the sum rounded once: by fused or separate products.
    pub(super) depthwise: [Depthwises<T>; 2],
    /// Rounded after each separate product.
    pub(super) depthwise_each: Depthwises<T>,
    /// Whatever the order, products and roundings.
    pub(super) depthwise_listed: DepthwiseFn<T>,
    /// By [`Products`], vectors of a column panel (1, 2), rows (from 1).
    pub(super) product: [[ByRows<T::Sum>; 2]; 4],
    /// Whether that of fused products takes the steps of [`Block::finish`]; the others must have none.
    pub(super) finishes: bool,
    /// By fused or separate products, vectors of a column panel, rows: of tiles that have a row for each product. None where
    /// a call may have to begin again (see `neon`), as it must find the sums that it goes on with.
    pub(super) product_across: [[ByRows<T::Sum>; 2]; 2],
    /// Where the processor has instructions for pairs of this element type.
    pub(super) dots: Option<Dots<T>>,
    /// By vectors of a column panel (1, 2).
    pub(super) pack: [PackFn<T>; 2],
    pub(super) widen: WidenFn<T>,
    pub(super) narrow: NarrowFn<T>,
    pub(super) transpose: WidenFn<T>,
    pub(super) finish: FinishFn<T>,
    /// By fused or separate products.
    pub(super) correlate: [CorrelateFn<T>; 2],
}

/// Loops that take [products in pairs](Products::Paired), a pair in the place of a product: of two numbers of the storage
/// type, the first in the lower half of a sum's bits. They flush subnormal numbers, whatever state the thread is in.
pub(super) struct Dots<T: Element> {
    /// Taps in rows, the sum rounded once, of a filter whose weights have +0 as partners.
    pub(super) depthwise: Depthwises<T>,
    /// Makes pairs of numbers and +0.
    pub(super) widen: WidenFn<T>,
    /// By vectors of a column panel (1, 2), rows (from 1).
    pub(super) product: [ByRows<T::Sum>; 2],
    /// Makes pairs of neighbours in a row of such numbers, widened; may write over what it read. The last one's partner, if it
    /// has none, is +0.
    pub(super) pair_columns: PairFn<T::Sum>,
    /// Makes pairs of neighbours in a column, the same in all else, of columns that are whole vectors.
    pub(super) pair_rows: PairFn<T::Sum>,
    pub(super) narrow: NarrowFn<T>,
}

pub(super) type DepthwiseFn<T> = unsafe fn(&Run<T>);

/// Loops over taps in rows.
pub(super) struct Depthwises<T: Element> {
    /// Of pixels that share no values; spread.
    pub alone: [DepthwiseFn<T>; 2],
    /// By shape (see [`SHARED`]), how many pixels share values (see [`sharing`](super::sharing::sharing)), spread.
    pub shared: Option<[[[DepthwiseFn<T>; 2]; 2]; SHARED.len()]>,
    /// Of pixels that share them with those of another line too (see [`Run::below`]), by shape and how many do in a line.
    pub two_lines: Option<[[DepthwiseFn<T>; 2]; IN_TWO_LINES]>,
}

/// Multiplies so many successive blocks, and gives what is to be asked for next.
type ProductFn<T> = unsafe fn(&Block<T>, usize) -> *const u8;
pub(super) type ByRows<T> = &'static [ProductFn<T>];
type PackFn<T> = unsafe fn(&Pack<T>);
pub(super) type WidenFn<T> = unsafe fn(&Rows<T, <T as Element>::Sum>);
type NarrowFn<T> = unsafe fn(&Rows<<T as Element>::Sum, T>);
/// Of so many rows and columns before.
pub(super) type PairFn<T> = unsafe fn(&Rows<T, T>);
type FinishFn<T> = unsafe fn(&Finish<<T as Element>::Sum>);
type CorrelateFn<T> = unsafe fn(&Correlation<T>);

impl<T: Element> Kernel<T> {
    /// The most rows of a register tile of two vectors.
    pub fn rows(&self) -> usize {
        self.product[0][1].len()
    }

    /// Makes sums of numbers as they are stored.
    ///
    /// # Safety
    /// They are there, and there is room for the results elsewhere, of whole vectors.
    pub unsafe fn widen(&self, stored: &Rows<T, T::Sum>) {
        // SAFETY: the caller's promise; the kernel's existence proves its instruction set.
        unsafe { (self.widen)(stored) }
    }

    /// Makes columns of sums of rows of numbers as they are stored: the result has a row for each column.
    ///
    /// # Safety
    /// They are there, and there is room for the results elsewhere, of whole vectors, behind whose last numbers come zeros.
    pub unsafe fn transpose(&self, stored: &Rows<T, T::Sum>) {
        // SAFETY: the caller's promise; the kernel's existence proves its instruction set.
        unsafe { (self.transpose)(stored) }
    }

    /// Rounds sums to the storage type.
    ///
    /// # Safety
    /// They are there, and there is room for the results elsewhere.
    pub unsafe fn narrow(&self, sums: &Rows<T::Sum, T>) {
        // SAFETY: the caller's promise; the kernel's existence proves its instruction set.
        unsafe { (self.narrow)(sums) }
    }

    /// Adds to sums of the depthwise filter's gradient; products are fused or separate.
    ///
    /// # Safety
    /// What [`Correlation`] says of its pointers holds.
    pub unsafe fn correlate(&self, products: Products, pixels: &Correlation<T>) {
        // SAFETY: the caller's promise; the kernel's existence proves its instruction set.
        unsafe { (self.correlate[usize::from(products == Products::Separate)])(pixels) }
    }
}
