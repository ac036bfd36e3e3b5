//! The image's pixels themselves in the place of depthwise results: what the pointwise half takes up where it is alone.

use std::ops::Range;

use ndarray::ArrayView4;

use super::{adjacent, ahead};
use crate::element::Element;
use crate::geometry::Geometry;
use crate::kernels::Kernel;
use crate::kernels::tile::Tile;

/// For each output pixel the one that the only tap reads, copied and not multiplied by one: -0 and every NaN stay. Zeros where
/// it lies outside the image.
pub struct Copies<T: Element> {
    kernel: &'static Kernel<T>,
    geometry: Geometry,
    /// The output's rows and columns whose pixels are inside the image.
    inside: [Range<usize>; 2],
    /// Whether these are all of them, and whether they are the image's own one by one.
    all: bool,
    same: bool,
}

impl<T: Element> Copies<T> {
    /// Of a geometry of the [pointwise part alone](Geometry::pointwise).
    pub fn new(kernel: &'static Kernel<T>, geometry: &Geometry) -> Self {
        let Geometry { height, width, .. } = geometry;
        assert_eq!(([height.kernel, width.kernel], geometry.channel_multiplier), ([1, 1], 1));
        let inside = [height, width].map(|axis| axis.outputs_inside());
        let all = inside == [0..height.output, 0..width.output];
        let same = all && [height.output, width.output] == [height.input, width.input];
        Self { kernel, geometry: *geometry, inside, all, same }
    }

    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Fills the tile with successive output pixels, from `first` on; zeros behind the last. The input's channels must be
    /// adjacent: see [`adjacent`].
    pub fn fill(&self, input: &ArrayView4<T>, tile: &mut Tile<T::Sum>, first: usize) {
        let g = &self.geometry;
        assert!(adjacent(input) && input.shape() == g.input_shape());
        let rows = first..g.rows().min(first + tile.all_rows());
        tile.clear(if self.all { rows.len() } else { 0 });
        if self.same && input.is_standard_layout() {
            let from = input.as_ptr().wrapping_add(first * g.in_channels);
            // SAFETY: the image has these pixels one after the other.
            return unsafe { tile.copy(self.kernel, 0..rows.len(), from, g.in_channels as isize) };
        }
        let mut done = 0;
        while done < rows.len() {
            let (line, x) = ((first + done) / g.width.output, (first + done) % g.width.output);
            let columns = x..g.width.output.min(x + rows.len() - done);
            self.line(input, tile, done, line, &columns);
            done += columns.len();
        }
    }

    /// Pixels of a line into the tile from its `first` row on, but those outside the image.
    fn line(&self, input: &ArrayView4<T>, tile: &mut Tile<T::Sum>, first: usize, line: usize, columns: &Range<usize>) {
        let Geometry { height, width, .. } = &self.geometry;
        let (n, y) = (line / height.output, line % height.output);
        let [rows, inside] = &self.inside;
        if !rows.contains(&y) {
            return;
        }
        let [of_image, of_row, of_column, _] = *input.strides() else { unreachable!("four dimensions") };
        let image = input.as_ptr().wrapping_offset(n as isize * of_image + height.origin(y) * of_row);
        let (mut x, end) = (columns.start.max(inside.start), columns.end.min(inside.end));
        while x < end {
            // Of a dilated line with strides, as many pixels as there are phases are neighbours.
            let (count, apart) = match [width.rate, width.stride] {
                [1, stride] => (end - x, stride),
                [_, 1] => (end - x, 1),
                [rate, _] => ((rate - x % rate).min(end - x), 1),
            };
            let from = image.wrapping_offset(width.origin(x) * of_column);
            let row = first + x - columns.start;
            // SAFETY: they are inside the image, and have its channels.
            unsafe { tile.copy(self.kernel, row..row + count, from, (apart as isize).wrapping_mul(of_column)) };
            x += count;
        }
    }

    /// What so many pixels from `first` on read, and those before did not: so many bytes from there on.
    pub fn ahead(&self, input: &ArrayView4<T>, first: usize, rows: usize) -> (*const u8, usize) {
        ahead(&self.geometry, input, first, rows)
    }
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use ndarray::{Array4, s};

    use super::*;
    use crate::kernels::Kernels;
    use crate::kernels::tile::row_elements;
    use crate::{Attributes, InstructionSet, Padding};

    /// Bit by bit, whatever they are; zeros outside the image and behind the last pixel.
    #[test]
    fn pixels_are_copied() {
        const K: usize = 300;
        // -0, infinite, subnormal, and not a number in more ways than one.
        let odd = [0x8000_0000, 0x7f80_0000, 0x8000_0001, 0x7f80_0001, 0xffc0_1234];
        let image = Array4::from_shape_fn((2, 6, 14, K), |(n, y, x, c)| {
            let number = ((n * 6 + y) * 14 + x) * K + c;
            f32::from_bits(odd.get(number % 11).copied().unwrap_or((number as u32).wrapping_mul(0x9e37_79b9)))
        });
        let views = [image.view(), image.slice(s![.., ..;-1, ..;-1, ..]), image.slice(s![.., ..;2, ..;2, ..17])];
        let paddings = [Padding::Same, Padding::Explicit([[1, 0], [0, 3]]), Padding::Explicit([[2, 3], [9, 4]])];
        for (strides, rate) in [([1, 1], [1, 1]), ([2, 3], [1, 1]), ([1, 1], [2, 3]), ([2, 3], [3, 2])] {
            for (view, padding) in views.iter().flat_map(|view| paddings.map(|padding| (view, padding))) {
                let k = view.shape()[3];
                let g =
                    Geometry::pointwise(view.shape(), &[1, 1, k, 1], &Attributes { strides, padding, rate }).unwrap();
                let expected = |row: usize, channel: usize| {
                    let (line, x) = (row / g.width.output, row % g.width.output);
                    let y = usize::try_from(g.height.origin(line % g.height.output)).ok()?;
                    view.get((line / g.height.output, y, usize::try_from(g.width.origin(x)).ok()?, channel)).copied()
                };
                for (set, rows) in InstructionSet::available().into_iter().flat_map(|set| [(set, 5), (set, 40)]) {
                    let mut scratch = vec![MaybeUninit::new(7.0); (rows + 1) * row_elements::<f32>(k)];
                    let copies = Copies::new(f32::kernel(set), &g);
                    for first in (0..g.rows()).step_by(rows) {
                        let mut tile = Tile::new(&mut scratch, rows, 1, k);
                        copies.fill(view, &mut tile, first);
                        for (row, (channel, place, count)) in
                            (0..=rows).flat_map(|row| tile.pieces(row).map(move |piece| (row, piece)))
                        {
                            // SAFETY: the tile is filled.
                            let piece = unsafe { std::slice::from_raw_parts(place, count) };
                            for (c, value) in (channel..).zip(piece) {
                                let expected = expected(first + row, c).unwrap_or_default();
                                assert_eq!(value.to_bits(), expected.to_bits(), "{set:?} {g:?}: {} {c}", first + row);
                            }
                        }
                    }
                }
            }
        }
    }
}
