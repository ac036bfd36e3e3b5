//! The gradient of the depthwise filter: of each tap, the sum over all output pixels of what it reads times the gradient of
//! what it gives. Threads share the channels, so that no sum is cut for them.

use std::mem::MaybeUninit;
use std::ops::Range;

use ndarray::{Array4, ArrayView4, CowArray, Ix4};

use super::check_length;
use super::orders::{DepthwiseFilterOrder, Pixels};
use super::reached::Reached;
use crate::element::{Element, Number};
use crate::error::Error;
use crate::geometry::{Axis, Geometry};
use crate::kernels::memory::{Output, with_scratch};
use crate::kernels::{Correlation, Kernel, Threes};
use crate::numerics::{Sum, Taps};
use crate::plan::{Workers, elements, reserved, with_adjacent_channels};
use crate::reference::{self, Index};
use crate::subnormals::Flushing;
use crate::team;

/// More than any order of TensorFlow's has; each takes up memory, even if it has no pixels.
const MOST_BATCHES: usize = 1 << 24;

/// Into all of `output`, an array of the depthwise filter's shape.
pub fn gradient<T: Element>(
    workers: &Workers,
    g: &Geometry,
    input: ArrayView4<T>,
    gradient: ArrayView4<T>,
    order: &DepthwiseFilterOrder,
    output: &mut [MaybeUninit<T>],
) -> Result<(), Error> {
    check_length(g.depthwise_filter_shape(), output)?;
    order.check()?;
    if output.is_empty() {
        return Ok(());
    }
    let [rows, columns] = [&g.height, &g.width].map(|axis| axis.output + axis.crop);
    let (mut reached, mut pixels) = (Reached::of(g), Vec::new());
    if let Pixels::Sum(sum) = &order.pixels
        && let Some(length) = sum.length()
    {
        let count = elements([g.batch, rows, columns, 1])?;
        if length != count {
            return Err(Error::SumLength { sum: sum.to_string(), length, k: count });
        }
        // It counts those that take no part as well.
        reached.geometry = *g;
    }
    if let Pixels::Sum(_) = order.pixels {
        let g = &reached.geometry;
        let elements = elements([g.batch, g.height.output + g.height.crop, g.width.output + g.width.crop, 1])?;
        pixels.try_reserve_exact(elements).map_err(|_| Error::Memory { elements })?;
        pixels.extend(self::pixels(g));
    }
    if g.rows() == 0 {
        output.fill(MaybeUninit::new(T::ZERO));
        return Ok(());
    }
    let chains = chains(g, &reached, &order.pixels)?;
    let g = &reached.geometry;
    let kernel = T::kernel(workers.set);
    let zeros = vec![T::ZERO; g.k()];
    let mut columns = reserved([g.width.rate, 1, 1, 1])?;
    columns.extend((0..g.width.rate).map(|phase| strips(&g.width, phase, order)));
    let sums = Sums {
        kernel,
        g,
        order,
        input: of_every_result(input, g)?,
        gradient: with_adjacent_channels(gradient)?,
        zeros: &zeros,
        pixels,
        rows_inside: (0..g.height.output + g.height.crop).map(|row| g.height.inside(row)).collect(),
        columns,
        chains,
    };
    let vectors = g.k().div_ceil(kernel.lanes);
    let tasks = vectors.min(workers.threads);
    let output = Output::new(output, [g.height.kernel * g.width.kernel, g.k()]);
    team::for_each(workers.pool, workers.threads, tasks, &|task| {
        let bound = |task: usize| (task * vectors / tasks * kernel.lanes).min(g.k());
        let channels = bound(task)..bound(task + 1);
        let stride = channels.len().next_multiple_of(kernel.lanes);
        let taps = g.height.kernel * g.width.kernel;
        with_scratch(2 * taps * stride, |scratch| {
            scratch.fill(MaybeUninit::new(T::Sum::ZERO));
            // SAFETY: just written.
            let scratch = unsafe { std::slice::from_raw_parts_mut(scratch.as_mut_ptr().cast(), scratch.len()) };
            let (totals, chain) = scratch.split_at_mut(taps * stride);
            let _flushing = Flushing::set(order.subnormals);
            sums.add_up(&channels, stride, totals, chain);
            for (tap, totals) in totals.chunks_exact(stride).enumerate() {
                for (k, total) in channels.clone().zip(totals) {
                    // SAFETY: inside the output; no other task has these channels.
                    unsafe { output.at(tap, k).write(T::narrow(*total)) };
                }
            }
        })
    })
}

/// Successive columns of one phase with the same taps inside the image, whose results are all taken off or none.
struct Alike {
    inside: Range<usize>,
    first: usize,
    /// Of the first one.
    origin: isize,
    /// Those that have all of these taps.
    count: usize,
    /// Others, of kernels with three columns.
    threes: Option<Threes>,
}

struct Sums<'a, T: Element> {
    kernel: &'static Kernel<T>,
    g: &'a Geometry,
    order: &'a DepthwiseFilterOrder,
    /// (batch, height, width, k)
    input: CowArray<'a, T, Ix4>,
    gradient: CowArray<'a, T, Ix4>,
    /// A pixel of padding.
    zeros: &'a [T],
    /// For a sum whose products are listed: of all small images.
    pixels: Vec<[usize; 3]>,
    /// Of each output row, those taken off included, the taps inside the image.
    rows_inside: Vec<Range<usize>>,
    /// By phase and strip.
    columns: Vec<Vec<Vec<Alike>>>,
    chains: Vec<Chain>,
}

/// Small images, and of each the rows.
type Chain = (Range<usize>, Range<usize>);

/// The chains of a sum, the first one first, of the phases that take part.
fn chains(g: &Geometry, reached: &Reached, pixels: &Pixels) -> Result<Vec<Chain>, Error> {
    let of_all = |g: &Geometry| elements([g.height.rate, g.width.rate, g.batch, 1]);
    let (images, rows) = (of_all(&reached.geometry)?, (g.height.output + g.height.crop) / g.height.rate);
    let each_row = |image: usize| (0..rows).map(move |row| (image..image + 1, row..row + 1));
    Ok(match *pixels {
        Pixels::Chain | Pixels::Sum(_) => vec![(0..images, 0..rows)],
        Pixels::Images => (0..images).map(|image| (image..image + 1, 0..rows)).collect(),
        Pixels::Rows => (0..images).flat_map(each_row).collect(),
        Pixels::Shares(shares) => shared(rows, shares).map(|rows| (0..images, rows)).collect(),
        Pixels::Batches(batches) if batches.min(of_all(g)?) > MOST_BATCHES => {
            return Err(Error::Memory { elements: batches });
        }
        Pixels::Batches(batches) => {
            let before = |image| reached.images_before(g, image);
            shared(of_all(g)?, batches).map(|images| (before(images.start)..before(images.end), 0..rows)).collect()
        }
    })
}

impl<T: Element> Sums<'_, T> {
    /// The sums of some channels, [taps][`stride`], into `totals`; `chain` is as large.
    fn add_up(&self, channels: &Range<usize>, stride: usize, totals: &mut [T::Sum], chain: &mut [T::Sum]) {
        let g = self.g;
        if let Pixels::Sum(sum) = &self.order.pixels {
            return self.add_up_one_by_one(sum, channels, stride, totals);
        }
        let mut taps: Vec<Vec<Vec<[Listed; 2]>>> = (self.columns.iter())
            .map(|strips| strips.iter().map(|strip| strip.iter().map(|_| Default::default()).collect()).collect())
            .collect();
        for (number, (images, rows)) in self.chains.iter().enumerate() {
            chain.fill(T::Sum::ZERO);
            for image in images.clone() {
                let phase = image / g.batch % g.width.rate;
                for (strip, taps) in self.columns[phase].iter().zip(&mut taps[phase]) {
                    // All that can be, whose sums stay in registers.
                    let at_once = if strip.len() == 1 { rows.len() } else { 1 };
                    let mut row = rows.start;
                    while row < rows.end {
                        let end = self.alike(image, row, rows.end.min(row + at_once));
                        self.add_rows(image, row..end, strip, channels, stride, taps, chain);
                        row = end;
                    }
                }
            }
            for (total, sum) in totals.iter_mut().zip(&*chain) {
                *total = if number == 0 { *sum } else { total.add(*sum) };
            }
        }
    }

    /// The output row that a small image's row is.
    fn output_row(&self, image: usize, row: usize) -> usize {
        row * self.g.height.rate + image / self.g.batch / self.g.width.rate
    }

    /// Behind the last of these rows of a small image that have the same taps inside the image, and are all taken off or none.
    fn alike(&self, image: usize, row: usize, end: usize) -> usize {
        let of = |row| {
            let y = self.output_row(image, row);
            (&self.rows_inside[y], y < self.g.height.output)
        };
        let first = of(row);
        let same = |other: &usize| of(*other) == first;
        (row + 1..end).take_while(same).last().unwrap_or(row) + 1
    }

    /// An order that is rare: element by element.
    fn add_up_one_by_one(&self, sum: &Sum, channels: &Range<usize>, stride: usize, totals: &mut [T::Sum]) {
        let g = self.g;
        for (tap, totals) in totals.chunks_exact_mut(stride).enumerate() {
            let tap = [tap / g.width.kernel, tap % g.width.kernel];
            let values = |&[n, y, x]: &[usize; 3]| {
                let inside = g.height.inside(y).contains(&tap[0]) && g.width.inside(x).contains(&tap[1]);
                let at = |axis: &Axis, output: usize, tap: usize| {
                    (axis.origin(output) + (tap * axis.rate) as isize) as usize
                };
                let read = inside.then(|| [n, at(&g.height, y, tap[0]), at(&g.width, x, tap[1])]);
                (read, (y < g.height.output && x < g.width.output).then_some([n, y, x]))
            };
            let values: Vec<_> = self.pixels.iter().map(values).collect();
            for (k, total) in channels.clone().zip(totals) {
                let value = |array: &CowArray<T, Ix4>, place: Option<[usize; 3]>| {
                    place.map_or(T::ZERO, |[n, y, x]| array[(n, y, x, k)]).widen()
                };
                let mut accumulate = |index, total: T::Sum| match index {
                    Index::Product(p) => {
                        let (read, gradient) = values[p];
                        let (x, gradient) = (value(&self.input, read), value(&self.gradient, gradient));
                        reference::accumulate(self.order.products, x, gradient, total)
                    }
                    Index::Behind(_) => total,
                };
                *total = reference::add_up(self.order.products, sum, &mut (0..values.len()), &mut accumulate);
            }
        }
    }

    /// The products of some rows of a small image, which are alike, in some columns; of one row, if these are not alike.
    #[expect(clippy::too_many_arguments, reason = "the loop variables of `add_up`")]
    fn add_rows(
        &self,
        image: usize,
        rows: Range<usize>,
        strip: &[Alike],
        channels: &Range<usize>,
        stride: usize,
        listed: &mut [[Listed; 2]],
        sums: &mut [T::Sum],
    ) {
        let g = self.g;
        let (n, y) = (image % g.batch, self.output_row(image, rows.start));
        let [of_image, of_row, of_column, _] = *self.input.strides() else { unreachable!("four dimensions") };
        let line = (n as isize * of_image).wrapping_add(g.height.origin(y).wrapping_mul(of_row));
        let steps = [of_row.wrapping_mul(g.height.rate as isize), of_column.wrapping_mul(g.width.rate as isize)];
        let next = [0, 1].map(|i| steps[i].wrapping_mul([&g.height, &g.width][i].stride as isize));
        let zeros = (self.zeros.as_ptr(), [0, 0]);
        for (columns, listed) in strip.iter().zip(listed) {
            let place = line.wrapping_add(columns.origin.wrapping_mul(of_column));
            let image = (self.input.as_ptr().wrapping_offset(place), next);
            // Zeros where BatchToSpaceND takes the result off.
            let gradient = if y < g.height.output && columns.first < g.width.output {
                let [of_image, of_row, of_column, _] = *self.gradient.strides() else {
                    unreachable!("four dimensions")
                };
                let place = n as isize * of_image + y as isize * of_row + columns.first as isize * of_column;
                let next = [(of_row, &g.height), (of_column, &g.width)]
                    .map(|(next, axis)| next.wrapping_mul(axis.rate as isize));
                (self.gradient.as_ptr().wrapping_offset(place), next)
            } else {
                zeros
            };
            let inside = [&self.rows_inside[y], &columns.inside];
            for (listed, (counted, image, steps)) in
                listed.iter_mut().zip([(true, image, steps), (false, zeros, [0, 0])])
            {
                if !counted && self.order.taps != Taps::All {
                    break;
                }
                if listed.of.as_ref().is_none_or(|of| of.each_ref() != inside) {
                    listed.list(g, inside, counted, steps, stride);
                }
                let (channels, sums) = (channels.clone(), sums.as_mut_ptr());
                let (rows, pixels, threes) = (rows.len(), columns.count, columns.threes);
                let taps = &listed.taps;
                let correlation = Correlation { image, gradient, rows, pixels, threes, taps, channels, sums };
                // SAFETY: taps inside the image can be read, with all channels, and so can the zeros and gradients; the sums
                // have whole vectors for each tap.
                unsafe { self.kernel.correlate(self.order.products, &correlation) };
            }
        }
    }
}

/// The taps inside the image, or those outside, of some columns: of most rows the same as of the row before.
#[derive(Default)]
struct Listed {
    /// Those inside.
    of: Option<[Range<usize>; 2]>,
    /// As in [`Correlation::taps`].
    taps: Vec<(isize, usize)>,
}

impl Listed {
    fn list(&mut self, g: &Geometry, inside: [&Range<usize>; 2], counted: bool, steps: [isize; 2], stride: usize) {
        self.of = Some(inside.map(Range::clone));
        self.taps.clear();
        for i in 0..g.height.kernel {
            let is_inside = |j: usize| inside[0].contains(&i) && inside[1].contains(&j);
            for j in (0..g.width.kernel).filter(|&j| is_inside(j) == counted) {
                let place = (i as isize).wrapping_mul(steps[0]).wrapping_add((j as isize).wrapping_mul(steps[1]));
                self.taps.push((place, (i * g.width.kernel + j) * stride));
            }
        }
    }
}

/// So many shares, or as many as there can be, of which the first have one more if they cannot be equal.
fn shared(all: usize, shares: usize) -> impl Iterator<Item = Range<usize>> {
    let shares = shares.clamp(1, all.max(1));
    let bound = move |share: usize| share * (all / shares) + share.min(all % shares);
    (0..shares).map(move |share| bound(share)..bound(share + 1))
}

/// The output pixels of all small images, those that are taken off included: image, row, column.
fn pixels(g: &Geometry) -> impl Iterator<Item = [usize; 3]> {
    let [rows, columns] = [&g.height, &g.width].map(|axis| (axis.output + axis.crop) / axis.rate);
    let image = move |image: usize| {
        let (phase, n) = (image / g.batch, image % g.batch);
        let row = move |row: usize| row * g.height.rate + phase / g.width.rate;
        let column = move |column: usize| column * g.width.rate + phase % g.width.rate;
        (0..rows).flat_map(move |y| (0..columns).map(move |x| [n, row(y), column(x)]))
    };
    (0..g.height.rate * g.width.rate * g.batch).flat_map(image)
}

/// The output columns of one phase, by strip.
fn strips(width: &Axis, phase: usize, order: &DepthwiseFilterOrder) -> Vec<Vec<Alike>> {
    type Column = (usize, Range<usize>);
    let of_phase = (phase..width.output + width.crop).step_by(width.rate);
    let all: Vec<Column> = of_phase.map(|x| (x, width.inside(x))).collect();
    let is_there = |column: &Column| column.0 < width.output;
    let alike = |columns: &[Column]| {
        let (first, inside) = columns[0].clone();
        Alike { inside, first, origin: width.origin(first), count: columns.len(), threes: None }
    };
    // Of columns whose results are all there, or all taken off.
    let part = |part: &[Column]| -> Vec<Alike> {
        let [before, count, behind] =
            [1..3, 0..3, 0..2].map(|taps| part.iter().filter(|column| column.1 == taps).count());
        if width.kernel == 3 && count > 0 && before + count + behind == part.len() {
            let threes = Some(Threes { before, behind, zeros: order.taps == Taps::All });
            return vec![Alike { inside: 0..3, count, threes, ..alike(part) }];
        }
        part.chunk_by(|a, b| a.1 == b.1).map(alike).collect()
    };
    let strip = |strip: &[Column]| strip.chunk_by(|a, b| is_there(a) == is_there(b)).flat_map(part).collect();
    all.chunks(order.strips.unwrap_or(usize::MAX)).map(strip).collect()
}

/// The input with each channel as often as it has results, the channels of a pixel adjacent.
fn of_every_result<'a, T: Element>(input: ArrayView4<'a, T>, g: &Geometry) -> Result<CowArray<'a, T, Ix4>, Error> {
    if g.channel_multiplier == 1 {
        return with_adjacent_channels(input);
    }
    let (batch, height, width, _) = input.dim();
    let shape = [batch, height, width, g.k()];
    let mut values = reserved(shape)?;
    values.extend(input.iter().flat_map(|value| std::iter::repeat_n(*value, g.channel_multiplier)));
    Ok(Array4::from_shape_vec(shape, values).map_err(|_| Error::TooLarge)?.into())
}
