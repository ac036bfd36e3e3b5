//! What the fast path will do for one geometry, in both halves or one alone.
//!
//! A task computes the depthwise results of some output pixels into the thread's scratch and multiplies them by some
//! column panels of the pointwise filter at once; nothing of the image's size ever exists in between. The bits are those
//! of [`reference`](crate::reference), whatever the [split](crate::split).

use std::mem::MaybeUninit;
use std::sync::Arc;

use ndarray::{Array4, ArrayView2, ArrayView4, CowArray, Ix4, s};
use rayon::ThreadPool;

use crate::element::{Element, is_sum};
use crate::epilogue::{Epilogues, Step};
use crate::error::Error;
use crate::geometry::Geometry;
use crate::kernels::depthwise::{Copies, Depthwise, adjacent};
use crate::kernels::epilogue::Epilogue;
use crate::kernels::memory::Output;
use crate::kernels::pointwise::{Packed, Pointwise};
use crate::kernels::tile::{Tile, panel, row_stride};
use crate::kernels::{InstructionSet, Rows, Target};
use crate::numerics::{Numerics, Subnormals};
use crate::split::Split;

/// Multiplications below which a call stays on the calling thread: some 50 us, about what it takes to wake others.
const SMALL: usize = 2 << 20;

/// What decides whether a call stays on the calling thread.
pub fn multiplications(geometry: &Geometry) -> usize {
    let taps = geometry.height.kernel * geometry.width.kernel;
    (geometry.rows() * geometry.k()).saturating_mul(geometry.out_channels + taps)
}

/// Whether they stay on the calling thread, so that small work does not even start a thread pool.
pub fn are_few(multiplications: usize) -> bool {
    multiplications < SMALL
}

/// What a layer has besides its pointwise filter: the steps are those behind the parts that there are, and have been checked.
pub struct Layer<'a, T> {
    /// None of the pointwise part alone.
    pub depthwise_filter: Option<ArrayView4<'a, T>>,
    pub epilogues: &'a Epilogues<'a, T>,
}

/// The whole operation for one geometry, in one order, or its pointwise part alone.
pub struct Plan<'a, T: Element> {
    pixels: Pixels<T>,
    pointwise: Pointwise<'a, T>,
    subnormals: Subnormals,
    split: Split,
}

/// What tiles are filled with.
#[expect(clippy::large_enum_variant, reason = "a plan has one of them, and there are few plans")]
enum Pixels<T: Element> {
    Depthwise(Depthwise<T>),
    Copied(Copies<T>),
}

impl<T: Element> Plan<'static, T> {
    /// With its pointwise filter packed. In an instruction set of this processor, for that many threads, the calling one
    /// included. Numerics are checked, and so is the filter's shape.
    ///
    /// # Errors
    /// A filter packed for other numerics, or another instruction set; no memory.
    pub fn packed(
        set: InstructionSet,
        threads: usize,
        geometry: &Geometry,
        numerics: &Numerics,
        layer: &Layer<T>,
        pointwise_filter: Arc<Packed<T>>,
    ) -> Result<Self, Error> {
        let pointwise = Pointwise::packed(T::kernel(set), pointwise_filter, numerics).ok_or(Error::Packed)?;
        Self::of(set, threads, geometry, numerics, layer, pointwise)
    }
}

impl<'a, T: Element> Plan<'a, T> {
    /// For one call on the calling thread and those of the pool, or of rayon's current one; otherwise as
    /// [`packed`](Self::packed).
    pub fn once(
        set: InstructionSet,
        pool: Option<&ThreadPool>,
        threads: usize,
        geometry: &Geometry,
        numerics: &Numerics,
        layer: &Layer<T>,
        pointwise_filter: ArrayView4<'a, T>,
    ) -> Result<Self, Error> {
        let filter = pointwise_filter.slice_move(s![0, 0, .., ..]);
        let pointwise = Pointwise::once(T::kernel(set), filter, numerics);
        let mut plan = Self::of(set, threads, geometry, numerics, layer, pointwise)?;
        if plan.split.tiles > PACKINGS * threads {
            plan.pointwise.pack(pool, threads)?;
        }
        Ok(plan)
    }

    fn of(
        set: InstructionSet,
        threads: usize,
        geometry: &Geometry,
        numerics: &Numerics,
        layer: &Layer<T>,
        pointwise: Pointwise<'a, T>,
    ) -> Result<Self, Error> {
        assert_eq!(pointwise.filter_shape(), [geometry.k(), geometry.out_channels]);
        let kernel = T::kernel(set);
        let taps = geometry.height.kernel * geometry.width.kernel;
        let Numerics { depthwise, subnormals, .. } = *numerics;
        let (pixels, split) = match layer.depthwise_filter {
            Some(filter) => {
                let depthwise = Depthwise::new(kernel, filter, geometry, depthwise, subnormals)?;
                let split = Split::of(&depthwise, threads);
                let depthwise = depthwise.finished(Epilogue::new(kernel, &layer.epilogues.depthwise, geometry.k())?);
                (Pixels::Depthwise(depthwise.in_pairs(pointwise.in_pairs())), split)
            }
            None => {
                let split = Split::new::<T::Sum>(geometry.rows(), geometry.k(), threads, kernel.rows());
                (Pixels::Copied(Copies::new(kernel, geometry)), split)
            }
        };
        Ok(Self {
            pixels,
            subnormals,
            split: split.with_columns(pointwise.panels(), 2 * kernel.lanes, taps),
            pointwise: pointwise.finished(Epilogue::new(kernel, &layer.epilogues.pointwise, geometry.out_channels)?),
        })
    }

    pub fn geometry(&self) -> &Geometry {
        match &self.pixels {
            Pixels::Depthwise(depthwise) => depthwise.geometry(),
            Pixels::Copied(copies) => copies.geometry(),
        }
    }

    /// Into all of `output`; `input` has the geometry's shape. On the calling thread and those of the pool, or of rayon's
    /// current one.
    pub fn run(
        &self,
        pool: Option<&ThreadPool>,
        input: ArrayView4<T>,
        output: &mut [MaybeUninit<T>],
    ) -> Result<(), Error> {
        if output.is_empty() {
            return Ok(());
        }
        let input = with_adjacent_channels(input)?;
        let input = input.view();
        let output = Output::new(output, [self.geometry().rows(), self.geometry().out_channels]);
        let following = self.pointwise.following();
        let scratch = |rows| self.pointwise.scratch(rows);
        self.split.for_each(pool, self.subnormals, following, scratch, |tile, first, panels, scratch| {
            let ahead = self.pixels.fill(&input, tile, first);
            // SAFETY: the tile is filled; the split gives each part of the output to one task.
            unsafe { self.pointwise.multiply(tile, panels, &output, first, ahead, scratch) };
            Ok(())
        })
    }
}

impl<T: Element> Pixels<T> {
    /// Fills the tile from that pixel on. Gives what the next one is made from: so many bytes from there on.
    fn fill(&self, input: &ArrayView4<T>, tile: &mut Tile<T::Sum>, first: usize) -> (*const u8, usize) {
        let next = first + tile.rows();
        match self {
            Self::Depthwise(depthwise) => {
                depthwise.fill(input, tile, first);
                depthwise.ahead(input, next, tile.rows())
            }
            Self::Copied(copies) => {
                copies.fill(input, tile, first);
                copies.ahead(input, next, tile.rows())
            }
        }
    }
}

/// The depthwise part alone with the steps behind it, into all of `output`, which is not empty.
pub fn depthwise_part<T: Element>(
    workers: &Workers,
    geometry: &Geometry,
    numerics: &Numerics,
    input: ArrayView4<T>,
    depthwise_filter: ArrayView4<T>,
    steps: &[Step<T>],
    output: &mut [MaybeUninit<T>],
) -> Result<(), Error> {
    let (kernel, k) = (T::kernel(workers.set), geometry.k());
    let input = with_adjacent_channels(input)?;
    let depthwise = Depthwise::new(kernel, depthwise_filter, geometry, numerics.depthwise, numerics.subnormals)?;
    let depthwise = depthwise.finished(Epilogue::new(kernel, steps, k)?);
    let output = Output::new(output, [geometry.rows(), k]);
    // Where there is nothing to round, and no vector would reach into the next pixel.
    let directly = is_sum::<T>() && k.is_multiple_of(kernel.lanes);
    let split = Split::of(&depthwise, workers.threads);
    split.for_each(
        workers.pool,
        numerics.subnormals,
        0,
        |_| 0,
        |tile: &mut Tile<T::Sum>, first, _, _| {
            let next = k as isize;
            if directly {
                let target = Target { start: output.at(first, 0).cast(), next, panel_stride: panel::<T::Sum>() };
                // SAFETY: the pixels have the channels, which are whole vectors, and no other task writes them.
                unsafe { depthwise.write(&input.view(), target, first..first + tile.rows()) };
                return Ok(());
            }
            depthwise.fill(&input.view(), tile, first);
            for (k, from, columns) in tile.pieces(0) {
                let (from_stride, to) = (row_stride::<T::Sum>(), output.at(first, k));
                let rows = Rows { from, from_stride, to, to_stride: next, rows: tile.rows(), columns };
                // SAFETY: the tile is filled; the pixels have the channels, and no other task writes them.
                unsafe { kernel.narrow(&rows) };
            }
            Ok(())
        },
    )
}

/// The depthwise result alone, on the calling thread: the rows, one per output pixel, `geometry.k()` long, one after the
/// other with its number as long as `each` wants more.
pub fn depthwise<T: Element>(
    input: ArrayView4<T>,
    depthwise_filter: ArrayView4<T>,
    geometry: &Geometry,
    numerics: &Numerics,
    mut each: impl FnMut(usize, &mut [T]) -> bool,
) -> Result<(), Error> {
    let kernel = T::kernel(InstructionSet::preferred());
    let input = with_adjacent_channels(input)?;
    let depthwise = Depthwise::new(kernel, depthwise_filter, geometry, numerics.depthwise, numerics.subnormals)?;
    let split = Split::new::<T::Sum>(geometry.rows(), geometry.k(), 1, 1);
    let mut pixel = vec![T::ZERO; geometry.k()];
    let mut wanted = true;
    for task in (0..split.tiles).filter(|_| geometry.rows() > 0) {
        split.run(task, numerics.subnormals, 0, &|_| 0, |tile, first, _, _| {
            depthwise.fill(&input.view(), tile, first);
            for row in 0..tile.rows() {
                for (k, from, columns) in tile.pieces(row) {
                    let to = pixel[k..k + columns].as_mut_ptr();
                    let piece = Rows { from, from_stride: 0, to, to_stride: 0, rows: 1, columns };
                    // SAFETY: the tile is filled; the pixel has the columns.
                    unsafe { kernel.narrow(&piece) };
                }
                wanted = wanted && each(first + row, &mut pixel);
            }
            Ok(())
        })?;
        if !wanted {
            break;
        }
    }
    Ok(())
}

/// The product alone, on the calling thread: of `pixels`, rows of k values, and `filter` (k, columns), k at least 1 and as
/// long as the numerics' sum.
pub fn pointwise<T: Element>(pixels: &[T], filter: ArrayView2<T>, numerics: &Numerics) -> Result<Vec<T>, Error> {
    let (k, columns) = filter.dim();
    let rows = pixels.len() / k;
    let workers = Workers { set: InstructionSet::preferred(), pool: None, threads: 1 };
    allocate(rows * columns, |output| {
        let product = Product { rows, filter, numerics, scratch: |_| 0 };
        product.run(&workers, output, |first, _| Ok(rows_of(workers.set, pixels, k, first)))
    })
}

/// Fills a tile, and may use the scratch. Gives what the next tile is made from: so many bytes from there on.
pub trait Fill<T: Element>: FnOnce(&mut Tile<T::Sum>, &mut [MaybeUninit<T::Sum>]) -> (*const u8, usize) {}

impl<T: Element, F: FnOnce(&mut Tile<T::Sum>, &mut [MaybeUninit<T::Sum>]) -> (*const u8, usize)> Fill<T> for F {}

/// Fills tiles with rows of k values, from `first` on.
pub fn rows_of<T: Element>(set: InstructionSet, values: &[T], k: usize, first: usize) -> impl Fill<T> {
    move |tile: &mut Tile<T::Sum>, _: &mut [MaybeUninit<T::Sum>]| {
        let values = values.get(first * k..).unwrap_or_default();
        tile.set_rows(T::kernel(set), values);
        let next = values.get(tile.rows() * k..).unwrap_or_default();
        (next.as_ptr().cast(), size_of_val(next).min(tile.rows() * k * size_of::<T>()))
    }
}

/// On which threads and with which instructions something is computed.
#[derive(Clone, Copy)]
pub struct Workers<'a> {
    pub set: InstructionSet,
    /// Rayon's current one if there is none.
    pub pool: Option<&'a ThreadPool>,
    /// The calling one included.
    pub threads: usize,
}

/// A matrix product whose rows are made where they are needed.
pub struct Product<'a, T, S> {
    pub rows: usize,
    /// (k, columns), k as long as the numerics' sum.
    pub filter: ArrayView2<'a, T>,
    pub numerics: &'a Numerics,
    /// Elements of scratch that it takes to make so many rows.
    pub scratch: S,
}

impl<T: Element, S: Fn(usize) -> usize + Sync> Product<'_, T, S> {
    /// Into all of `output`. `filler` is given the first row of a tile and how many it has, those that follow included.
    pub fn run<F: Fill<T>>(
        self,
        workers: &Workers,
        output: &mut [MaybeUninit<T>],
        filler: impl Fn(usize, usize) -> Result<F, Error> + Sync,
    ) -> Result<(), Error> {
        let Self { rows, filter, numerics, scratch: own } = self;
        let Workers { set, pool, threads } = *workers;
        let (kernel, (k, columns)) = (T::kernel(set), filter.dim());
        if output.is_empty() {
            return Ok(());
        }
        let output = Output::new(output, [rows, columns]);
        let mut pointwise = Pointwise::once(kernel, filter, numerics);
        let split = Split::new::<T::Sum>(rows, k, threads, kernel.rows());
        let split = split.with_columns(pointwise.panels(), 2 * kernel.lanes, 1);
        // Columns that have to be collected take longer to pack.
        let packings = if filter.strides()[1] == 1 { PACKINGS } else { 1 };
        if split.tiles > packings * threads {
            pointwise.pack(pool, threads)?;
        }
        let following = pointwise.following();
        let scratch = |rows| pointwise.scratch(rows) + own(rows + following);
        split.for_each(pool, numerics.subnormals, following, scratch, |tile, first, panels, scratch| {
            let (scratch, own) = scratch.split_at_mut(pointwise.scratch(tile.rows()));
            let ahead = filler(first, tile.all_rows())?(tile, own);
            // SAFETY: the tile is filled; the split gives each part of the output to one task.
            unsafe { pointwise.multiply(tile, panels, &output, first, ahead, scratch) };
            Ok(())
        })
    }
}

/// That many elements, all of which `fill` writes.
pub fn allocate<T>(
    elements: usize,
    fill: impl FnOnce(&mut [MaybeUninit<T>]) -> Result<(), Error>,
) -> Result<Vec<T>, Error> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(elements).map_err(|_| Error::Memory { elements })?;
    fill(&mut vec.spare_capacity_mut()[..elements])?;
    // SAFETY: reserved, and written by `fill`.
    unsafe { vec.set_len(elements) };
    Ok(vec)
}

/// How many an array of that shape has.
pub fn elements(shape: [usize; 4]) -> Result<usize, Error> {
    let product = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
    product.ok_or(Error::TooLarge)
}

/// Room for an array of that shape.
pub fn reserved<T>(shape: [usize; 4]) -> Result<Vec<T>, Error> {
    let elements = elements(shape)?;
    let mut values = Vec::new();
    values.try_reserve_exact(elements).map_err(|_| Error::Memory { elements })?;
    Ok(values)
}

/// The view itself, or a copy of it if the channels of a pixel are not adjacent.
pub fn with_adjacent_channels<T: Element>(input: ArrayView4<T>) -> Result<CowArray<T, Ix4>, Error> {
    if adjacent(&input) { Ok(input.into()) } else { Ok(copied(input)?.into()) }
}

/// The view itself, or a copy of it if its elements are not one after the other.
pub fn standard<T: Element>(array: ArrayView4<T>) -> Result<CowArray<T, Ix4>, Error> {
    if array.is_standard_layout() { Ok(array.into()) } else { Ok(copied(array)?.into()) }
}

/// A copy.
pub fn copied<T: Element>(array: ArrayView4<T>) -> Result<Array4<T>, Error> {
    let mut copy = reserved(array.dim().into())?;
    copy.extend(array.iter());
    Ok(Array4::from_shape_vec(array.dim(), copy).expect("as many elements as the view"))
}

/// So often does a thread pack a filter panel by panel, which stay in its caches, in the time that it takes to pack it whole.
const PACKINGS: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attributes, Padding, reference};

    #[test]
    fn the_two_halves_are_the_whole() {
        let (input, depthwise_filter) = (Array4::from_shape_fn([2, 9, 8, 19], number), number_filter([3, 3, 19, 2]));
        let pointwise_filter = number_filter([1, 1, 38, 45]);
        let attributes = Attributes { strides: [2, 1], padding: Padding::Same, rate: [1, 1] };
        let shapes = (input.shape(), depthwise_filter.shape(), pointwise_filter.shape());
        let geometry = Geometry::new(shapes.0, shapes.1, shapes.2, &attributes).unwrap();
        let numerics = "v1 depthwise(separate, all) pointwise(fused, 20+(8+10)) subnormals(flushed)".parse().unwrap();
        let (input, filter) = (input.view(), depthwise_filter.view());
        let mut pixels = Vec::new();
        let keep = |row: usize, pixel: &mut [f32]| {
            assert_eq!(row * pixel.len(), pixels.len());
            pixels.extend_from_slice(pixel);
            true
        };
        depthwise::<f32>(input, filter, &geometry, &numerics, keep).unwrap();
        let product = pointwise(&pixels, pointwise_filter.slice(s![0, 0, .., ..]), &numerics).unwrap();
        let expected =
            reference::separable_conv2d(input, filter, pointwise_filter.view(), &attributes, &numerics).unwrap();
        let bits = |values: &mut dyn Iterator<Item = &f32>| values.map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&mut product.iter()), bits(&mut expected.iter()));
    }

    fn number((a, b, c, d): (usize, usize, usize, usize)) -> f32 {
        ((a * 31 + b * 17 + c * 7 + d * 3) % 23) as f32 / 7.0 - 1.5
    }

    fn number_filter(shape: [usize; 4]) -> Array4<f32> {
        Array4::from_shape_fn(shape, number)
    }
}
