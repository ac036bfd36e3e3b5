//! The gradient of the depthwise filter: of each tap, the sum over all output pixels of what it reads times the gradient of
//! what it gives. Threads share the channels, so that no sum is cut for them.

use std::mem::MaybeUninit;
use std::ops::Range;

use ndarray::{Array4, ArrayView4, CowArray, Ix4};

use super::orders::{DepthwiseFilterOrder, Pixels};
use crate::element::{Element, Number};
use crate::error::Error;
use crate::geometry::{Axis, Geometry};
use crate::kernels::memory::with_scratch;
use crate::kernels::{Correlation, Kernel};
use crate::numerics::{Sum, Taps};
use crate::plan::{Workers, with_adjacent_channels};
use crate::reference::{self, Index};
use crate::subnormals::Flushing;
use crate::team;

/// Into all of `output`, an array of the depthwise filter's shape.
pub fn gradient<T: Element>(
    workers: &Workers,
    g: &Geometry,
    input: ArrayView4<T>,
    gradient: ArrayView4<T>,
    order: &DepthwiseFilterOrder,
    output: &mut [MaybeUninit<T>],
) -> Result<(), Error> {
    if output.is_empty() {
        return Ok(());
    }
    if let Pixels::Sum(sum) = &order.pixels {
        let pixels = pixels(g).len();
        if let Some(length) = sum.length().filter(|length| *length != pixels) {
            return Err(Error::SumLength { sum: sum.to_string(), length, k: pixels });
        }
    }
    let kernel = T::kernel(workers.set);
    let zeros = vec![T::ZERO; g.k()];
    let sums = Sums {
        kernel,
        g,
        order,
        input: of_every_result(input, g)?,
        gradient: with_adjacent_channels(gradient)?,
        zeros: &zeros,
        columns: (0..g.width.rate).map(|phase| strips(&g.width, phase, order.strips)).collect(),
    };
    let vectors = g.k().div_ceil(kernel.lanes);
    let tasks = vectors.div_ceil(2).min(workers.threads);
    let place = Place(output.as_mut_ptr());
    team::for_each(workers.pool, workers.threads, tasks, &|task| {
        let bound = |task: usize| (task * vectors.div_ceil(2) / tasks * 2 * kernel.lanes).min(g.k());
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
                    unsafe { place.at(tap * g.k() + k).write(MaybeUninit::new(T::narrow(*total))) };
                }
            }
        })
    })
}

/// Where the threads write.
struct Place<T>(*mut MaybeUninit<T>);

// SAFETY: it only hands out addresses, and who writes there promises that nobody else does.
unsafe impl<T: Send> Sync for Place<T> {}

impl<T> Place<T> {
    fn at(&self, element: usize) -> *mut MaybeUninit<T> {
        self.0.wrapping_add(element)
    }
}

/// Successive columns of one phase with the same taps inside the image.
type Alike = (Range<usize>, Vec<usize>);

struct Sums<'a, T: Element> {
    kernel: Kernel<T>,
    g: &'a Geometry,
    order: &'a DepthwiseFilterOrder,
    /// (batch, height, width, k)
    input: CowArray<'a, T, Ix4>,
    gradient: CowArray<'a, T, Ix4>,
    /// A pixel of padding.
    zeros: &'a [T],
    /// By phase and strip.
    columns: Vec<Vec<Vec<Alike>>>,
}

impl<T: Element> Sums<'_, T> {
    /// The sums of some channels, [taps][`stride`], into `totals`; `chain` is as large.
    fn add_up(&self, channels: &Range<usize>, stride: usize, totals: &mut [T::Sum], chain: &mut [T::Sum]) {
        let g = self.g;
        if let Pixels::Sum(sum) = &self.order.pixels {
            return self.add_up_one_by_one(sum, channels, stride, totals);
        }
        let images = g.height.rate * g.width.rate * g.batch;
        let rows = (g.height.output + g.height.crop) / g.height.rate;
        let each_row = |image: usize| (0..rows).map(move |row| (image..image + 1, row..row + 1));
        let chains: Vec<(Range<usize>, Range<usize>)> = match self.order.pixels {
            Pixels::Sum(_) => unreachable!("has been added up"),
            Pixels::Chain => vec![(0..images, 0..rows)],
            Pixels::Images => (0..images).map(|image| (image..image + 1, 0..rows)).collect(),
            Pixels::Rows => (0..images).flat_map(each_row).collect(),
            Pixels::Shares(shares) => {
                let shares = shares.clamp(1, rows.max(1));
                let bound = |share: usize| share * (rows / shares) + share.min(rows % shares);
                (0..shares).map(|share| (0..images, bound(share)..bound(share + 1))).collect()
            }
        };
        for (number, (images, rows)) in chains.into_iter().enumerate() {
            chain.fill(T::Sum::ZERO);
            for image in images {
                for strip in &self.columns[image / g.batch % g.width.rate] {
                    for row in rows.clone() {
                        self.add_row(image, row, strip, channels, stride, chain);
                    }
                }
            }
            for (total, sum) in totals.iter_mut().zip(&*chain) {
                *total = if number == 0 { *sum } else { total.add(*sum) };
            }
        }
    }

    /// An order that is rare: element by element.
    fn add_up_one_by_one(&self, sum: &Sum, channels: &Range<usize>, stride: usize, totals: &mut [T::Sum]) {
        let g = self.g;
        let pixels = pixels(g);
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
            let values: Vec<_> = pixels.iter().map(values).collect();
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

    /// The products of a row of a small image in some columns.
    fn add_row(
        &self,
        image: usize,
        row: usize,
        strip: &[Alike],
        channels: &Range<usize>,
        stride: usize,
        sums: &mut [T::Sum],
    ) {
        let g = self.g;
        let (phase, n) = (image / g.batch, image % g.batch);
        let y = row * g.height.rate + phase / g.width.rate;
        let all = self.order.taps == Taps::All;
        let [of_image, of_row, of_column, _] = *self.input.strides() else { unreachable!("four dimensions") };
        let image = self.input.as_ptr().wrapping_offset(n as isize * of_image);
        let zeros = self.zeros.as_ptr();
        let mut pixels: Vec<[*const T; 2]> = Vec::new();
        for tap_row in 0..g.height.kernel {
            let there = g.height.inside(y).contains(&tap_row);
            if !there && !all {
                continue;
            }
            let at = g.height.origin(y).wrapping_add((tap_row * g.height.rate) as isize);
            let line = image.wrapping_offset(at.wrapping_mul(of_row));
            for (inside, columns) in strip {
                let gradients = columns.iter().map(|&x| self.gradient(n, y, x));
                let mut add = |taps: Range<usize>, of_image: bool| {
                    pixels.clear();
                    let read = |x: usize| {
                        let at = g.width.origin(x).wrapping_add((taps.start * g.width.rate) as isize);
                        if of_image { line.wrapping_offset(at.wrapping_mul(of_column)) } else { zeros }
                    };
                    pixels.extend(columns.iter().zip(gradients.clone()).map(|(&x, gradient)| [read(x), gradient]));
                    let first = (tap_row * g.width.kernel + taps.start) * stride;
                    let correlation = Correlation {
                        pixels: &pixels,
                        taps: taps.len(),
                        step: if of_image { of_column * g.width.rate as isize } else { 0 },
                        channels: channels.clone(),
                        sums: (sums[first..].as_mut_ptr(), stride),
                    };
                    // SAFETY: taps inside the image can be read, with all channels, and so can the zeros and gradients;
                    // the sums have whole vectors for each tap.
                    unsafe { self.kernel.correlate(self.order.products, &correlation) };
                };
                let inside = if there { inside.clone() } else { 0..0 };
                if !inside.is_empty() {
                    add(inside.clone(), true);
                }
                if all {
                    let beside = [0..inside.start, inside.end..g.width.kernel];
                    beside.into_iter().filter(|taps| !taps.is_empty()).for_each(|taps| add(taps, false));
                }
            }
        }
    }

    /// Of an output pixel; zeros of one that BatchToSpaceND takes off.
    fn gradient(&self, n: usize, y: usize, x: usize) -> *const T {
        if y < self.g.height.output && x < self.g.width.output {
            &self.gradient[(n, y, x, 0)]
        } else {
            self.zeros.as_ptr()
        }
    }
}

/// The output pixels of all small images, those that are taken off included: image, row, column.
pub fn pixels(g: &Geometry) -> Vec<[usize; 3]> {
    let [rows, columns] = [&g.height, &g.width].map(|axis| (axis.output + axis.crop) / axis.rate);
    let image = |image: usize| {
        let (phase, n) = (image / g.batch, image % g.batch);
        let row = move |row: usize| row * g.height.rate + phase / g.width.rate;
        let column = move |column: usize| column * g.width.rate + phase % g.width.rate;
        (0..rows).flat_map(move |y| (0..columns).map(move |x| [n, row(y), column(x)]))
    };
    (0..g.height.rate * g.width.rate * g.batch).flat_map(image).collect()
}

/// The output columns of one phase, by strip.
fn strips(width: &Axis, phase: usize, columns: Option<usize>) -> Vec<Vec<Alike>> {
    let all: Vec<usize> = (phase..width.output + width.crop).step_by(width.rate).collect();
    let alike = |strip: &[usize]| {
        let alike = strip.chunk_by(|a, b| width.inside(*a) == width.inside(*b));
        alike.map(|columns| (width.inside(columns[0]), columns.to_vec())).collect()
    };
    all.chunks(columns.unwrap_or(usize::MAX)).map(alike).collect()
}

/// The input with each channel as often as it has results, the channels of a pixel adjacent.
fn of_every_result<'a, T: Element>(input: ArrayView4<'a, T>, g: &Geometry) -> Result<CowArray<'a, T, Ix4>, Error> {
    if g.channel_multiplier == 1 {
        return with_adjacent_channels(input);
    }
    let (batch, height, width, _) = input.dim();
    let elements = batch * height * width * g.k();
    let mut values = Vec::new();
    values.try_reserve_exact(elements).map_err(|_| Error::Memory { elements })?;
    values.extend(input.iter().flat_map(|value| std::iter::repeat_n(*value, g.channel_multiplier)));
    let all = Array4::from_shape_vec((batch, height, width, g.k()), values).map_err(|_| Error::TooLarge)?;
    Ok(all.into())
}
