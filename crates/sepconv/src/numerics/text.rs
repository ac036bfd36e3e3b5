//! The [text form](super) of numerics: what is written reads back as the same, and no text exhausts stack or memory.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::{
    DEEPEST, Depthwise, Elsewhere, Folds, MOST_CHAINS, MOST_FOLDS, MOST_PLACES, Numerics, Pointwise, Products,
    Rounding, Subnormals, Sum, TapOrder, Taps,
};

impl fmt::Display for Folds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let distances: Vec<_> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&distances.join(" "))
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sums = match self {
            Self::Whole => return f.write_str("chain"),
            Self::Chain(n) => return write!(f, "{n}"),
            Self::Lanes { folds, each, tail } => {
                return write!(f, "lanes({folds}, {}, {tail})", folds.lanes().saturating_mul(*each));
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

/// A text that is not of the [grammar](super).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} at byte {at}, got `{got}`")]
pub struct ParseError {
    pub expected: String,
    pub at: usize,
    pub got: String,
}

/// Longest sum that a text may describe: what a 32-bit channel count can name.
const LONGEST: usize = i32::MAX as usize;

impl FromStr for Numerics {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::read(text, &mut 0)
    }
}

impl Numerics {
    /// Reads a text that may have as many chains as there may be besides those that have been read; counts them too.
    pub(crate) fn read(text: &str, chains: &mut usize) -> Result<Self, ParseError> {
        if text.trim() == "reproducible" {
            return Ok(Self::REPRODUCIBLE);
        }
        let mut p = Parser { chains: *chains, ..Parser::new(text) };
        p.expect("v1")?;
        p.expect("depthwise(")?;
        let depthwise = p.depthwise(&PRODUCTS, &TAPS)?;
        p.expect(")")?;
        p.expect("pointwise(")?;
        let products = p.one_of(&PRODUCTS)?;
        p.expect(",")?;
        let sum = p.sum()?;
        let mut elsewhere = Vec::new();
        while p.take(",") {
            if elsewhere.len() == MOST_PLACES {
                return Err(p.error(format!("at most {MOST_PLACES} places with an order of their own")));
            }
            p.expect("rows")?;
            let rows = p.range()?;
            p.expect("columns")?;
            let (columns, products) = (p.range()?, p.one_of(&PRODUCTS)?);
            elsewhere.push(Elsewhere { rows, columns, products, sum: p.sum()? });
        }
        p.expect(")")?;
        let subnormals = p.subnormals_and_end()?;
        *chains = p.chains;
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

    /// With these of the products and taps that there are.
    pub(crate) fn depthwise(
        &mut self,
        products: &Words<Products>,
        taps: &Words<Taps>,
    ) -> Result<Depthwise, ParseError> {
        let products = self.one_of(products)?;
        self.expect(",")?;
        let taps = self.one_of(taps)?;
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

    #[test]
    fn few_words_do_not_describe_much() {
        let places = |n: usize| sum(&format!("8{}", ", rows 0..1 columns 0..1 fused 8".repeat(n)));
        assert!(places(4096).is_ok());
        assert!(places(4097).unwrap_err().to_string().starts_with("expected at most 4096 places"));
        assert!(sum("lanes(1, 2, 0)x65536").is_ok());
        assert!(sum("lanes(1, 2, 0)x65536, rows 0..1 columns 0..1 fused 8").is_err());
    }

    /// Which can be built without a text.
    #[test]
    fn what_no_text_says_is_refused() {
        let lanes = |each, tail| Sum::Lanes { folds: Folds::new(&[1]).unwrap(), each, tail };
        let nested = |depth| (0..depth).fold(Sum::Chain(2), |sum, _| Sum::Blocks(vec![sum, Sum::Chain(0)]));
        let of = |sum| Numerics { pointwise: Pointwise::everywhere(Products::Fused, sum), ..Numerics::REPRODUCIBLE };
        for (sum, refused) in [
            (Sum::Blocks(vec![Sum::Chain(usize::MAX), Sum::Chain(3)]), "adds 18446744073709551615 products"),
            (
                Sum::Blocks(vec![Sum::Whole, Sum::Chain(2)]),
                "a sum within another must be of so many products, got chain",
            ),
            (Sum::Blocks(vec![]), "sums of blocks must be at least 2, got 0"),
            (Sum::Blocks(vec![Sum::Chain(2)]), "sums of blocks must be at least 2, got 1"),
            (lanes(1 << 63, 2), "adds 18446744073709551615 products"),
            (lanes(0, 2), "products of each lane must be at least 1, got 0"),
            (nested(18), "sums around another must be at most 16, got 17"),
            (Sum::blocks(&[0; 70_000]), "chains must be at most 65536, got more"),
        ] {
            let error = of(sum).check(2).unwrap_err().to_string();
            assert!(error.starts_with("numerics: ") && error.contains(refused), "{error}");
        }
        assert!(of(nested(17)).check(2).is_ok());
        assert_eq!(of(nested(17)).to_string().parse(), Ok(of(nested(17))));
        let mut numerics = of(Sum::Chain(2));
        let elsewhere = Elsewhere { rows: 0..1, columns: 0..1, products: Products::Fused, sum: Sum::Chain(2) };
        numerics.pointwise.elsewhere = vec![elsewhere; 5000];
        let error = numerics.check(2).unwrap_err().to_string();
        assert_eq!(error, "numerics: places with an order of their own must be at most 4096, got 5000");
        let mut numerics = of(Sum::Chain(2));
        numerics.depthwise.order = TapOrder::RowsAtOnce(0);
        assert_eq!(numerics.check(2).unwrap_err().to_string(), "numerics: rows at once must be at least 1, got 0");
    }
}
