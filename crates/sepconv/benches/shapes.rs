//! The 15 named layers, filter packed once and packed in every call, on one thread and on two, and with steps behind both
//! parts; operations per second.
//!
//! `cargo bench -p sepconv --bench shapes -- mbv1_7`; `SEPCONV_INSTRUCTION_SET` chooses the kernels. What steps cost:
//! `cargo bench -p sepconv --bench shapes -- 'packed.*mbv1_7'`. Against other libraries: `ci/bench`.

use std::fmt;
use std::sync::{Arc, LazyLock};

use divan::Bencher;
use divan::counter::ItemsCount;
use image::Image;
use ndarray::Array4;
use sepconv::epilogue::{Epilogues, Step};
use sepconv::{Error, Padding, SeparableConv2d};
use serde_json::Value;

#[path = "../examples/bench/image.rs"]
mod image;
#[path = "../examples/bench/packing.rs"]
mod packing;

fn main() {
    divan::main();
}

/// A row of `shapes.json`.
struct Shape {
    name: String,
    input: [usize; 4],
    channel_multiplier: usize,
    kernel: usize,
    stride: usize,
    rate: usize,
    out_channels: usize,
}

impl Shape {
    fn new(row: &Value) -> Self {
        let number = |value: &Value| value.as_u64().expect("a whole number in shapes.json") as usize;
        Self {
            name: row["name"].as_str().expect("a name in shapes.json").to_owned(),
            input: std::array::from_fn(|axis| number(&row["input"][axis])),
            channel_multiplier: number(&row["channel_multiplier"]),
            kernel: number(&row["kernel"]),
            stride: number(&row["stride"]),
            rate: number(&row["rate"]),
            out_channels: number(&row["out_channels"]),
        }
    }

    fn output(&self) -> [usize; 4] {
        let [batch, height, width, _] = self.input;
        [batch, height.div_ceil(self.stride), width.div_ceil(self.stride), self.out_channels]
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    let rows: Vec<Value> = serde_json::from_str(include_str!("shapes.json")).expect("shapes.json is a list");
    rows.iter().map(Shape::new).collect()
});

const THREADS: [usize; 2] = [1, 2];

#[divan::bench(args = SHAPES.iter(), consts = THREADS, max_time = 0.5)]
fn packed<const N: usize>(bencher: Bencher, shape: &Shape) {
    measure::<N>(bencher, shape, packing::once);
}

/// Operations as without the steps.
#[divan::bench(args = SHAPES.iter(), consts = THREADS, max_time = 0.5)]
fn packed_with_steps<const N: usize>(bencher: Bencher, shape: &Shape) {
    measure::<N>(bencher, shape, once_with_steps);
}

#[divan::bench(args = SHAPES.iter(), consts = THREADS, max_time = 0.5)]
fn packing<const N: usize>(bencher: Bencher, shape: &Shape) {
    measure::<N>(bencher, shape, packing::every_call);
}

fn measure<const N: usize>(bencher: Bencher, shape: &Shape, prepare: packing::Prepare<f32>) {
    let k = shape.input[3] * shape.channel_multiplier;
    let input = Image::new(shape.input, values(shape.input));
    let depthwise_filter = values([shape.kernel, shape.kernel, shape.input[3], shape.channel_multiplier]);
    let pointwise_filter = values([1, 1, k, shape.out_channels]);
    let elements = shape.output().iter().product();
    let mut output = Image::new(shape.output(), vec![0.0; elements]);
    let pool = rayon::ThreadPoolBuilder::new().num_threads((N - 1).max(1)).build().expect("a thread pool");
    let convolution = SeparableConv2d::new([shape.stride as i64; 2], Padding::Same, [shape.rate as i64; 2]);
    let convolution = convolution.pool(Arc::new(pool)).threads(N); // the calling one included
    let run = prepare(convolution, shape.input, depthwise_filter, pointwise_filter).expect("a plan");
    let rows = elements / shape.out_channels;
    let operations = 2 * rows * k * (shape.kernel * shape.kernel + shape.out_channels);
    let bencher = bencher.counter(ItemsCount::new(operations));
    bencher.bench_local(|| run(input.view(), output.view_mut()).expect("a result"));
}

/// As `packing::once`, with what MobileNet has behind both parts: batch normalisation and ReLU6.
fn once_with_steps(
    convolution: SeparableConv2d,
    input_shape: [usize; 4],
    depthwise_filter: Array4<f32>,
    pointwise_filter: Array4<f32>,
) -> Result<packing::Run<f32>, Error> {
    let (_, _, k, out_channels) = pointwise_filter.dim();
    let numbers = values([1, 1, 1, k.max(out_channels) + 1]).into_raw_vec_and_offset().0;
    let steps = |channels| vec![Step::Multiply(&numbers[..channels]), Step::Add(&numbers[1..=channels]), Step::Relu6];
    let epilogues = Epilogues { depthwise: steps(k), pointwise: steps(out_channels) };
    let convolution = convolution.with_steps(&epilogues);
    let plan = convolution.plan(input_shape, depthwise_filter.view(), pointwise_filter.view())?;
    Ok(Box::new(move |input, output| plan.run_into(input, output)))
}

/// Some ordinary numbers.
fn values(shape: [usize; 4]) -> Array4<f32> {
    Array4::from_shape_fn(shape, |(a, b, c, d)| ((a * 31 + b * 17 + c * 7 + d * 3) % 19) as f32 / 16.0 - 0.5)
}
