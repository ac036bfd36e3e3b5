//! The depthwise half: fills tiles with the depthwise results of successive output pixels, reading the image where it
//! lies, whatever strides, rate and padding are.

use std::mem::MaybeUninit;
use std::ops::Range;

use ndarray::{ArrayView4, s};

use super::generic::{PIXELS, SHARED};
use super::memory::Buffer;
use super::tile::Tile;
use super::{Entry, Kernel, Run, Spread};
use crate::element::Element;
use crate::error::Error;
use crate::geometry::{Axis, Geometry};
use crate::numerics::{Depthwise as Numerics, Products, Rounding, TapOrder, Taps};
use crate::tap_order::{self, Block, Borders, Term};

/// The depthwise filter, packed, and what each output pixel reads.
pub struct Depthwise<T: Element> {
    kernel: Kernel<T>,
    numerics: Numerics,
    geometry: Geometry,
    filter: Buffer<T::Sum>,
    filter_stride: usize,
    rows: Vec<Place>,
    columns: Vec<Place>,
    spread: Vec<Spread>,
    borders: Borders,
    /// How far apart successive pixels of a row lie if their sums share values in the inner loop; otherwise 0.
    shared: usize,
}

/// What one output row or column reads.
struct Place {
    /// The output's number.
    at: usize,
    origin: isize,
    inside: Range<usize>,
}

/// Most pixels handed to the inner loop at once: enough to make the call cheap.
const RUN: usize = 64;

impl<T: Element> Depthwise<T> {
    pub fn new(
        kernel: Kernel<T>,
        filter: ArrayView4<T>,
        geometry: &Geometry,
        numerics: Numerics,
    ) -> Result<Self, Error> {
        assert!(filter.shape() == geometry.depthwise_filter_shape());
        let spread = geometry.channel_multiplier > 1;
        let filter_stride = geometry.k().next_multiple_of(kernel.lanes);
        let width = &geometry.width;
        let shares = kernel.shares
            && SHARED.contains(&[width.kernel, width.stride])
            && width.rate == 1
            && usual(numerics)
            && matches!(numerics.taps, Taps::Inside | Taps::All);
        Ok(Self {
            shared: if shares { width.stride } else { 0 },
            kernel,
            numerics,
            filter: pack(filter, geometry, filter_stride)?,
            filter_stride,
            rows: places(&geometry.height)?,
            columns: places(&geometry.width)?,
            borders: Borders::of(&geometry.width),
            spread: if spread { spreads(geometry, kernel.lanes) } else { Vec::new() },
            geometry: *geometry,
        })
    }

    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Fills the tile with the results of successive output pixels, from `first` on; zeros behind the last. The input's
    /// channels must be adjacent: see [`adjacent`].
    pub fn fill(&self, input: &ArrayView4<T>, tile: &mut Tile<T::Sum>, first: usize) {
        assert!(adjacent(input) && input.shape() == self.geometry.input_shape());
        let (height, width) = (self.geometry.height.output, self.geometry.width.output);
        let mut done = 0;
        let there = self.geometry.rows().min(first + tile.all_rows()) - first;
        (there..tile.all_rows()).for_each(|row| tile.set_row(row, std::iter::repeat(T::Sum::ZERO)));
        while done < there {
            let (line, x) = ((first + done) / width, (first + done) % width);
            let columns = &self.columns[x..width.min(x + there - done)];
            let shared = if columns.len() < PIXELS { 0 } else { self.shared };
            for run in columns.chunk_by(|a, b| shared > 0 || self.same_sum(a, b)) {
                // Evenly, so that none gets less than it can share.
                for run in run.chunks(run.len().div_ceil(run.len().div_ceil(RUN))) {
                    self.run(input, tile, done, [line / height, line % height], run, shared);
                    done += run.len();
                }
            }
        }
    }

    /// What so many results from `first` on read, and those before did not: from the last tap of the first of them on, so
    /// many bytes.
    pub fn ahead(&self, input: &ArrayView4<T>, first: usize, rows: usize) -> (*const u8, usize) {
        let (height, width) = (&self.geometry.height, &self.geometry.width);
        let (line, x) = (first / width.output, first % width.output);
        let taps = (height.kernel as isize - 1).wrapping_mul(height.rate as isize);
        let y = self.rows[line % height.output].origin.wrapping_add(taps);
        let [of_image, of_row, of_column, _] = *input.strides() else { unreachable!("four dimensions") };
        let places = [((line / height.output) as isize, of_image), (y, of_row), (self.columns[x].origin, of_column)];
        let offset = places.iter().fold(0isize, |sum, (at, stride)| sum.wrapping_add(at.wrapping_mul(*stride)));
        let rows = rows.min(self.geometry.rows().saturating_sub(first));
        let pixels = rows.saturating_mul(height.stride).saturating_mul(width.stride);
        let bytes = pixels.saturating_mul(self.geometry.in_channels).saturating_mul(size_of::<T>());
        (input.as_ptr().wrapping_offset(offset).cast(), bytes)
    }

    /// Some pixels of one output row that share values, or have the same taps inside the image, into the tile's rows from
    /// `row` on.
    fn run(
        &self,
        input: &ArrayView4<T>,
        tile: &mut Tile<T::Sum>,
        row: usize,
        [n, y]: [usize; 2],
        columns: &[Place],
        shared: usize,
    ) {
        let [of_image, of_row, of_column, _] = *input.strides() else { unreachable!("four dimensions") };
        let image = input.as_ptr().wrapping_offset((n as isize).wrapping_mul(of_image));
        let line = image.wrapping_offset(self.rows[y].origin.wrapping_mul(of_row));
        let mut pixels = [std::ptr::null(); RUN];
        for (pixel, column) in pixels.iter_mut().zip(columns) {
            *pixel = line.wrapping_offset(column.origin.wrapping_mul(of_column));
        }
        let (height, width) = (&self.geometry.height, &self.geometry.width);
        let kernel = [height.kernel, width.kernel];
        let inside = [self.rows[y].inside.clone(), columns[0].inside.clone()];
        let steps = [of_row.wrapping_mul(height.rate as isize), of_column.wrapping_mul(width.rate as isize)];
        let Numerics { rounding, products, .. } = self.numerics;
        let entries = self.entries(y, &columns[0], steps);
        let run = Run {
            pixels: &pixels[..columns.len()],
            kernel,
            counted: tap_order::counted(self.numerics.taps, kernel, &inside),
            inside,
            shared,
            first_column: columns[0].origin,
            columns: width.input,
            padding: self.numerics.taps == Taps::All,
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
            target: tile.rows_from(row, columns.len()),
            panel_stride: tile.panel_stride(),
        };
        let spread = usize::from(!self.spread.is_empty());
        let function = match (rounding, products) {
            _ if !entries.is_empty() => self.kernel.depthwise_listed,
            (Rounding::Each, _) => self.kernel.depthwise_each[spread],
            (Rounding::Once, products) => self.kernel.depthwise[products as usize][spread],
        };
        // SAFETY: the kernel's existence proves its instruction set. `inside`, and the image's columns, name only taps whose
        // place, origin + tap * rate, is in the image; the filter has `filter_stride`, whole vectors, for each tap; the tile has the rows
        // and panels, of whole vectors.
        unsafe { function(&run) }
    }

    /// Whether two columns' sums take up the same terms.
    fn same_sum(&self, a: &Place, b: &Place) -> bool {
        a.inside == b.inside && self.numerics.products != Products::Overrun
    }

    /// Where the filter has weights of +0.
    fn zeros(&self) -> usize {
        self.geometry.height.kernel * self.geometry.width.kernel * self.filter_stride
    }

    /// The sum of a pixel, if it is not row-major with products that are usual there.
    fn entries(&self, y: usize, column: &Place, steps: [isize; 2]) -> Vec<Entry> {
        let mut entries = Vec::new();
        if usual(self.numerics) {
            return entries;
        }
        let g = &self.geometry;
        let inside = |[i, j]: [isize; 2]| {
            let within = |axis: &Axis, origin: isize, tap: isize| {
                (0..axis.input as isize).contains(&(origin + tap * axis.rate as isize))
            };
            within(&g.height, self.rows[y].origin, i) && within(&g.width, column.origin, j)
        };
        let offset = |place: [isize; 2]| place[0].wrapping_mul(steps[0]).wrapping_add(place[1].wrapping_mul(steps[1]));
        let entry = |place, weights| Entry::Tap { place: offset(place), inside: inside(place), weights };
        for Block { starts, terms } in tap_order::blocks(&self.numerics, g, &self.borders, [y, column.at]) {
            entries.extend(terms.iter().map(|term| match *term {
                Term::Tap([i, j]) => entry([i as isize, j as isize], (i * g.width.kernel + j) * self.filter_stride),
                Term::Beyond(Some(place)) => entry(place, self.zeros()),
                Term::Channel([i, j], behind) if inside([i as isize, j as isize]) => Entry::Channel {
                    place: offset([i as isize, j as isize]),
                    behind: inside(behind).then(|| offset(behind)),
                },
                Term::Beyond(None) | Term::Channel(..) => Entry::Tap { place: 0, inside: false, weights: self.zeros() },
            }));
            entries.push(Entry::End { starts });
        }
        if entries.is_empty() {
            entries.push(Entry::End { starts: true });
        }
        entries
    }
}

/// Whether there are loops for this order; others take up a list.
fn usual(numerics: Numerics) -> bool {
    let Numerics { order, products, rounding, .. } = numerics;
    let each = rounding == Rounding::Each;
    order == TapOrder::Rows && (products == Products::Separate || products == Products::Fused && !each)
}

/// True if an image can be read where it lies: the channels of a pixel are adjacent, or there are no pixels.
pub fn adjacent<T>(input: &ArrayView4<T>) -> bool {
    input.is_empty() || input.shape()[3] == 1 || input.strides()[3] == 1
}

/// [taps down][taps across][`stride`], zero beyond k; and one more tap, all zeros.
fn pack<T: Element>(filter: ArrayView4<T>, g: &Geometry, stride: usize) -> Result<Buffer<T::Sum>, Error> {
    let taps = g.height.kernel * g.width.kernel;
    let mut packed = Buffer::new((taps + 1).saturating_mul(stride))?;
    let (weights, zeros) = packed.as_mut_slice().split_at_mut(taps * stride);
    zeros.fill(MaybeUninit::new(T::Sum::ZERO));
    for (tap, packed) in weights.chunks_exact_mut(stride).enumerate() {
        let tap = filter.slice(s![tap / g.width.kernel, tap % g.width.kernel, .., ..]);
        let tap = tap.as_standard_layout();
        let weights = tap.as_slice().expect("standard layout");
        let (used, beyond) = packed.split_at_mut(g.k());
        used.iter_mut().zip(weights).for_each(|(to, from)| *to = MaybeUninit::new(from.widen()));
        beyond.fill(MaybeUninit::new(T::Sum::ZERO));
    }
    Ok(packed)
}

fn places(axis: &Axis) -> Result<Vec<Place>, Error> {
    let mut places = Vec::new();
    places.try_reserve_exact(axis.output).map_err(|_| Error::Memory { elements: axis.output })?;
    places.extend((0..axis.output).map(|i| Place { at: i, origin: axis.origin(i), inside: axis.inside(i) }));
    Ok(places)
}

/// For each vector of results, where its pixel values are.
fn spreads(g: &Geometry, lanes: usize) -> Vec<Spread> {
    let channel = |k: usize| (k / g.channel_multiplier).min(g.in_channels - 1);
    let spread = |k: usize| {
        let mut spread = Spread { channel: channel(k), lanes: [0; 16] };
        for (l, lane) in spread.lanes.iter_mut().enumerate().take(lanes) {
            *lane = (channel(k + l) - spread.channel) as i32;
        }
        spread
    };
    (0..g.k()).step_by(lanes).map(spread).collect()
}
