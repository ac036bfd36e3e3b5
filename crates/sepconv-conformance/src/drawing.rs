//! An order as a small picture in text: the tree of the sum over K, and the parts of the result that have orders of
//! their own.

use std::fmt::Write;

use sepconv::numerics::{Elsewhere, Pointwise, Sum};
use sepconv::{Geometry, Numerics};

/// The widest bar: K products.
const BAR: usize = 48;
/// The largest map of the result.
const MAP: [usize; 2] = [16, 64];
/// Rectangles that have letters; more are listed without.
const LETTERS: &[u8; 26] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";

pub fn draw(numerics: &Numerics, geometry: &Geometry) -> String {
    let Pointwise { sum, elsewhere, .. } = &numerics.pointwise;
    let k = geometry.k();
    let mut text = format!("sum over K = {k}\n");
    branch(&mut text, "", true, 1, sum, &mut 0, k);
    if !elsewhere.is_empty() {
        text += &map(elsewhere, [geometry.rows(), geometry.out_channels]);
        for (Elsewhere { rows, columns, sum, .. }, letter) in elsewhere.iter().zip(LETTERS) {
            let _ = writeln!(text, "{}: rows {rows:?}, columns {columns:?}", char::from(*letter));
            branch(&mut text, "", true, 1, sum, &mut 0, k);
        }
        if elsewhere.len() > LETTERS.len() {
            let _ = writeln!(text, "and {} more, as the text says", elsewhere.len() - LETTERS.len());
        }
    }
    text
}

/// One part of a sum, `times` in a row, from product `next` on.
fn branch(text: &mut String, indent: &str, last: bool, times: usize, sum: &Sum, next: &mut usize, k: usize) {
    let (start, length) = (*next, sum.length().unwrap_or(k - (*next).min(k)));
    *next += times * length;
    let bar = "█".repeat((length * BAR).div_ceil(k.max(1)).min(BAR));
    let times_text = if times > 1 { format!("{times} x ") } else { String::new() };
    let what = match sum {
        Sum::Whole | Sum::Chain(_) if length == 0 => "+0".into(),
        Sum::Whole | Sum::Chain(_) => format!("{bar} {times_text}{length}"),
        Sum::Lanes { folds, each, tail } => format!(
            "{bar} {times_text}{length}: {} lanes of {each}, folded at {folds}{}",
            folds.lanes(),
            if *tail > 0 { format!(", then {tail} one by one") } else { String::new() }
        ),
        Sum::Blocks(_) => format!("{times_text}{length}, added left to right"),
    };
    let places = if length > 0 { format!("  [{start}..{}]", *next) } else { String::new() };
    let _ = writeln!(text, "{indent}{}{what}{places}", if last { "└─ " } else { "├─ " });
    if let Sum::Blocks(sums) = sum {
        let indent = format!("{indent}{}", if last { "   " } else { "│  " });
        let groups: Vec<&[Sum]> = sums.chunk_by(PartialEq::eq).collect();
        let mut inside = start;
        for (i, group) in groups.iter().enumerate() {
            branch(text, &indent, i + 1 == groups.len(), group.len(), &group[0], &mut inside, k);
        }
    }
}

/// Rows of the product by its columns; a cell shows the last rectangle that reaches into it.
fn map(elsewhere: &[Elsewhere], extent: [usize; 2]) -> String {
    let [rows, columns] = [0, 1].map(|i| extent[i].min(MAP[i]));
    let mut text = format!("orders of the result, {} rows by {} columns\n", extent[0], extent[1]);
    let span = |cell: usize, cells: usize, extent: usize| cell * extent / cells..((cell + 1) * extent).div_ceil(cells);
    let meet = |a: &std::ops::Range<usize>, b: &std::ops::Range<usize>| a.start < b.end && b.start < a.end;
    for row in 0..rows {
        text += "  ";
        for column in 0..columns {
            let (row, column) = (span(row, rows, extent[0]), span(column, columns, extent[1]));
            let here = elsewhere.iter().rposition(|e| meet(&e.rows, &row) && meet(&e.columns, &column));
            text.push(here.map_or('·', |i| LETTERS.get(i).map_or('#', |letter| char::from(*letter))));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use sepconv::{Attributes, Padding};

    use super::*;

    #[test]
    fn trees_and_rectangles_are_drawn() {
        let attributes = Attributes { strides: [1, 1], padding: Padding::Same, rate: [1, 1] };
        let geometry = Geometry::new(&[1, 1, 4, 80], &[1, 1, 80, 1], &[1, 1, 80, 8], &attributes).unwrap();
        let numerics = "v1 depthwise(fused, inside) pointwise(fused, (16+16)x2+0+16, rows 3..4 columns 0..8 separate \
                        lanes(1 2, 80, 0)) subnormals(kept)";
        let drawing = draw(&numerics.parse().unwrap(), &geometry);
        let expected = "\
sum over K = 80
└─ 80, added left to right  [0..80]
   ├─ 2 x 32, added left to right  [0..64]
   │  └─ ██████████ 2 x 16  [0..32]
   ├─ +0
   └─ ██████████ 16  [64..80]
orders of the result, 4 rows by 8 columns
  ········
  ········
  ········
  AAAAAAAA
A: rows 3..4, columns 0..8
└─ ████████████████████████████████████████████████ 80: 4 lanes of 20, folded at 1 2  [0..80]
";
        assert_eq!(drawing, expected);
    }
}
