//! Finds the numerics of a black box that computes separable convolutions, from probes; knows nothing of TensorFlow.
//!
//! Only what can be followed is ever returned: whatever the [summation tree](tree) and the trials of roundings, taps and
//! subnormals suggest is checked, every element of it, on random data of the real shapes. The probes of the tree are
//! those of FPRev (arXiv:2411.00442).

mod data;
pub mod gradient;
mod kind;
mod places;
mod table;
mod tree;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ndarray::{ArrayView2, ArrayView4};

use crate::element::{Element, is_sum};
use crate::geometry::{Axis, Geometry};
use crate::numerics::{Depthwise, Elsewhere, Numerics, Pointwise, Products, Rounding, Subnormals, Sum, TapOrder, Taps};
use crate::plan;
use data::Data;
use kind::Kind;
use places::Asking;
use table::Table;

/// The two parts of a black box, for one geometry. Slices are in standard layout.
pub trait Probe<T> {
    type Error;
    /// From an input and a depthwise filter of the geometry's shapes, the depthwise result, `rows * k` elements.
    fn depthwise(&mut self, input: &[T], filter: &[T]) -> Result<Vec<T>, Self::Error>;
    /// From `rows * k` pixels and `k * out_channels` weights, the product, `rows * out_channels` elements.
    fn pointwise(&mut self, pixels: &[T], filter: &[T]) -> Result<Vec<T>, Self::Error>;
    /// What passes between the parts of a box that can only be asked for whole convolutions, and so is all that can be
    /// seen of depthwise results (rows of `k`) and all that enters pointwise sums. Everything, unless overridden.
    fn seen(&self, _pixels: &mut [T]) {}
}

/// Why no numerics were found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear<E> {
    #[error("a probe failed: {0}")]
    Probe(E),
    #[error("the depthwise sums follow no order that is known here")]
    Depthwise,
    #[error("the pointwise sum is not made of ascending chains, lanes of them, and blocks of these")]
    Tree,
    #[error("the pointwise sums do not all follow the order that was found, {0}")]
    Pointwise(Sum),
    #[error("{calls} probes in {elapsed:?} did not suffice")]
    Budget { calls: usize, elapsed: Duration },
    #[error("no memory for {elements} elements of a probe")]
    Memory { elements: usize },
}

/// A reveal ends after so many probes or so long a time, whichever is later. What is promised is 50 ms: the last probe
/// has to get to its box in time, which takes a while on a busy machine.
const MOST_CALLS: usize = 20;
const LONGEST: Duration = Duration::from_millis(45);

/// Long enough that what is found does not depend on how busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Elements that random data must have confirmed, and the most probes spent on that where results are small; more on products,
/// if the budget allows it. One element of uniform data is the same by chance, whatever the order, in some three of ten cases;
/// cancelling data less often, unless the order is symmetric.
const CONFIRMATIONS: usize = 512;
const MOST_DEPTHWISE_CALLS: usize = 10;
const MOST_POINTWISE_CALLS: usize = 5;

/// Finds the numerics of `probe` for `geometry`, by at most 20 probes or 50 ms, whichever is more.
///
/// # Errors
/// [`Unclear`], where `probe` fails or follows no order that [`Numerics`] can express.
pub fn reveal<T: Element, P: Probe<T>>(geometry: &Geometry, probe: &mut P) -> Result<Numerics, Unclear<P::Error>> {
    reveal_within(LONGEST, geometry, probe)
}

/// The same by at most 20 probes or that long, whichever is more: for those who would rather wait ([`PATIENCE`]) than not know.
pub fn reveal_within<T: Element, P: Probe<T>>(
    longest: Duration,
    geometry: &Geometry,
    probe: &mut P,
) -> Result<Numerics, Unclear<P::Error>> {
    let mut counted =
        Counted { probe, geometry, calls: 0, begun: Instant::now(), longest, confirming: MOST_POINTWISE_CALLS };
    let mut numerics = Numerics { subnormals: Subnormals::Flushed, ..Numerics::REPRODUCIBLE };
    if geometry.rows() * geometry.k() == 0 {
        return Ok(numerics);
    }
    if geometry.height.kernel * geometry.width.kernel > 0 {
        (numerics.depthwise, numerics.subnormals) = depthwise(&mut counted)?;
    }
    if geometry.out_channels > 0 {
        numerics.pointwise = pointwise(&mut counted, numerics.subnormals)?;
    }
    Ok(numerics)
}

/// A probe with its geometry that keeps to the budget.
struct Counted<'a, P> {
    probe: &'a mut P,
    geometry: &'a Geometry,
    calls: usize,
    begun: Instant,
    longest: Duration,
    /// So many may confirm products, whatever the budget says.
    confirming: usize,
}

impl<P> Counted<'_, P> {
    fn call<T: Element>(
        &mut self,
        part: impl FnOnce(&mut P) -> Result<Vec<T>, <P as Probe<T>>::Error>,
    ) -> Result<Vec<T>, Unclear<<P as Probe<T>>::Error>>
    where
        P: Probe<T>,
    {
        let elapsed = self.begun.elapsed();
        if self.calls >= MOST_CALLS && elapsed > self.longest {
            return Err(Unclear::Budget { calls: self.calls, elapsed });
        }
        self.calls += 1;
        part(self.probe).map_err(Unclear::Probe)
    }

    fn pointwise<T: Element>(&mut self, pixels: &[T], filter: &[T]) -> Result<Vec<T>, Unclear<P::Error>>
    where
        P: Probe<T>,
    {
        self.call(|probe| probe.pointwise(pixels, filter))
    }
}

/// What a part made of some input and filter.
struct Observed<T> {
    input: Vec<T>,
    filter: Vec<T>,
    result: Vec<T>,
}

/// Probes on three kinds of data, more often if results are small, and takes the first way that gives every bit.
fn depthwise<T: Element, P: Probe<T>>(counted: &mut Counted<P>) -> Result<(Depthwise, Subnormals), Unclear<P::Error>> {
    let g = counted.geometry;
    let pixels = g.batch * g.height.input * g.width.input;
    let taps = g.height.kernel * g.width.kernel;
    let enough = CONFIRMATIONS.div_ceil(g.rows() * g.k()).min(MOST_DEPTHWISE_CALLS - 3);
    // Rounding to 16 bits hides the order, and bfloat16 alone has dot products, which take up what is beside the taps.
    let masked = if is_sum::<T>() { 0 } else { enough };
    let scattered = usize::from(!is_sum::<T>());
    let kinds = [Data::Infinite, Data::Tiny].iter().chain(std::iter::repeat_n(&Data::Scattered, scattered));
    // A single channel takes turns with its infinite taps.
    let more_infinite = std::iter::repeat_n(&Data::Infinite, if g.k() == 1 { 2 } else { 1 });
    let kinds = kinds.chain(more_infinite).chain(std::iter::repeat_n(&Data::Factor, masked));
    let kinds = kinds.chain(std::iter::repeat_n(&Data::Uniform, enough));
    let (mut observed, mut turn) = (Vec::new(), 0);
    for (&data, seed) in kinds.zip(1..) {
        let input = data.values::<T, _>(pixels, g.in_channels, seed)?;
        let mut filter = match data {
            Data::Factor => data::masked(taps, g.k(), seed)?,
            data => data.weights().values::<T, _>(taps, g.k(), !seed)?,
        };
        if data == Data::Infinite {
            // Where such a tap is padding, the sum is NaN if it counts and something else if it does not.
            for (n, tap) in infinite_taps(g, turn) {
                filter[tap * g.k() + n] = T::from_f64(f64::INFINITY);
            }
            turn += 1;
        }
        let result = counted.call(|probe| probe.depthwise(&input, &filter))?;
        observed.push(Observed { input, filter, result });
    }
    let probe = &*counted.probe;
    let fits = |&(depthwise, subnormals): &(Depthwise, Subnormals), observed: &Observed<T>| {
        let numerics = Numerics { depthwise, subnormals, ..Numerics::REPRODUCIBLE };
        let Observed { input, filter, result } = observed;
        let input = ArrayView4::from_shape(g.input_shape(), input);
        let filter = ArrayView4::from_shape(g.depthwise_filter_shape(), filter);
        let (Ok(input), Ok(filter)) = (input, filter) else { return false };
        let mut equal = result.len() == g.rows() * g.k();
        let compare = |row: usize, expected: &mut [T]| {
            probe.seen(expected);
            equal = equal && first_difference(expected, &result[row * g.k()..][..g.k()]).is_none();
            equal
        };
        plan::depthwise(input, filter, g, &numerics, compare).is_ok() && equal
    };
    ways::<T>(g).find(|way| observed.iter().all(|observed| fits(way, observed))).ok_or(Unclear::Depthwise)
}

/// Whether a sum of the type's normal numbers can be subnormal; sums of f16 numbers, which are in f32, cannot.
fn vanishes<T: Element>() -> bool {
    T::SMALLEST_NORMAL <= T::Sum::SMALLEST_NORMAL
}

/// For every channel two taps of opposite sides: in turn 0 the corners, where a box of which only whole convolutions can
/// be seen shows them too; then by turns those left and right, or above and below, of a tap that some pixel has inside
/// the image.
fn infinite_taps(g: &Geometry, turn: usize) -> impl Iterator<Item = (usize, usize)> {
    let inside = |axis: &Axis| axis.inside(axis.output / 2).start.min(axis.kernel - 1);
    let (row, column) = (inside(&g.height), inside(&g.width));
    let [last_row, last_column] = [g.height.kernel - 1, g.width.kernel - 1];
    let width = g.width.kernel;
    (0..g.k()).flat_map(move |n| {
        let taps = match (turn, (n + turn) % 2) {
            (0, _) => [[0, 0], [last_row, last_column]],
            (_, 0) => [[row, 0], [row, last_column]],
            _ => [[0, column], [last_row, column]],
        };
        taps.map(|[i, j]| (n, i * width + j))
    })
}

/// Between how many threads an image's rows may be shared.
const MOST_SHARES: usize = 16;

/// All ways of the depthwise part, the likeliest first: where several fit, that one is taken.
fn ways<T: Element>(g: &Geometry) -> impl Iterator<Item = (Depthwise, Subnormals)> {
    use Products::{Fused, Overrun, Paired, Separate};
    use TapOrder::{Borders, Channels, Columns, Rows, RowsAtOnce};
    let all_taps = [Taps::Inside, Taps::All, Taps::Beside, Taps::Above];
    let mut ways = Vec::new();
    let mut add = |products, taps, order, rounding| ways.push(Depthwise { products, taps, order, rounding });
    // Only sums in another type than the stored one are known to be paired, or rounded after each tap.
    let (roundings, all_products): (&[Rounding], &[Products]) = if is_sum::<T>() {
        add(Fused, Taps::Inside, Rows, Rounding::Once);
        add(Separate, Taps::All, Rows, Rounding::Once);
        (&[Rounding::Once], &[Fused, Separate])
    } else {
        let of_one = [(Paired, Taps::Inside, Rows)];
        let of_several = [
            (Overrun, Taps::All, Columns),
            (Overrun, Taps::Inside, Rows),
            (Overrun, Taps::All, Rows),
            (Overrun, Taps::Inside, Channels),
        ];
        let [first, second] = [of_one.as_slice(), &of_several];
        let (first, second) = if g.channel_multiplier == 1 { (first, second) } else { (second, first) };
        first.iter().chain(second).for_each(|&(products, taps, order)| add(products, taps, order, Rounding::Once));
        add(Separate, Taps::All, Rows, Rounding::Each);
        // Rows of outputs, shared between threads.
        let outputs = (g.height.output + g.height.crop) / g.height.rate;
        let mut shares: Vec<usize> = (2..=MOST_SHARES).map(|threads| outputs.div_ceil(threads)).collect();
        shares.dedup();
        for rows in shares.into_iter().filter(|_| g.channel_multiplier > 1) {
            [Taps::Inside, Taps::All].iter().for_each(|&taps| add(Overrun, taps, RowsAtOnce(rows), Rounding::Once));
        }
        (&[Rounding::Once, Rounding::Each], &[Fused, Separate, Paired])
    };
    for &rounding in roundings {
        for order in [Rows, Columns, Borders] {
            for taps in all_taps {
                all_products.iter().for_each(|&products| add(products, taps, order, rounding));
            }
        }
    }
    let with = |subnormals| ways.clone().into_iter().map(move |way| (way, subnormals));
    with(Subnormals::Flushed).chain(with(Subnormals::Kept))
}

/// What asking little finds, or else what asking more does.
fn pointwise<T: Element, P: Probe<T>>(
    counted: &mut Counted<P>,
    subnormals: Subnormals,
) -> Result<Pointwise, Unclear<P::Error>> {
    let g = counted.geometry;
    let mut kinds =
        places::kinds((g.rows(), g.k(), g.out_channels), |pixels, filter| counted.pointwise(pixels, filter))?;
    let (mut blocks, mut observed) = (None, Vec::new());
    let mut found = pointwise_by(counted, subnormals, &mut kinds, Asking::Once, &mut blocks, &mut observed);
    for asking in [Asking::LastRow, Asking::OfEveryProduct] {
        if matches!(found, Err(Unclear::Pointwise(_))) {
            found = pointwise_by(counted, subnormals, &mut kinds, asking, &mut blocks, &mut observed);
        }
    }
    found
}

/// The trees, then which way of multiplying gives every bit on random data: what has been observed, and more if it is
/// not enough.
fn pointwise_by<T: Element, P: Probe<T>>(
    counted: &mut Counted<P>,
    subnormals: Subnormals,
    kinds: &mut Table<Kind>,
    asking: Asking,
    blocks: &mut Option<Sum>,
    observed: &mut Vec<Observed<T>>,
) -> Result<Pointwise, Unclear<P::Error>> {
    let g = counted.geometry;
    let (rows, k, columns) = (g.rows(), g.k(), g.out_channels);
    let ask = |pixels: &[T], filter: &[T]| counted.pointwise(pixels, filter);
    let found = places::orders((rows, k, columns), kinds, asking, blocks, ask)?;
    let numerics = |(products, sum, elsewhere)| {
        let pointwise = Pointwise { products, sum, elsewhere };
        Numerics { pointwise, subnormals, ..Numerics::REPRODUCIBLE }
    };
    confirmed(counted, found.into_iter().map(numerics).collect(), observed)
}

/// The first of these, likeliest first, or of the same sums added to +0, that gives every bit on random data: what has been
/// observed, and more if it is not enough.
fn confirmed<T: Element, P: Probe<T>>(
    counted: &mut Counted<P>,
    mut candidates: Vec<Numerics>,
    observed: &mut Vec<Observed<T>>,
) -> Result<Pointwise, Unclear<P::Error>> {
    let g = counted.geometry;
    let (rows, k, columns) = (g.rows(), g.k(), g.out_channels);
    let likely = candidates.clone();
    for sums in [[true, true], [true, false], [false, true]] {
        let differ = likely.iter().filter(|numerics| sums[0] == sums[1] || !numerics.pointwise.elsewhere.is_empty());
        candidates.extend(differ.map(|numerics| after_zero(numerics, sums)));
    }
    let likeliest = candidates.first().ok_or(Unclear::Tree)?.pointwise.sum.clone();
    // Where there are several orders, the rarest is the one to be sure of.
    let area = |e: &Elsewhere| e.rows.len() * e.columns.len();
    let rarest = candidates[0].pointwise.elsewhere.iter().map(area).min().unwrap_or(rows * columns);
    // Three come before those that are counted.
    let most = counted.confirming.max(MOST_CALLS.saturating_sub(counted.calls + 3));
    let mut ask = |mut input: Vec<T>, filter: Vec<T>| {
        let result = counted.pointwise(&input, &filter)?;
        counted.probe.seen(&mut input);
        Ok(Observed { input, filter, result })
    };
    let vanishing = if vanishes::<T>() {
        Some(ask(data::vanishing(rows, k, &likeliest)?, data::filled(k * columns, T::from_f64(1.0))?)?)
    } else {
        None
    };
    if k < 4 && observed.is_empty() {
        // Other data rarely tell the ways of so few products apart, and the last rows may go another one.
        let (pixels, filter) = (Data::Vanishing.values(rows, k, 2)?, Data::TinyWeights.values(k, columns, !2)?);
        let (thinned, thinned_filter) = (data::thinned(pixels.clone(), 2), data::thinned(filter.clone(), !2));
        observed.push(ask(pixels, filter)?);
        observed.push(ask(thinned, thinned_filter)?);
    }
    let others = if k < 4 { 2 } else { 0 };
    // Few products hardly cancel, or leave nothing.
    let data: &[_] =
        if k < 4 { &[Data::Uniform, Data::Cancelling, Data::Tiny] } else { &[Data::Cancelling, Data::Tiny] };
    let kinds = data.len();
    // What cancels leaves nothing of an order that is symmetric; rounding to 16 bits hides that of what does not.
    let last = if is_sum::<T>() { Data::Uniform } else { Data::Tiny };
    let further = [Data::Uniform, Data::Cancelling, last];
    for (n, data) in data.iter().chain(further.iter().cycle()).enumerate() {
        if n >= kinds && (n * rarest >= CONFIRMATIONS || n >= most) {
            break;
        }
        if observed.len() == others + n {
            let seed = n as u64 + 3;
            observed.push(ask(data.values(rows, k, seed)?, data.weights().values(k, columns, !seed)?)?);
        }
    }
    let all: Vec<usize> = (0..rows).collect();
    // A few rows refute most, unless sums take up the next row.
    let likely = &candidates[0].pointwise;
    let few = if likely.products == Products::Overrun { Vec::new() } else { telling_rows(likely, rows) };
    while let Some(candidate) = candidates.first() {
        let wrong =
            |chosen: &[usize]| vanishing.iter().chain(&*observed).find_map(|o| first_wrong(o, g, candidate, chosen));
        let Some([row, column]) = wrong(&few).or_else(|| wrong(&all)) else {
            return Ok(candidate.pointwise.clone());
        };
        // So are all that have the same order there.
        let at = |numerics: &Numerics| {
            let (products, sum) = numerics.pointwise.at(row, column);
            (products, sum.clone())
        };
        let refuted = at(candidate);
        candidates.retain(|other| at(other) != refuted);
    }
    Err(Unclear::Pointwise(likeliest))
}

/// Rows at the edges of places with an order of their own, and some between.
fn telling_rows(pointwise: &Pointwise, rows: usize) -> Vec<usize> {
    let edges = pointwise.elsewhere.iter().flat_map(|e| [e.rows.start, e.rows.end]);
    let beside = edges.flat_map(|row| [row.saturating_sub(1), row]);
    let between = (0..rows).step_by(rows.div_ceil(16)).chain([rows - 1]);
    beside.chain(between).filter(|row| *row < rows).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The first element of these rows whose bits are not those of the numerics.
fn first_wrong<T: Element>(
    observed: &Observed<T>,
    g: &Geometry,
    numerics: &Numerics,
    chosen: &[usize],
) -> Option<[usize; 2]> {
    let (k, columns) = (g.k(), g.out_channels);
    if observed.result.len() != g.rows() * columns {
        return Some([0, 0]);
    }
    let Ok(filter) = ArrayView2::from_shape((k, columns), &observed.filter) else { return Some([0, 0]) };
    // Some rows at a time, which stay in the caches; all at once where sums take up the next row.
    let at_once = if numerics.pointwise.products == Products::Overrun { chosen.len().max(1) } else { ROWS_AT_ONCE };
    chosen.chunks(at_once).find_map(|chosen| {
        let mut numerics = numerics.clone();
        for elsewhere in &mut numerics.pointwise.elsewhere {
            let place = |row| chosen.partition_point(|chosen| *chosen < row);
            elsewhere.rows = place(elsewhere.rows.start)..place(elsewhere.rows.end);
        }
        let pixels = rows_of(&observed.input, k, chosen);
        let got = rows_of(&observed.result, columns, chosen);
        let wrong = match plan::pointwise(&pixels, filter, &numerics) {
            Ok(expected) => first_difference(&expected, &got),
            Err(_) => Some(0), // nothing is taken that was not tried
        };
        wrong.map(|wrong| [chosen[wrong / columns], wrong % columns])
    })
}

/// How many rows are compared at a time.
const ROWS_AT_ONCE: usize = 256;

/// These rows, where they lie if they are successive.
fn rows_of<'a, T: Element>(values: &'a [T], length: usize, chosen: &[usize]) -> Cow<'a, [T]> {
    let row = |row: &usize| &values[row * length..][..length];
    match chosen {
        [first, .., last] if last - first + 1 == chosen.len() => values[first * length..(last + 1) * length].into(),
        _ => chosen.iter().flat_map(row).copied().collect(),
    }
}

/// The same with the first sum, those elsewhere, or all of them added to +0, as where a product is added to a result that
/// was set to zero.
fn after_zero(numerics: &Numerics, [first, elsewhere]: [bool; 2]) -> Numerics {
    let mut numerics = numerics.clone();
    let Pointwise { sum, elsewhere: others, .. } = &mut numerics.pointwise;
    let others = others.iter_mut().filter(|_| elsewhere).map(|elsewhere| &mut elsewhere.sum);
    std::iter::once(sum).filter(|_| first).chain(others).for_each(|sum| *sum = sum.after_zero());
    numerics
}

/// The first element whose bits are not equal, every NaN alike.
fn first_difference<T: Element>(expected: &[T], got: &[T]) -> Option<usize> {
    // Most often all are, which this is quick to see.
    if bytemuck::cast_slice::<T, u8>(expected) == bytemuck::cast_slice::<T, u8>(got) {
        return None;
    }
    expected.iter().zip(got).position(|(a, b)| a.bits() != b.bits())
}

#[cfg(test)]
mod tests;
