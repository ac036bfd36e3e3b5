//! The orders of a product's sums, which may differ between places of the result: the last columns may be summed in
//! lanes where the others are in chains, or with separate products, and the last rows otherwise again.
//!
//! A few questions, asked of every element at once, tell what kind of sum it has. Where blocks end is then asked in one
//! kind of places, the commonest; all kinds are taken to share it, which the caller checks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::data::{Scale, filled};
use super::kind::Kind;
use super::table::Table;
use super::{Unclear, tree, vanishes};
use crate::element::{Element, is_sum};
use crate::numerics::{Elsewhere, Products, Sum};

/// A result cut into more rectangles than that follows no order worth following.
const MOST_RECTANGLES: usize = 256;

/// More combinations of what the kinds may be than that are not worth trying.
const MOST_COMBINATIONS: usize = 64;

/// The sum and its products of the commonest kind, and where there are others.
type Orders = (Products, Sum, Vec<Elsewhere>);

/// The product of a black box: `rows * k` pixels times `k * columns` weights.
struct Product<F> {
    rows: usize,
    k: usize,
    columns: usize,
    call: F,
}

/// How much is asked about where blocks end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// A bisection in one row or column.
    Once,
    /// And in the last row.
    LastRow,
    /// Both, of every product.
    OfEveryProduct,
}

/// The kind of every element.
pub fn kinds<T: Element, E>(
    (rows, k, columns): (usize, usize, usize),
    call: impl FnMut(&[T], &[T]) -> Result<Vec<T>, Unclear<E>>,
) -> Result<Table<Kind>, Unclear<E>> {
    Product { rows, k, columns, call }.kinds()
}

/// The orders that fit these kinds and what else is asked, the likeliest first. The blocks that asking once finds are kept
/// for when the last row is asked about.
pub fn orders<T: Element, E>(
    (rows, k, columns): (usize, usize, usize),
    kinds: &mut Table<Kind>,
    asking: Asking,
    known: &mut Option<Sum>,
    call: impl FnMut(&[T], &[T]) -> Result<Vec<T>, Unclear<E>>,
) -> Result<Vec<Orders>, Unclear<E>> {
    let mut product = Product { rows, k, columns, call };
    kinds.values_mut().for_each(|kind| kind.apart = false);
    let mut counts = BTreeMap::<Kind, usize>::new();
    for (rows, row) in kinds.runs() {
        row.iter().for_each(|kind| *counts.entry(*kind).or_default() += rows);
    }
    let commonest = counts.iter().max_by_key(|(_, count)| **count).map(|(kind, _)| *kind).ok_or(Unclear::Tree)?;
    let mut blocks = match known.take() {
        Some(blocks) if asking == Asking::LastRow => blocks,
        _ => product.blocks(kinds, commonest, asking, None)?,
    };
    *known = Some(blocks.clone());
    let mut apart = None;
    if asking != Asking::Once {
        apart = product.set_apart(kinds, commonest, &blocks, asking)?;
    }
    if let Some(of_last) = &apart {
        if kinds.values_mut().any(|kind| *kind == commonest) {
            counts.insert(Kind { apart: true, ..commonest }, 1);
        } else {
            // What was asked first missed some, everywhere.
            blocks = of_last.clone();
            kinds.values_mut().for_each(|kind| kind.apart = false);
        }
    }
    let rectangles = rectangles(kinds, commonest);

    // What each kind may be, in every combination.
    let mut combinations: Vec<Vec<(Kind, Products, Sum)>> = vec![Vec::new()];
    for &kind in counts.keys() {
        let blocks = apart.as_ref().filter(|_| kind.apart).unwrap_or(&blocks);
        let mut sums = kind.sums(blocks, k, !is_sum::<T>()).ok_or(Unclear::Tree)?;
        if kind != commonest && !kind.apart {
            product.without_blocks(kinds, kind, blocks, &mut sums)?;
        }
        let longer = |chosen: &Vec<(Kind, Products, Sum)>| {
            let with =
                |(products, sum): &(Products, Sum)| [chosen.as_slice(), &[(kind, *products, sum.clone())]].concat();
            sums.iter().map(with).collect::<Vec<_>>()
        };
        combinations = combinations.iter().flat_map(longer).collect();
    }
    if rectangles.len() > MOST_RECTANGLES || combinations.len() > MOST_COMBINATIONS {
        return Err(Unclear::Tree);
    }
    let orders = |chosen: Vec<(Kind, Products, Sum)>| {
        let of = |wanted| {
            chosen.iter().find(|(kind, ..)| *kind == wanted).map(|(_, products, sum)| (*products, sum.clone()))
        };
        let elsewhere = |(kind, rows, columns): &(Kind, Range<usize>, Range<usize>)| {
            let (rows, columns, (products, sum)) = (rows.clone(), columns.clone(), of(*kind)?);
            Some(Elsewhere { rows, columns, products, sum })
        };
        let (products, sum) = of(commonest)?;
        Some((products, sum, rectangles.iter().map(elsewhere).collect::<Option<_>>()?))
    };
    let mut orders: Vec<Orders> = combinations.into_iter().filter_map(orders).collect();
    if !is_sum::<T>() && counts.len() == 1 && (commonest.paired() || k < 4) && k % 2 == 1 {
        let overrun = product.overrun_rows()?;
        let orders = if overrun.contains(&true) { orders.as_mut_slice() } else { &mut [] };
        for (products, sum, elsewhere) in orders {
            *products = Products::Overrun;
            // Behind the last row there is nothing to overrun into.
            let mut row = 0;
            for run in overrun[..rows - 1].chunk_by(PartialEq::eq) {
                if !run[0] {
                    let (rows, columns) = (row..row + run.len(), 0..columns);
                    elsewhere.push(Elsewhere { rows, columns, products: Products::Paired, sum: sum.clone() });
                }
                row += run.len();
            }
        }
    }
    Ok(orders)
}

impl<F> Product<F> {
    fn kinds<T: Element, E>(&mut self) -> Result<Table<Kind>, Unclear<E>>
    where
        F: FnMut(&[T], &[T]) -> Result<Vec<T>, Unclear<E>>,
    {
        let (rows, k, columns) = (self.rows, self.k, self.columns);
        // What too short a sum cannot be asked, it answers like a chain.
        let kind = Kind { sizes: [2, 3, 4], fused: None, negative: false, apart: false };
        let mut kinds = Table::new(kind, [rows, columns]);
        for other in 1..k.min(4) {
            if other == 3 && kinds.values_mut().all(|kind| kind.sizes[..2] != [2, 4]) {
                break;
            }
            let sizes = self.sizes(other)?;
            kinds.update(sizes.rows(), |kind, size| kind.sizes[other - 1] = *size);
        }
        if !is_sum::<T>() && !vanishes::<T>() {
            return Ok(kinds);
        }
        kinds.values_mut().for_each(|kind| kind.fused = Some(false));
        if k < 4 {
            let smallest = T::SMALLEST_NORMAL;
            let (pixels, filter) =
                (filled(rows * k, T::from_f64(smallest))?, filled(k * columns, T::from_f64(-smallest))?);
            let result = (self.call)(&pixels, &filter)?;
            let negative: Vec<bool> = result.iter().map(|zero| zero.to_f64().is_sign_negative()).collect();
            kinds.update(negative.chunks_exact(columns), |kind, negative| kind.negative = *negative);
        }
        if k == 1 {
            kinds.values_mut().for_each(|kind| kind.fused = Some(kind.negative));
        }
        // The next product of product 0's lane is another one for each number of lanes.
        let mut lanes: Vec<usize> = kinds.values_mut().filter_map(|kind| kind.lanes()).collect();
        lanes.sort_unstable();
        lanes.dedup();
        for lanes in lanes.into_iter().filter(|&lanes| lanes < k) {
            // (1 + e)^2 = 1 + 2e + e^2, whose last term is lost in rounding: it survives 1 + 2e taken off only if fused.
            // Products of bf16 numbers are lost only where they are infinite, and 2^128 less 2^127 is not, if fused.
            let e = 0.5f64.powi((T::MANTISSA_DIGITS + 1) / 2);
            let (before, factor) = if is_sum::<T>() { (1.0 + 2.0 * e, 1.0 + e) } else { (127f64.exp2(), 64f64.exp2()) };
            let (mut pixels, mut filter) = (filled(rows * k, T::ZERO)?, filled(k * columns, T::from_f64(1.0))?);
            for row in pixels.chunks_exact_mut(k) {
                row[0] = T::from_f64(-before);
                row[lanes] = T::from_f64(factor);
            }
            filter[lanes * columns..][..columns].fill(T::from_f64(factor));
            let result = (self.call)(&pixels, &filter)?;
            kinds.update(result.chunks_exact(columns), |kind, rest| {
                if kind.lanes() == Some(lanes) {
                    kind.fused = Some(*rest != T::ZERO && rest.to_f64().is_finite());
                }
            });
        }
        Ok(kinds)
    }

    /// Of every element, the size that holds products 0 and `other`.
    fn sizes<T: Element, E>(&mut self, other: usize) -> Result<Table<u32>, Unclear<E>>
    where
        F: FnMut(&[T], &[T]) -> Result<Vec<T>, Unclear<E>>,
    {
        let mut sizes = Table::new(2, [self.rows, self.columns]);
        for part in segments::<T>(self.k) {
            sizes.update(self.lost(other, &part)?.rows(), |size, lost| *size += lost);
            // Chains lose nothing from afar, and lanes a lot from near.
            if other < 4 && sizes.values_mut().all(|size| *size <= 4) {
                break;
            }
        }
        Ok(sizes)
    }

    /// Of every element, how many of these products are in the smallest sum that holds products 0 and `other`, beside
    /// these two.
    fn lost<T: Element, E>(&mut self, other: usize, counted: &Range<usize>) -> Result<Table<u32>, Unclear<E>>
    where
        F: FnMut(&[T], &[T]) -> Result<Vec<T>, Unclear<E>>,
    {
        let (rows, k, columns) = (self.rows, self.k, self.columns);
        let Scale { factor, mask, unit } = Scale::of::<T>();
        let factors = filled(k * columns, T::from_f64(factor))?;
        let mut pixels = filled(rows * k, T::ZERO)?;
        for row in pixels.chunks_exact_mut(k) {
            row[counted.clone()].fill(T::from_f64(unit));
            row[0] = T::from_f64(mask);
            row[other] = T::from_f64(-mask);
        }
        let units = units(counted, [0, other]) as u32;
        let result = (self.call)(&pixels, &factors)?;
        let (mut lost, mut whole) = (Table::new(0, [rows, columns]), true);
        lost.update(result.chunks_exact(columns), |lost, survivors| {
            let value = f64::from(units) - survivors.to_f64() / (unit * factor);
            *lost = value as u32;
            whole &= f64::from(*lost) == value && *lost <= units;
        });
        if whole { Ok(lost) } else { Err(Unclear::Tree) }
    }

    /// Keeps the sums of a kind that are in chains, or those that have these blocks, whichever its places answer like. Few
    /// places of random data may tell them apart once in twenty times.
    fn without_blocks<T: Element, E>(
        &mut self,
        kinds: &Table<Kind>,
        kind: Kind,
        blocks: &Sum,
        sums: &mut Vec<(Products, Sum)>,
    ) -> Result<(), Unclear<E>>
    where
        F: FnMut(&[T], &[T]) -> Result<Vec<T>, Unclear<E>>,
    {
        let chain = Sum::Chain(self.k);
        if kind.lanes() != Some(1) || kind.paired() || self.k < 4 {
            return Ok(());
        }
        let Some((other, part, [in_blocks, in_chain])) = telling::<T>(self.k, [blocks, &chain]) else { return Ok(()) };
        let lost = self.lost(other, &part)?;
        let places = kinds.rows().zip(lost.rows()).flat_map(|(kinds, lost)| kinds.iter().zip(lost));
        let answers: BTreeSet<u32> = places.filter(|(of, _)| **of == kind).map(|(_, lost)| *lost).collect();
        sums.retain(|(_, sum)| answers == BTreeSet::from([if *sum == chain { in_chain } else { in_blocks }]));
        Ok(())
    }

    /// Sets those apart, of the commonest kind, whose blocks are those of the last row; these blocks, if there are such.
    fn set_apart<T: Element, E>(
        &mut self,
        kinds: &mut Table<Kind>,
        commonest: Kind,
        blocks: &Sum,
        asking: Asking,
    ) -> Result<Option<Sum>, Unclear<E>>
    where
        F: FnMut(&[T], &[T]) -> Result<Vec<T>, Unclear<E>>,
    {
        let in_last = kinds.rows().last().is_some_and(|last| last.contains(&commonest));
        if commonest.lanes() != Some(1) || commonest.paired() || !in_last {
            return Ok(None);
        }
        let apart = self.blocks(kinds, commonest, asking, Some(self.rows - 1))?;
        let Some((other, part, [usual, of_last])) = telling::<T>(self.k, [blocks, &apart]) else { return Ok(None) };
        let mut either = true;
        kinds.update(self.lost(other, &part)?.rows(), |kind, lost| {
            if *kind == commonest {
                kind.apart = *lost == of_last;
                either &= kind.apart || *lost == usual;
            }
        });
        if either { Ok(Some(apart)) } else { Err(Unclear::Tree) }
    }

    /// For each row, whether the product of its last pixel value is paired with the next row's first one.
    fn overrun_rows<T: Element, E>(&mut self) -> Result<Vec<bool>, Unclear<E>>
    where
        F: FnMut(&[T], &[T]) -> Result<Vec<T>, Unclear<E>>,
    {
        let (rows, k, columns) = (self.rows, self.k, self.columns);
        let ones = filled(k * columns, T::from_f64(1.0))?;
        let mut overrun = filled(rows, false)?;
        for first in [0, 1] {
            let mut pixels = filled(rows * k, T::from_f64(1.0))?;
            for row in (first..rows).step_by(2) {
                pixels[row * k] = T::from_f64(f64::INFINITY);
            }
            let result = (self.call)(&pixels, &ones)?;
            for row in (1 - first..rows).step_by(2) {
                overrun[row] = result[row * columns].to_f64().is_nan();
            }
        }
        Ok(overrun)
    }

    /// The chains and blocks of the commonest kind's sum, as if it had no lanes. Each column of the filter, or each row
    /// of the pixels, holds one question, or the part of one that its result can count.
    fn blocks<T: Element, E>(
        &mut self,
        kinds: &Table<Kind>,
        commonest: Kind,
        asking: Asking,
        in_this_row: Option<usize>,
    ) -> Result<Sum, Unclear<E>>
    where
        F: FnMut(&[T], &[T]) -> Result<Vec<T>, Unclear<E>>,
    {
        let (rows, k, columns) = (self.rows, self.k, self.columns);
        let Scale { factor, mask, unit } = Scale::of::<T>();
        let last_distance = commonest.distances().ok_or(Unclear::Tree)?.last();
        let lanes = last_distance.map(|&last_distance| tree::Lanes { last_distance, terms: commonest.in_lanes() });
        let mut in_row = Vec::new();
        let mut in_column = filled(columns, 0usize)?;
        for (rows, kinds) in kinds.runs() {
            in_row.push(kinds.iter().filter(|kind| **kind == commonest).count());
            for (kind, in_column) in kinds.iter().zip(&mut in_column) {
                *in_column += if *kind == commonest { rows } else { 0 };
            }
        }
        // The row, or the column, with the most places of the kind.
        let ((most, run), (most_in_column, column)) = (largest(&in_row), largest(&in_column));
        let row = kinds.runs().map(|(rows, _)| rows).take(run).sum();
        let (row, in_columns) = (in_this_row.unwrap_or(row), in_this_row.is_some() || most >= most_in_column);
        let askers: Vec<usize> = if in_columns {
            let kinds = kinds.rows().nth(row).unwrap_or_default();
            (0..columns).filter(|column| kinds[*column] == commonest).collect()
        } else {
            // The last row may have blocks of its own.
            let last = if most_in_column > 1 { rows - 1 } else { rows };
            let in_column = kinds.rows().take(last).enumerate().filter(|(_, kinds)| kinds[column] == commonest);
            in_column.map(|(row, _)| row).collect()
        };
        let parts: Vec<Range<usize>> = segments::<T>(k).collect();
        // Where products come in pairs, the pairs are the terms: each one's first product is added last.
        let products = if commonest.paired() { 2 } else { 1 };
        let ask = |questions: &[tree::Question]| {
            let mut sizes = vec![2.0; questions.len()];
            let asked = (0..questions.len()).flat_map(|question| parts.iter().map(move |part| (question, part)));
            for asked in asked.collect::<Vec<_>>().chunks(askers.len()) {
                let (in_pixels, in_filter) = if in_columns { (factor, unit) } else { (unit, factor) };
                let mut pixels = filled(rows * k, T::from_f64(in_pixels))?;
                let mut filter = filled(k * columns, T::from_f64(in_filter))?;
                let place = |n: usize, at: usize| if in_columns { at * columns + n } else { n * k + at };
                let asking = if in_columns { &mut filter } else { &mut pixels };
                for (&(question, part), &n) in asked.iter().zip(&askers) {
                    let tree::Question { first, other } = questions[question];
                    (0..k).filter(|at| !part.contains(at)).for_each(|at| asking[place(n, at)] = T::ZERO);
                    asking[place(n, first * products)] = T::from_f64(mask);
                    asking[place(n, other * products)] = T::from_f64(-mask);
                }
                let result = (self.call)(&pixels, &filter)?;
                for (&(question, part), &n) in asked.iter().zip(&askers) {
                    let tree::Question { first, other } = questions[question];
                    let survivors = result[if in_columns { row * columns + n } else { n * columns + column }].to_f64();
                    sizes[question] += units(part, [first, other].map(|term| term * products)) as f64;
                    sizes[question] -= survivors / (unit * factor);
                }
            }
            Ok(sizes.into_iter().map(|size| (size / products as f64).ceil()).collect())
        };
        let at_once = (askers.len() / parts.len()).max(1);
        let sum = tree::find(k.div_ceil(products), lanes, at_once, asking == Asking::OfEveryProduct, ask)?
            .ok_or(Unclear::Tree)?;
        Ok(if commonest.paired() { in_products(&sum, &mut (0..k)) } else { sum })
    }
}

/// The products, in as many parts as the units of one part can be counted in a result.
fn segments<T: Element>(k: usize) -> impl Iterator<Item = Range<usize>> {
    (0..k).step_by(Scale::most::<T>()).map(move |start| start..k.min(start + Scale::most::<T>()))
}

/// What tells two sums of chains and blocks apart: a product, a part of them all, and of that part how many products are in
/// the smallest partial sum that holds products 0 and this one, beside these, in either.
fn telling<T: Element>(k: usize, sums: [&Sum; 2]) -> Option<(usize, Range<usize>, [u32; 2])> {
    let sizes = |other: usize| sums.map(|sum| tree::size(sum, 0, 0, other));
    let differ = |[a, b]: [u32; 2]| a != b;
    let other = (1..k).find(|&other| differ(sizes(other).map(|size| size as u32)))?;
    let lost =
        |part: &Range<usize>| sizes(other).map(|size| units(&(part.start..part.end.min(size)), [0, other]) as u32);
    let (lost, part) = segments::<T>(k).map(|part| (lost(&part), part)).find(|(lost, _)| differ(*lost))?;
    Some((other, part, lost))
}

/// How many units a segment holds beside the two terms that a question is about.
fn units(segment: &Range<usize>, terms: [usize; 2]) -> usize {
    segment.len() - terms.iter().filter(|&term| segment.contains(term)).count()
}

/// A sum over pairs as one over products, the last of which may have no partner.
fn in_products(sum: &Sum, rest: &mut Range<usize>) -> Sum {
    match sum {
        Sum::Blocks(sums) => Sum::Blocks(sums.iter().map(|sum| in_products(sum, rest)).collect()),
        other => {
            let length = rest.len().min(2 * other.length().unwrap_or(rest.len()));
            rest.start += length;
            Sum::Chain(length)
        }
    }
}

/// The largest count and where it stands first.
fn largest(counts: &[usize]) -> (usize, usize) {
    let first_of_most = |(at, &count): (usize, &usize)| (count, std::cmp::Reverse(at));
    counts.iter().enumerate().map(first_of_most).max().map_or((0, 0), |(count, at)| (count, at.0))
}

/// The places of other kinds than the commonest: runs of rows that are alike, cut where the kind changes.
fn rectangles(kinds: &Table<Kind>, commonest: Kind) -> Vec<(Kind, Range<usize>, Range<usize>)> {
    let runs: Vec<(usize, &[Kind])> = kinds.runs().collect();
    let mut found = Vec::new();
    let mut row = 0;
    for alike in runs.chunk_by(|(_, a), (_, b)| a == b) {
        let rows: usize = alike.iter().map(|(rows, _)| rows).sum();
        let mut column = 0;
        for same in alike[0].1.chunk_by(PartialEq::eq) {
            if same[0] != commonest {
                found.push((same[0], row..row + rows, column..column + same.len()));
            }
            column += same.len();
        }
        row += rows;
    }
    found
}
