//! The gradient of the input: a depthwise convolution of the depthwise result's gradient, by the kernels of the forward
//! pass. Where a filter's taps shall be added in ascending order, both images are read from their ends.

use std::mem::MaybeUninit;
use std::ops::Range;

use ndarray::{Array4, ArrayView4, Axis as Dim, CowArray, Ix4, Slice, s};

use super::check_length;
use super::orders::{Direction, InputOrder};
use super::reached::Reached;
use crate::element::{Element, Number, is_sum};
use crate::error::Error;
use crate::geometry::{Axis, Geometry};
use crate::kernels::depthwise::{Counted, Depthwise, adjacent};
use crate::kernels::memory::Output;
use crate::kernels::tile::{Tile, panel, row_stride};
use crate::kernels::{Rows, Target};
use crate::numerics::{self, TapOrder, Taps};
use crate::plan::{Workers, copied, reserved};
use crate::split::Split;
use crate::tap_order::Borders;
use crate::team;

/// Input rows (or columns) whose sums take up the same taps, for one of the phases that stride and rate make.
#[derive(Clone, Copy, Debug)]
struct Phase {
    /// The first of these rows, how far apart they are, how many.
    rows: [usize; 3],
    /// The same of the rows of the depthwise result that they take up.
    from: [usize; 3],
    /// The same of the taps.
    taps: [usize; 3],
    /// Rows of the depthwise result from one of these taps to the next.
    rate: usize,
    /// Such rows before the first that is there, as the first of these input rows sees them in the order of its sums; below
    /// zero, how many that are there it does not take up.
    before: isize,
}

/// All of them that a tap reaches; without gaps between rows if a dilated kernel can do that.
fn phases(axis: &Axis, direction: Direction, dilated: bool) -> Vec<Phase> {
    let extent = axis.output + axis.crop;
    let whole = axis.stride == 1 && (axis.rate == 1 || dilated);
    let (residues, stride) = if whole { (1, 1) } else { (axis.rate, axis.stride) };
    let rate = axis.rate / residues;
    let end = axis.pad_before + axis.input.min(stride * residues);
    let mut of_rows: Vec<_> = (axis.pad_before..end).map(|row| [row % residues, row / residues % stride]).collect();
    of_rows.sort_unstable();
    of_rows.retain(|&[_, first_tap]| first_tap < axis.kernel);
    let phase = |[residue, first_tap]: [usize; 2]| {
        // In the padded image, row (j * stride + first_tap) * residues + residue takes up rows j and before.
        let place = |j: usize| (j * stride + first_tap) * residues + residue;
        let count_before = |row: usize| (row.saturating_sub(place(0))).div_ceil(stride * residues);
        let (start, end) = (count_before(axis.pad_before), count_before(axis.pad_before + axis.input));
        let taps = (axis.kernel - first_tap).div_ceil(stride);
        let from = [residue, residues, (extent - residue.min(extent)).div_ceil(residues)];
        let rows = [place(start) - axis.pad_before, stride * residues, end - start];
        let phase = Phase { rows, from, taps: [first_tap, stride, taps], rate, before: 0 };
        Phase { before: before(&phase, direction, start..end), ..phase }
    };
    of_rows.into_iter().map(phase).collect()
}

/// [`Phase::before`], of those input rows.
fn before(phase: &Phase, direction: Direction, rows: Range<usize>) -> isize {
    let [_, _, taps] = phase.taps;
    match direction {
        Direction::Descending => (taps.max(1) - 1) as isize * phase.rate as isize - rows.start as isize,
        _ => rows.end as isize - phase.from[2] as isize,
    }
}

/// A phase of both axes.
struct Job<'a, T: Element> {
    depthwise: Depthwise<T>,
    pixels: CowArray<'a, T, Ix4>,
    phases: [Phase; 2],
    split: Split,
}

/// Into all of `output`, an array of the input's shape.
pub fn gradient<T: Element>(
    workers: &Workers,
    g: &Geometry,
    filter: ArrayView4<T>,
    pixels: ArrayView4<T>,
    order: &InputOrder,
    output: &mut [MaybeUninit<T>],
) -> Result<(), Error> {
    check_length(g.input_shape(), output)?;
    order.check()?;
    if output.is_empty() {
        return Ok(());
    }
    let Reached { geometry: g, .. } = &Reached::of(g);
    let strides = [g.height.stride, g.width.stride];
    let numerics::Depthwise { taps, order: tap_order, .. } = order.depthwise;
    // What borders are depends on all taps.
    if strides != [1, 1] && (taps == Taps::All || tap_order == TapOrder::Borders) {
        let (all, g) = with_zeros_between(pixels, g)?;
        let counted = if taps == Taps::All { [1, 1] } else { strides };
        return add_up_all(workers, &g, filter, all.view(), order, counted, output);
    }
    add_up_all(workers, g, filter, pixels, order, [1, 1], output)
}

/// The same, if only every so many-th row and column of the depthwise result counts.
fn add_up_all<T: Element>(
    workers: &Workers,
    g: &Geometry,
    filter: ArrayView4<T>,
    pixels: ArrayView4<T>,
    order: &InputOrder,
    counted: [usize; 2],
    output: &mut [MaybeUninit<T>],
) -> Result<(), Error> {
    if g.height.stride > g.height.kernel || g.width.stride > g.width.kernel {
        output.fill(MaybeUninit::new(T::ZERO));
    }
    let kernel = T::kernel(workers.set);
    let pixels = with_cropped(pixels, g)?;
    let interleaved = g.channel_multiplier > 1 && order.direction != Direction::Apart;
    let times = if interleaved { g.channel_multiplier } else { 1 };
    let channels = if interleaved { g.in_channels } else { g.k() };
    let mut jobs = Vec::new();
    for rows in phases(&g.height, order.direction, true) {
        let dilated = !interleaved && order.depthwise.order != TapOrder::Borders;
        for columns in phases(&g.width, order.direction, dilated) {
            let phases = [rows, columns];
            let mut part = pixels.view();
            let mut taps = filter.view();
            let mut counts = [Counted::ALL; 2];
            for (i, phase) in phases.iter().enumerate() {
                let slice = |[first, step, count]: [usize; 3]| {
                    Slice::new(first as isize, Some((first + step * count) as isize), step as isize)
                };
                let clamped = |[first, step, count]: [usize; 3], extent: usize| {
                    let first = first.min(extent);
                    let end = (first + step * count).min(extent) as isize;
                    Slice::new(first as isize, Some(end), step as isize)
                };
                part.slice_axis_inplace(Dim(i + 1), clamped(phase.from, pixels.shape()[i + 1]));
                taps.slice_axis_inplace(Dim(i), clamped(phase.taps, filter.shape()[i]));
                if order.direction == Direction::Descending {
                    taps.invert_axis(Dim(i));
                } else {
                    part.invert_axis(Dim(i + 1));
                }
                let skipped = phase.before.min(0).unsigned_abs().min(part.shape()[i + 1]);
                part.slice_axis_inplace(Dim(i + 1), slice([skipped, 1, part.shape()[i + 1] - skipped]));
                let group = phase.rate * if i == 1 { times } else { 1 };
                counts[i] = Counted { group, stride: counted[i], before: skipped * group / phase.rate };
            }
            let part = if interleaved { interleave(part, g)?.into() } else { CowArray::from(part) };
            let taps = taps_of(taps, interleaved);
            let axis = |i: usize, times: usize| Axis {
                input: part.shape()[i + 1],
                kernel: taps.shape()[i],
                stride: times,
                rate: phases[i].rate,
                pad_before: phases[i].before.max(0) as usize * times,
                padded: 0, // for the reference only
                crop: 0,
                output: phases[i].rows[2],
            };
            let own = Geometry {
                in_channels: channels,
                channel_multiplier: 1,
                out_channels: channels,
                height: axis(0, 1),
                width: axis(1, times),
                ..*g
            };
            let part = if adjacent(&part.view()) { part } else { copied(part.view())?.into() };
            let depthwise = Depthwise::new(kernel, taps.view(), &own, order.depthwise, order.subnormals)?;
            let depthwise = depthwise.within(borders(g, &columns, order.direction, times), counts);
            let split = Split::of(&depthwise, workers.threads);
            jobs.push(Job { depthwise, pixels: part, phases, split });
        }
    }
    // From the beginning of the input to its end, as other operations do, all phases at a time.
    let descending = order.direction == Direction::Descending;
    let of_job = |job: usize| (0..jobs[job].split.tiles).map(move |tile| (tile, job));
    let mut tiles: Vec<(usize, usize)> = (0..jobs.len()).flat_map(of_job).collect();
    tiles.sort_by_key(|&(tile, job)| {
        let tiles = jobs[job].split.tiles;
        (if descending { tile } else { tiles - 1 - tile } << 16) / tiles
    });
    let to = Output::new(output, [g.batch * g.height.input * g.width.input, g.in_channels]);
    // Where there is nothing to round or to add up, and no vector would reach into the next pixel.
    let directly = is_sum::<T>() && channels == g.in_channels && channels.is_multiple_of(kernel.lanes);
    team::for_each(workers.pool, workers.threads, tiles.len(), &|task| {
        let (tile, job) = (tiles[task].0, &jobs[tiles[task].1]);
        job.split.run(tile, order.subnormals, 0, &|_| 0, |tile: &mut Tile<T::Sum>, first, _, _| {
            let lines = lines(g, job, first..first + tile.rows(), order.direction);
            if directly {
                for Lines { rows, pixel, next } in lines {
                    let target = Target { start: to.at(pixel, 0).cast(), next, panel_stride: panel::<T::Sum>() };
                    // SAFETY: the pixels have the channels, which are whole vectors, and no other task writes them.
                    unsafe { job.depthwise.write(&job.pixels.view(), target, rows) };
                }
                return Ok(());
            }
            job.depthwise.fill(&job.pixels.view(), tile, first);
            for Lines { rows, pixel, next } in lines {
                let (place, row, count) = (to.at(pixel, 0), rows.start - first, rows.len());
                if order.direction == Direction::Apart {
                    (0..count).for_each(|i| add_up(g, tile, row + i, place.wrapping_offset(i as isize * next)));
                    continue;
                }
                for (k, from, columns) in tile.pieces(row) {
                    let from_stride = row_stride::<T::Sum>();
                    let rows =
                        Rows { from, from_stride, to: place.wrapping_add(k), to_stride: next, rows: count, columns };
                    // SAFETY: the tile is filled; the pixels have the channels, and no other task writes them.
                    unsafe { kernel.narrow(&rows) };
                }
            }
            Ok(())
        })
    })
}

/// Those that TensorFlow's kernel sees: where it goes through SpaceToBatchND, padding is input too.
fn borders(g: &Geometry, columns: &Phase, direction: Direction, times: usize) -> Borders {
    let width = &g.width;
    let dealt_out = g.height.rate * g.width.rate > 1;
    let image = if dealt_out { 0..width.padded } else { width.pad_before..width.pad_before + width.input };
    let [start, end] = [image.start, image.end].map(|at| at.div_ceil(columns.rows[1]));
    let before = before(columns, direction, start..end);
    let axis = Axis {
        input: columns.from[2].saturating_sub(before.min(0).unsigned_abs()) * times,
        kernel: columns.taps[2] * times,
        stride: times,
        rate: columns.rate,
        pad_before: before.max(0) as usize * times,
        padded: 0, // for the reference only
        crop: 0,
        output: end - start,
    };
    Borders::of(&axis).of_terms(times)
}

/// Rows of a job's result that are successive pixels of a line of the input, or of several that lie one behind the other.
struct Lines {
    rows: Range<usize>,
    /// The first one, counted through the batch.
    pixel: usize,
    /// Elements from one to the next.
    next: isize,
}

/// Those of some rows.
fn lines<T: Element>(
    g: &Geometry,
    job: &Job<T>,
    rows: Range<usize>,
    direction: Direction,
) -> impl Iterator<Item = Lines> {
    let [height, width] = [0, 1].map(|i| job.phases[i].rows[2]);
    let dense = job.phases.iter().all(|phase| phase.rows[1] == 1);
    let behind_each_other = dense && width == g.width.input;
    let length = if behind_each_other { height * width } else { width };
    let mut start = rows.start;
    std::iter::from_fn(move || {
        let (n, places) = (start / width / height, [start / width % height, start % width]);
        let [y, x] = [0, 1].map(|i| {
            let [first, step, count] = job.phases[i].rows;
            first + step * if direction == Direction::Descending { places[i] } else { count - 1 - places[i] }
        });
        let next = (job.phases[1].rows[1] * g.in_channels) as isize;
        let lines = Lines {
            rows: start..rows.end.min(start + length - start % length),
            pixel: (n * g.height.input + y) * g.width.input + x,
            next: if direction == Direction::Descending { next } else { -next },
        };
        start = lines.rows.end;
        (!lines.rows.is_empty()).then_some(lines)
    })
}

/// The sums of each channel's results, added up.
fn add_up<T: Element>(g: &Geometry, tile: &Tile<T::Sum>, row: usize, to: *mut T) {
    let mut total = T::Sum::ZERO;
    for (first, from, columns) in tile.pieces(row) {
        for k in first..first + columns {
            // SAFETY: the tile is filled; the piece has the columns.
            let value = unsafe { *from.add(k - first) };
            total = if k % g.channel_multiplier == 0 { value } else { total.add(value) };
            if (k + 1) % g.channel_multiplier == 0 {
                // SAFETY: the pixel has the channel, and no other task writes it.
                unsafe { to.add(k / g.channel_multiplier).write(T::narrow(total)) };
            }
        }
    }
}

/// With the rows and columns that BatchToSpaceND takes off, whose gradient is zero.
fn with_cropped<'a, T: Element>(pixels: ArrayView4<'a, T>, g: &Geometry) -> Result<CowArray<'a, T, Ix4>, Error> {
    if g.height.crop == 0 && g.width.crop == 0 {
        return Ok(pixels.into());
    }
    let shape = [g.batch, g.height.output + g.height.crop, g.width.output + g.width.crop, g.k()];
    let mut all = reserved(shape)?;
    let line = shape[2] * shape[3];
    for image in pixels.outer_iter() {
        for row in image.outer_iter() {
            let end = all.len() + line;
            match row.as_slice() {
                Some(values) => all.extend_from_slice(values),
                None => all.extend(row.iter()),
            }
            all.resize(end, T::ZERO);
        }
        all.resize(all.len() + g.height.crop * line, T::ZERO);
    }
    Ok(Array4::from_shape_vec(shape, all).map_err(|_| Error::TooLarge)?.into())
}

/// The gradients of stride 1: zero where a stride leaves a result out. So all taps enter every sum.
fn with_zeros_between<T: Element>(pixels: ArrayView4<T>, g: &Geometry) -> Result<(Array4<T>, Geometry), Error> {
    let place = |axis: &Axis, row: usize| row / axis.rate * axis.stride * axis.rate + row % axis.rate;
    let axis = |axis: &Axis| {
        let outputs = (axis.output + axis.crop) / axis.rate;
        let output = outputs.checked_sub(1).map_or(0, |last| (last * axis.stride + 1) * axis.rate);
        Axis { stride: 1, output, crop: 0, ..*axis }
    };
    let dense = Geometry { height: axis(&g.height), width: axis(&g.width), ..*g };
    let mut all = zeros([g.batch, dense.height.output, dense.width.output, g.k()])?;
    for y in 0..g.height.output {
        for x in 0..g.width.output {
            let to = all.slice_mut(s![.., place(&g.height, y), place(&g.width, x), ..]);
            pixels.slice(s![.., y, x, ..]).assign_to(to);
        }
    }
    Ok((all, dense))
}

/// The results of a channel beside each other: (batch, height, width * channel_multiplier, in_channels).
fn interleave<T: Element>(pixels: ArrayView4<T>, g: &Geometry) -> Result<Array4<T>, Error> {
    let (batch, height, width, _) = pixels.dim();
    let m = g.channel_multiplier;
    let mut all = zeros([batch, height, width * m, g.in_channels])?;
    for i in (0..m).filter(|_| !pixels.is_empty()) {
        all.slice_mut(s![.., .., i..;m, ..]).assign(&pixels.slice(s![.., .., .., i..;m]));
    }
    Ok(all)
}

/// In the shape of a depthwise filter for that.
fn taps_of<T: Element>(taps: ArrayView4<T>, interleaved: bool) -> CowArray<T, Ix4> {
    let (height, width, channels, m) = taps.dim();
    if m == 1 {
        taps.into()
    } else if interleaved {
        Array4::from_shape_fn([height, width * m, channels, 1], |(y, x, c, _)| taps[(y, x / m, c, x % m)]).into()
    } else {
        Array4::from_shape_fn([height, width, channels * m, 1], |(y, x, k, _)| taps[(y, x, k / m, k % m)]).into()
    }
}

fn zeros<T: Element>(shape: [usize; 4]) -> Result<Array4<T>, Error> {
    let mut values = reserved(shape)?;
    values.resize(shape.iter().product(), T::ZERO);
    Array4::from_shape_vec(shape, values).map_err(|_| Error::TooLarge)
}
