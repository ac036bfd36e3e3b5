//! In which order the sums of the two depthwise gradients are taken; and the text form of that, which is built like that
//! of [`numerics`](crate::numerics). (The other two gradients are matrix products, whose order [`Numerics`](crate::Numerics) says.)
//!
//! ```text
//! input            = "v1" "input(" direction "," depthwise ")" "subnormals(" ( "kept" | "flushed" ) ")"
//! direction        = "ascending" | "descending" | "apart"
//! depthwise_filter = "v1" "depthwise_filter(" products "," taps "," pixels [ "," "strips" count ] ")"
//!                    "subnormals(" ( "kept" | "flushed" ) ")"
//! taps             = "inside" | "all"
//! pixels           = "chain" | "images" | "rows" | "shares" count | "batches" count | "sum" sum
//! ```
//! `depthwise` is what stands between the parentheses there, but with these `taps` only, and without products that
//! overrun: the gradient of the input is a depthwise convolution of the depthwise result's gradient, and the taps are
//! the filter's own in `ascending` order, or in `descending` order. Those outside the depthwise result (with the rows
//! and columns that BatchToSpaceND takes off, whose gradient is zero) are the ones that may be counted or not, and with
//! `all` also those that a stride leaves out. With a channel_multiplier above 1 the results of one channel follow each
//! other within a tap, in ascending order; with `apart` each of them has a sum of its own, ascending and rounded to the
//! storage type, and these are added up, the first one first.
//!
//! The gradient of the depthwise filter adds up pixels row-major, image after image, where TensorFlow goes through
//! SpaceToBatchND those of its small images: in one `chain`; or a chain for each of the `images`; or for each of their
//! `rows`; or for each of so many `shares` of rows, through all images; or for each of so many `batches` of images.
//! Shares and batches are equal, or the first have one row or image more. The chains are added up, the first one first.
//! With `strips` so many columns of an image are taken first, row after row, then the next, which changes nothing in a
//! chain of one row.
//! A `sum` is one over all pixels of all images, as a pointwise one is over its products; with it taps outside the image
//! always count. `all` counts taps outside the image too, as products with +0.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::numerics::text::{PRODUCTS, Parser, SUBNORMALS, TAPS, Words, word};
use crate::numerics::{Depthwise, Numerics, ParseError, Pointwise, Products, Subnormals, Sum, Taps, refused};

/// How the taps follow each other in a sum of the input's gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The depthwise filter's first tap first.
    Ascending,
    /// Its last tap first.
    Descending,
    /// Ascending, but each of the results that a channel has in a sum of its own.
    Apart,
}

/// The order of the input's gradient: see the [text form](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InputOrder {
    pub direction: Direction,
    pub depthwise: Depthwise,
    pub subnormals: Subnormals,
}

/// Which pixels make a chain in a sum of the depthwise filter's gradient.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pixels {
    Chain,
    Images,
    Rows,
    Shares(usize),
    Batches(usize),
    /// Whatever it is.
    Sum(Sum),
}

/// Chains of a reproducible sum: few enough for any number of products.
const MOST_CHAINS: usize = 4096;

/// The reproducible order of a gradient that is a matrix product, whose sums have so many products: that of the depthwise
/// result, with out_channels, and that of the pointwise filter, with all output pixels. In about as many chains as one has
/// products: then the error grows by the square root of a chain's, as it does in each half.
pub fn reproducible_product(length: usize) -> Numerics {
    let each = length.isqrt().max(length.div_ceil(MOST_CHAINS)).max(1);
    let mut chains = vec![each; length / each];
    chains.extend(Some(length % each).filter(|rest| *rest > 0));
    Numerics { pointwise: Pointwise::everywhere(Products::Fused, Sum::blocks(&chains)), ..Numerics::REPRODUCIBLE }
}

/// The order of the depthwise filter's gradient: see the [text form](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DepthwiseFilterOrder {
    /// Fused or separate.
    pub products: Products,
    /// Inside or all.
    pub taps: Taps,
    pub pixels: Pixels,
    /// Columns of an image that are taken before the next.
    pub strips: Option<usize>,
    pub subnormals: Subnormals,
}

impl InputOrder {
    /// The same bits for every batch size, thread count, machine and instruction set.
    pub const REPRODUCIBLE: Self =
        Self { direction: Direction::Ascending, depthwise: Depthwise::REPRODUCIBLE, subnormals: Subnormals::Kept };

    /// Refuses what no text says.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.depthwise.products == Products::Overrun {
            return refused("products of the input's gradient", "fused, separate or paired", "overrun");
        }
        check_taps(self.depthwise.taps)?;
        self.depthwise.check()
    }
}

fn check_taps(taps: Taps) -> Result<(), Error> {
    let some = matches!(taps, Taps::Inside | Taps::All);
    if some { Ok(()) } else { refused("taps of a gradient", "inside or all", word(&TAPS, taps)) }
}

impl DepthwiseFilterOrder {
    /// The same bits for every thread count, machine and instruction set. Chains of a row each lose less to rounding than one
    /// of all pixels.
    pub const REPRODUCIBLE: Self = Self {
        products: Products::Fused,
        taps: Taps::Inside,
        pixels: Pixels::Rows,
        strips: None,
        subnormals: Subnormals::Kept,
    };

    /// Refuses what no text says.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.products.in_pairs() {
            let got = word(&PRODUCTS, self.products);
            return refused("products of the depthwise filter's gradient", "fused or separate", got);
        }
        check_taps(self.taps)?;
        match (&self.pixels, self.strips) {
            (Pixels::Shares(0) | Pixels::Batches(0), _) => refused("shares and batches", "at least 1", 0),
            (_, Some(0)) => refused("columns of strips", "at least 1", 0),
            (Pixels::Sum(sum), _) => sum.check(&mut 0),
            _ => Ok(()),
        }
    }
}

const DIRECTIONS: &Words<Direction> =
    &[("ascending", Direction::Ascending), ("descending", Direction::Descending), ("apart", Direction::Apart)];

impl fmt::Display for InputOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { direction, depthwise, subnormals } = *self;
        let (direction, subnormals) = (word(DIRECTIONS, direction), word(&SUBNORMALS, subnormals));
        write!(f, "v1 input({direction}, {depthwise}) subnormals({subnormals})")
    }
}

impl FromStr for InputOrder {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.trim() == "reproducible" {
            return Ok(Self::REPRODUCIBLE);
        }
        let mut p = Parser::new(text);
        p.expect("v1")?;
        p.expect("input(")?;
        let direction = p.one_of(DIRECTIONS)?;
        p.expect(",")?;
        let depthwise = p.depthwise(&PRODUCTS[..3], &TAPS[..2])?;
        p.expect(")")?;
        Ok(Self { direction, depthwise, subnormals: p.subnormals_and_end()? })
    }
}

impl fmt::Display for DepthwiseFilterOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1 depthwise_filter({}, {}, ", word(&PRODUCTS, self.products), word(&TAPS, self.taps))?;
        match &self.pixels {
            Pixels::Chain => f.write_str("chain")?,
            Pixels::Images => f.write_str("images")?,
            Pixels::Rows => f.write_str("rows")?,
            Pixels::Shares(shares) => write!(f, "shares {shares}")?,
            Pixels::Batches(batches) => write!(f, "batches {batches}")?,
            Pixels::Sum(sum) => write!(f, "sum {sum}")?,
        }
        if let Some(columns) = self.strips {
            write!(f, ", strips {columns}")?;
        }
        write!(f, ") subnormals({})", word(&SUBNORMALS, self.subnormals))
    }
}

impl FromStr for DepthwiseFilterOrder {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.trim() == "reproducible" {
            return Ok(Self::REPRODUCIBLE);
        }
        let mut p = Parser::new(text);
        p.expect("v1")?;
        p.expect("depthwise_filter(")?;
        let products = p.one_of(&PRODUCTS[..2])?;
        p.expect(",")?;
        let taps = p.one_of(&TAPS[..2])?;
        p.expect(",")?;
        let pixels = if p.take("shares") {
            Pixels::Shares(p.number(1)?)
        } else if p.take("batches") {
            Pixels::Batches(p.number(1)?)
        } else if p.take("sum") {
            Pixels::Sum(p.sum()?)
        } else {
            p.one_of(&[("chain", Pixels::Chain), ("images", Pixels::Images), ("rows", Pixels::Rows)])?
        };
        let strips = if p.take(",") { Some(p.expect("strips").and_then(|()| p.number(1))?) } else { None };
        p.expect(")")?;
        Ok(Self { products, taps, pixels, strips, subnormals: p.subnormals_and_end()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::TapOrder;

    #[test]
    fn texts_read_and_write() {
        for text in [
            "v1 input(ascending, fused, inside) subnormals(flushed)",
            "v1 input(descending, separate, all, columns, each) subnormals(kept)",
            "v1 input(apart, fused, inside) subnormals(kept)",
        ] {
            assert_eq!(text.parse::<InputOrder>().unwrap().to_string(), text);
        }
        for pixels in
            ["chain", "images", "rows", "shares 2", "batches 2", "chain, strips 15", "sum lanes(1 4 2, 16, 0)+3"]
        {
            let text = format!("v1 depthwise_filter(separate, all, {pixels}) subnormals(flushed)");
            assert_eq!(text.parse::<DepthwiseFilterOrder>().unwrap().to_string(), text);
        }
        assert_eq!("reproducible".parse(), Ok(InputOrder::REPRODUCIBLE));
        assert_eq!("reproducible".parse(), Ok(DepthwiseFilterOrder::REPRODUCIBLE));
    }

    #[test]
    fn however_many_products_there_are_the_chains_are_few() {
        for (length, chains) in [(2, 2), (30, 6), (1024, 32), (1 << 30, 4096), ((1 << 31) - 1, 4096)] {
            let numerics = reproducible_product(length);
            assert!(matches!(&numerics.pointwise.sum, Sum::Blocks(sums) if sums.len() == chains));
            assert!(numerics.check(length).is_ok());
            assert!(numerics.to_string().parse() == Ok(numerics));
        }
    }

    #[test]
    fn what_no_text_says_is_refused() {
        let input = |depthwise| InputOrder { depthwise, ..InputOrder::REPRODUCIBLE }.check().unwrap_err().to_string();
        let taps = "numerics: taps of a gradient must be inside or all, got";
        assert_eq!(input(Depthwise { taps: Taps::Above, ..Depthwise::REPRODUCIBLE }), format!("{taps} above"));
        let overrun = Depthwise { products: Products::Overrun, ..Depthwise::REPRODUCIBLE };
        assert!(input(overrun).contains("must be fused, separate or paired, got overrun"));
        let order = Depthwise { order: TapOrder::RowsAtOnce(0), ..Depthwise::REPRODUCIBLE };
        assert!(input(order).contains("rows at once must be at least 1, got 0"));
        let usual = DepthwiseFilterOrder::REPRODUCIBLE;
        for order in [
            DepthwiseFilterOrder { taps: Taps::Beside, ..usual.clone() },
            DepthwiseFilterOrder { products: Products::Paired, ..usual.clone() },
            DepthwiseFilterOrder { strips: Some(0), ..usual.clone() },
            DepthwiseFilterOrder { pixels: Pixels::Shares(0), ..usual.clone() },
            DepthwiseFilterOrder { pixels: Pixels::Sum(Sum::Blocks(vec![Sum::Whole])), ..usual },
        ] {
            assert!(matches!(order.check(), Err(Error::Order { .. })), "{order}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "v1 input(fused, inside) subnormals(kept)", "v2 input(ascending, fused, inside)"] {
            assert!(text.parse::<InputOrder>().is_err(), "{text}");
        }
        for (depthwise, expected) in [
            ("fused, above", "expected `inside` or `all` at byte 27, got `above)"),
            ("fused, beside", "expected `inside` or `all` at byte 27, got `beside)"),
            ("overrun, all", "expected `fused` or `separate` or `paired` at byte 20, got `overrun, all)"),
        ] {
            let error = format!("v1 input(ascending, {depthwise}) subnormals(kept)").parse::<InputOrder>().unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
        }
        for pixels in [
            "paired, inside, chain",
            "fused, above, chain",
            "fused, all, shares 0",
            "fused, all, batches",
            "fused, all, columns",
            "fused, all, chain, strips 0",
        ] {
            let text = format!("v1 depthwise_filter({pixels}) subnormals(flushed)");
            assert!(text.parse::<DepthwiseFilterOrder>().is_err(), "{text}");
        }
    }
}
