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
//! number in the batch) and column (its channel) counts. The word `reproducible` alone reads as
//! [`Numerics::REPRODUCIBLE`].

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::error::Error;

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

impl fmt::Display for Folds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let distances: Vec<_> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&distances.join(" "))
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
}

impl Depthwise {
    /// That of [`Numerics::REPRODUCIBLE`].
    pub const REPRODUCIBLE: Self =
        Self { products: Products::Fused, taps: Taps::Inside, order: TapOrder::Rows, rounding: Rounding::Once };
}

impl Numerics {
    /// The crate's default: the same bits for every batch size, thread count, machine and instruction set.
    pub const REPRODUCIBLE: Self = Self {
        depthwise: Depthwise::REPRODUCIBLE,
        pointwise: Pointwise::everywhere(Products::Fused, Sum::Whole),
        subnormals: Subnormals::Kept,
    };

    /// Refuses sums that add another number of products than `k`.
    pub fn check(&self, k: usize) -> Result<(), Error> {
        let Pointwise { sum, elsewhere, .. } = &self.pointwise;
        for sum in std::iter::once(sum).chain(elsewhere.iter().map(|elsewhere| &elsewhere.sum)) {
            if let Some(length) = sum.length().filter(|length| *length != k) {
                return Err(Error::SumLength { sum: sum.to_string(), length, k });
            }
        }
        Ok(())
    }
}

impl Sum {
    /// How many products are added; `None` for [`Sum::Whole`], which adds any number (inside blocks: none).
    pub fn length(&self) -> Option<usize> {
        match self {
            Self::Whole => None,
            Self::Chain(n) => Some(*n),
            Self::Blocks(sums) => Some(sums.iter().filter_map(Self::length).sum()),
            Self::Lanes { folds, each, tail } => Some(folds.lanes() * each + tail),
        }
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
            [one] => Self::Chain(*one),
            _ => Self::Blocks(lengths.iter().copied().map(Self::Chain).collect()),
        }
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sums = match self {
            Self::Whole => return f.write_str("chain"),
            Self::Chain(n) => return write!(f, "{n}"),
            Self::Lanes { folds, each, tail } => {
                return write!(f, "lanes({folds}, {}, {tail})", folds.lanes() * each);
            }
            Self::Blocks(sums) => sums,
        };
        for (i, equal) in sums.chunk_by(PartialEq::eq).enumerate() {
            f.write_str(if i == 0 { "" } else { "+" })?;
            match &equal[0] {
                nested @ Self::Blocks(_) => write!(f, "({nested})")?,
                part => write!(f, "{part}")?,
            }
            if equal.len() > 1 {
                write!(f, "x{}", equal.len())?;
            }
        }
        Ok(())
    }
}

/// What stands between the parentheses.
impl fmt::Display for Depthwise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", word(&PRODUCTS, self.products), word(&TAPS, self.taps))?;
        match self.order {
            TapOrder::Rows => {}
            TapOrder::RowsAtOnce(rows) => write!(f, ", rows {rows}")?,
            order => write!(f, ", {}", word(&ORDERS, order))?,
        }
        f.write_str(if self.rounding == Rounding::Each { ", each" } else { "" })
    }
}

impl fmt::Display for Numerics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { depthwise, pointwise, subnormals } = self;
        let (products, sum) = (word(&PRODUCTS, pointwise.products), &pointwise.sum);
        write!(f, "v1 depthwise({depthwise}) pointwise({products}, {sum}")?;
        for Elsewhere { rows, columns, products, sum } in &pointwise.elsewhere {
            write!(f, ", rows {rows:?} columns {columns:?} {} {sum}", word(&PRODUCTS, *products))?;
        }
        write!(f, ") subnormals({})", word(&SUBNORMALS, *subnormals))
    }
}

pub(crate) type Words<T> = [(&'static str, T)];
pub(crate) const PRODUCTS: [(&str, Products); 4] = [
    ("fused", Products::Fused),
    ("separate", Products::Separate),
    ("paired", Products::Paired),
    ("overrun", Products::Overrun),
];
pub(crate) const TAPS: [(&str, Taps); 4] =
    [("inside", Taps::Inside), ("all", Taps::All), ("beside", Taps::Beside), ("above", Taps::Above)];
const ORDERS: [(&str, TapOrder); 3] =
    [("columns", TapOrder::Columns), ("borders", TapOrder::Borders), ("channels", TapOrder::Channels)];
pub(crate) const SUBNORMALS: [(&str, Subnormals); 2] = [("kept", Subnormals::Kept), ("flushed", Subnormals::Flushed)];

pub(crate) fn word<T: PartialEq>(words: &Words<T>, value: T) -> &'static str {
    words.iter().find(|(_, v)| *v == value).map_or("", |(word, _)| word)
}

/// A text that is not of the [grammar](self).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} at byte {at}, got `{got}`")]
pub struct ParseError {
    pub expected: String,
    pub at: usize,
    pub got: String,
}

/// Longest sum that a text may describe: what a 32-bit channel count can name.
const LONGEST: usize = i32::MAX as usize;
/// Deepest nesting and most chains of a text, so that a hostile attribute cannot exhaust stack or memory.
const DEEPEST: usize = 16;
const MOST_CHAINS: usize = 1 << 16;
/// 64 lanes: as many as the longest vectors have of the smallest type.
const MOST_FOLDS: usize = 6;

impl FromStr for Numerics {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.trim() == "reproducible" {
            return Ok(Self::REPRODUCIBLE);
        }
        let mut p = Parser::new(text);
        p.expect("v1")?;
        p.expect("depthwise(")?;
        let depthwise = p.depthwise()?;
        p.expect(")")?;
        p.expect("pointwise(")?;
        let products = p.one_of(&PRODUCTS)?;
        p.expect(",")?;
        let sum = p.sum()?;
        let mut elsewhere = Vec::new();
        while p.take(",") {
            p.expect("rows")?;
            let rows = p.range()?;
            p.expect("columns")?;
            let (columns, products) = (p.range()?, p.one_of(&PRODUCTS)?);
            elsewhere.push(Elsewhere { rows, columns, products, sum: p.sum()? });
        }
        p.expect(")")?;
        let subnormals = p.subnormals_and_end()?;
        Ok(Self { depthwise, pointwise: Pointwise { products, sum, elsewhere }, subnormals })
    }
}

pub(crate) struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// Those of the sums that are complete.
    chains: usize,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, chains: 0 }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn error(&self, expected: String) -> ParseError {
        ParseError { expected, at: self.at, got: self.rest().chars().take(24).collect() }
    }

    fn skip_blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    pub(crate) fn take(&mut self, word: &str) -> bool {
        self.skip_blanks();
        let found = self.rest().starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    pub(crate) fn expect(&mut self, word: &str) -> Result<(), ParseError> {
        if self.take(word) { Ok(()) } else { Err(self.error(format!("`{word}`"))) }
    }

    pub(crate) fn one_of<T: Clone>(&mut self, words: &Words<T>) -> Result<T, ParseError> {
        match words.iter().find(|(word, _)| self.take(word)) {
            Some((_, value)) => Ok(value.clone()),
            None => Err(self.error(words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(" or "))),
        }
    }

    pub(crate) fn number(&mut self, least: usize) -> Result<usize, ParseError> {
        self.skip_blanks();
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        match self.rest()[..digits].parse() {
            Ok(n) if (least..=LONGEST).contains(&n) => {
                self.at += digits;
                Ok(n)
            }
            _ => Err(self.error(format!("a number from {least} to {LONGEST}"))),
        }
    }

    pub(crate) fn depthwise(&mut self) -> Result<Depthwise, ParseError> {
        let products = self.one_of(&PRODUCTS)?;
        self.expect(",")?;
        let taps = self.one_of(&TAPS)?;
        let mut depthwise = Depthwise { products, taps, order: TapOrder::Rows, rounding: Rounding::Once };
        while depthwise.rounding == Rounding::Once && self.take(",") {
            match depthwise.order {
                TapOrder::Rows if self.take("each") => depthwise.rounding = Rounding::Each,
                TapOrder::Rows if self.take("rows") => depthwise.order = TapOrder::RowsAtOnce(self.number(1)?),
                TapOrder::Rows => depthwise.order = self.one_of(&ORDERS)?,
                _ => depthwise.rounding = self.expect("each").map(|()| Rounding::Each)?,
            }
        }
        Ok(depthwise)
    }

    /// The last words of every text.
    pub(crate) fn subnormals_and_end(&mut self) -> Result<Subnormals, ParseError> {
        self.expect("subnormals(")?;
        let subnormals = self.one_of(&SUBNORMALS)?;
        self.expect(")")?;
        self.skip_blanks();
        if self.at < self.text.len() { Err(self.error("the end".into())) } else { Ok(subnormals) }
    }

    fn range(&mut self) -> Result<Range<usize>, ParseError> {
        let start = self.number(0)?;
        self.expect("..")?;
        Ok(start..self.number(start)?)
    }

    pub(crate) fn sum(&mut self) -> Result<Sum, ParseError> {
        let (sum, chains) = if self.take("chain") { (Sum::Whole, 1) } else { self.terms(0)? };
        self.chains += chains;
        match sum.length() {
            Some(n) if n > LONGEST => Err(self.error(format!("a sum of at most {LONGEST} products"))),
            _ => Ok(sum),
        }
    }

    fn lanes(&mut self) -> Result<Sum, ParseError> {
        let mut distances = vec![self.number(1)?];
        while !self.take(",") {
            distances.push(self.number(1)?);
        }
        let Some(folds) = Folds::new(&distances) else {
            return Err(
                self.error(format!("a permutation of 1, 2, 4, ..., {} at the most, before", 1 << (MOST_FOLDS - 1)))
            );
        };
        let lanes = folds.lanes();
        let products = self.number(lanes)?;
        if !products.is_multiple_of(lanes) {
            return Err(self.error(format!("a multiple of {lanes} before")));
        }
        self.expect(",")?;
        let sum = Sum::Lanes { folds, each: products / lanes, tail: self.number(0)? };
        self.expect(")")?;
        Ok(sum)
    }

    /// The sum and how many chains it has.
    fn terms(&mut self, depth: usize) -> Result<(Sum, usize), ParseError> {
        let (mut sums, mut chains) = (Vec::new(), 0usize);
        loop {
            let (part, size) = if depth < DEEPEST && self.take("(") {
                let nested = self.terms(depth + 1)?;
                self.expect(")")?;
                nested
            } else if self.take("lanes(") {
                (self.lanes()?, 1)
            } else {
                (Sum::Chain(self.number(0)?), 1)
            };
            let times = if self.take("x") { self.number(1)? } else { 1 };
            chains = size.saturating_mul(times).saturating_add(chains);
            if self.chains.saturating_add(chains) > MOST_CHAINS {
                return Err(self.error(format!("at most {MOST_CHAINS} chains")));
            }
            sums.extend(std::iter::repeat_n(part, times));
            if !self.take("+") {
                break;
            }
        }
        Ok((if sums.len() == 1 { sums.remove(0) } else { Sum::Blocks(sums) }, chains))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(text: &str) -> Result<Sum, ParseError> {
        let text = format!("v1 depthwise(fused,all)pointwise(separate,{text})subnormals(kept)");
        text.parse::<Numerics>().map(|n| n.pointwise.sum)
    }

    #[test]
    fn sums_read_and_write() {
        assert_eq!(sum("chain"), Ok(Sum::Whole));
        assert_eq!(sum("80x3+16"), Ok(Sum::blocks(&[80, 80, 80, 16])));
        assert_eq!(sum("80+80+80+16").unwrap().to_string(), "80x3+16");
        assert_eq!(sum("(8 + 8) x 2 + 4").unwrap().to_string(), "(8x2)x2+4");
        assert_eq!(sum("(8x2)x2+4").unwrap().length(), Some(36));
        assert_eq!(sum("(7)"), Ok(Sum::Chain(7)));
        assert_eq!(sum("0+8x2"), Ok(Sum::blocks(&[8, 8]).after_zero()));
        assert_eq!(sum("0+8"), Ok(Sum::Chain(8).after_zero()));
        let lanes = sum("lanes(1, 16, 0)x2+lanes(1 4 2,8,3)").unwrap();
        assert_eq!(lanes.length(), Some(43));
        assert_eq!(lanes.to_string(), "lanes(1, 16, 0)x2+lanes(1 4 2, 8, 3)");
    }

    #[test]
    fn the_last_rectangle_counts() {
        let text = "v1 depthwise(separate, all) pointwise(separate, 19, rows 0..8 columns 24..31 fused lanes(1, 16, 3), \
                    rows 0..8 columns 30..31 separate lanes(2 1, 16, 3)) subnormals(flushed)";
        let numerics: Numerics = text.parse().unwrap();
        assert_eq!(numerics.to_string(), text);
        let at = |row, column| numerics.pointwise.at(row, column).1.to_string();
        assert_eq!([at(0, 0), at(7, 24), at(8, 24), at(0, 30)], ["19", "lanes(1, 16, 3)", "19", "lanes(2 1, 16, 3)"]);
        assert!(numerics.check(19).is_ok());
        assert!(numerics.check(20).is_err());
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "-1",
            "8+",
            "8x",
            "8x0",
            "(8",
            "8)",
            "99999999999",
            "2147483647x2",
            "chain+1",
            "8*2",
            "lanes(3, 9, 0)",
            "lanes(2, 8, 0)",
            "lanes(1 1, 8, 0)",
            "lanes(1 2 4 8 16 32 64, 128, 0)",
            "lanes(2, 3, 0)",
            "lanes(2, 2)",
            "8, rows 0..1",
            "8, rows 2..1 columns 0..1 8",
        ] {
            assert!(sum(text).is_err(), "{text}");
        }
        assert!(sum(&"(".repeat(100_000)).is_err());
        assert!(sum("(1x1048576)x1048576").is_err());
        assert!(sum("((((((1x1024)x1024)x1024)x1024)x1024)x1024)x1024").is_err());
        let error = "v1 depthwise(fused, none)".parse::<Numerics>().unwrap_err();
        assert_eq!(error.to_string(), "expected `inside` or `all` or `beside` or `above` at byte 20, got `none)`");
        assert!("v2 x".parse::<Numerics>().is_err());
    }
}
