//! Arrays that end, or start, where memory does: a stray access ends the process.

#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

mod elements;

use std::ffi::{c_int, c_void};

use half::{bf16, f16};
use ndarray::{ArrayViewMut4, s};
use sepconv::epilogue::Epilogues;
use sepconv::{Attributes, Element, Geometry, InstructionSet, Numerics, Padding, SeparableConv2d};

unsafe extern "C" {
    fn mmap(at: *mut c_void, length: usize, protection: c_int, flags: c_int, file: c_int, offset: i64) -> *mut c_void;
    fn mprotect(at: *mut c_void, length: usize, protection: c_int) -> c_int;
}
const READ_WRITE: c_int = 3;
const PRIVATE_ANONYMOUS: c_int = 0x22;
/// At least a page, wherever Linux runs.
const PAGE: usize = 1 << 16;

/// The values between two inaccessible pages, touching one of them; never given back.
fn guarded<T: Element>(values: &[T], at_end: bool) -> &'static mut [T] {
    let room = size_of_val(values).next_multiple_of(PAGE);
    let skipped = if at_end { room - size_of_val(values) } else { 0 };
    // SAFETY: fresh memory of PAGE + room + PAGE bytes, of which only the middle is accessible and used.
    unsafe {
        let start = mmap(std::ptr::null_mut(), room + 2 * PAGE, 0, PRIVATE_ANONYMOUS, -1, 0);
        assert!(mprotect(start.add(PAGE), room, READ_WRITE) == 0);
        let start = start.add(PAGE + skipped).cast::<T>();
        start.copy_from_nonoverlapping(values.as_ptr(), values.len());
        std::slice::from_raw_parts_mut(start, values.len())
    }
}

fn array<T: Element>(shape: [usize; 4], seed: u64, at_end: bool) -> ArrayViewMut4<'static, T> {
    let values = elements::array::<T>(shape, seed, false).into_raw_vec_and_offset().0;
    ArrayViewMut4::from_shape(shape, guarded(&values, at_end)).unwrap()
}

/// Of these loops (kernel, stride, rate), in the usual order and where products are paired and all taps counted.
fn check<T: Element>(
    [kernel, stride, rate]: [usize; 3],
    width: usize,
    [channels, multiplier, out_channels]: [usize; 3],
    at_end: bool,
) {
    let array = |shape, seed| array::<T>(shape, seed, at_end);
    let k = channels * multiplier;
    let (input, filter) = (array([1, 5, width, channels], 1), array([kernel, kernel, channels, multiplier], 2));
    let pointwise = array([1, 1, k, out_channels], 3);
    let mut output = array([1, 5usize.div_ceil(stride), width.div_ceil(stride), out_channels], 4);
    let paired = format!("v1 depthwise(paired, all) pointwise(paired, {k}) subnormals(flushed)").parse().unwrap();
    for numerics in [Numerics::REPRODUCIBLE, paired] {
        for set in InstructionSet::available() {
            let op = SeparableConv2d::new([stride as i64; 2], Padding::Same, [rate as i64; 2]).on(set);
            let op = op.numerics(numerics.clone());
            op.run_into(input.view(), filter.view(), pointwise.view(), output.view_mut()).unwrap();
        }
    }
}

#[test]
fn nothing_outside_the_arrays_is_touched() {
    for (at_end, loops) in [true, false].into_iter().flat_map(|at_end| LOOPS.map(|loops| (at_end, loops))) {
        for (channels, multiplier) in [(1, 1), (3, 1), (5, 3), (9, 2), (17, 1), (30, 4), (47, 1), (64, 1)] {
            // Of the wider ones seven pixels share values with seven of another line, of the others four.
            for (width, out_channels) in [(9, 1), (13, 7), (8, 16), (29, 33), (9, 61)] {
                let counts = [channels, multiplier, out_channels];
                check::<f32>(loops, width, counts, at_end);
                check::<f64>(loops, width, counts, at_end);
                check::<f16>(loops, width, counts, at_end);
                check::<bf16>(loops, width, counts, at_end);
            }
        }
    }
}

/// The same of the pointwise part alone, padded on all sides or not.
fn check_pointwise<T: Element>(
    [stride, rate]: [usize; 2],
    width: usize,
    [channels, out_channels]: [usize; 2],
    at_end: bool,
) {
    let array = |shape, seed| array::<T>(shape, seed, at_end);
    let (input, filter) = (array([2, 5, width, channels], 1), array([1, 1, channels, out_channels], 2));
    let [overrun, paired] = ["overrun", "paired"].map(|products| {
        let numerics = format!("v1 depthwise(fused, inside) pointwise({products}, {channels}) subnormals(flushed)");
        numerics.parse().unwrap()
    });
    let orders = [Numerics::REPRODUCIBLE, overrun, paired];
    for (padding, numerics) in [Padding::Same, Padding::Explicit([[1, 2], [3, 1]])]
        .into_iter()
        .flat_map(|padding| orders.each_ref().map(|order| (padding, order)))
    {
        let op = SeparableConv2d::new([stride as i64; 2], padding, [rate as i64; 2]).numerics(numerics.clone());
        let attributes = Attributes { strides: [stride as i64; 2], padding, rate: [rate as i64; 2] };
        let geometry = Geometry::pointwise(input.shape(), filter.shape(), &attributes).unwrap();
        let mut output = array(geometry.output_shape(), 4);
        // Turned round, and every second pixel.
        let (turned, apart) = (input.slice(s![.., ..;-1, ..;-1, ..]), input.slice(s![.., .., ..;2, ..]));
        for set in InstructionSet::available() {
            let op = op.clone().on(set);
            op.with_steps(&Epilogues::NONE).pointwise_into(input.view(), filter.view(), output.view_mut()).unwrap();
            op.pointwise(turned, filter.view()).unwrap();
            op.pointwise(apart, filter.view()).unwrap();
        }
    }
}

#[test]
fn nor_by_the_pointwise_part() {
    for (at_end, loops) in
        [true, false].into_iter().flat_map(|at_end| [[1, 1], [2, 1], [1, 2], [3, 2]].map(|loops| (at_end, loops)))
    {
        for channels in [1, 3, 17, 47, 64, 300] {
            for (width, out_channels) in [(1, 1), (13, 7), (8, 16), (29, 33), (9, 61)] {
                let counts = [channels, out_channels];
                check_pointwise::<f32>(loops, width, counts, at_end);
                check_pointwise::<f64>(loops, width, counts, at_end);
                check_pointwise::<f16>(loops, width, counts, at_end);
                check_pointwise::<bf16>(loops, width, counts, at_end);
            }
        }
    }
}

/// The same of what the input's gradient and the depthwise filter's read and write.
fn check_gradients<T: Element>([kernel, stride, rate]: [usize; 3], width: usize, channels: usize, at_end: bool) {
    let shape = [1, 9, width, channels];
    let (input, filter) = (array::<T>(shape, 1, at_end), array::<T>([kernel, kernel, channels, 1], 2, at_end));
    let pixels = array::<T>([1, 9usize.div_ceil(stride), width.div_ceil(stride), channels], 3, at_end);
    let [mut of_input, mut of_filter] =
        [shape, [kernel, kernel, channels, 1]].map(|shape| array::<T>(shape, 4, at_end));
    let [of_input, of_filter] = [&mut of_input, &mut of_filter].map(|array| {
        let values = array.as_slice_mut().unwrap();
        // SAFETY: what is written are elements.
        unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
    });
    for taps in ["inside", "all"] {
        let of_input_order = format!("v1 input(ascending, fused, {taps}) subnormals(flushed)").parse().unwrap();
        let order =
            format!("v1 depthwise_filter(fused, {taps}, chain, strips 15) subnormals(flushed)").parse().unwrap();
        for set in InstructionSet::available() {
            let op = SeparableConv2d::new([stride as i64; 2], Padding::Same, [rate as i64; 2]).on(set);
            op.backprop_input_into(shape, filter.view(), pixels.view(), &of_input_order, of_input).unwrap();
            let of_filter_shape = [kernel, kernel, channels, 1];
            op.backprop_depthwise_filter_into(input.view(), of_filter_shape, pixels.view(), &order, of_filter).unwrap();
        }
    }
}

#[test]
fn nor_by_gradients() {
    for (at_end, loops) in [true, false].into_iter().flat_map(|at_end| LOOPS.map(|loops| (at_end, loops))) {
        for (width, channels) in [1, 2, 3, 16, 31].into_iter().flat_map(|width| [1, 17, 47, 64].map(|k| (width, k))) {
            check_gradients::<f32>(loops, width, channels, at_end);
            check_gradients::<f64>(loops, width, channels, at_end);
            check_gradients::<f16>(loops, width, channels, at_end);
            check_gradients::<bf16>(loops, width, channels, at_end);
        }
    }
}

const LOOPS: [[usize; 3]; 6] = [[3, 1, 1], [3, 2, 1], [5, 1, 1], [2, 1, 1], [1, 1, 1], [3, 1, 2]];
