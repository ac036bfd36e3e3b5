//! The named cases: layers of networks in use, and the few that are hard in ways that random small cases are not.

use std::sync::LazyLock;

use sepconv::{Attributes, Padding};
use serde::Deserialize;

use super::{Case, ElementType, Values};

/// One layer of the list that the benchmarks have too.
#[derive(Deserialize)]
struct Shape {
    name: String,
    /// Batch, height, width, in_channels.
    input: [usize; 4],
    channel_multiplier: usize,
    kernel: usize,
    stride: i64,
    rate: i64,
    out_channels: usize,
}

static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../sepconv/benches/shapes.json")).expect("shapes.json is a list of shapes")
});

/// All of them, each with its name, of one element type.
pub fn corpus(element: ElementType) -> impl Iterator<Item = (&'static str, Case)> {
    SHAPES.iter().map(move |shape| {
        let &Shape { input, channel_multiplier, kernel, stride, rate, out_channels, .. } = shape;
        let attributes = Attributes { strides: [stride; 2], padding: Padding::Same, rate: [rate; 2] };
        let (kernel, values) = ([kernel; 2], Values::Uniform);
        let case = Case { element, input, kernel, channel_multiplier, out_channels, attributes, values, seed: 0 };
        (shape.name.as_str(), case)
    })
}
