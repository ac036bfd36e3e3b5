//! Rows that are copied or converted.

use crate::element::Element;

/// Rows of a full column panel of a pointwise filter whose columns are adjacent, to be copied.
pub struct Pack<T: Element> {
    pub from: *const T,
    pub row_stride: isize,
    pub k: usize,
    /// [k][columns].
    pub to: *mut T::Sum,
}

/// Rows to be converted.
pub struct Rows<From, To> {
    pub from: *const From,
    pub from_stride: usize,
    pub to: *mut To,
    pub to_stride: isize,
    pub rows: usize,
    pub columns: usize,
}
