//! Where and by how much a result differs from what was expected, bits compared as integers and every NaN alike.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most cells of a map, along either side: as many as a picture shows clearly.
const MOST_CELLS: usize = 64;

/// At least one element differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    pub count: usize,
    pub shape: [usize; 4],
    /// The first one that differs.
    pub element: usize,
    pub expected: String,
    pub got: String,
    pub units_in_the_last_place: u64,
    /// Height by width, over all images and channels.
    pub image: Map,
    /// Output pixels (of the whole batch) by channels.
    pub product: Map,
}

/// Which share of the elements under each cell differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Map {
    /// What is divided into cells.
    pub extent: [usize; 2],
    /// Rows of cells.
    pub cells: Vec<Vec<f32>>,
}

impl Difference {
    /// Compares results of that shape and length.
    pub fn between<T: sepconv::Element>(shape: [usize; 4], expected: &[T], got: &[T]) -> Result<(), Box<Self>> {
        let different: Vec<usize> = (0..got.len()).filter(|&i| expected[i].bits() != got[i].bits()).collect();
        let Some(&element) = different.first() else { return Ok(()) };
        let [batch, height, width, channels] = shape;
        let show = |value: T| format!("{value:?} ({:#0digits$x})", value.bits(), digits = 2 * size_of::<T>() + 2);
        Err(Box::new(Self {
            count: different.len(),
            shape,
            element,
            expected: show(expected[element]),
            got: show(got[element]),
            units_in_the_last_place: place(expected[element]).abs_diff(place(got[element])),
            image: Map::of([height, width], batch * channels, &different, |i| {
                let pixel = i / channels;
                [pixel / width % height, pixel % width]
            }),
            product: Map::of([batch * height * width, channels], 1, &different, |i| [i / channels, i % channels]),
        }))
    }
}

impl Map {
    fn of(extent: [usize; 2], each: usize, different: &[usize], at: impl Fn(usize) -> [usize; 2]) -> Self {
        let [rows, columns] = extent.map(|n| n.min(MOST_CELLS));
        let mut counts = vec![vec![0usize; columns]; rows];
        for [row, column] in different.iter().map(|&i| at(i)) {
            counts[row * rows / extent[0]][column * columns / extent[1]] += 1;
        }
        // Places p with p * cells / extent = cell.
        let width = |cell: usize, cells: usize, extent: usize| {
            ((cell + 1) * extent).div_ceil(cells) - (cell * extent).div_ceil(cells)
        };
        let share = |row: usize, column: usize, count: usize| {
            count as f32 / (width(row, rows, extent[0]) * width(column, columns, extent[1]) * each) as f32
        };
        let share_row = |(row, counts): (usize, &Vec<usize>)| {
            counts.iter().enumerate().map(|(column, &count)| share(row, column, count)).collect()
        };
        Self { extent, cells: counts.iter().enumerate().map(share_row).collect() }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [_, height, width, channels] = self.shape;
        let pixel = self.element / channels;
        write!(
            f,
            "{} of {} elements differ; the first is element {} (batch {}, row {}, column {}, channel {}): expected {}, \
             got {}, {} units in the last place apart",
            self.count,
            self.shape.iter().product::<usize>(),
            self.element,
            pixel / (height * width),
            pixel / width % height,
            pixel % width,
            self.element % channels,
            self.expected,
            self.got,
            self.units_in_the_last_place,
        )
    }
}

/// The number's place among all of its type, in order; both zeros have one.
fn place<T: sepconv::Element>(value: T) -> i64 {
    let sign = 1 << (8 * size_of::<T>() - 1);
    let magnitude = (value.bits() & (sign - 1)) as i64;
    if value.bits() & sign == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn differences_are_told() {
        assert_eq!(Difference::between([1, 1, 1, 2], &[1.0, f32::NAN], &[1.0, -f32::NAN]), Ok(()));
        let difference = Difference::between([1, 1, 3, 1], &[1.0, 0.0, 2.0], &[1.0, -0.0, 2.0f32.next_up()]);
        assert_eq!(
            difference.unwrap_err().to_string(),
            "2 of 3 elements differ; the first is element 1 (batch 0, row 0, column 1, channel 0): expected 0.0 \
             (0x00000000), got -0.0 (0x80000000), 0 units in the last place apart"
        );
        let units =
            |expected: f64, got| Difference::between([1; 4], &[expected], &[got]).unwrap_err().units_in_the_last_place;
        assert_eq!(units(-1.0, (-1.0f64).next_down().next_down()), 2);
    }

    #[test]
    fn sixteen_bits_are_four_digits() {
        let half = Difference::between([1; 4], &[f16::ONE], &[f16::from_bits(0x3c01)]).unwrap_err();
        assert_eq!((half.expected.as_str(), half.units_in_the_last_place), ("1.0 (0x3c00)", 1));
        let brain = Difference::between([1; 4], &[bf16::from_bits(0x8000)], &[bf16::from_bits(0x8002)]).unwrap_err();
        assert_eq!((brain.expected.as_str(), brain.units_in_the_last_place), ("-0.0 (0x8000)", 2));
    }

    #[test]
    fn maps_show_where() {
        let expected = [0.0; 2 * 3 * 100 * 2];
        let mut got = expected;
        // The last row of the second image, all channels.
        got[5 * 200..].fill(1.0);
        let difference = Difference::between([2, 3, 100, 2], &expected, &got).unwrap_err();
        let Map { extent, cells } = difference.image;
        assert_eq!((extent, cells.len(), cells[0].len()), ([3, 100], 3, 64));
        assert!(cells[0].iter().all(|&share| share == 0.0) && cells[2].iter().all(|&share| share == 0.5));
        let Map { extent, cells } = difference.product;
        assert_eq!((extent, cells.len(), cells[0].len()), ([600, 2], 64, 2));
        assert_eq!((cells[0][0], cells[63][1]), (0.0, 1.0));
    }
}
