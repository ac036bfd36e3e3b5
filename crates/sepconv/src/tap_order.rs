//! Which taps a depthwise sum takes up, and in which order: one definition for the reference and the kernels.

use std::ops::Range;

use crate::geometry::Axis;
use crate::numerics::{Depthwise, TapOrder, Taps};

/// A chain of taps, down and across, from +0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// It is the sum so far; another one is added to that, or to +0 where nothing is.
    pub starts: bool,
    pub taps: Vec<[usize; 2]>,
}

/// The columns of taps that some output pixels lack at the left, those that none lacks, those that some lack at the
/// right. Where each is lacked by some, all are at the left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Borders([Range<usize>; 3]);

impl Borders {
    pub fn of(width: &Axis) -> Self {
        let (mut first, mut last, mut full) = (width.kernel, 0, 0..width.kernel);
        for inside in (0..width.output).map(|x| width.inside(x)) {
            full = full.start.max(inside.start)..full.end.min(inside.end);
            if !inside.is_empty() {
                first = first.min(inside.start);
                last = last.max(inside.end);
            }
        }
        let full = if full.is_empty() { last..last } else { full };
        Self([first.min(full.start)..full.start, full.clone(), full.end..last.max(full.end)])
    }
}

/// The counted ones of the taps, down and across, of a pixel.
pub fn counted(taps: Taps, kernel: [usize; 2], inside: &[Range<usize>; 2]) -> [Range<usize>; 2] {
    let [rows, _] = inside;
    match taps {
        Taps::Inside => inside.clone(),
        Taps::All => kernel.map(|taps| 0..taps),
        Taps::Beside => [rows.clone(), 0..kernel[1]],
        Taps::Above => [0..rows.end, 0..kernel[1]],
    }
}

/// The sum of a pixel.
pub fn blocks(numerics: &Depthwise, kernel: [usize; 2], inside: &[Range<usize>; 2], borders: &Borders) -> Vec<Block> {
    let [rows, columns] = counted(numerics.taps, kernel, inside);
    let in_rows = |columns: Range<usize>| rows.clone().flat_map(move |i| columns.clone().map(move |j| [i, j]));
    let one = |taps: Vec<[usize; 2]>| vec![Block { starts: true, taps }];
    match numerics.order {
        TapOrder::Rows => one(in_rows(columns).collect()),
        TapOrder::Columns => one(columns.flat_map(|j| rows.clone().map(move |i| [i, j])).collect()),
        TapOrder::Borders => {
            let mut blocks = Vec::new();
            for (part, phase) in borders.0.iter().enumerate() {
                let phase = phase.start.max(columns.start)..phase.end.min(columns.end);
                if part == 1 {
                    blocks.push(in_rows(phase).collect());
                } else if kernel[1] >= kernel[0] {
                    blocks.extend(phase.map(|j| in_rows(j..j + 1).collect::<Vec<_>>()));
                } else {
                    blocks.extend(in_rows(phase).map(|tap| vec![tap]));
                }
            }
            blocks.retain(|taps| !taps.is_empty());
            // The very first block of all pixels is stored; a pixel that lacks it adds to the zeros that are there.
            let first = borders.0.iter().find(|phase| !phase.is_empty()).map(|phase| phase.start);
            let starts = |taps: &[[usize; 2]]| taps.first().is_some_and(|tap| Some(tap[1]) == first);
            let mut blocks: Vec<_> = blocks.into_iter().map(|taps| Block { starts: false, taps }).collect();
            if let Some(block) = blocks.first_mut() {
                block.starts = starts(&block.taps);
            }
            blocks
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::Numerics;
    use crate::{Attributes, Geometry, Padding};

    /// The sum of a pixel as text: blocks of `down,across`, with a 0 in front where the first does not start it.
    fn sum(text: &str, kernel: [usize; 2], width: usize, padding: i64, [y, x]: [usize; 2]) -> String {
        let numerics: Numerics = format!("v1 {text} pointwise(fused, 1) subnormals(kept)").parse().unwrap();
        let padding = Padding::Explicit([[padding; 2]; 2]);
        let attributes = Attributes { strides: [1, 1], padding, rate: [1, 1] };
        let filter = [kernel[0], kernel[1], 1, 1];
        let g = Geometry::new(&[1, width, width, 1], &filter, &[1, 1, 1, 1], &attributes).unwrap();
        let inside = [g.height.inside(y), g.width.inside(x)];
        let blocks = blocks(&numerics.depthwise, kernel, &inside, &Borders::of(&g.width));
        let taps = |b: &Block| b.taps.iter().map(|[i, j]| format!("{i},{j}")).collect::<Vec<_>>().join(" ");
        let text = blocks.iter().map(taps).collect::<Vec<_>>().join(" + ");
        if blocks.first().is_some_and(|block| !block.starts) { format!("0 + {text}") } else { text }
    }

    #[test]
    fn orders_are_as_described() {
        let rows = |taps: &str, at| sum(&format!("depthwise(fused, {taps})"), [2, 2], 3, 1, at);
        assert_eq!(rows("inside", [0, 0]), "1,1");
        assert_eq!(rows("all", [0, 0]), "0,0 0,1 1,0 1,1");
        assert_eq!(rows("beside", [0, 0]), "1,0 1,1");
        assert_eq!(rows("above", [0, 0]), "0,0 0,1 1,0 1,1");
        assert_eq!(rows("above", [3, 0]), "0,0 0,1");
        assert_eq!(rows("all, columns", [0, 0]), "0,0 1,0 0,1 1,1");
        // Three columns: the outer ones are lacked by some pixels, the middle one by none.
        let borders = |kernel, width, at| sum("depthwise(fused, inside, borders)", kernel, width, 1, at);
        assert_eq!(borders([2, 3], 4, [1, 1]), "0,0 1,0 + 0,1 1,1 + 0,2 1,2");
        assert_eq!(borders([2, 3], 4, [0, 0]), "0 + 1,1 + 1,2");
        assert_eq!(borders([4, 3], 4, [1, 3]), "0,0 + 1,0 + 2,0 + 3,0 + 0,1 1,1 2,1 3,1");
        // Every column is lacked by some.
        assert_eq!(borders([3, 3], 1, [0, 0]), "1,1");
    }
}
