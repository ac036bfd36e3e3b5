//! Finds the orders of a black box that computes gradients, as [`reveal`](super::reveal()) does those of convolutions.
//!
//! Two of the four are matrix products, whose orders are first guessed and then, if no guess gives every bit, found from
//! probes. Of the other two all known ways are tried on data that tell them apart.

use std::iter::repeat_n;
use std::time::{Duration, Instant};

use ndarray::{ArrayView4, s};

use super::data::{Data, Scale, filled, masked};
use super::{CONFIRMATIONS, Counted, Observed, Probe, Unclear, confirmed, first_difference, infinite_taps, pointwise};
use crate::element::{Element, is_sum};
use crate::geometry::{Attributes, Axis, Geometry, Padding};
use crate::gradient::{DepthwiseFilterOrder, Direction, InputOrder, Pixels};
use crate::kernels::InstructionSet;
use crate::numerics::{Depthwise, Numerics, Pointwise, Products, Subnormals, Sum, TapOrder, Taps};
use crate::plan::{self, Workers};

/// A black box of one gradient: two arrays in standard layout in, one out.
pub type Box<'a, T, E> = &'a mut dyn FnMut(&[T], &[T]) -> Result<Vec<T>, E>;

/// The order of a matrix product, `rows * k` values times `k * columns`; the sums that are likely are tried first. The
/// depthwise part of the numerics says nothing.
///
/// # Errors
/// [`Unclear`], where the box fails or follows no order that [`Numerics`] can express.
pub fn product<T: Element, E>(
    [rows, k, columns]: [usize; 3],
    likely: &[Sum],
    product: Box<T, E>,
) -> Result<Numerics, Unclear<E>> {
    let numerics = |pointwise| Numerics { pointwise, subnormals: Subnormals::Flushed, ..Numerics::REPRODUCIBLE };
    let none = Numerics { subnormals: Subnormals::Flushed, ..Numerics::REPRODUCIBLE };
    if rows * k * columns == 0 {
        return Ok(none);
    }
    let attributes = Attributes { strides: [1, 1], padding: Padding::Valid, rate: [1, 1] };
    let shapes = ([1, rows, 1, k], [1, 1, k, 1], [1, 1, k, columns]);
    let geometry = Geometry::new(&shapes.0, &shapes.1, &shapes.2, &attributes);
    let geometry = geometry.map_err(|_| Unclear::Memory { elements: usize::MAX })?;
    let mut probe = Alone(product);
    let mut counted = Counted {
        probe: &mut probe,
        geometry: &geometry,
        calls: 0,
        begun: Instant::now(),
        longest: PATIENCE,
        confirming: MOST_CONFIRMING,
    };
    let likely = likely.iter().filter(|sum| sum.length() == Some(k));
    let guesses = likely.flat_map(|sum| {
        [Products::Fused, Products::Separate].map(|products| numerics(Pointwise::everywhere(products, sum.clone())))
    });
    match confirmed(&mut counted, guesses.collect(), &mut Vec::new()) {
        Ok(found) => return Ok(numerics(found)),
        Err(Unclear::Tree | Unclear::Pointwise(_)) => {}
        Err(unclear) => return Err(unclear),
    }
    (counted.calls, counted.begun) = (0, Instant::now());
    pointwise(&mut counted, Subnormals::Flushed).map(numerics)
}

/// Probes that confirm an order, at most: of a single number, which two orders may give alike in all but one of twenty.
const MOST_CONFIRMING: usize = 256;
/// How long they may go on where they are more than `MOST_CALLS`: longer than a convolution's.
const PATIENCE: Duration = Duration::from_millis(200);

/// Channels that refute most orders.
const FEW: usize = 16;

/// A box of which only the product is asked.
struct Alone<'a, T, E>(Box<'a, T, E>);

impl<T, E> Probe<T> for Alone<'_, T, E> {
    type Error = E;

    fn depthwise(&mut self, _: &[T], _: &[T]) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn pointwise(&mut self, pixels: &[T], filter: &[T]) -> Result<Vec<T>, E> {
        (self.0)(pixels, filter)
    }
}

/// What confirms an order: of so many results, each a sum of so many products.
fn kinds<T: Element>(results: usize, products: usize) -> impl Iterator<Item = Data> {
    let enough = CONFIRMATIONS.div_ceil(results).clamp(2, MOST_CONFIRMING);
    // Rounding to 16 bits hides the order of more than one.
    let masked = if is_sum::<T>() || products < 2 { 0 } else { enough };
    let of_values = [Data::Infinite, Data::Infinite, Data::Tiny].into_iter();
    of_values.chain(repeat_n(Data::Factor, masked)).chain(repeat_n(Data::Uniform, enough))
}

/// The order of the input's gradient, of a geometry whose outputs are depthwise results ([`Geometry::depthwise`]):
/// `gradient` is given that of the depthwise result, and the depthwise filter.
///
/// # Errors
/// As for [`product`].
pub fn input<T: Element, E>(g: &Geometry, gradient: Box<T, E>) -> Result<InputOrder, Unclear<E>> {
    if g.rows() * g.k() == 0 || g.input_shape().contains(&0) {
        return Ok(InputOrder { subnormals: Subnormals::Flushed, ..InputOrder::REPRODUCIBLE });
    }
    let taps = g.height.kernel * g.width.kernel;
    let mut observed = Vec::new();
    for (data, seed) in kinds::<T>(g.input_shape().iter().product(), taps).zip(1..) {
        let pixels = data.values::<T, _>(g.rows(), g.k(), seed)?;
        let mut filter = match data {
            Data::Factor => masked(taps, g.k(), seed)?,
            data => data.weights().values::<T, _>(taps, g.k(), !seed)?,
        };
        if data == Data::Infinite && taps > 0 {
            infinite_taps(g, 0).for_each(|(n, tap)| filter[tap * g.k() + n] = T::from_f64(f64::INFINITY));
        }
        let result = gradient(&pixels, &filter).map_err(Unclear::Probe)?;
        observed.push(Observed { input: pixels, filter, result });
    }
    let workers = Workers { set: InstructionSet::preferred(), pool: None, threads: 1 };
    let fits = |order: &InputOrder, observed: &Observed<T>| {
        let pixels = ArrayView4::from_shape(g.output_shape(), &observed.input);
        let filter = ArrayView4::from_shape(g.depthwise_filter_shape(), &observed.filter);
        let (Ok(pixels), Ok(filter)) = (pixels, filter) else { return false };
        let of = |output: &mut _| crate::gradient::input::gradient(&workers, g, filter, pixels, order, output);
        let got = plan::allocate(observed.result.len(), of);
        got.is_ok_and(|got| first_difference(&got, &observed.result).is_none())
    };
    let mut orders = Vec::new();
    for subnormals in [Subnormals::Flushed, Subnormals::Kept] {
        for order in [TapOrder::Rows, TapOrder::Borders, TapOrder::Columns] {
            for products in [Products::Fused, Products::Separate] {
                for taps in [Taps::Inside, Taps::All] {
                    let depthwise = Depthwise { products, taps, order, ..Depthwise::REPRODUCIBLE };
                    let several: &[_] = if g.channel_multiplier > 1 { &[Direction::Apart] } else { &[] };
                    let directions = [&[Direction::Ascending, Direction::Descending], several].concat();
                    orders.extend(directions.iter().map(|&direction| InputOrder { direction, depthwise, subnormals }));
                }
            }
        }
    }
    orders.into_iter().find(|order| observed.iter().all(|observed| fits(order, observed))).ok_or(Unclear::Depthwise)
}

/// Between how many threads the rows, or images, may be shared.
const MOST_SHARES: usize = 16;

/// The order of the depthwise filter's gradient, of such a geometry: `gradient` is given the input and the depthwise result's
/// gradient.
///
/// # Errors
/// As for [`product`].
pub fn depthwise_filter<T: Element, E>(g: &Geometry, gradient: Box<T, E>) -> Result<DepthwiseFilterOrder, Unclear<E>> {
    let flushed = DepthwiseFilterOrder { subnormals: Subnormals::Flushed, ..DepthwiseFilterOrder::REPRODUCIBLE };
    let taps = g.height.kernel * g.width.kernel;
    if g.rows() * g.k() * taps == 0 || g.input_shape().contains(&0) {
        return Ok(flushed);
    }
    let pixels = g.batch * g.height.input * g.width.input;
    let mut observed = Vec::new();
    let infinite = T::from_f64(f64::INFINITY);
    let mut infinities = 0;
    for (data, seed) in kinds::<T>(taps * g.k(), g.rows()).zip(1..) {
        let mut input = data.values::<T, _>(pixels, g.in_channels, seed)?;
        let mut upstream = match data {
            Data::Factor => masked(g.rows(), g.k(), seed)?,
            data => data.weights().values::<T, _>(g.rows(), g.k(), !seed)?,
        };
        // What is multiplied by zeros outside the image, and where results are taken off, shows.
        let (first, last) = (0..g.k().div_ceil(2), g.k().div_ceil(2)..g.k());
        if data == Data::Infinite && infinities == 0 {
            upstream[first].fill(infinite);
            let row = (g.rows() - 1) * g.k();
            upstream[row + last.start..row + last.end].fill(infinite);
        } else if data == Data::Infinite {
            let row = (pixels - 1) * g.in_channels;
            input[row..].fill(infinite);
        }
        infinities += usize::from(data == Data::Infinite);
        let result = gradient(&input, &upstream).map_err(Unclear::Probe)?;
        observed.push(Observed { input, filter: upstream, result });
    }
    let workers = Workers { set: InstructionSet::preferred(), pool: None, threads: 1 };
    let fits = |order: &DepthwiseFilterOrder, observed: &Observed<T>, channels: usize| {
        let input = ArrayView4::from_shape(g.input_shape(), &observed.input);
        let upstream = ArrayView4::from_shape(g.output_shape(), &observed.filter);
        let result = ArrayView4::from_shape(g.depthwise_filter_shape(), &observed.result);
        let (Ok(input), Ok(upstream), Ok(result)) = (input, upstream, result) else { return false };
        let (input, upstream, result) = (
            input.slice_move(s![.., .., .., ..channels]),
            upstream.slice_move(s![.., .., .., ..channels * g.channel_multiplier]),
            result.slice_move(s![.., .., ..channels, ..]),
        );
        let own = Geometry { in_channels: channels, ..*g };
        let of = |output: &mut _| {
            crate::gradient::depthwise_filter::gradient(&workers, &own, input, upstream, order, output)
        };
        let got = plan::allocate(result.len(), of);
        got.is_ok_and(|got| got.iter().zip(result).all(|(a, b)| a.bits() == b.bits()))
    };
    let rows = (g.height.output + g.height.crop) / g.height.rate;
    let images = g.batch * g.height.rate * g.width.rate;
    let shares = (2..=MOST_SHARES).flat_map(|n| {
        [(Pixels::Shares(n), rows), (Pixels::Batches(n), images)].into_iter().filter(move |(_, all)| n <= *all)
    });
    let others = [Pixels::Chain, Pixels::Images, Pixels::Rows].into_iter();
    let all_pixels: Vec<_> = others.chain(shares.map(|(pixels, _)| pixels)).collect();
    let mut strips = vec![None];
    strips.extend(first_strip(g, gradient)?.map(Some));
    let mut orders = Vec::new();
    for subnormals in [Subnormals::Flushed, Subnormals::Kept] {
        for &strips in strips.iter().rev() {
            for pixels in &all_pixels {
                for (products, taps) in [
                    (Products::Fused, Taps::Inside),
                    (Products::Separate, Taps::All),
                    (Products::Separate, Taps::Inside),
                    (Products::Fused, Taps::All),
                ] {
                    let pixels = pixels.clone();
                    orders.push(DepthwiseFilterOrder { products, taps, pixels, strips, subnormals });
                }
            }
        }
    }
    let few = g.in_channels.min(FEW);
    let of_few = |order: &DepthwiseFilterOrder| observed.iter().all(|observed| fits(order, observed, few));
    let of_all = |order: &DepthwiseFilterOrder| observed.iter().all(|observed| fits(order, observed, g.in_channels));
    if let Some(order) = orders.into_iter().find(|order| of_few(order) && of_all(order)) {
        return Ok(order);
    }
    let found = of_one_tap(g, gradient)?.filter(|order| of_few(order) && of_all(order));
    found.ok_or(Unclear::Depthwise)
}

/// The order of a tap that reads the image for all output pixels, whatever it is: that of a product of a single row.
fn of_one_tap<T: Element, E>(g: &Geometry, gradient: Box<T, E>) -> Result<Option<DepthwiseFilterOrder>, Unclear<E>> {
    let everywhere = |axis: &Axis| {
        let read = |tap: &usize| (0..axis.output + axis.crop).all(|output| axis.inside(output).contains(tap));
        (0..axis.kernel).find(read)
    };
    let (Some(row), Some(column)) = (everywhere(&g.height), everywhere(&g.width)) else { return Ok(None) };
    if g.height.crop + g.width.crop > 0 || g.height.rate * g.width.rate > 1 {
        return Ok(None);
    }
    let [rows, columns] = [(&g.height, row), (&g.width, column)].map(|(axis, tap)| {
        (0..axis.output).map(|output| (axis.origin(output) + tap as isize) as usize).collect::<Vec<_>>()
    });
    let pixels = g.height.input * g.width.input;
    let first = (row * g.width.kernel + column) * g.k();
    let mut of_tap = |values: &[T], upstream: &[T]| {
        let mut input = vec![T::ZERO; g.batch * pixels * g.in_channels];
        let mut values = values.iter();
        for n in 0..g.batch {
            for y in &rows {
                for x in &columns {
                    let at = (n * pixels + y * g.width.input + x) * g.in_channels;
                    input[at..at + g.in_channels].fill(values.next().copied().unwrap_or(T::ZERO));
                }
            }
        }
        gradient(&input, upstream).map(|all| all[first..first + g.k()].to_vec())
    };
    let found = match product([1, g.rows(), g.k()], &[], &mut of_tap) {
        Ok(found) if found.pointwise.elsewhere.is_empty() => found,
        Ok(_) | Err(Unclear::Tree | Unclear::Pointwise(_) | Unclear::Budget { .. }) => return Ok(None),
        Err(unclear) => return Err(unclear),
    };
    let Pointwise { products, sum, .. } = found.pointwise;
    Ok(matches!(products, Products::Fused | Products::Separate).then_some(DepthwiseFilterOrder {
        products,
        taps: Taps::All,
        pixels: Pixels::Sum(sum),
        strips: None,
        subnormals: found.subnormals,
    }))
}

/// How many columns of the first row enter a sum before the second row does, if these are not all: beside a large number at
/// the first pixel, which one in a later column takes back, those between are lost.
fn first_strip<T: Element, E>(g: &Geometry, gradient: Box<T, E>) -> Result<Option<usize>, Unclear<E>> {
    let width = (g.width.output + g.width.crop) / g.width.rate;
    let Scale { factor, mask, unit } = Scale::of::<T>();
    let taps = g.height.kernel * g.width.kernel;
    // The tap in the middle reads the image wherever any does.
    let tap = (g.height.kernel / 2 * g.width.kernel + g.width.kernel / 2) * g.k();
    let most = Scale::most::<T>();
    if g.rows() > most || g.height.output < 2 || taps == 0 {
        return Ok(None);
    }
    let input = filled(g.input_shape().iter().product(), T::from_f64(factor))?;
    for first in (1..width).step_by(g.k()) {
        let columns = first..width.min(first + g.k());
        let mut upstream = filled(g.rows() * g.k(), T::from_f64(unit))?;
        upstream[..g.k()].fill(T::from_f64(mask));
        for (n, column) in columns.clone().enumerate() {
            upstream[column * g.width.rate * g.k() + n] = T::from_f64(-mask);
        }
        let result = gradient(&input, &upstream).map_err(Unclear::Probe)?;
        let left = |n: usize| result[tap + n].to_f64() / (unit * factor);
        // One column after the other, the sum loses one more; with the next strip, many more.
        for (n, column) in columns.enumerate() {
            if n + first > 1 && n > 0 && left(n - 1) - left(n) > 1.5 {
                return Ok(Some(column));
            }
        }
    }
    Ok(None)
}
