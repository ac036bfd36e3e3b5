//! The depthwise half: fills tiles with the depthwise results of successive output pixels, reading the image where it
//! lies, whatever strides, rate and padding are.

mod copies;
mod listed;
mod packed;

use std::mem::MaybeUninit;
use std::ops::Range;

use ndarray::ArrayView4;

use super::epilogue::Epilogue;
use super::kernel::{DepthwiseFn, Dots};
use super::memory::Buffer;
use super::run::Spread;
use super::sharing::{PIXELS, SHARED, sharing_of};
use super::tile::Tile;
use super::{Kernel, Run, Target};
use crate::element::Element;
use crate::error::Error;
use crate::geometry::{Axis, Geometry};
use crate::numerics::{Depthwise as Numerics, Products, Rounding, Subnormals, TapOrder, Taps};
use crate::tap_order::{self, Borders};
pub use copies::Copies;
pub use listed::Counted;
use listed::usual;
use packed::{pack, spreads};

/// The depthwise filter, packed, and what each output pixel reads.
pub struct Depthwise<T: Element> {
    /// If products are taken by instructions for pairs.
    dots: Option<&'static Dots<T>>,
    /// Whether the tile's rows are pairs for the product.
    in_pairs: bool,
    epilogue: Option<Epilogue<T>>,
    numerics: Numerics,
    geometry: Geometry,
    filter: Buffer<T::Sum>,
    filter_stride: usize,
    rows: Vec<Place>,
    columns: Vec<Place>,
    spread: Vec<Spread>,
    borders: Borders,
    counted: [Counted; 2],
    /// The inner loops: of pixels that share no values, or of an order that has no loops of its own.
    alone: DepthwiseFn<T>,
    /// Of pixels that share values, by how many do.
    shared: Option<[DepthwiseFn<T>; 2]>,
    /// Of those that share them with those of the line one row of taps below too.
    two_lines: Option<[DepthwiseFn<T>; 2]>,
}

/// What one output row or column reads.
struct Place {
    /// The output's number.
    at: usize,
    origin: isize,
    inside: Range<usize>,
    within: Range<isize>,
    /// Of a column: how many from this one on have sums that take up the same terms.
    alike: usize,
}

/// Most pixels that share nothing handed to the inner loop at once: enough to make the call cheap.
const RUN: usize = 64;

impl<T: Element> Depthwise<T> {
    pub fn new(
        kernel: &'static Kernel<T>,
        filter: ArrayView4<T>,
        geometry: &Geometry,
        numerics: Numerics,
        subnormals: Subnormals,
    ) -> Result<Self, Error> {
        let dots = kernel.dots.as_ref().filter(|_| {
            let Numerics { products, order, rounding, .. } = numerics;
            (products, order, rounding, subnormals)
                == (Products::Paired, TapOrder::Rows, Rounding::Once, Subnormals::Flushed)
        });
        assert!(filter.shape() == geometry.depthwise_filter_shape());
        let loops = match (&dots, numerics.rounding, numerics.products) {
            (Some(dots), ..) => &dots.depthwise,
            (None, Rounding::Each, _) => &kernel.depthwise_each,
            (None, Rounding::Once, products) => &kernel.depthwise[usize::from(products == Products::Separate)],
        };
        let listed = dots.is_none() && !usual(numerics);
        let spread = geometry.channel_multiplier > 1;
        let filter_stride = geometry.k().next_multiple_of(kernel.lanes);
        let width = &geometry.width;
        let share =
            !listed && (width.rate == 1 || width.stride == 1) && matches!(numerics.taps, Taps::Inside | Taps::All);
        let shape = SHARED.iter().position(|shape| share && *shape == [width.kernel, width.stride]);
        let rows = places(&geometry.height)?;
        let columns = places(&geometry.width)?;
        // The column in the middle is inside the image for each pixel.
        let narrow_borders = |place: &Place| place.inside.contains(&(width.kernel / 2));
        let two_lines = !spread
            && geometry.height.kernel == width.kernel
            && geometry.height.stride == width.stride
            && (width.stride == 1 || geometry.height.rate == 1)
            && columns.iter().all(narrow_borders);
        let new = Self {
            alone: if listed { kernel.depthwise_listed } else { loops.alone[usize::from(spread)] },
            shared: loops.shared.zip(shape).map(|(shared, shape)| shared[shape].map(|by| by[usize::from(spread)])),
            two_lines: loops
                .two_lines
                .zip(shape)
                .and_then(|(lines, shape)| lines.get(shape).copied())
                .filter(|_| two_lines),
            numerics,
            filter: pack(filter, geometry, filter_stride, dots.map_or(kernel.widen, |dots| dots.widen))?,
            dots,
            in_pairs: false,
            epilogue: None,
            filter_stride,
            rows,
            columns,
            borders: Borders::of(&geometry.width),
            counted: [Counted::ALL; 2],
            spread: if spread { spreads(geometry, kernel.lanes) } else { Vec::new() },
            geometry: *geometry,
        };
        Ok(new.with_alike_found())
    }

    /// The same with other borders, and of an image of which only some rows and columns count.
    pub fn within(self, borders: Borders, counted: [Counted; 2]) -> Self {
        Self { borders, counted, ..self }.with_alike_found()
    }

    fn with_alike_found(mut self) -> Self {
        for column in (1..self.columns.len()).rev() {
            let [left, right] = [column - 1, column].map(|column| &self.columns[column]);
            self.columns[column - 1].alike = if self.same_sum(left, right) { right.alike + 1 } else { 1 };
        }
        self
    }

    /// The same, for a product that takes pairs or does not.
    pub fn in_pairs(self, wanted: bool) -> Self {
        // Behind the last of an odd number of results there would have to be a zero.
        let zeros = self.spread.is_empty() || self.geometry.k().is_multiple_of(2);
        Self { in_pairs: wanted && self.dots.is_some() && self.epilogue.is_none() && zeros, ..self }
    }

    /// The same with steps behind it.
    pub fn finished(self, epilogue: Epilogue<T>) -> Self {
        Self { epilogue: Some(epilogue).filter(|epilogue| !epilogue.is_empty()), ..self }
    }

    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// How many lines of pixels, one after the other, share values.
    pub fn lines_together(&self) -> usize {
        if self.two_lines.is_some() && self.lines_apart() == 1 { 2 } else { 1 }
    }

    /// From a line of pixels to the next that begins with one of its rows of taps.
    fn lines_apart(&self) -> usize {
        let height = &self.geometry.height;
        if height.stride == 1 { height.rate } else { 1 }
    }

    /// Fills the tile with the results of successive output pixels, from `first` on; zeros behind the last. The input's
    /// channels must be adjacent: see [`adjacent`].
    pub fn fill(&self, input: &ArrayView4<T>, tile: &mut Tile<T::Sum>, first: usize) {
        let rows = first..self.geometry.rows().min(first + tile.all_rows());
        tile.clear(rows.len());
        tile.set_in_pairs(self.in_pairs);
        // SAFETY: the tile has these rows, of whole vectors.
        unsafe { self.write(input, tile.target(), rows) }
    }

    /// The results of these output pixels.
    ///
    /// # Safety
    /// The target has room for them, in whole vectors.
    pub unsafe fn write(&self, input: &ArrayView4<T>, target: Target<T::Sum>, rows: Range<usize>) {
        assert!(adjacent(input) && input.shape() == self.geometry.input_shape());
        assert!(rows.end <= self.geometry.rows());
        let width = self.geometry.width.output;
        // From a pixel to the one with which it may share values, one row of taps below.
        let apart = if self.two_lines.is_some() { self.lines_apart() * width } else { rows.len() }.max(1);
        for band in (0..rows.len()).step_by(2 * apart) {
            let (mut done, end) = (band, rows.len().min(band + apart));
            while done < end {
                let (line, x) = ((rows.start + done) / width, (rows.start + done) % width);
                let columns = &self.columns[x..width.min(x + end - done)];
                let below = &columns[..columns.len().min(rows.len().saturating_sub(done + apart))];
                let both = if self.goes_with_below(line, below.len()) { below.len() } else { 0 };
                // SAFETY: the caller's promise, for all three.
                unsafe {
                    self.line(input, &target, done, line, &columns[..both], apart);
                    self.line(input, &target, done + both, line, &columns[both..], 0);
                    let line = line + self.lines_apart();
                    self.line(input, &target, done + apart + both, line, &below[both..], 0);
                }
                done += columns.len();
            }
        }
    }

    /// Pixels of a line into the target from its `first` row on, and those of the line below them, so many rows further on, if
    /// not 0.
    ///
    /// # Safety
    /// As for [`write`](Self::write).
    unsafe fn line(
        &self,
        input: &ArrayView4<T>,
        target: &Target<T::Sum>,
        first: usize,
        line: usize,
        columns: &[Place],
        below: usize,
    ) {
        if columns.is_empty() {
            return;
        }
        let place = [line / self.geometry.height.output, line % self.geometry.height.output];
        let together = if below > 0 { self.two_lines } else { self.shared };
        if let (true, Some(loops)) = (self.share(columns.len()), together) {
            // As far apart as taps are.
            for phase in 0..self.geometry.width.rate {
                // SAFETY: the caller's promise.
                unsafe { self.run(input, target, first + phase, place, &columns[phase..], Some((below, loops))) };
            }
            return;
        }
        debug_assert_eq!(below, 0);
        let mut done = 0;
        while done < columns.len() {
            let same = &columns[done..columns.len().min(done + columns[done].alike)];
            for part in evenly(same.len()) {
                // SAFETY: the caller's promise.
                unsafe { self.run(input, target, first + done + part.start, place, &same[part], None) };
            }
            done += same.len();
        }
    }

    /// Whether so many pixels of a line can share values with those one row of taps below: what both read has to be inside the
    /// image, or not be counted.
    fn goes_with_below(&self, line: usize, pixels: usize) -> bool {
        if !(self.two_lines.is_some() && self.share(pixels)) {
            return false;
        }
        let y = line % self.geometry.height.output;
        let Some(below) = self.rows.get(y + self.lines_apart()) else { return false };
        let (above, below) = (&self.rows[y].inside, &below.inside);
        let all = 0..self.geometry.height.kernel;
        [above, below] == [&all; 2] || self.numerics.taps == Taps::Inside && !above.is_empty() && !below.is_empty()
    }

    /// Whether so many successive pixels of a row are enough for their sums to share values.
    fn share(&self, pixels: usize) -> bool {
        // Of those that are dilated, few would be computed twice too often.
        let rate = self.geometry.width.rate;
        self.shared.is_some() && pixels >= if rate == 1 { PIXELS } else { 2 * PIXELS * rate }
    }

    /// What so many results from `first` on read, and those before did not: from the last tap of the first of them on, so
    /// many bytes.
    pub fn ahead(&self, input: &ArrayView4<T>, first: usize, rows: usize) -> (*const u8, usize) {
        ahead(&self.geometry, input, first, rows)
    }

    /// Pixels of one output row into the target from its `first` row on: those of these columns that share values with the first,
    /// and with those so many rows further on, if not 0, by loops for that; or else all, which have the same taps inside the image.
    ///
    /// # Safety
    /// The target has room for all of these columns, in whole vectors, and for those below, if there are any.
    unsafe fn run(
        &self,
        input: &ArrayView4<T>,
        target: &Target<T::Sum>,
        first: usize,
        [n, y]: [usize; 2],
        columns: &[Place],
        share: Option<(usize, [DepthwiseFn<T>; 2])>,
    ) {
        let [of_image, of_row, of_column, _] = *input.strides() else { unreachable!("four dimensions") };
        let image = input.as_ptr().wrapping_offset((n as isize).wrapping_mul(of_image));
        let line = image.wrapping_offset(self.rows[y].origin.wrapping_mul(of_row));
        let (height, width) = (&self.geometry.height, &self.geometry.width);
        let kernel = [height.kernel, width.kernel];
        let mut inside = [self.rows[y].inside.clone(), columns[0].inside.clone()];
        let mut counted = tap_order::counted(self.numerics.taps, kernel, &inside);
        let origin = |column: &Place| line.wrapping_offset(column.origin.wrapping_mul(of_column));
        let (one, mut each);
        let (pixels, count, apart) = match share {
            Some((below, _)) => {
                if below > 0 {
                    inside[0] = inside[0].start..self.rows[y + self.lines_apart()].inside.end + height.stride;
                    counted[0] = inside[0].clone();
                }
                one = [origin(&columns[0])];
                (&one[..], columns.len().div_ceil(width.rate), width.rate)
            }
            None => {
                each = [const { MaybeUninit::uninit() }; RUN];
                for (pixel, column) in each.iter_mut().zip(columns) {
                    pixel.write(origin(column));
                }
                // SAFETY: so many have been written.
                (unsafe { each[..columns.len()].assume_init_ref() }, columns.len(), 1)
            }
        };
        let steps = [of_row.wrapping_mul(height.rate as isize), of_column.wrapping_mul(width.rate as isize)];
        let Numerics { rounding, products, .. } = self.numerics;
        let entries = self.entries(y, &columns[0], steps);
        let (finish, numbers) =
            self.epilogue.as_ref().map_or((&[][..], std::ptr::null()), |epilogue| epilogue.steps(0));
        let run = Run {
            pixels,
            count,
            kernel,
            counted,
            inside,
            shared: if share.is_some() { width.stride } else { 0 },
            across: columns[0].within.clone(),
            padding: self.numerics.taps == Taps::All,
            below: share.map_or(0, |(below, _)| below) as isize * target.next,
            entries: &entries,
            separate: products == Products::Separate,
            paired: products == Products::Paired,
            each: rounding == Rounding::Each,
            steps,
            filter: self.filter.as_ptr(),
            filter_stride: self.filter_stride,
            k: self.geometry.k(),
            channels: self.geometry.in_channels,
            spread: &self.spread,
            target: Target { next: target.next * apart as isize, ..target.skip(first) },
            narrow: self.in_pairs,
            finish,
            numbers,
        };
        let function = share.map_or(self.alone, |(_, loops)| loops[sharing_of(count)]);
        // SAFETY: the kernel's existence proves its instruction set. `inside`, and the image's columns, name only taps whose
        // place, origin + tap * rate, is in the image; the filter has `filter_stride`, whole vectors, for each tap; for the target
        // the caller promises it.
        unsafe { function(&run) }
    }

    /// Whether two columns' sums take up the same terms.
    fn same_sum(&self, a: &Place, b: &Place) -> bool {
        let width = &self.geometry.width;
        // Whether its last tap and all that lies behind it are inside the image.
        let all_inside = |place: &Place| {
            let end = tap_order::end_of_overrun(&self.numerics, &self.geometry, place.at);
            let last = |end: usize| place.origin + ((end - 1) * width.rate) as isize;
            let taps = !place.inside.is_empty() && place.inside.end == width.kernel;
            taps && end.is_some_and(|end| last(end) < width.input as isize)
        };
        let overruns = self.numerics.products == Products::Overrun;
        a.inside == b.inside && self.counted[1].stride == 1 && (!overruns || all_inside(a) && all_inside(b))
    }
}

/// What [`Depthwise::ahead`] says.
fn ahead<T>(g: &Geometry, input: &ArrayView4<T>, first: usize, rows: usize) -> (*const u8, usize) {
    let (height, width) = (&g.height, &g.width);
    let (line, x) = (first / width.output, first % width.output);
    let taps = (height.kernel as isize - 1).wrapping_mul(height.rate as isize);
    let y = height.origin(line % height.output).wrapping_add(taps);
    let [of_image, of_row, of_column, _] = *input.strides() else { unreachable!("four dimensions") };
    let places = [((line / height.output) as isize, of_image), (y, of_row), (width.origin(x), of_column)];
    let offset = places.iter().fold(0isize, |sum, (at, stride)| sum.wrapping_add(at.wrapping_mul(*stride)));
    let rows = rows.min(g.rows().saturating_sub(first));
    let pixels = rows.saturating_mul(height.stride).saturating_mul(width.stride);
    let bytes = pixels.saturating_mul(g.in_channels).saturating_mul(size_of::<T>());
    (input.as_ptr().wrapping_offset(offset).cast(), bytes)
}

/// Parts of so many pixels, as few as can be handed to the inner loop, none of which is much shorter than another.
fn evenly(pixels: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = pixels.div_ceil(RUN);
    (0..parts).map(move |part| part * pixels / parts..(part + 1) * pixels / parts)
}

/// True if an image can be read where it lies: the channels of a pixel are adjacent, or there are no pixels.
pub fn adjacent<T>(input: &ArrayView4<T>) -> bool {
    input.is_empty() || input.shape()[3] == 1 || input.strides()[3] == 1
}

fn places(axis: &Axis) -> Result<Vec<Place>, Error> {
    let mut places = Vec::new();
    places.try_reserve_exact(axis.output).map_err(|_| Error::Memory { elements: axis.output })?;
    places.extend((0..axis.output).map(|at| {
        let within = axis.within(at);
        Place { at, origin: axis.origin(at), inside: axis.taps_within(&within), within, alike: 1 }
    }));
    Ok(places)
}
