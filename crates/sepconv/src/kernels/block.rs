//! Rows of a tile for the product, and in which order it adds up.

use std::ops::Range;

use super::{epilogue, tile};

/// Rows of a tile and one column panel of the pointwise filter, for the product.
#[derive(Clone, Copy)]
pub struct Block<'a, T> {
    /// The first row in a [tile](tile::Tile).
    pub pixels: *const T,
    /// Elements from one panel of the tile to the next.
    pub panel_stride: usize,
    /// The column panel, [k][columns].
    pub filter: *const T,
    /// Elements from one row of it to the next.
    pub filter_stride: usize,
    /// What is wanted next, and the bytes from one place to the next, which are asked for meanwhile.
    pub ahead: (*const u8, isize),
    /// In which order the products are added up; each level is written before it is read.
    pub steps: &'a [Step],
    /// Whether [products in pairs](crate::numerics::Products) overrun.
    pub overrun: bool,
    /// Where the first row's sums of level 0 go, and those of level 1: rows of whole vectors, so many bytes apart.
    pub targets: [(*mut T, usize); 2],
    /// Whether level 0 is stored rounded to the storage type, by a vector that does that: then a single step makes it.
    pub narrow: bool,
    /// What is to be done with a sum where the last of the steps makes it: none where sums are rounded to be stored. And
    /// the first column's numbers for that, as in [`Finish`](super::Finish).
    pub finish: &'a [epilogue::Step<T>],
    pub numbers: *const T,
    /// Elements from level 1 to level 2, and so on.
    pub level_stride: usize,
    /// Products of a whole sum.
    pub k: usize,
}

impl<T> Block<'_, T> {
    /// Without the first rows.
    pub(super) fn skip_rows(self, rows: usize) -> Self {
        let targets = self.targets.map(|(start, stride)| (start.wrapping_byte_add(rows * stride), stride));
        Self { pixels: self.pixels.wrapping_add(rows * tile::row_stride::<T>()), targets, ..self }
    }

    /// Where the first row's sums of a level are, and how far the next row's.
    #[inline(always)]
    pub(super) fn target(&self, level: usize) -> (*mut T, usize) {
        let (start, stride) = self.targets[level.min(1)];
        (start.wrapping_add(level.saturating_sub(1) * self.level_stride), stride)
    }
}

/// One step of a sum over k. Level 0 is the result; a nested sum is built on the next level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A chain over every `stride`-th of these products.
    Chain { products: Range<usize>, stride: usize, level: usize, then: Then },
    /// Adds this level's value to the one below.
    Fold { level: usize },
}

/// What a chain has to do with its level's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The chain starts at +0 and becomes the value.
    Store,
    /// The chain starts at +0 and is added to the value.
    Add,
    /// The chain starts at +0, is added to +0 and becomes the value: never -0, which only a flushed sum can be.
    AddToZero,
    /// The chain starts at the value.
    Continue,
}
