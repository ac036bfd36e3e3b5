//! The tree of a sum, from questions of one kind: how many terms has the smallest partial sum that holds both of two?
//!
//! Seen from its first term, a sum of chains and blocks grows: term by term along the leading chain, then by a whole
//! block at a time. Blocks lie side by side, so the size seen from any of a block's terms tells where the block ends,
//! and the next one begins there. What a block is made of, questions from *its* first term tell. So a chain costs a
//! bisection and a block one question, and as many questions are asked at once as a product has columns or rows.

use std::collections::BTreeMap;

use crate::numerics::Sum;

/// Asks for the number of terms in the smallest partial sum that holds both terms; `first < other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    pub first: usize,
    pub other: usize,
}

/// What is known of a sum in lanes before its blocks are.
#[derive(Clone, Copy, Debug)]
pub struct Lanes {
    /// The distance of the two lanes that are added up last.
    pub last_distance: usize,
    /// How many terms of the first block are dealt out.
    pub terms: usize,
}

/// The sum over `terms` terms, `at_once` questions at a time; `None` if it is not made of ascending chains and blocks.
/// `ask` gives a size for each question, whole numbers if it is a sum at all. Bisecting can miss a block that ends just
/// where a chain was looked at; `thorough` asks of every term. Blocks that are dealt out to `lanes` are found as if they
/// were chains.
pub fn find<E>(
    terms: usize,
    lanes: Option<Lanes>,
    at_once: usize,
    thorough: bool,
    mut ask: impl FnMut(&[Question]) -> Result<Vec<f64>, E>,
) -> Result<Option<Sum>, E> {
    let mut parts = vec![Part::new(0, terms, lanes)];
    let mut done: Vec<Part> = Vec::new();
    while !parts.is_empty() {
        let share = if thorough { usize::MAX } else { (at_once / parts.len()).max(1) };
        let questions: Vec<Question> = parts.iter().flat_map(|part| part.questions(share)).take(at_once).collect();
        if !questions.is_empty() {
            let sizes = ask(&questions)?;
            for (question, size) in questions.iter().zip(sizes) {
                let Some(part) = parts.iter_mut().find(|part| part.first == question.first) else { continue };
                if !part.learn(question.other, size) {
                    return Ok(None);
                }
            }
        }
        let (open, closed): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| !part.questions(1).is_empty());
        parts = open;
        for part in closed {
            let Some(blocks) = part.blocks() else { return Ok(None) };
            // A block of one or two terms can only be a chain.
            parts.extend(blocks.iter().filter(|b| b.len() > 2).map(|b| Part::new(b.start, b.end, lanes)));
            done.push(part);
        }
    }
    Ok(Some(sum_of(0..terms, &done)))
}

/// The terms `first..end`, known to be one partial sum of the tree.
struct Part {
    first: usize,
    end: usize,
    /// The distance of the two lanes that are added up last, until it is known how many terms are in lanes.
    last_distance: Option<usize>,
    /// The last term that is known to be in a lane, or else the first of all.
    in_lanes: usize,
    /// For some terms, where the smallest partial sum that holds it and `first` ends.
    ends: BTreeMap<usize, usize>,
}

impl Part {
    fn new(first: usize, end: usize, lanes: Option<Lanes>) -> Self {
        // The last term is held by nothing less than the whole.
        let ends = if end - first > 1 { BTreeMap::from([(end - 1, end)]) } else { BTreeMap::new() };
        let mut part = Self { first, end, last_distance: None, in_lanes: first, ends };
        match lanes {
            Some(lanes) if first == 0 => part.deal_out(lanes.terms),
            Some(lanes) => part.last_distance = Some(lanes.last_distance).filter(|distance| first + distance + 1 < end),
            None => {}
        }
        part
    }

    /// All terms in lanes are held by the sum of the last two lanes: they count as the beginning of the chain.
    fn deal_out(&mut self, terms: usize) {
        self.in_lanes = self.first + terms - 1;
        self.ends.insert(self.in_lanes, self.first + terms);
    }

    /// Takes in an answer; false if no sum of adjacent blocks has it.
    fn learn(&mut self, other: usize, size: f64) -> bool {
        let least = other - self.first + 1;
        if size.fract() != 0.0 || size < least as f64 || size > (self.end - self.first) as f64 {
            return false;
        }
        let size = size as usize;
        if self.last_distance.take().is_some() {
            self.deal_out(size);
            return true;
        }
        self.ends.insert(other, self.first + size);
        let ends: Vec<usize> = self.ends.values().copied().collect();
        ends.is_sorted()
    }

    /// The leading chain holds all terms up to the first of these at least, and not the second.
    fn chain_bounds(&self) -> (usize, usize) {
        // The last term looks like the end of a chain whatever the sum; it proves nothing.
        let unlike = self.ends.iter().find(|&(&other, &end)| end != other + 1);
        let limit = unlike.map_or(self.end, |(&other, _)| other);
        let along = self.ends.range(..limit.min(self.end - 1)).next_back();
        (along.map_or(self.in_lanes, |(&other, _)| other.max(self.in_lanes)), limit)
    }

    /// What to ask next, at most about `share` questions; none if all is known.
    fn questions(&self, share: usize) -> Vec<Question> {
        let (last, limit) = self.chain_bounds();
        let question = |other| Question { first: self.first, other };
        if let Some(distance) = self.last_distance {
            return vec![question(self.first + distance)];
        }
        // Where blocks begin: behind every known end.
        let mut others: Vec<usize> = (self.ends.range(limit..).map(|(_, &end)| end))
            .filter(|end| *end < self.end && !self.ends.contains_key(end))
            .collect();
        others.dedup();
        let open = last + 1..limit.min(self.end - 1);
        let samples = share.saturating_sub(others.len()).clamp(1, open.len().max(1));
        for n in 0..samples.min(open.len()) {
            let mut other = open.start + (2 * n + 1) * open.len() / (2 * samples);
            // A block's last term looks like a chain's: keep off the places where blocks tend to end.
            if samples < open.len() && (other + 1).is_multiple_of(8) && open.contains(&(other - 1)) {
                other -= 1;
            }
            // In a chain, the last but one settles the rest.
            let other = if n > 0 && n + 1 == samples { open.end - 1 } else { other };
            others.push(other);
        }
        others.dedup();
        others.into_iter().map(question).collect()
    }

    /// The blocks behind the leading chain, once nothing is left to ask; `None` if they do not lie side by side.
    fn blocks(&self) -> Option<Vec<std::ops::Range<usize>>> {
        let mut blocks = Vec::new();
        let mut start = self.chain_bounds().1;
        while start < self.end {
            let end = *self.ends.get(&start)?;
            blocks.push(start..end);
            start = end;
        }
        Some(blocks)
    }
}

fn sum_of(terms: std::ops::Range<usize>, done: &[Part]) -> Sum {
    let Some(part) = done.iter().find(|part| part.first == terms.start && part.end == terms.end) else {
        return Sum::Chain(terms.len());
    };
    let blocks = part.blocks().unwrap_or_default();
    let chain = Sum::Chain(part.chain_bounds().1 - terms.start);
    if blocks.is_empty() {
        return chain;
    }
    Sum::Blocks(std::iter::once(chain).chain(blocks.into_iter().map(|block| sum_of(block, done))).collect())
}

/// How many terms the smallest partial sum has that holds both terms, of a sum of chains and blocks that begins with
/// term `start`.
pub fn size(sum: &Sum, start: usize, first: usize, other: usize) -> usize {
    let Sum::Blocks(sums) = sum else { return other - start + 1 };
    let mut begin = start;
    for sum in sums {
        let end = begin + sum.length().unwrap_or(0);
        if other < end {
            return if first >= begin { size(sum, begin, first, other) } else { end - start };
        }
        begin = end;
    }
    begin - start
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The answer as the order that it means: nested first blocks and chains of chains say the same without.
    fn found(sum: &Sum, at_once: usize, thorough: bool) -> (Option<Sum>, usize) {
        let mut calls = 0;
        let result = find(sum.length().unwrap(), None, at_once, thorough, |questions| {
            calls += 1;
            assert!(questions.len() <= at_once);
            Ok::<_, ()>(questions.iter().map(|q| size(sum, 0, q.first, q.other) as f64).collect())
        });
        (result.unwrap(), calls)
    }

    #[test]
    fn what_tensorflow_was_seen_to_do() {
        for lengths in [&[32][..], &[352, 160], &[256, 256, 216], &[176, 176, 176, 176, 176, 144], &[1], &[2]] {
            for at_once in [1, 7, 64, 1024] {
                let sum = Sum::blocks(lengths);
                let (got, calls) = found(&sum, at_once, false);
                assert_eq!(got, Some(sum), "{lengths:?} {at_once}");
                assert!(at_once < 64 || calls <= 6, "{lengths:?} {at_once}: {calls} calls");
            }
        }
        let every_80 = Sum::blocks(&[[80; 19].as_slice(), &[16]].concat());
        let (got, calls) = found(&every_80, 100, false);
        assert_eq!(got, Some(every_80));
        assert!(calls <= 6, "{calls}");
        let nested = Sum::Blocks(vec![
            Sum::Chain(264),
            Sum::Chain(264),
            Sum::Blocks(vec![Sum::Chain(264), Sum::Chain(264)]),
            Sum::Chain(504),
        ]);
        assert_eq!(found(&nested, 512, false).0, Some(nested));
    }

    #[test]
    fn lanes_are_noticed() {
        // Eight lanes, summed apart: terms 0 and 8 meet at once, 0 and 1 only at the end.
        let size = |q: &Question| if q.first % 8 == q.other % 8 { (q.other - q.first) / 8 + 1 } else { 64 };
        for at_once in [1, 16, 64] {
            let got = find(64, None, at_once, false, |qs| Ok::<_, ()>(qs.iter().map(|q| size(q) as f64).collect()));
            assert_eq!(got, Ok(None), "{at_once}");
        }
    }

    fn blocks_of_blocks() -> impl Strategy<Value = Sum> {
        let blocks = prop::collection::vec((2usize..60, 2usize..4, prop::bool::ANY), 2..12);
        (2usize..60, blocks).prop_map(|(first, blocks)| {
            let block = |(length, times, nested): (usize, usize, bool)| match nested {
                false => Sum::Chain(length),
                true => Sum::Blocks(vec![Sum::Chain(length); times]),
            };
            Sum::Blocks(std::iter::once(Sum::Chain(first)).chain(blocks.into_iter().map(block)).collect())
        })
    }

    proptest! {
        #[test]
        fn every_sum_is_found_when_everything_is_asked(sum in blocks_of_blocks()) {
            let terms = sum.length().unwrap();
            prop_assert_eq!(found(&sum, terms, false).0, Some(sum.clone()));
            for at_once in [1, 7] {
                prop_assert_eq!(found(&sum, at_once, true).0, Some(sum.clone()));
            }
        }
    }
}
