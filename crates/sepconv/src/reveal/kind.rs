//! What some questions tell of an element's sum, and every order that gives these answers.

use std::collections::HashSet;

use crate::numerics::{Folds, Products, Sum};

/// How long a part that is dealt out to lanes may be rounded down to: so many products to each lane at a time.
const UNROLLED: [usize; 4] = [1, 2, 4, 8];

/// Products of a matrix and a vector have so many, of which what is left of a sum takes half, a quarter, and so on.
const MATRIX_VECTOR_LANES: usize = 8;

/// The sizes of a chain that products enter two by two, the second of each pair first.
const PAIRED: [u32; 3] = [2, 4, 3];

/// What some questions tell of an element's sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// The sizes that hold products 0 and 1, 0 and 2, and (where pairs and four lanes answer alike) 0 and 3.
    pub(super) sizes: [u32; 3],
    /// Whether the next product of product 0's lane is fused to it; `None` where that makes no difference, products of
    /// f16 numbers being exact.
    pub(super) fused: Option<bool>,
    /// Whether a sum of fewer than four products that vanish below zero is -0: it is +0 where products are separate, as
    /// every chain begins with +0.
    pub(super) negative: bool,
    /// Whether its blocks are those of the last row, where these are others.
    pub(super) apart: bool,
}

impl Kind {
    /// At which distances lanes are added up, none for a chain; `None` for an order that is not known here.
    pub(super) fn distances(self) -> Option<&'static [usize]> {
        match self.sizes {
            [2, 3, _] | PAIRED => Some(&[]),
            [_, 2, _] => Some(&[1]),
            [with_1, with_2, _] if with_2 == 2 * with_1 => Some(&[1, 2]),
            [with_1, with_2, _] if with_2 == 4 * with_1 => Some(&[1, 4, 2]),
            _ => None,
        }
    }

    /// Whether products are added two by two, the second of each pair first.
    pub(super) fn paired(self) -> bool {
        self.sizes == PAIRED
    }

    /// How many; 1 for a chain.
    pub(super) fn lanes(self) -> Option<usize> {
        Some(1 << self.distances()?.len())
    }

    /// How many products of the first block are dealt out to lanes.
    pub(super) fn in_lanes(self) -> usize {
        self.sizes[0].max(self.sizes[1]) as usize
    }

    /// Every order over these blocks that gives the kind's answers, of a type whose products may come in pairs or not.
    pub(super) fn sums(self, blocks: &Sum, k: usize, may_be_paired: bool) -> Option<Vec<(Products, Sum)>> {
        let both = [Products::Fused, Products::Separate];
        let asked = match self.fused {
            _ if may_be_paired && self.paired() => &[Products::Paired],
            Some(true) => &both[..1],
            // Of less than four products pairs cannot be told from a chain.
            Some(false) if may_be_paired && k < 4 => &[Products::Separate, Products::Paired],
            Some(false) => &both[1..],
            None if may_be_paired && k < 4 => &[Products::Fused, Products::Separate, Products::Paired],
            None => &both,
        };
        let with = |sum: Sum, products: &[Products]| products.iter().map(|p| (*p, sum.clone())).collect::<Vec<_>>();
        let Some(folds) = Folds::new(self.distances()?) else {
            let mut sums = vec![blocks.clone(), Sum::Chain(k)];
            sums.dedup();
            if (2..4).contains(&k) && self.fused == Some(false) && self.negative {
                // Each of two lanes has one product only, fused to +0.
                let folds = Folds::new(&[1])?;
                let lanes = with(Sum::Lanes { folds, each: 1, tail: k - 2 }, &both[..1]);
                let pairs = if may_be_paired { with(blocks.clone(), &[Products::Paired]) } else { Vec::new() };
                return Some([pairs, lanes].concat());
            }
            return Some(sums.into_iter().flat_map(|sum| with(sum, asked)).collect());
        };
        let in_lanes = self.in_lanes();
        // It may have no blocks where the commonest kind has some.
        let mut bases = vec![blocks.clone(), Sum::Chain(k)];
        bases.dedup();
        if folds.lanes() == MATRIX_VECTOR_LANES {
            bases.extend(bases.clone().iter().map(|base| Sum::blocks(&halved(base, 2 * folds.lanes()))));
        }
        let rounded = |base: &Sum| {
            let groups = UNROLLED.iter().map(|unrolled| folds.lanes() * unrolled);
            let fitting = groups.filter(|group| first_chain(base) / group * group == in_lanes);
            fitting.map(|group| deal_out(base, &folds, group)).collect::<Vec<_>>()
        };
        let mut sums: Vec<Sum> = bases.iter().flat_map(rounded).collect();
        // A last product looks the same added to the sum before it or as a block of its own.
        let blocks_of = |sum: &Sum| match sum {
            Sum::Lanes { folds, each, tail: 1 } => {
                let lanes = Sum::Lanes { folds: folds.clone(), each: *each, tail: 0 };
                Some(Sum::Blocks(vec![lanes, Sum::Chain(1)]))
            }
            _ => None,
        };
        sums.extend(sums.iter().filter_map(blocks_of).collect::<Vec<_>>());
        // First, as it is the only one that is known where it differs from the others.
        let halving = bases.iter().filter(|base| first_chain(base) == in_lanes);
        sums.splice(..0, halving.map(|base| deal_out_halving(base, &folds)));
        // Where every length is a multiple, several say the same.
        let mut seen = HashSet::new();
        sums.retain(|sum| seen.insert(sum.clone()));
        // One product in a lane is fused to nothing.
        let products = if in_lanes > folds.lanes() { asked } else { &both };
        Some(sums.into_iter().flat_map(|sum| with(sum, products)).collect())
    }
}

fn first_chain(sum: &Sum) -> usize {
    match sum {
        Sum::Blocks(sums) => sums.first().map_or(0, first_chain),
        other => other.length().unwrap_or(0),
    }
}

/// Each chain of the blocks dealt out to lanes, but for what is left beyond whole groups.
fn deal_out(sum: &Sum, folds: &Folds, group: usize) -> Sum {
    match sum {
        Sum::Blocks(sums) => Sum::Blocks(sums.iter().map(|sum| deal_out(sum, folds, group)).collect()),
        Sum::Chain(length) if *length >= group => {
            let dealt = length / group * group;
            Sum::Lanes { folds: folds.clone(), each: dealt / folds.lanes(), tail: length - dealt }
        }
        other => other.clone(),
    }
}

/// The lengths of the blocks' chains, each cut behind the last whole group and then into powers of two, the largest first.
fn halved(sum: &Sum, group: usize) -> Vec<usize> {
    match sum {
        Sum::Blocks(sums) => sums.iter().flat_map(|sum| halved(sum, group)).collect(),
        other => {
            let length = other.length().unwrap_or(0);
            let rest = length % group;
            let powers = (0..usize::BITS).rev().map(|bit| rest & 1 << bit);
            std::iter::once(length - rest).chain(powers).filter(|&part| part > 0).collect()
        }
    }
}

/// Each chain of the blocks dealt out to as many lanes, neighbours first, as it fills.
fn deal_out_halving(sum: &Sum, folds: &Folds) -> Sum {
    match sum {
        Sum::Blocks(sums) => Sum::Blocks(sums.iter().map(|sum| deal_out_halving(sum, folds)).collect()),
        Sum::Chain(length) => {
            let fewer = [Folds::new(&[1, 2]), Folds::new(&[1])];
            let fills = |folds: &Folds| length.is_multiple_of(folds.lanes());
            match [Some(folds.clone())].into_iter().chain(fewer).flatten().find(fills) {
                Some(folds) => Sum::Lanes { each: length / folds.lanes(), folds, tail: 0 },
                None => sum.clone(),
            }
        }
        other => other.clone(),
    }
}
