//! The literal pipeline, slow and obvious: space_to_batch, depthwise, batch_to_space, 1x1, element by element. This is
//! the only definition of what is right; every other path is compared with it.

use std::ops::Range;

use ndarray::{Array2, Array4, ArrayView2, ArrayView4, indices};

use crate::element::{Element, Number};
use crate::epilogue::{Epilogues, Step};
use crate::error::Error;
use crate::geometry::{Attributes, Axis, Geometry};
use crate::numerics::{Depthwise, Numerics, Products, Rounding, Sum};
use crate::subnormals::Flushing;
use crate::tap_order::{self, Block, Borders, Term};

/// As [`crate::SeparableConv2d::run`], one element after the other on the calling thread.
pub fn separable_conv2d<T: Element>(
    input: ArrayView4<T>,
    depthwise_filter: ArrayView4<T>,
    pointwise_filter: ArrayView4<T>,
    attributes: &Attributes,
    numerics: &Numerics,
) -> Result<Array4<T>, Error> {
    with_steps(input, depthwise_filter, pointwise_filter, attributes, numerics, &Epilogues::NONE)
}

/// As [`crate::WithSteps::run`], likewise.
pub fn with_steps<T: Element>(
    input: ArrayView4<T>,
    depthwise_filter: ArrayView4<T>,
    pointwise_filter: ArrayView4<T>,
    attributes: &Attributes,
    numerics: &Numerics,
    epilogues: &Epilogues<T>,
) -> Result<Array4<T>, Error> {
    let geometry = Geometry::new(input.shape(), depthwise_filter.shape(), pointwise_filter.shape(), attributes)?;
    numerics.check(geometry.k())?;
    epilogues.check(geometry.k(), geometry.out_channels)?;
    let pixels = depthwise_result(input, depthwise_filter, &geometry, numerics);
    let pixels = finished(pixels, &epilogues.depthwise, numerics);
    Ok(pointwise_result(&pixels, pointwise_filter, &geometry, numerics, epilogues))
}

/// As [`crate::WithSteps::depthwise`], likewise.
pub fn depthwise_with_steps<T: Element>(
    input: ArrayView4<T>,
    depthwise_filter: ArrayView4<T>,
    attributes: &Attributes,
    numerics: &Numerics,
    epilogues: &Epilogues<T>,
) -> Result<Array4<T>, Error> {
    let geometry = Geometry::depthwise(input.shape(), depthwise_filter.shape(), attributes)?;
    numerics.depthwise.check()?;
    epilogues.check_depthwise(geometry.k())?;
    let pixels = depthwise_result(input, depthwise_filter, &geometry, numerics);
    let elements = finished(pixels, &epilogues.depthwise, numerics).into_iter().collect();
    Ok(Array4::from_shape_vec(geometry.output_shape(), elements).expect("a row for each pixel"))
}

/// As [`crate::WithSteps::pointwise`], likewise.
pub fn pointwise_with_steps<T: Element>(
    input: ArrayView4<T>,
    pointwise_filter: ArrayView4<T>,
    attributes: &Attributes,
    numerics: &Numerics,
    epilogues: &Epilogues<T>,
) -> Result<Array4<T>, Error> {
    let geometry = Geometry::pointwise(input.shape(), pointwise_filter.shape(), attributes)?;
    numerics.pointwise.check(geometry.k())?;
    epilogues.check_pointwise(geometry.out_channels)?;
    let pixels = batch_to_space(&strided(&space_to_batch(input, &geometry), &geometry), &geometry);
    Ok(pointwise_result(&pixels, pointwise_filter, &geometry, numerics, epilogues))
}

/// The depthwise result, one row per output pixel.
pub(crate) fn depthwise_result<T: Element>(
    input: ArrayView4<T>,
    depthwise_filter: ArrayView4<T>,
    geometry: &Geometry,
    numerics: &Numerics,
) -> Array2<T> {
    let _flushing = Flushing::set(numerics.subnormals);
    let blocks = space_to_batch(input, geometry);
    let blocks = depthwise(&blocks, depthwise_filter, geometry, numerics);
    batch_to_space(&blocks, geometry)
}

/// Pads and deals the image out to one small image per phase; `None` is padding. The block of phase (p, q) and image n
/// is at `(p * width.rate + q) * batch + n`.
fn space_to_batch<T: Element>(input: ArrayView4<T>, g: &Geometry) -> Array4<Option<T>> {
    let (rows, columns) = (g.height.rate, g.width.rate);
    let shape = [rows * columns * g.batch, g.height.padded / rows, g.width.padded / columns, g.in_channels];
    Array4::from_shape_fn(shape, |(block, y, x, c)| {
        let (phase, n) = (block / g.batch, block % g.batch);
        let y = (y * rows + phase / columns).checked_sub(g.height.pad_before)?;
        let x = (x * columns + phase % columns).checked_sub(g.width.pad_before)?;
        input.get((n, y, x, c)).copied()
    })
}

/// The depthwise convolution of every block, VALID, with the strides.
fn depthwise<T: Element>(
    blocks: &Array4<Option<T>>,
    filter: ArrayView4<T>,
    g: &Geometry,
    numerics: &Numerics,
) -> Array4<T> {
    let extent = |axis: &Axis| (axis.output + axis.crop) / axis.rate;
    let shape = [blocks.shape()[0], extent(&g.height), extent(&g.width), g.k()];
    let Depthwise { products, rounding, .. } = numerics.depthwise;
    let borders = Borders::of(&g.width);
    let mut sums = Array4::from_elem(shape, T::ZERO);
    for (block, y, x) in indices((shape[0], shape[1], shape[2])) {
        let phase = block / g.batch;
        let output = [y * g.height.rate + phase / g.width.rate, x * g.width.rate + phase % g.width.rate];
        let order = tap_order::blocks(&numerics.depthwise, g, &borders, output);
        for k in 0..g.k() {
            let (channel, multiplier) = (k / g.channel_multiplier, k % g.channel_multiplier);
            let mut total = T::Sum::ZERO;
            let pixel = |i: isize, j: isize, channel: usize| {
                let place = [y * g.height.stride, x * g.width.stride];
                let place = [place[0].checked_add_signed(i)?, place[1].checked_add_signed(j)?];
                // SAME may end in the middle of a stride: what lies beyond the padded image is padding too.
                blocks.get((block, place[0], place[1], channel)).copied().flatten()
            };
            for Block { starts, terms } in &order {
                let mut sum = T::Sum::ZERO;
                for term in terms {
                    let (pixel, weight) = match *term {
                        Term::Tap([i, j]) => {
                            (pixel(i as isize, j as isize, channel), filter[(i, j, channel, multiplier)])
                        }
                        Term::Beyond(place) => (place.and_then(|[i, j]| pixel(i, j, channel)), T::ZERO),
                        Term::Channel([i, j], _) if channel + 1 < g.in_channels => {
                            (pixel(i as isize, j as isize, channel + 1), T::ZERO)
                        }
                        Term::Channel(_, [i, j]) => (pixel(i, j, 0), T::ZERO),
                    };
                    // What has no partner is added after a product of zeros.
                    sum = if products == Products::Paired { sum.add(T::Sum::ZERO) } else { sum };
                    sum = accumulate(products, pixel.unwrap_or(T::ZERO).widen(), weight.widen(), sum);
                    if rounding == Rounding::Each {
                        sum = T::narrow(sum).widen();
                    }
                }
                total = if *starts { sum } else { total.add(sum) };
            }
            sums[(block, y, x, k)] = T::narrow(total);
        }
    }
    sums
}

/// The pixel of every block that a single tap reads.
fn strided<T: Element>(blocks: &Array4<Option<T>>, g: &Geometry) -> Array4<T> {
    let extent = |axis: &Axis| (axis.output + axis.crop) / axis.rate;
    let shape = [blocks.shape()[0], extent(&g.height), extent(&g.width), g.k()];
    Array4::from_shape_fn(shape, |(block, y, x, k)| {
        let pixel = blocks.get((block, y * g.height.stride, x * g.width.stride, k));
        pixel.copied().flatten().unwrap_or(T::ZERO)
    })
}

/// The rows after the steps, a column for each channel.
fn finished<T: Element>(mut rows: Array2<T>, steps: &[Step<T>], numerics: &Numerics) -> Array2<T> {
    let _flushing = Flushing::set(numerics.subnormals);
    for ((_, channel), value) in rows.indexed_iter_mut() {
        *value = steps.iter().fold(*value, |value, step| step.apply(value, channel));
    }
    rows
}

/// Puts the blocks together again and crops; one row per output pixel.
fn batch_to_space<T: Element>(blocks: &Array4<T>, g: &Geometry) -> Array2<T> {
    let (height, width) = (g.height.output, g.width.output);
    Array2::from_shape_fn((g.rows(), g.k()), |(row, k)| {
        let (n, y, x) = (row / width / height, row / width % height, row % width);
        let phase = y % g.height.rate * g.width.rate + x % g.width.rate;
        blocks[(phase * g.batch + n, y / g.height.rate, x / g.width.rate, k)]
    })
}

/// The result of the pointwise part, of one row per output pixel, with the steps behind it.
fn pointwise_result<T: Element>(
    pixels: &Array2<T>,
    filter: ArrayView4<T>,
    geometry: &Geometry,
    numerics: &Numerics,
    epilogues: &Epilogues<T>,
) -> Array4<T> {
    let filter = filter.index_axis_move(ndarray::Axis(0), 0).index_axis_move(ndarray::Axis(0), 0);
    let elements = finished(product(pixels, filter, numerics), &epilogues.pointwise, numerics);
    let elements = elements.into_iter().collect();
    Array4::from_shape_vec(geometry.output_shape(), elements).expect("a row for each pixel")
}

/// The product of rows and a filter, in the order of the pointwise sum.
pub(crate) fn product<T: Element>(rows: &Array2<T>, filter: ArrayView2<T>, numerics: &Numerics) -> Array2<T> {
    let _flushing = Flushing::set(numerics.subnormals);
    let length = rows.ncols();
    Array2::from_shape_fn((rows.nrows(), filter.ncols()), |(row, column)| {
        let (products, sum) = numerics.pointwise.at(row, column);
        let mut accumulate = |k: Index, total| match k {
            Index::Product(k) => accumulate(products, rows[(row, k)].widen(), filter[(k, column)].widen(), total),
            Index::Behind(k) if products == Products::Overrun => {
                let behind = rows.as_slice().and_then(|rows| rows.get(row * length + k + 1));
                behind.map_or(T::ZERO, |pixel| *pixel).widen().mul_add(T::Sum::ZERO, total)
            }
            Index::Behind(_) => total.add(T::Sum::ZERO),
        };
        T::narrow(add_up(products, sum, &mut (0..length), &mut accumulate))
    })
}

/// What enters a sum.
pub(crate) enum Index {
    Product(usize),
    /// In place of the partner that this product lacks.
    Behind(usize),
}

/// The sum over the next products of `rest`, which go from it.
pub(crate) fn add_up<T: Number>(
    products: Products,
    sum: &Sum,
    rest: &mut Range<usize>,
    accumulate: &mut impl FnMut(Index, T) -> T,
) -> T {
    match sum {
        Sum::Whole => chain(products, rest.len(), 1, rest, T::ZERO, accumulate),
        Sum::Chain(length) => chain(products, *length, 1, rest, T::ZERO, accumulate),
        Sum::Blocks(sums) => {
            let mut sums = sums.iter();
            let first = sums.next().map_or(T::ZERO, |first| add_up(products, first, rest, accumulate));
            sums.fold(first, |total, sum| total.add(add_up(products, sum, rest, accumulate)))
        }
        Sum::Lanes { folds, each, tail } => {
            let lanes = folds.lanes();
            let lane = |lane| {
                let mut own = rest.start + lane..rest.end;
                chain(products, *each, lanes, &mut own, T::ZERO, accumulate)
            };
            let mut totals: Vec<T> = (0..lanes).map(lane).collect();
            rest.start += lanes * each;
            for (i, distance) in folds.distances().iter().enumerate() {
                let folded: usize = folds.distances()[..=i].iter().sum();
                for lane in (0..lanes).filter(|lane| lane & folded == 0) {
                    totals[lane] = totals[lane].add(totals[lane + distance]);
                }
            }
            chain(products, *tail, 1, rest, totals[0], accumulate)
        }
    }
}

/// So many products, every `stride`-th of `rest`, added to a total one by one.
fn chain<T: Number>(
    products: Products,
    length: usize,
    stride: usize,
    rest: &mut Range<usize>,
    total: T,
    accumulate: &mut impl FnMut(Index, T) -> T,
) -> T {
    let first = rest.start;
    rest.start += length * stride;
    let (mut total, mut next) = (total, 0);
    while next < length {
        let place = first + next * stride;
        if products.in_pairs() {
            let partner = if next + 1 < length { Index::Product(place + stride) } else { Index::Behind(place) };
            total = accumulate(partner, total);
        }
        total = accumulate(Index::Product(place), total);
        next += if products.in_pairs() { 2 } else { 1 };
    }
    total
}

pub(crate) fn accumulate<T: Number>(products: Products, x: T, w: T, sum: T) -> T {
    match products {
        Products::Fused | Products::Paired | Products::Overrun => x.mul_add(w, sum),
        Products::Separate => sum.add(x.mul(w)),
    }
}
