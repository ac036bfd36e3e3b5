//! The steps of a sum over k, in the order that the numerics ask for: each level is written before it is read.

use std::ops::Range;

use crate::kernels::block::{Step, Then};
use crate::numerics::Sum;

impl Step {
    /// Whether its products are pairs of an even one and the next, but for the last of all.
    pub(super) fn pairs_up(&self, k: usize) -> bool {
        match self {
            Self::Chain { products, stride, .. } => {
                *stride == 1
                    && products.start.is_multiple_of(2)
                    && (products.end.is_multiple_of(2) || products.end == k)
            }
            Self::Fold { .. } => true,
        }
    }

    /// Makes a step over products that [pair up](Self::pairs_up) one over the pairs.
    pub(super) fn count_pairs(&mut self) {
        if let Self::Chain { products, .. } = self {
            *products = products.start / 2..products.end.div_ceil(2);
        }
    }

    /// Behind its last product.
    pub(super) fn end(&self) -> usize {
        if let Self::Chain { products, .. } = self { products.end } else { 0 }
    }

    pub(super) fn level(&self) -> usize {
        match self {
            Self::Chain { level, .. } | Self::Fold { level } => *level,
        }
    }
}

/// The steps that compute the sum over the products from `next` on, as the value of `level` or added to it.
pub(super) fn add_steps(sum: &Sum, k: usize, next: &mut usize, level: usize, first: bool, steps: &mut Vec<Step>) {
    let then = if first { Then::Store } else { Then::Add };
    let rest = k - *next;
    let mut chain = |length: usize| {
        let products = *next..*next + length;
        *next = products.end;
        steps.push(Step::Chain { products, stride: 1, level, then });
    };
    match sum {
        Sum::Whole => chain(rest),
        Sum::Chain(length) => chain(*length),
        Sum::Blocks(sums) if sums.is_empty() => chain(0),
        Sum::Blocks(sums) => {
            // What is added to a value must be complete first.
            let own = if first { level } else { level + 1 };
            for (i, sum) in sums.iter().enumerate() {
                add_steps(sum, k, next, own, i == 0, steps);
            }
            if !first {
                steps.push(Step::Fold { level: own });
            }
        }
        Sum::Lanes { folds, each, tail } => {
            let own = if first { level } else { level + 1 };
            let dealt = *next..*next + folds.lanes() * each;
            add_lanes(dealt.clone(), folds.lanes(), folds.distances(), own, true, steps);
            *next = dealt.end + tail;
            if *tail > 0 {
                steps.push(Step::Chain { products: dealt.end..*next, stride: 1, level: own, then: Then::Continue });
            }
            if !first {
                steps.push(Step::Fold { level: own });
            }
        }
    }
}

/// The steps for the lanes that are folded by these distances, from the one that begins with the first of the products:
/// what the last distance adds up comes last.
fn add_lanes(products: Range<usize>, stride: usize, folds: &[usize], level: usize, first: bool, steps: &mut Vec<Step>) {
    let Some((last, folds)) = folds.split_last() else {
        let then = if first { Then::Store } else { Then::Add };
        return steps.push(Step::Chain { products, stride, level, then });
    };
    let own = if first { level } else { level + 1 };
    add_lanes(products.clone(), stride, folds, own, true, steps);
    add_lanes(products.start + last..products.end, stride, folds, own, false, steps);
    if !first {
        steps.push(Step::Fold { level: own });
    }
}

/// The steps dealt out to groups of about so many products (an even number). Chains that are longer go on in the next
/// group.
pub(super) fn groups(steps: Vec<Step>, products: usize) -> Vec<Vec<Step>> {
    let most = products.saturating_add(products / 4);
    let (mut groups, mut group, mut room) = (Vec::new(), Vec::new(), most);
    for step in steps.into_iter().flat_map(|step| cut(step, products, most)) {
        let length = if let Step::Chain { products, .. } = &step { products.len() } else { 0 };
        if length > room {
            groups.push(std::mem::take(&mut group));
            room = most;
        }
        room = room.saturating_sub(length);
        group.push(step);
    }
    groups.push(group);
    groups.retain(|group: &Vec<Step>| !group.is_empty());
    groups.iter_mut().for_each(add_to_zero);
    groups
}

/// Takes a chain of no products and the one that is added to it as one step: no zeros are stored and loaded again.
fn add_to_zero(steps: &mut Vec<Step>) {
    steps.dedup_by(|step, zero| match (step, zero) {
        (
            Step::Chain { products, stride, level, then: Then::Add },
            Step::Chain { products: none, stride: of_none, level: there, then: then @ Then::Store },
        ) if none.start == none.end && there == level => {
            (*none, *of_none, *then) = (products.clone(), *stride, Then::AddToZero);
            true
        }
        _ => false,
    });
}

/// The step, as several of that length if it is a chain of more products than `most`. So are pieces of the chain from
/// the first product on in whole panels of the tile.
fn cut(step: Step, length: usize, most: usize) -> Vec<Step> {
    let Step::Chain { products, stride: 1, level, then } = step.clone() else { return vec![step] };
    if products.len() <= most {
        return vec![step];
    }
    let mut start = products.start;
    let pieces = std::iter::from_fn(|| {
        let rest = products.end - start;
        let piece = start..start + if rest <= most { rest } else { length };
        start = piece.end;
        (rest > 0).then_some(piece)
    });
    // What is added to a value must be complete first.
    let own = level + usize::from(then == Then::Add);
    let first = if then == Then::Add { Then::Store } else { then };
    let then_of = |piece: &Range<usize>| if piece.start == products.start { first } else { Then::Continue };
    let mut steps: Vec<_> =
        pieces.map(|piece| Step::Chain { then: then_of(&piece), products: piece, stride: 1, level: own }).collect();
    if then == Then::Add {
        steps.push(Step::Fold { level: own });
    }
    steps
}

/// Where pieces of a sum end, none of more products than `most`: where chains do, and in a longer one after parts that are about
/// equal, multiples of the first of these units that will do.
pub(super) fn ends(steps: &[Step], most: usize, units: [usize; 2]) -> Vec<usize> {
    let (mut ends, mut begin, mut last) = (Vec::new(), 0, 0);
    for step in steps {
        let Step::Chain { products, .. } = step else { continue };
        last = products.end;
        if last - begin <= most {
            continue;
        }
        if products.start > begin {
            begin = products.start;
            ends.push(begin);
        }
        let part = products.len().div_ceil(products.len().div_ceil(most));
        let whole = units.map(|unit| part.next_multiple_of(unit)).into_iter().find(|&length| length <= most);
        while last - begin > most {
            begin += whole.unwrap_or(part);
            ends.push(begin);
        }
    }
    ends.push(last);
    ends
}

/// The steps by pieces that end there, counted from each piece's first product; none if one takes products far apart.
pub(super) fn pieces(steps: Vec<Step>, piece_ends: &[usize]) -> Option<Vec<Vec<Step>>> {
    let mut pieces = vec![Vec::new(); piece_ends.len()];
    let mut at = 0;
    for step in steps {
        let Step::Chain { products, stride, level, then } = step else {
            pieces[at].push(step);
            continue;
        };
        if stride != 1 {
            return None;
        }
        let inside = piece_ends[at..].iter().copied().skip_while(|&end| end <= products.start);
        let ends: Vec<usize> = inside.take_while(|&end| end < products.end).chain([products.end]).collect();
        // What is added to a value must be complete first.
        let apart = then == Then::Add && ends.len() > 1;
        let own = level + usize::from(apart);
        let mut start = products.start;
        for end in ends {
            at += usize::from(start == piece_ends[at] && at + 1 < pieces.len());
            let first = if at == 0 { 0 } else { piece_ends[at - 1] };
            let then = match then {
                _ if start > products.start => Then::Continue,
                Then::Add if apart => Then::Store,
                then => then,
            };
            let products = start - first..end - first;
            pieces[at].push(Step::Chain { products, stride, level: own, then });
            start = end;
        }
        if apart {
            pieces[at].push(Step::Fold { level: own });
        }
    }
    pieces.iter_mut().for_each(add_to_zero);
    Some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_go_on_with_what_was_begun() {
        let (mut steps, sum) = (Vec::new(), Sum::blocks(&[3, 6]));
        add_steps(&sum, 9, &mut 0, 0, true, &mut steps);
        let chain = |products, level, then| Step::Chain { products, stride: 1, level, then };
        let expected = vec![
            vec![chain(0..3, 0, Then::Store), chain(3..4, 1, Then::Store)],
            vec![chain(0..4, 1, Then::Continue)],
            vec![chain(0..1, 1, Then::Continue), Step::Fold { level: 1 }],
        ];
        assert_eq!(pieces(steps, &[4, 8, 9]), Some(expected));
    }

    #[test]
    fn what_is_added_to_zero_is_one_step() {
        let groups = |blocks: &[usize]| {
            let mut steps = Vec::new();
            let sum = Sum::blocks(blocks).after_zero();
            add_steps(&sum, blocks.iter().sum(), &mut 0, 0, true, &mut steps);
            super::groups(steps, 8)
        };
        let chain = |products, level, then| Step::Chain { products, stride: 1, level, then };
        assert_eq!(groups(&[6, 4]), [[chain(0..6, 0, Then::AddToZero), chain(6..10, 0, Then::Add)]]);
        let begun = [chain(0..0, 0, Then::Store), chain(0..8, 1, Then::Store)];
        let ended = [chain(8..12, 1, Then::Continue), Step::Fold { level: 1 }];
        assert_eq!(groups(&[12]), [begun, ended], "one that is parted stays as it is");
    }

    #[test]
    fn pieces_end_where_chains_do() {
        let ends = |blocks: &[usize], most, units| {
            let mut steps = Vec::new();
            add_steps(&Sum::blocks(blocks), blocks.iter().sum(), &mut 0, 0, true, &mut steps);
            super::ends(&steps, most, units)
        };
        assert_eq!(ends(&[56, 56, 56, 28], 224, [28, 14]), [196]);
        assert_eq!(ends(&[64; 7], 224, [112, 56]), [192, 384, 448]);
        assert_eq!(ends(&[20, 896], 224, [224, 112]), [20, 244, 468, 692, 916]);
        assert_eq!(ends(&[361], 224, [38, 19]), [190, 361]);
        assert_eq!(ends(&[1024], 224, [64, 32]), [224, 448, 672, 896, 1024]);
        assert_eq!(ends(&[300, 10], 224, [500, 250]), [150, 310]);
    }

    #[test]
    fn a_nested_sum_is_complete_before_it_is_added() {
        let pair = |a, b| Sum::Blocks(vec![Sum::Chain(a), Sum::Chain(b)]);
        let mut steps = Vec::new();
        add_steps(&Sum::Blocks(vec![pair(1, 2), pair(3, 4)]), 10, &mut 0, 0, true, &mut steps);
        let chain = |products, level, then| Step::Chain { products, stride: 1, level, then };
        let expected = [
            chain(0..1, 0, Then::Store),
            chain(1..3, 0, Then::Add),
            chain(3..6, 1, Then::Store),
            chain(6..10, 1, Then::Add),
            Step::Fold { level: 1 },
        ];
        assert_eq!(steps, expected);
    }
}
