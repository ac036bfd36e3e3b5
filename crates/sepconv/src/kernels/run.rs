//! Runs of output pixels, and what the loops over their taps are told of them.

use std::ops::Range;

use super::epilogue;
use crate::element::Element;

/// Successive output pixels, for the depthwise loop. They share values or have the same taps inside the image.
pub struct Run<'a, T: Element> {
    /// For each pixel, or where they share values for the first alone, where tap (0, 0) reads channel 0. A tap inside the image can
    /// be read at its place from there; other places are never formed into a reference or read.
    pub pixels: &'a [*const T],
    /// How many pixels there are.
    pub count: usize,
    /// Taps down and across.
    pub kernel: [usize; 2],
    /// Those of them that lie inside the image; across, of pixels that do not share values.
    pub inside: [Range<usize>; 2],
    /// Those that are added up, in row-major order; all that lie inside, and others as if there were zeros. Across, of
    /// pixels that do not share values.
    pub counted: [Range<usize>; 2],
    /// How many taps further on than the pixel's before each pixel's taps lie, if they share values; otherwise 0.
    pub shared: usize,
    /// For pixels that do: which columns of taps lie inside the image, counted from the first pixel's first on, and whether
    /// others are added up.
    pub across: Range<isize>,
    pub padding: bool,
    /// Elements from a pixel's results to those of the pixel one row of taps below, at stride 2 two, with which it
    /// shares values too, if not 0. Only for pixels that share values, with as many rows of taps as columns and equal strides,
    /// sums rounded once and channels that serve one result each, where there are loops for [two lines](super::two_lines). The
    /// column of taps in the middle is inside for each pixel; of rows that are not counted the upper may lack the first ones,
    /// and the lower the last.
    /// Rows of taps, inside and counted alike, are numbered from the upper pixel's first to the lower one's last.
    pub below: isize,
    /// In another order, this one, for products that are separate or paired, and rounded each or not.
    pub entries: &'a [Entry],
    pub separate: bool,
    pub paired: bool,
    pub each: bool,
    /// Elements from one tap to the next, down and across.
    pub steps: [isize; 2],
    /// Packed: [taps down][taps across][`filter_stride`], whole vectors of it readable.
    pub filter: *const T::Sum,
    pub filter_stride: usize,
    /// Depthwise results of a pixel.
    pub k: usize,
    /// Of a pixel; each enters `k / channels` results.
    pub channels: usize,
    /// For a channel multiplier above 1: where each vector of results has its pixel values. Otherwise not used.
    pub spread: &'a [Spread],
    /// Of the first pixel.
    pub target: Target<T::Sum>,
    /// Whether sums are stored as pairs of the storage type, by a vector that does that; then there are no steps.
    pub narrow: bool,
    /// What is to be done with the sums, and the first channel's numbers for that, as in [`Finish`](super::Finish).
    pub finish: &'a [epilogue::Step<T::Sum>],
    pub numbers: *const T::Sum,
}

impl<T: Element> Run<'_, T> {
    /// Where tap (0, 0) of a pixel reads channel 0.
    #[inline(always)]
    pub(super) fn origin(&self, pixel: usize) -> *const T {
        match self.shared {
            0 => self.pixels[pixel],
            shared => self.pixels[0].wrapping_offset(self.place(0, pixel * shared)),
        }
    }

    /// Which columns of taps of pixels that share values lie inside the image, counted from this pixel's first.
    #[inline(always)]
    pub(super) fn columns(&self, pixel: usize) -> Range<isize> {
        let first = (pixel * self.shared) as isize;
        self.across.start - first..self.across.end - first
    }

    /// Elements from where tap (0, 0) reads to where another one does.
    #[inline(always)]
    pub(super) fn place(&self, row: usize, column: usize) -> isize {
        (row as isize).wrapping_mul(self.steps[0]).wrapping_add((column as isize).wrapping_mul(self.steps[1]))
    }
}

/// Where the depthwise sums of pixels go: each one's are in panels, as in a [tile](super::tile::Tile), and writable in
/// whole vectors.
#[derive(Clone, Copy)]
pub struct Target<T> {
    pub start: *mut T,
    /// Elements from one pixel to the next.
    pub next: isize,
    /// Elements from one panel to the next.
    pub panel_stride: usize,
}

impl<T> Target<T> {
    /// From a later pixel on.
    pub fn skip(self, pixels: usize) -> Self {
        Self { start: self.start.wrapping_offset(pixels as isize * self.next), ..self }
    }
}

/// One step of a depthwise sum.
#[derive(Clone, Copy)]
pub enum Entry {
    /// Adds a tap's product to the chain.
    Tap {
        /// From where tap (0, 0) reads to where this one does; it reads zeros if it is not inside the image.
        place: isize,
        inside: bool,
        /// From the filter's first weight to the tap's.
        weights: usize,
    },
    /// Adds the product of zeros and the next channels of a tap, which lies inside the image; behind the last channel, the
    /// first of another place, if that is inside.
    Channel { place: isize, behind: Option<isize> },
    /// Makes the chain the sum so far, or adds it to that; the next chain starts at +0.
    End { starts: bool },
}

/// Where one vector of depthwise results has its pixel values if each channel serves several.
#[derive(Clone)]
pub struct Spread {
    /// The first channel read, of whole vectors where there are as many.
    pub channel: usize,
    /// Each lane's channel, counted from the first.
    pub lanes: [i32; 16],
}
