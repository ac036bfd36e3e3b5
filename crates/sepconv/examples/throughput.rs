//! GFLOP/s of typical layers, whole calls, packing of the filters included, on one thread and on two: the
//! median and, as others may be using the machine, the best.
//!
//! `cargo run --release -p sepconv --example throughput [name ...]`; `SEPCONV_INSTRUCTION_SET` chooses the kernels.

use std::time::{Duration, Instant};

use ndarray::Array4;
use sepconv::{InstructionSet, Padding, SeparableConv2d};

struct Shape {
    name: &'static str,
    /// Batch, height, width, in_channels.
    input: [usize; 4],
    multiplier: usize,
    kernel: usize,
    stride: i64,
    rate: i64,
    out_channels: usize,
}

#[rustfmt::skip]
const SHAPES: [Shape; 15] = [
    shape("mbv1_1", [1, 112, 112, 32], 1, 3, 1, 1, 64),
    shape("mbv1_2s2", [1, 112, 112, 64], 1, 3, 2, 1, 128),
    shape("mbv1_3", [1, 56, 56, 128], 1, 3, 1, 1, 128),
    shape("mbv1_6s2", [1, 28, 28, 256], 1, 3, 2, 1, 512),
    shape("mbv1_7", [1, 14, 14, 512], 1, 3, 1, 1, 512),
    shape("mbv1_13", [1, 7, 7, 1024], 1, 3, 1, 1, 1024),
    shape("xcep_mid", [1, 19, 19, 728], 1, 3, 1, 1, 728),
    shape("xcep_b2", [1, 147, 147, 64], 1, 3, 1, 1, 128),
    shape("aspp_r2", [1, 33, 33, 256], 1, 3, 1, 2, 256),
    shape("aspp_r12", [1, 33, 33, 256], 1, 3, 1, 12, 256),
    shape("b8_mbv1_7", [8, 14, 14, 512], 1, 3, 1, 1, 512),
    shape("b32_cifar", [32, 32, 32, 64], 1, 3, 1, 1, 64),
    shape("m4", [1, 56, 56, 32], 4, 3, 1, 1, 64),
    shape("k5", [1, 28, 28, 120], 1, 5, 1, 1, 40),
    shape("tiny", [1, 8, 8, 16], 1, 3, 1, 1, 16),
];

const fn shape(
    name: &'static str,
    input: [usize; 4],
    multiplier: usize,
    kernel: usize,
    stride: i64,
    rate: i64,
    out_channels: usize,
) -> Shape {
    Shape { name, input, multiplier, kernel, stride, rate, out_channels }
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    println!("{} kernels, GFLOP/s", InstructionSet::preferred().name());
    println!("{:<12}{:>10}{:>10}{:>10}{:>10}", "shape", "1 thread", "best", "2 threads", "best");
    for shape in SHAPES.iter().filter(|shape| wanted.is_empty() || wanted.iter().any(|name| name == shape.name)) {
        let speed = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            pool.install(|| throughput(shape))
        };
        let ([one, best_one], [two, best_two]) = (speed(1), speed(2));
        println!("{:<12}{one:>10.1}{best_one:>10.1}{two:>10.1}{best_two:>10.1}", shape.name);
    }
}

/// GFLOP/s of the median call and of the fastest.
fn throughput(shape: &Shape) -> [f64; 2] {
    let &Shape { input, multiplier, kernel, stride, rate, out_channels, .. } = shape;
    let k = input[3] * multiplier;
    let (input, depthwise_filter) = (values(input), values([kernel, kernel, input[3], multiplier]));
    let pointwise_filter = values([1, 1, k, out_channels]);
    let convolution = SeparableConv2d::new([stride, stride], Padding::Same, [rate, rate]);
    let run = || {
        let start = Instant::now();
        let output = convolution.run(input.view(), depthwise_filter.view(), pointwise_filter.view()).expect("a result");
        (start.elapsed(), output.len() / out_channels)
    };
    let (start, mut times, mut rows) = (Instant::now(), Vec::new(), 0);
    while times.len() < 5 || start.elapsed() < Duration::from_millis(600) {
        let (time, seen) = run();
        times.push(time);
        rows = seen;
    }
    times.sort();
    let operations = 2.0 * (rows * k * (kernel * kernel + out_channels)) as f64;
    [times[times.len() / 2], times[0]].map(|time| operations / time.as_secs_f64() / 1e9)
}

/// Some ordinary numbers.
fn values(shape: [usize; 4]) -> Array4<f32> {
    Array4::from_shape_fn(shape, |(a, b, c, d)| ((a * 31 + b * 17 + c * 7 + d * 3) % 19) as f32 / 16.0 - 0.5)
}
