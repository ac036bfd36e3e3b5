//! Which taps a depthwise sum takes up, and in which order: one definition for the reference and the kernels.

use std::ops::Range;

use crate::geometry::{Axis, Geometry};
use crate::numerics::{Depthwise, Products, TapOrder, Taps};

/// A chain of products from +0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// It is the sum so far; another one is added to that, or to +0 where nothing is.
    pub starts: bool,
    pub terms: Vec<Term>,
}

/// One product of a depthwise sum. Places are taps, down and across, from where tap (0, 0) is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    Tap([usize; 2]),
    /// The pixel there, or a zero, times +0.
    Beyond(Option<[isize; 2]>),
    /// The next channel of the tap's pixel, behind the last one the first channel of that pixel, times +0.
    Channel([usize; 2], [isize; 2]),
}

/// The columns of taps that some output pixels lack at the left, those that none lacks, those that some lack at the
/// right. Where each is lacked by some, all are at the left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Borders {
    parts: [Range<usize>; 3],
    /// Columns that count as one: the terms of a tap, which an interleaved image has beside each other.
    terms: usize,
}

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
        Self { parts: [first.min(full.start)..full.start, full.clone(), full.end..last.max(full.end)], terms: 1 }
    }

    /// The same of taps that have so many terms each, one after the other in a row.
    pub fn of_terms(self, terms: usize) -> Self {
        Self { terms, ..self }
    }
}

/// The counted ones of the taps, down and across, of a pixel.
#[inline]
pub fn counted(taps: Taps, kernel: [usize; 2], inside: &[Range<usize>; 2]) -> [Range<usize>; 2] {
    let [rows, _] = inside;
    if kernel.contains(&0) {
        return [0..0, 0..0];
    }
    match taps {
        Taps::Inside => inside.clone(),
        Taps::All => kernel.map(|taps| 0..taps),
        Taps::Beside => [rows.clone(), 0..kernel[1]],
        Taps::Above => [0..rows.end, 0..kernel[1]],
    }
}

/// The sum of output pixel (y, x).
pub fn blocks(numerics: &Depthwise, g: &Geometry, borders: &Borders, [y, x]: [usize; 2]) -> Vec<Block> {
    let kernel = [g.height.kernel, g.width.kernel];
    let taps = if numerics.order == TapOrder::Channels { Taps::Inside } else { numerics.taps };
    let [rows, columns] = counted(taps, kernel, &[g.height.inside(y), g.width.inside(x)]);
    if numerics.products == Products::Overrun {
        let terms = match numerics.order {
            TapOrder::Columns => overrun_columns(g, x),
            TapOrder::Channels => {
                let taps = rows.flat_map(|i| columns.clone().map(move |j| [i, j]));
                taps.flat_map(|tap| [overrun_channel(g, [y, x], tap), Term::Tap(tap)]).collect()
            }
            order => {
                let at_once = if let TapOrder::RowsAtOnce(rows) = order { rows } else { usize::MAX };
                rows.flat_map(|row| overrun_row(g, [y, x], row, at_once)).collect()
            }
        };
        return vec![Block { starts: true, terms }];
    }
    let in_rows =
        |columns: Range<usize>| rows.clone().flat_map(move |i| columns.clone().map(move |j| Term::Tap([i, j])));
    let one = |terms: Vec<Term>| vec![Block { starts: true, terms }];
    match numerics.order {
        TapOrder::Rows | TapOrder::Channels | TapOrder::RowsAtOnce(_) => one(in_rows(columns).collect()),
        TapOrder::Columns => one(columns.flat_map(|j| rows.clone().map(move |i| Term::Tap([i, j]))).collect()),
        TapOrder::Borders => {
            let mut blocks: Vec<Vec<Term>> = Vec::new();
            let terms = borders.terms;
            for (part, phase) in borders.parts.iter().enumerate() {
                let phase = phase.start.max(columns.start)..phase.end.min(columns.end);
                if part == 1 {
                    blocks.push(in_rows(phase).collect());
                } else if kernel[1] / terms >= kernel[0] {
                    blocks.extend(phase.step_by(terms).map(|j| in_rows(j..j + terms).collect::<Vec<_>>()));
                } else {
                    let taps: Vec<Term> = in_rows(phase).collect();
                    blocks.extend(taps.chunks(terms).map(<[Term]>::to_vec));
                }
            }
            blocks.retain(|terms| !terms.is_empty());
            // The very first block of all pixels is stored; a pixel that lacks it adds to the zeros that are there.
            let first = borders.parts.iter().find(|phase| !phase.is_empty()).map(|phase| phase.start);
            let stored = |terms: &[Term]| matches!(terms[0], Term::Tap([_, j]) if Some(j) == first);
            let block = |(n, terms): (usize, Vec<Term>)| Block { starts: n == 0 && stored(&terms), terms };
            blocks.into_iter().enumerate().map(block).collect()
        }
    }
}

/// Dot products go on to whole pairs, and behind this many products to multiples of it, with weights of +0.
const LONG: usize = 32;

fn padded(products: usize) -> usize {
    products.next_multiple_of(if products > LONG { LONG } else { 2 })
}

/// The second of each pair first.
fn in_pairs(terms: impl Iterator<Item = Term>) -> impl Iterator<Item = Term> {
    let mut terms = terms;
    std::iter::from_fn(move || terms.next().zip(terms.next())).flat_map(|(first, second)| [second, first])
}

/// How many columns of taps an image (of one phase, where it is dilated) has for all its outputs, and which output of
/// it this one is.
fn columns_read(g: &Geometry, x: usize) -> (usize, usize) {
    let outputs = (g.width.output + g.width.crop) / g.width.rate;
    ((outputs - 1) * g.width.stride + g.width.kernel, x / g.width.rate)
}

/// Of products that overrun: how many columns from the first tap's on enter the sum of an output column, if these are
/// columns that some output reads as its own in each row. Such output columns take up the same terms.
pub fn end_of_overrun(numerics: &Depthwise, g: &Geometry, x: usize) -> Option<usize> {
    let (read, at) = columns_read(g, x);
    let end = match numerics.order {
        TapOrder::Columns => padded(g.height.kernel * g.width.kernel).div_ceil(g.height.kernel.max(1)),
        TapOrder::Channels => g.width.kernel + 1,
        _ => padded(g.width.kernel),
    };
    (end > 0 && at * g.width.stride + end <= read.min(g.width.padded / g.width.rate)).then_some(end)
}

/// Column-major over all taps, then on to the right, where nothing is right of the last output's columns.
fn overrun_columns(g: &Geometry, x: usize) -> Vec<Term> {
    let [height, width] = [g.height.kernel, g.width.kernel];
    let (end, x) = columns_read(g, x);
    let term = |n: usize| match [n % height, n / height] {
        [i, j] if j < width => Term::Tap([i, j]),
        [i, j] => Term::Beyond((x * g.width.stride + j < end).then_some([i as isize, j as isize])),
    };
    in_pairs((0..padded(height * width)).map(term)).collect()
}

/// A row of taps, then on to the right, and right of the last output's columns to the left end of the next row of the
/// image, if it is among those that were copied for so many rows of outputs.
fn overrun_row(g: &Geometry, [y, x]: [usize; 2], row: usize, at_once: usize) -> Vec<Term> {
    let (height, width) = (&g.height, &g.width);
    let outputs = (height.output + height.crop) / height.rate;
    // Dilated images have their padding in them.
    let dilated = height.rate * width.rate > 1;
    let (rows, padding) = if dilated { (height.padded / height.rate, 0) } else { (height.input, height.pad_before) };
    let read = |outputs: usize| (outputs - 1) * height.stride + height.kernel;
    let rows = rows.min(read(outputs).saturating_sub(padding));
    let at_once = at_once.min(outputs);
    let first = (y / height.rate / at_once * at_once * height.stride).saturating_sub(padding).min(rows);
    let copied = rows.min(first + rows.min(read(at_once)));
    let (end, x) = columns_read(g, x);
    // Where several rows are taken at once they are whole strides long.
    let whole = height.stride == 1 && (end == width.kernel || width.kernel <= width.stride);
    let end = if whole { end.next_multiple_of(width.stride) } else { end };
    let term = |j: usize| {
        if j < width.kernel {
            return Term::Tap([row, j]);
        }
        let (further, column) = ((x * width.stride + j) / end, (x * width.stride + j) % end);
        let below = y / height.rate * height.stride + row + further;
        let there = further == 0 || below < copied + padding;
        let place = [(row + further) as isize, column as isize - (x * width.stride) as isize];
        Term::Beyond(there.then_some(place))
    };
    in_pairs((0..padded(width.kernel)).map(term)).collect()
}

/// What lies behind a tap's pixel in memory; nothing in the last column, or of dense 1x1 taps in the last pixel.
fn overrun_channel(g: &Geometry, [y, x]: [usize; 2], [i, j]: [usize; 2]) -> Term {
    let (height, width) = (&g.height, &g.width);
    let last = |axis: &Axis, output: usize| (output / axis.rate + 1) * axis.rate >= axis.output + axis.crop;
    let pixels = width.padded / width.rate;
    let dense = height.kernel * width.kernel == 1 && height.stride == 1 && pixels.is_multiple_of(width.stride);
    if last(width, x) && (!dense || last(height, y)) {
        return Term::Beyond(None);
    }
    let column = x / width.rate * width.stride;
    let behind = if column + j + 1 < pixels { [0, j as isize + 1] } else { [1, -(column as isize)] };
    Term::Channel([i, j], [i as isize + behind[0], behind[1]])
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
        let blocks = blocks(&numerics.depthwise, &g, &Borders::of(&g.width), [y, x]);
        let text = |term: &Term| match term {
            Term::Tap([i, j]) => format!("{i},{j}"),
            Term::Beyond(Some([i, j])) => format!("({i},{j})"),
            Term::Beyond(None) => "()".into(),
            Term::Channel([i, j], behind) => format!("[{i},{j} {},{}]", behind[0], behind[1]),
        };
        let taps = |b: &Block| b.terms.iter().map(text).collect::<Vec<_>>().join(" ");
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
        let overrun = |taps: &str, kernel, at| sum(&format!("depthwise(overrun, {taps})"), kernel, 5, 0, at);
        assert_eq!(overrun("all, columns", [3, 1], [1, 0]), "1,0 0,0 (0,1) 2,0");
        assert_eq!(overrun("all, columns", [3, 1], [1, 4]), "1,0 0,0 () 2,0");
        assert_eq!(overrun("inside", [2, 3], [0, 0]), "0,1 0,0 (0,3) 0,2 1,1 1,0 (1,3) 1,2");
        assert_eq!(overrun("inside", [2, 3], [3, 2]), "0,1 0,0 (1,-2) 0,2 1,1 1,0 () 1,2");
        assert_eq!(overrun("inside, rows 2", [2, 3], [1, 2]), "0,1 0,0 (1,-2) 0,2 1,1 1,0 () 1,2");
        assert_eq!(overrun("inside, channels", [2, 1], [0, 0]), "[0,0 0,1] 0,0 [1,0 1,1] 1,0");
        assert_eq!(overrun("inside, channels", [2, 1], [0, 4]), "() 0,0 () 1,0");
        assert_eq!(overrun("inside, channels", [1, 1], [0, 4]), "[0,0 1,-4] 0,0");
        assert_eq!(overrun("inside, channels", [1, 1], [4, 4]), "() 0,0");
        // Every column is lacked by some.
        assert_eq!(borders([3, 3], 1, [0, 0]), "1,1");
    }
}
