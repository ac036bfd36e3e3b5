//! The orders of a product's sums, which may differ between places of the result: the last columns may be summed in
//! lanes where the others are in chains, and the last rows otherwise again.
//!
//! Two questions, asked of every element at once, tell how many lanes its sum has. Where blocks end is then asked in one
//! kind of places, the commonest; all kinds are taken to share it, which the caller checks.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Unclear, tree};
use crate::element::Element;
use crate::numerics::{Elsewhere, Sum};

/// Large enough that every other term is lost beside it; exact in every type.
const MASK: f64 = (1u128 << 80) as f64;

/// A result cut into more rectangles than that follows no order worth following.
const MOST_RECTANGLES: usize = 256;

/// How long a part that is dealt out to lanes may be rounded down to: so many products to each lane at a time.
const UNROLLED: [usize; 4] = [1, 2, 4, 8];

/// What two questions tell of an element's sum: the sizes that hold products 0 and 1, and 0 and 2.
type Sizes = [usize; 2];

/// The product of a black box: `rows * k` pixels times `k * columns` weights.
struct Product<F> {
    rows: usize,
    k: usize,
    columns: usize,
    call: F,
}

/// The orders of sums that fit what is asked, of every product if `thorough`, the likeliest first: the commonest, and those that other places have.
pub fn orders<T: Element, E>(
    (rows, k, columns): (usize, usize, usize),
    thorough: bool,
    call: impl FnMut(&[T], &[T]) -> Result<Vec<T>, Unclear<E>>,
) -> Result<Vec<(Sum, Vec<Elsewhere>)>, Unclear<E>> {
    let mut product = Product { rows, k, columns, call };
    let kinds = product.kinds()?;
    let mut counts = BTreeMap::<Sizes, usize>::new();
    kinds.iter().for_each(|kind| *counts.entry(*kind).or_default() += 1);
    let commonest = counts.iter().max_by_key(|(_, count)| **count).map(|(kind, _)| *kind).ok_or(Unclear::Tree)?;
    let lanes = lanes_of(commonest).ok_or(Unclear::Tree)?;
    let blocks = product.blocks(&kinds, commonest, lanes, thorough)?;
    let rectangles = rectangles(&kinds, columns, commonest);
    if rectangles.len() > MOST_RECTANGLES {
        return Err(Unclear::Tree);
    }

    // Each kind's possible sums, in every combination.
    let mut combinations: Vec<Vec<(Sizes, Sum)>> = vec![Vec::new()];
    for &kind in counts.keys() {
        let sums = in_lanes(&blocks, kind).ok_or(Unclear::Tree)?;
        let longer = |chosen: &Vec<(Sizes, Sum)>| {
            sums.iter().map(|sum| [chosen.as_slice(), &[(kind, sum.clone())]].concat()).collect::<Vec<_>>()
        };
        combinations = combinations.iter().flat_map(longer).collect();
    }
    let order = |chosen: Vec<(Sizes, Sum)>| {
        let chosen: BTreeMap<Sizes, Sum> = chosen.into_iter().collect();
        let elsewhere = |(kind, rows, columns): &(Sizes, Range<usize>, Range<usize>)| Elsewhere {
            rows: rows.clone(),
            columns: columns.clone(),
            sum: chosen[kind].clone(),
        };
        (chosen[&commonest].clone(), rectangles.iter().map(elsewhere).collect())
    };
    Ok(combinations.into_iter().map(order).collect())
}

impl<F> Product<F> {
    /// What is in every element, row by row.
    fn kinds<T: Element, E>(&mut self) -> Result<Vec<Sizes>, Unclear<E>>
    where
        F: FnMut(&[T], &[T]) -> Result<Vec<T>, Unclear<E>>,
    {
        // What too short a sum cannot be asked, it answers like a chain.
        let mut kinds = vec![[2, 3]; self.rows * self.columns];
        let filter = vec![T::from_f64(1.0); self.k * self.columns];
        for other in 1..self.k.min(3) {
            let mut pixels = vec![T::from_f64(1.0); self.rows * self.k];
            for row in pixels.chunks_exact_mut(self.k) {
                row[0] = T::from_f64(MASK);
                row[other] = T::from_f64(-MASK);
            }
            let result = (self.call)(&pixels, &filter)?;
            for (kind, survivors) in kinds.iter_mut().zip(result) {
                let size = self.k as f64 - survivors.to_f64();
                if size.fract() != 0.0 || !(2.0..=self.k as f64).contains(&size) {
                    return Err(Unclear::Tree);
                }
                kind[other - 1] = size as usize;
            }
        }
        Ok(kinds)
    }

    /// The chains and blocks of the commonest kind's sum, as if it had no lanes. Each column of the filter, or each row
    /// of the pixels, holds one question.
    fn blocks<T: Element, E>(
        &mut self,
        kinds: &[Sizes],
        commonest: Sizes,
        lanes: usize,
        thorough: bool,
    ) -> Result<Sum, Unclear<E>>
    where
        F: FnMut(&[T], &[T]) -> Result<Vec<T>, Unclear<E>>,
    {
        let (rows, k, columns) = (self.rows, self.k, self.columns);
        let places: Vec<_> =
            (0..rows * columns).filter(|&at| kinds[at] == commonest).map(|at| (at / columns, at % columns)).collect();
        let by_row = longest(places.iter().map(|&(row, column)| (row, column)));
        let by_column = longest(places.iter().map(|&(row, column)| (column, row)));
        let in_columns = by_row.1.len() >= by_column.1.len();
        let (fixed, askers) = if in_columns { by_row } else { by_column };
        let ask = |questions: &[tree::Question]| {
            let (mut pixels, mut filter) = (vec![T::from_f64(1.0); rows * k], vec![T::from_f64(1.0); k * columns]);
            for (question, &n) in questions.iter().zip(&askers) {
                let other = rounded(question, lanes);
                for (at, value) in [(question.first, MASK), (other, -MASK)] {
                    let place = if in_columns { &mut filter[at * columns + n] } else { &mut pixels[n * k + at] };
                    *place = T::from_f64(value);
                }
            }
            let result = (self.call)(&pixels, &filter)?;
            let size = |(question, &n): (&tree::Question, &usize)| {
                let at = if in_columns { fixed * columns + n } else { n * columns + fixed };
                without_lanes(question, lanes, k as f64 - result[at].to_f64())
            };
            Ok(questions.iter().zip(&askers).map(size).collect())
        };
        tree::find(k, askers.len(), thorough, ask)?.ok_or(Unclear::Tree)
    }
}

/// The first key with the most values, and these.
fn longest(pairs: impl Iterator<Item = (usize, usize)>) -> (usize, Vec<usize>) {
    let mut lists = BTreeMap::<usize, Vec<usize>>::new();
    pairs.for_each(|(key, value)| lists.entry(key).or_default().push(value));
    let most = lists.values().map(Vec::len).max();
    lists.into_iter().find(|(_, list)| Some(list.len()) == most).unwrap_or_default()
}

/// The question's other product, or the nearest before it that is in the first product's lane.
fn rounded(question: &tree::Question, lanes: usize) -> usize {
    let distance = question.other - question.first;
    question.first + (distance / lanes * lanes).max(distance.min(1))
}

/// An answer as it would be without lanes: the k-th product of a lane stands where k whole vectors have been added.
fn without_lanes(question: &tree::Question, lanes: usize, size: f64) -> f64 {
    let (distance, asked) = (question.other - question.first, rounded(question, lanes) - question.first);
    let along = distance < lanes || size == (asked / lanes + 1) as f64 || size == (asked + 1) as f64;
    if along { (distance + 1) as f64 } else { size }
}

/// One chain, or the number of lanes; `None` for an order that is not known here.
fn lanes_of([with_1, with_2]: Sizes) -> Option<usize> {
    match (with_1, with_2) {
        (2, 3) => Some(1),
        (_, 2) => Some(2),
        (two, four) if four == 2 * two => Some(4),
        _ => None,
    }
}

/// The same blocks, each chain of them dealt out to the lanes of a kind of places, but for a tail: every way that gives
/// the kind's sizes.
fn in_lanes(blocks: &Sum, kind: Sizes) -> Option<Vec<Sum>> {
    let lanes = lanes_of(kind)?;
    if lanes == 1 {
        return Some(vec![blocks.clone()]);
    }
    let in_first = if lanes == 2 { kind[0] } else { kind[1] };
    let fits = |unrolled: &usize| {
        let group = lanes * unrolled;
        first_chain(blocks) / group * group == in_first
    };
    let mut sums: Vec<_> = UNROLLED.iter().filter(|u| fits(u)).map(|u| deal_out(blocks, lanes, lanes * u)).collect();
    // Where every length is a multiple, several say the same.
    sums.dedup();
    Some(sums)
}

fn first_chain(sum: &Sum) -> usize {
    match sum {
        Sum::Blocks(sums) => sums.first().map_or(0, first_chain),
        other => other.length().unwrap_or(0),
    }
}

fn deal_out(sum: &Sum, lanes: usize, group: usize) -> Sum {
    match sum {
        Sum::Blocks(sums) => Sum::Blocks(sums.iter().map(|sum| deal_out(sum, lanes, group)).collect()),
        Sum::Chain(length) if *length >= group => {
            let dealt = length / group * group;
            Sum::Lanes { lanes, each: dealt / lanes, tail: length - dealt }
        }
        other => other.clone(),
    }
}

/// The places of other kinds than the commonest: runs of rows that are alike, cut where the kind changes.
fn rectangles(kinds: &[Sizes], columns: usize, commonest: Sizes) -> Vec<(Sizes, Range<usize>, Range<usize>)> {
    let rows: Vec<&[Sizes]> = kinds.chunks_exact(columns).collect();
    let mut found = Vec::new();
    let mut row = 0;
    for alike in rows.chunk_by(PartialEq::eq) {
        let mut column = 0;
        for same in alike[0].chunk_by(PartialEq::eq) {
            if same[0] != commonest {
                found.push((same[0], row..row + alike.len(), column..column + same.len()));
            }
            column += same.len();
        }
        row += alike.len();
    }
    found
}
