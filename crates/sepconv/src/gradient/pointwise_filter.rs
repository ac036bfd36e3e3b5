//! The gradient of the pointwise filter: the transposed depthwise result times `upstream`. The depthwise result is computed
//! again, some pixels of some channels at a time, and never stored.

use std::mem::MaybeUninit;
use std::ops::Range;

use ndarray::{ArrayView2, ArrayView4, s};

use super::check_length;
use crate::element::Element;
use crate::error::Error;
use crate::geometry::Geometry;
use crate::kernels::depthwise::Depthwise;
use crate::kernels::memory::{CACHED, Output, ask_for};
use crate::kernels::pointwise::Pointwise;
use crate::kernels::tile::{Tile, row_elements, row_stride};
use crate::kernels::{Kernel, Kernels};
use crate::numerics::Numerics;
use crate::plan::{Product, Workers, standard, with_adjacent_channels};
use crate::split::Split;

/// Most pixels whose depthwise results are computed at a time: those of a column panel and a register tile's channels stay in
/// the first-level cache.
const PIXELS: usize = 224;

/// Into all of `output`, an array of the pointwise filter's shape; `upstream` has the result's.
pub fn gradient<T: Element>(
    workers: &Workers,
    g: &Geometry,
    input: ArrayView4<T>,
    depthwise_filter: ArrayView4<T>,
    upstream: ArrayView4<T>,
    numerics: &Numerics,
    output: &mut [MaybeUninit<T>],
) -> Result<(), Error> {
    check_length(g.pointwise_filter_shape(), output)?;
    if output.is_empty() {
        return Ok(());
    }
    if g.rows() == 0 {
        output.fill(MaybeUninit::new(T::ZERO));
        return Ok(());
    }
    let input = with_adjacent_channels(input)?;
    let upstream = standard(upstream)?;
    let values = upstream.as_slice().expect("standard layout");
    let upstream = ArrayView2::from_shape((g.rows(), g.out_channels), values).map_err(|_| Error::TooLarge)?;
    let kernel = T::kernel(workers.set);
    let channels = |channels| Channels::new(kernel, g, input.view(), depthwise_filter, numerics, channels);
    // Of some channels, with those that share theirs with the first or the last.
    let room = |channels: usize| PIXELS * row_elements::<T::Sum>(channels + 2 * g.channel_multiplier);
    let lines = [2, 1].map(|lines| lines * g.width.output);
    let Some((pointwise, pieces)) = Pointwise::in_pieces(kernel, upstream, &numerics.pointwise, PIXELS, lines) else {
        let of_sums = T::Sum::kernel(workers.set);
        let product = Product { rows: g.k(), filter: upstream, numerics, scratch: room };
        return product.run(workers, output, |first, rows| {
            let channels = channels(first..g.k().min(first + rows))?;
            Ok(move |tile: &mut Tile<T::Sum>, scratch: &mut [MaybeUninit<T::Sum>]| {
                channels.fill(of_sums, tile, scratch);
                (std::ptr::null(), 0)
            })
        });
    };
    let output = Output::new(output, [g.k(), g.out_channels]);
    let large = (input.len() + upstream.len()) * size_of::<T>() > CACHED;
    // The tiles that are filled lie in the scratch.
    let split = Split::new::<T::Sum>(g.k(), 0, workers.threads, 1);
    let split = split.with_columns(pointwise.panels(), 2 * kernel.lanes, g.height.kernel * g.width.kernel);
    let panels = pointwise.panels().div_ceil(split.groups);
    let sums = |rows| pointwise.scratch_of_pieces(rows, panels, PIXELS);
    let scratch = |rows| sums(rows) + room(rows);
    split.for_each(workers.pool, numerics.subnormals, 0, scratch, |tile, first, panels, scratch| {
        let rows = tile.rows();
        let (scratch, room) = scratch.split_at_mut(sums(rows));
        let channels = channels(first..first + rows)?;
        for (number, pixels) in pieces.iter().enumerate() {
            let tile = channels.results(pixels.clone(), room);
            if let (true, Some(next)) = (large, pieces.get(number + 1)) {
                channels.ask_for(next.clone());
                let next = upstream.slice(s![next.clone(), ..]);
                ask_for(next.as_ptr().cast(), next.len() * size_of::<T>());
            }
            // SAFETY: the tile is filled, and the pieces before have been taken; the split gives each part of the output to
            // one task.
            unsafe {
                pointwise.multiply_piece(
                    &tile,
                    channels.taken(),
                    number,
                    pixels.clone(),
                    panels.clone(),
                    &output,
                    first,
                    scratch,
                )
            };
        }
        // SAFETY: the split gives each part of the output to one task.
        unsafe { pointwise.finish_pieces(rows, panels, &output, first, scratch) };
        Ok(())
    })
}

/// The depthwise results of some channels.
struct Channels<'a, T: Element> {
    depthwise: Depthwise<T>,
    /// Of the input's channels that they need.
    input: ArrayView4<'a, T>,
    /// How many results of these come before theirs.
    skipped: usize,
    count: usize,
}

impl<'a, T: Element> Channels<'a, T> {
    fn new(
        kernel: &'static Kernel<T>,
        g: &Geometry,
        input: ArrayView4<'a, T>,
        depthwise_filter: ArrayView4<T>,
        numerics: &Numerics,
        channels: Range<usize>,
    ) -> Result<Self, Error> {
        let m = g.channel_multiplier;
        let of_input = channels.start / m..channels.end.div_ceil(m);
        let skipped = channels.start - of_input.start * m;
        let own = Geometry { in_channels: of_input.len(), ..*g };
        let input = input.slice_move(s![.., .., .., of_input.clone()]);
        let depthwise = Depthwise::new(
            kernel,
            depthwise_filter.slice(s![.., .., of_input, ..]),
            &own,
            numerics.depthwise,
            numerics.subnormals,
        )?;
        Ok(Self { depthwise, input, skipped, count: channels.len() })
    }

    /// Theirs among the results.
    fn taken(&self) -> Range<usize> {
        self.skipped..self.skipped + self.count
    }

    /// A row for each of these pixels, in the scratch.
    fn results<'s>(&self, pixels: Range<usize>, scratch: &'s mut [MaybeUninit<T::Sum>]) -> Tile<'s, T::Sum> {
        let mut tile = Tile::new(scratch, pixels.len(), 0, self.depthwise.geometry().k());
        self.depthwise.fill(&self.input, &mut tile, pixels.start);
        tile
    }

    /// Asks for what these pixels read, and those before did not.
    fn ask_for(&self, pixels: Range<usize>) {
        if self.input.strides()[2] == self.input.shape()[3] as isize {
            let (from, bytes) = self.depthwise.ahead(&self.input, pixels.start, pixels.len());
            return ask_for(from, bytes);
        }
        for pixel in pixels {
            let (from, _) = self.depthwise.ahead(&self.input, pixel, 1);
            ask_for(from, self.input.shape()[3] * size_of::<T>());
        }
    }

    /// A row for each channel, of all pixels.
    fn fill(&self, kernel: &Kernel<T::Sum>, tile: &mut Tile<T::Sum>, scratch: &mut [MaybeUninit<T::Sum>]) {
        let rows = self.depthwise.geometry().rows();
        for start in (0..rows).step_by(PIXELS) {
            let pixels = start..rows.min(start + PIXELS);
            let results = self.results(pixels.clone(), scratch);
            for (from, part) in results.parts(self.taken()) {
                let to = part.start - self.skipped..part.end - self.skipped;
                // SAFETY: the results are filled, and have these channels.
                unsafe { tile.set_columns(kernel, to, start, pixels.len(), (from, row_stride::<T::Sum>())) };
            }
        }
        // Behind the last row there is nothing to be paired with.
        tile.clear(self.count);
    }
}
