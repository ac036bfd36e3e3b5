//! The gradients element by element, slow and obvious: what the others are compared with.

use ndarray::{Array2, Array4, ArrayView4, s};

use super::orders::{DepthwiseFilterOrder, Direction, InputOrder, Pixels};
use crate::element::{Element, Number};
use crate::error::Error;
use crate::geometry::{Attributes, Axis, Geometry};
use crate::numerics::{Numerics, Products, Rounding, TapOrder, Taps};
use crate::reference::{self, Index, accumulate};
use crate::subnormals::Flushing;

/// As [`SeparableConv2d::backprop_pixels`](crate::SeparableConv2d::backprop_pixels).
pub fn backprop_pixels<T: Element>(
    pointwise_filter: ArrayView4<T>,
    upstream: ArrayView4<T>,
    numerics: &Numerics,
) -> Array4<T> {
    let (batch, height, width, channels) = upstream.dim();
    let filter = pointwise_filter.slice_move(s![0, 0, .., ..]).reversed_axes();
    let rows = Array2::from_shape_fn((batch * height * width, channels), |(row, c)| {
        upstream[(row / width / height, row / width % height, row % width, c)]
    });
    let product = reference::product(&rows, filter, numerics);
    let k = product.ncols();
    Array4::from_shape_vec((batch, height, width, k), product.into_iter().collect()).expect("as many")
}

/// As [`SeparableConv2d::backprop_pointwise_filter`](crate::SeparableConv2d::backprop_pointwise_filter).
pub fn backprop_pointwise_filter<T: Element>(
    input: ArrayView4<T>,
    depthwise_filter: ArrayView4<T>,
    upstream: ArrayView4<T>,
    attributes: &Attributes,
    numerics: &Numerics,
) -> Result<Array4<T>, Error> {
    let g = Geometry::depthwise(input.shape(), depthwise_filter.shape(), attributes)?;
    let pixels = reference::depthwise_result(input, depthwise_filter, &g, numerics);
    let rows = pixels.reversed_axes().as_standard_layout().to_owned();
    let (batch, height, width, channels) = upstream.dim();
    let filter = upstream.to_shape((batch * height * width, channels)).map_err(|_| Error::TooLarge)?.to_owned();
    let product = reference::product(&rows, filter.view(), numerics);
    Ok(Array4::from_shape_vec((1, 1, g.k(), channels), product.into_iter().collect()).expect("as many"))
}

/// As [`SeparableConv2d::backprop_input`](crate::SeparableConv2d::backprop_input), for row-major orders rounded once.
pub fn backprop_input<T: Element>(
    input: [usize; 4],
    depthwise_filter: ArrayView4<T>,
    pixels: ArrayView4<T>,
    attributes: &Attributes,
    order: &InputOrder,
) -> Result<Array4<T>, Error> {
    let g = Geometry::depthwise(&input, depthwise_filter.shape(), attributes)?;
    order.check()?;
    assert!(order.depthwise.order == TapOrder::Rows && order.depthwise.rounding == Rounding::Once);
    let _flushing = Flushing::set(order.subnormals);
    let m = g.channel_multiplier;
    let gradient = |(n, y, x, c): (usize, usize, usize, usize)| {
        let mut terms = Vec::new();
        for i in 0..g.height.kernel {
            for j in 0..g.width.kernel {
                let place = result(&g.height, y, i).zip(result(&g.width, x, j));
                if place.is_some() || order.depthwise.taps == Taps::All {
                    terms.push(([i, j], place));
                }
            }
        }
        let product = |sum: T::Sum, [i, j]: [usize; 2], place: Option<(usize, usize)>, r: usize| {
            // Zero where BatchToSpaceND takes a result off.
            let pixel = place.and_then(|(y, x)| pixels.get((n, y, x, c * m + r)).copied()).unwrap_or(T::ZERO);
            let products = order.depthwise.products;
            // What has no partner is added after a product of zeros.
            let sum = if products == Products::Paired { sum.add(T::Sum::ZERO) } else { sum };
            accumulate(products, pixel.widen(), depthwise_filter[(i, j, c, r)].widen(), sum)
        };
        if order.direction == Direction::Apart {
            let of = |r| {
                let sum = terms.iter().fold(T::Sum::ZERO, |sum, &(tap, place)| product(sum, tap, place, r));
                T::narrow(sum).widen()
            };
            return T::narrow((1..m).fold(of(0), |total, r| total.add(of(r))));
        }
        if order.direction == Direction::Descending {
            terms.reverse();
        }
        let all = terms.iter().flat_map(|&(tap, place)| (0..m).map(move |r| (tap, place, r)));
        T::narrow(all.fold(T::Sum::ZERO, |sum, (tap, place, r)| product(sum, tap, place, r)))
    };
    Ok(Array4::from_shape_fn(input, gradient))
}

/// In which of so many shares one of all is: the first have one more if they cannot be equal.
fn share(number: usize, all: usize, shares: usize) -> usize {
    let shares = shares.clamp(1, all.max(1));
    let (each, longer) = (all / shares, all % shares);
    if number < longer * (each + 1) { number / (each + 1) } else { longer + (number - longer * (each + 1)) / each }
}

/// The result that an input row enters by a tap, perhaps one that is taken off.
fn result(axis: &Axis, row: usize, tap: usize) -> Option<usize> {
    (0..axis.output + axis.crop).find(|&y| axis.origin(y) + (tap * axis.rate) as isize == row as isize)
}

/// As [`SeparableConv2d::backprop_depthwise_filter`](crate::SeparableConv2d::backprop_depthwise_filter).
pub fn backprop_depthwise_filter<T: Element>(
    input: ArrayView4<T>,
    depthwise_filter: [usize; 4],
    pixels: ArrayView4<T>,
    attributes: &Attributes,
    order: &DepthwiseFilterOrder,
) -> Result<Array4<T>, Error> {
    let g = Geometry::depthwise(input.shape(), &depthwise_filter, attributes)?;
    order.check()?;
    let _flushing = Flushing::set(order.subnormals);
    let [rows, columns] = [&g.height, &g.width].map(|axis| (axis.output + axis.crop) / axis.rate);
    let images = g.height.rate * g.width.rate * g.batch;
    // Which chain a pixel of a small image is in.
    let chain = |image: usize, row: usize| match order.pixels {
        Pixels::Chain | Pixels::Sum(_) => 0,
        Pixels::Images => image,
        Pixels::Rows => image * rows + row,
        Pixels::Shares(shares) => share(row, rows, shares),
        Pixels::Batches(batches) => share(image, images, batches),
    };
    Ok(Array4::from_shape_fn(depthwise_filter, |(i, j, c, r)| {
        let product = |[n, y, x]: [usize; 3]| {
            let inside = g.height.inside(y).contains(&i) && g.width.inside(x).contains(&j);
            let at =
                |axis: &Axis, output: usize, tap: usize| (axis.origin(output) + (tap * axis.rate) as isize) as usize;
            let read = if inside { input[(n, at(&g.height, y, i), at(&g.width, x, j), c)] } else { T::ZERO };
            let gradient = pixels.get((n, y, x, c * g.channel_multiplier + r)).copied().unwrap_or(T::ZERO);
            (inside, read.widen(), gradient.widen())
        };
        // Image, row and column of a small image.
        let mut places: Vec<[usize; 3]> = (0..images)
            .flat_map(|image| (0..rows).flat_map(move |row| (0..columns).map(move |column| [image, row, column])))
            .collect();
        let place = |[image, row, column]: [usize; 3]| {
            let (phase, n) = (image / g.batch, image % g.batch);
            [n, row * g.height.rate + phase / g.width.rate, column * g.width.rate + phase % g.width.rate]
        };
        if let Pixels::Sum(sum) = &order.pixels {
            let mut add = |index, total| match index {
                Index::Product(p) => {
                    let (_, read, gradient) = product(place(places[p]));
                    accumulate(order.products, read, gradient, total)
                }
                Index::Behind(_) => total,
            };
            return T::narrow(reference::add_up(order.products, sum, &mut (0..places.len()), &mut add));
        }
        let strip = order.strips.unwrap_or(usize::MAX);
        places.sort_by_key(|&[image, row, column]| (chain(image, row), image, column / strip, row, column));
        let (mut chains, mut last): (Vec<T::Sum>, _) = (Vec::new(), usize::MAX);
        for [image, row, column] in places {
            if chain(image, row) != last {
                last = chain(image, row);
                chains.push(T::Sum::ZERO);
            }
            let (inside, read, gradient) = product(place([image, row, column]));
            if inside || order.taps == Taps::All {
                let sum = chains.last_mut().expect("just made");
                *sum = accumulate(order.products, read, gradient, *sum);
            }
        }
        let mut chains = chains.into_iter();
        let first = chains.next().unwrap_or(T::Sum::ZERO);
        T::narrow(chains.fold(first, |total, sum| total.add(sum)))
    }))
}
