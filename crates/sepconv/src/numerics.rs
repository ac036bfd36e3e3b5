//! In which order every sum is taken and where it is rounded; and the text form of that.
//!
//! An output element is fully determined by [geometry](crate::geometry) and these values: never by thread count, tile
//! size, instruction set, batch size or alignment. The same text is the op's attribute in a graph, the argument in
//! Python, the option of the command line and the field in golden vectors.
//!
//! # Text form, version 1
//! ```text
//! numerics   = "v1" depthwise pointwise "subnormals(" ( "kept" | "flushed" ) ")"
//! depthwise  = "depthwise(" products "," taps [ "," ( "columns" | "borders" | "channels" | "rows" count ) ] [ "," "each" ] ")"
//! taps       = "inside" | "all" | "beside" | "above"
//! pointwise  = "pointwise(" products "," sum { "," elsewhere } ")"
//! products   = "fused" | "separate" | "paired" | "overrun"
//! elsewhere  = "rows" range "columns" range products sum
//! range      = number ".." number
//! sum        = "chain" | terms
//! terms      = term { "+" term }
//! term       = part [ "x" count ]
//! part       = number | "(" terms ")" | "lanes(" count { count } "," count "," number ")"
//! ```
//! Blanks between words do not matter. `fused` products are added with one rounding, `separate` ones are rounded before
//! they are added; `paired` ones are fused too, but enter a chain in pairs, the second of each first, as the dot
//! products of AVX-512 BF16 take them; where there is no second one, as for every depthwise tap and at the end of a
//! chain of odd length, it is a product of zeros (which makes -0 a +0). `overrun` ones are paired, but where there is
//! no second one, what lies behind the first in memory is multiplied by +0: in a pointwise sum the next channel or the
//! next row's first one (zero behind the last row), so that infinities and NaNs there make a NaN here. In a depthwise
//! sum that overruns, a row of the kernel is paired, and goes on to the right, to a whole number of pairs (beyond 32
//! products, of 32s), where zeros lie right of all that any output reads in its row, or the next row's left end; with
//! `columns` all taps in column-major order are one such row, zeros right of it; with `channels` each tap inside the
//! image (no others count, whatever else is said) is paired with what lies behind it in memory, zero in the last
//! column, or if the kernel is a single tap and the image has no other pixels than are read in rows, in the image's
//! last pixel. With `rows 4` each four rows of outputs have their own copy of the image's rows that they read, and
//! zeros lie behind it. Sums are in f64 for f64, in f32 for all other types, and rounded to the storage type at the
//! end: the depthwise result before the pointwise sum takes it up. With `each` the depthwise sum is rounded to the
//! storage type after every tap.
//!
//! Depthwise taps are added in row-major order from +0, with `columns` in column-major order. `all` counts the taps
//! outside the image too, as products with +0; `beside` those of them in rows inside the image, `above` all but those
//! in rows below it. With `borders` the columns of taps that all output pixels have inside the image make one chain,
//! row-major, to which the others are added, the left ones before, the right ones after: a chain of each column where
//! the kernel is at least as wide as high, else each tap by itself, row-major; and where the first of all columns lies
//! outside, the sum starts from +0. In a pointwise sum a number is a chain: that many products added in ascending order
//! from +0, so that `0+8` adds a chain to +0 (and cannot give -0); terms are added left to right; `80x3+16` means
//! `80+80+80+16`, and `(8+8)+(8+8)` adds blocks of blocks. `lanes(1 2, 16, 3)` deals 16 products out to 4 chains in
//! turn, as the lanes of a vector take them, adds to each lane the one at distance 1, then the one at distance 2, which
//! leaves one value, and adds 3 more products to that one by one. `chain` is one chain however long. Some elements of
//! the result may have another order than the rest: the last of `elsewhere` that holds an element's row (its pixel's
//! number in the batch) and column (its channel) counts. Sums have at most 65536 chains, all together, and parentheses
//! at most 16 deep; there are at most 4096 `elsewhere`. The word `reproducible` alone reads as
//! [`Numerics::REPRODUCIBLE`].

pub(crate) mod text;

use std::fmt::Display;
use std::ops::Range;

use crate::error::Error;
pub use text::ParseError;

/// How a product enters a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Products {
    /// Multiplied and added with one rounding (fused multiply-add).
    Fused,
    /// Rounded, then added.
    Separate,
    /// Fused, two by two, the second of each pair first; one that has no partner after a product of zeros.
    Paired,
    /// Paired, but one that has no partner after the product of +0 and what lies behind it in memory.
    Overrun,
}

impl Products {
    /// Whether they enter a sum two by two.
    pub fn in_pairs(self) -> bool {
        matches!(self, Self::Paired | Self::Overrun)
    }
}

/// When a depthwise sum is rounded to the storage type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rounding {
    Once,
    /// After each tap.
    Each,
}

/// Which depthwise taps are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Taps {
    /// Those inside the image.
    Inside,
    /// Padding too, as products with +0: an infinite weight makes it NaN.
    All,
    /// And the padding left and right of the image.
    Beside,
    /// And all padding but that below the image.
    Above,
}

/// In which order depthwise taps are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TapOrder {
    /// Row-major, one chain.
    Rows,
    /// Column-major, one chain.
    Columns,
    /// Columns of taps that reach into the padding apart: see the [text form](self).
    Borders,
    /// Row-major, one chain; of products that overrun, into the next channel.
    Channels,
    /// Row-major, one chain; of products that overrun, no further than what so many rows of outputs read.
    RowsAtOnce(usize),
}

/// What becomes of subnormal numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subnormals {
    Kept,
    /// Taken as zero on input and output, sign kept; an output by what it is after rounding, as on x86-64. Not where
    /// numbers are rounded to f16, or widened from it.
    Flushed,
}

/// In which order the products of one pointwise sum are added.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sum {
    /// All of them that are left, in one ascending chain from +0, however many.
    Whole,
    /// So many, in one ascending chain from +0.
    Chain(usize),
    /// At least two sums over successive products, their results added left to right.
    Blocks(Vec<Sum>),
    /// Products dealt out to lanes in turn, `each` to every lane, a chain from +0; the lanes added up; to that, `tail`
    /// products added in ascending order.
    Lanes { folds: Folds, each: usize, tail: usize },
}

/// How many lanes there are, and in which order they are added up: those at the first distance, then of what is left
/// those at the second, until one value is left. A permutation of 1, 2, 4, ... up to half the number of lanes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Folds(Vec<usize>);

/// Deepest nesting, most chains and most places with an order of their own: no attribute exhausts stack, memory or time.
const DEEPEST: usize = 16;
const MOST_CHAINS: usize = 1 << 16;
const MOST_PLACES: usize = 1 << 12;

/// 64 lanes: as many as the longest vectors have of the smallest type.
const MOST_FOLDS: usize = 6;

impl Folds {
    /// `None` if the distances are no permutation of 1, 2, 4, ..., or more than the longest vectors have lanes.
    pub fn new(distances: &[usize]) -> Option<Self> {
        let mut sorted = distances.to_vec();
        sorted.sort_unstable();
        let powers = sorted.iter().enumerate().all(|(i, &distance)| distance == 1 << i);
        (powers && (1..=MOST_FOLDS).contains(&sorted.len())).then(|| Self(distances.to_vec()))
    }

    pub fn distances(&self) -> &[usize] {
        &self.0
    }

    pub fn lanes(&self) -> usize {
        1 << self.0.len()
    }
}

/// The order of sums and the roundings of one separable convolution. `Display` and `FromStr` are the
/// [text form](self).
///
/// ```
/// use sepconv::Numerics;
/// let numerics: Numerics = "v1 depthwise(fused, inside) pointwise(fused, 352+160) subnormals(flushed)".parse()?;
/// assert_eq!(numerics.pointwise.sum.length(), Some(512));
/// assert_eq!(numerics.to_string().parse(), Ok(numerics));
/// # Ok::<(), sepconv::numerics::ParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Numerics {
    pub depthwise: Depthwise,
    pub pointwise: Pointwise,
    pub subnormals: Subnormals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Depthwise {
    pub products: Products,
    pub taps: Taps,
    pub order: TapOrder,
    pub rounding: Rounding,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pointwise {
    pub products: Products,
    pub sum: Sum,
    /// Where the order is another one; the last that holds an element counts.
    pub elsewhere: Vec<Elsewhere>,
}

/// A rectangle of the result with an order of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Elsewhere {
    /// Output pixels, counted through the batch.
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    pub products: Products,
    pub sum: Sum,
}

impl Pointwise {
    /// One order for the whole result.
    pub const fn everywhere(products: Products, sum: Sum) -> Self {
        Self { products, sum, elsewhere: Vec::new() }
    }

    /// The order of one element.
    pub fn at(&self, row: usize, column: usize) -> (Products, &Sum) {
        let holds = |e: &&Elsewhere| e.rows.contains(&row) && e.columns.contains(&column);
        let elsewhere = self.elsewhere.iter().rev().find(holds);
        elsewhere.map_or((self.products, &self.sum), |elsewhere| (elsewhere.products, &elsewhere.sum))
    }

    /// Refuses sums that add another number of products than `k`, and what no text says.
    pub(crate) fn check(&self, k: usize) -> Result<(), Error> {
        let Self { sum, elsewhere, .. } = self;
        if elsewhere.len() > MOST_PLACES {
            return refused("places with an order of their own", format!("at most {MOST_PLACES}"), elsewhere.len());
        }
        let mut chains = 0;
        for sum in std::iter::once(sum).chain(elsewhere.iter().map(|elsewhere| &elsewhere.sum)) {
            sum.check(&mut chains)?;
            if let Some(length) = sum.length().filter(|length| *length != k) {
                return Err(Error::SumLength { sum: sum.to_string(), length, k });
            }
        }
        Ok(())
    }
}

impl Depthwise {
    /// That of [`Numerics::REPRODUCIBLE`].
    pub const REPRODUCIBLE: Self =
        Self { products: Products::Fused, taps: Taps::Inside, order: TapOrder::Rows, rounding: Rounding::Once };

    /// Refuses what no text says.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.order == TapOrder::RowsAtOnce(0) { refused("rows at once", "at least 1", 0) } else { Ok(()) }
    }
}

pub(crate) fn refused(what: &'static str, expected: impl Display, got: impl Display) -> Result<(), Error> {
    Err(Error::Order { what, expected: expected.to_string(), got: got.to_string() })
}

impl Numerics {
    /// The crate's default: the same bits for every batch size, thread count, machine and instruction set.
    pub const REPRODUCIBLE: Self = Self {
        depthwise: Depthwise::REPRODUCIBLE,
        pointwise: Pointwise::everywhere(Products::Fused, Sum::Whole),
        subnormals: Subnormals::Kept,
    };

    /// Refuses sums that add another number of products than `k`, and what no text says.
    pub fn check(&self, k: usize) -> Result<(), Error> {
        self.depthwise.check()?;
        self.pointwise.check(k)
    }
}

impl Sum {
    /// How many products are added, or `usize::MAX` if more; `None` for [`Sum::Whole`], which adds any number.
    pub fn length(&self) -> Option<usize> {
        match self {
            Self::Whole => None,
            Self::Chain(n) => Some(*n),
            Self::Blocks(sums) => Some(sums.iter().filter_map(Self::length).fold(0, usize::saturating_add)),
            Self::Lanes { folds, each, tail } => Some(folds.lanes().saturating_mul(*each).saturating_add(*tail)),
        }
    }

    /// Refuses what no text says, of as many chains as there are with those of other sums, which have been counted.
    pub(crate) fn check(&self, chains: &mut usize) -> Result<(), Error> {
        self.check_within(0, chains)
    }

    /// The same of a sum within so many others.
    fn check_within(&self, others: usize, chains: &mut usize) -> Result<(), Error> {
        match self {
            Self::Whole if others > 0 => return refused("a sum within another", "of so many products", self),
            Self::Lanes { each: 0, .. } => return refused("products of each lane", "at least 1", 0),
            Self::Blocks(_) if others > DEEPEST => {
                return refused("sums around another", format!("at most {DEEPEST}"), others);
            }
            Self::Blocks(sums) if sums.len() < 2 => return refused("sums of blocks", "at least 2", sums.len()),
            Self::Blocks(sums) => return sums.iter().try_for_each(|sum| sum.check_within(others + 1, chains)),
            _ => *chains += 1,
        }
        if *chains > MOST_CHAINS { refused("chains", format!("at most {MOST_CHAINS}"), "more") } else { Ok(()) }
    }

    /// The same, added to +0.
    pub fn after_zero(&self) -> Self {
        let parts = match self {
            Self::Blocks(sums) => sums.as_slice(),
            other => std::slice::from_ref(other),
        };
        Self::Blocks([&[Self::Chain(0)], parts].concat())
    }

    /// From the lengths of successive chains.
    pub fn blocks(lengths: &[usize]) -> Self {
        match lengths {
            [] => Self::Chain(0),
            [one] => Self::Chain(*one),
            _ => Self::Blocks(lengths.iter().copied().map(Self::Chain).collect()),
        }
    }
}
