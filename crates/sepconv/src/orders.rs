//! The numerics of a node whose shapes were unknown when its graph was built: one for each of several row counts.
//!
//! Text form: `<numerics>` alone (for every row count), or `batch 1 rows 49: <numerics>; batch 2 rows 98: <numerics>`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::numerics::{Elsewhere, Numerics, ParseError};

/// What one alternative was revealed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    pub batch: usize,
    /// Rows of the pointwise product: output pixels of the whole batch.
    pub rows: usize,
}

/// So that a hostile attribute cannot exhaust memory.
const MOST_ALTERNATIVES: usize = 64;

/// Matrix products take that many rows at a time, and what is left in another way.
const ROWS_AT_ONCE: usize = 4;

impl Seen {
    /// Where a bound between rows lies if there are so many.
    fn moved_to(&self, bound: usize, rows: usize) -> usize {
        let whole = |rows: usize| rows / ROWS_AT_ONCE * ROWS_AT_ONCE;
        match bound {
            0 => 0,
            bound if bound == self.rows => rows,
            bound if bound == whole(self.rows) => whole(rows),
            bound => bound.min(rows),
        }
    }
}

/// One numerics for every row count, or a choice of them.
///
/// ```
/// use sepconv::Orders;
/// let one = "v1 depthwise(fused, all) pointwise(fused, 512) subnormals(flushed)";
/// let cut = "v1 depthwise(fused, all) pointwise(fused, 352+160) subnormals(flushed)";
/// let orders: Orders = format!("batch 1 rows 196: {cut}; batch 2 rows 392: {one}").parse()?;
/// assert_eq!(orders.pick(1, 400).to_string(), cut);
/// assert_eq!(orders.pick(8, 400).to_string(), one);
/// # Ok::<(), sepconv::numerics::ParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Orders {
    Always(Numerics),
    /// At least one.
    ByRows(Vec<(Seen, Numerics)>),
}

impl Orders {
    /// The alternative for so many rows: of those revealed for a single image if `batch` is 1, for several if not (all
    /// where there is none), the one whose row count is nearest by ratio; the first of equally near ones. A single row,
    /// which is multiplied as a vector, is nearest to itself only, where there are others. Rows that have an order of
    /// their own and end with the last one, or with the last whole four, do so for any row count.
    pub fn pick(&self, batch: usize, rows: usize) -> Cow<'_, Numerics> {
        let alternatives = match self {
            Self::Always(numerics) => return Cow::Borrowed(numerics),
            Self::ByRows(alternatives) => alternatives,
        };
        let distance = |seen: &Seen| {
            let other_kind = (seen.batch == 1) != (batch == 1);
            let (a, b) = (seen.rows.max(1), rows.max(1));
            (other_kind, (a == 1) != (b == 1), a.max(b) as f64 / a.min(b) as f64)
        };
        let nearest = alternatives
            .iter()
            .min_by(|(a, _), (b, _)| distance(a).partial_cmp(&distance(b)).unwrap_or(std::cmp::Ordering::Equal));
        let (seen, numerics) = nearest.unwrap_or(&alternatives[0]);
        if seen.rows == rows || numerics.pointwise.elsewhere.is_empty() {
            return Cow::Borrowed(numerics);
        }
        let mut numerics = numerics.clone();
        for Elsewhere { rows: range, .. } in &mut numerics.pointwise.elsewhere {
            *range = seen.moved_to(range.start, rows)..seen.moved_to(range.end, rows);
        }
        numerics.pointwise.elsewhere.retain(|elsewhere| !elsewhere.rows.is_empty());
        Cow::Owned(numerics)
    }
}

impl fmt::Display for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alternatives = match self {
            Self::Always(numerics) => return numerics.fmt(f),
            Self::ByRows(alternatives) => alternatives,
        };
        for (i, (Seen { batch, rows }, numerics)) in alternatives.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}batch {batch} rows {rows}: {numerics}")?;
        }
        Ok(())
    }
}

impl FromStr for Orders {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if !text.trim_start().starts_with("batch") {
            return text.parse().map(Self::Always);
        }
        let mut chains = 0;
        let mut alternative = |text: &str| {
            let expected = || ParseError {
                expected: "`batch B rows R: numerics`".into(),
                at: 0,
                got: text.chars().take(40).collect(),
            };
            let (seen, numerics) = text.split_once(':').ok_or_else(expected)?;
            match seen.split_whitespace().collect::<Vec<_>>()[..] {
                ["batch", batch, "rows", rows] => {
                    let number = |text: &str| text.parse::<usize>().map_err(|_| expected());
                    let seen = Seen { batch: number(batch)?, rows: number(rows)? };
                    Ok((seen, Numerics::read(numerics, &mut chains)?))
                }
                _ => Err(expected()),
            }
        };
        if text.split(';').nth(MOST_ALTERNATIVES).is_some() {
            let expected = format!("at most {MOST_ALTERNATIVES} alternatives");
            return Err(ParseError { expected, at: 0, got: text.chars().take(40).collect() });
        }
        text.split(';').map(&mut alternative).collect::<Result<_, _>>().map(Self::ByRows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All together have no more chains than one may have.
    #[test]
    fn chains_of_all_alternatives_count() {
        let all = |times: usize| {
            let one = format!("v1 depthwise(fused, all) pointwise(fused, lanes(1, 2, 0)x{times}) subnormals(kept)");
            [1, 2].map(|rows| format!("batch 1 rows {rows}: {one}")).join("; ").parse::<Orders>()
        };
        assert!(all(32768).is_ok());
        assert!(all(32769).unwrap_err().to_string().starts_with("expected at most 65536 chains"));
    }

    #[test]
    fn few_rows_are_not_multiplied_as_one_is() {
        let order = |sum: &str| format!("v1 depthwise(separate, all) pointwise(fused, {sum}) subnormals(kept)");
        let orders: Orders =
            format!("batch 1 rows 1: {}; batch 1 rows 49: {}", order("8x2"), order("16")).parse().unwrap();
        for (rows, sum) in [(1, "8x2"), (2, "16"), (6, "16"), (49, "16")] {
            assert_eq!(orders.pick(1, rows).to_string(), order(sum), "{rows}");
        }
    }

    #[test]
    fn the_last_rows_are_the_last_rows_of_any_number() {
        let order = |rows: &str| {
            format!(
                "v1 depthwise(separate, all) pointwise(separate, 19, {rows} columns 0..8 separate 8+11) subnormals(kept)"
            )
        };
        let seen = |rows: usize, text: &str| format!("batch 1 rows {rows}: {}", order(text));
        let orders: Orders = seen(49, "rows 0..48").parse().unwrap();
        assert_eq!(orders.pick(1, 103).to_string(), order("rows 0..100"));
        assert_eq!(orders.pick(1, 49).to_string(), order("rows 0..48"));
        let orders: Orders = seen(50, "rows 48..50").parse().unwrap();
        assert_eq!(orders.pick(1, 25).to_string(), order("rows 24..25"));
    }
}
