//! Everything that can be refused, with the values that were refused: a message names the argument, what was given and
//! what is allowed.

use std::fmt;

use crate::geometry::LIMIT;

/// The two image axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AxisName {
    Height = 0,
    Width = 1,
}

impl AxisName {
    pub const BOTH: [Self; 2] = [Self::Height, Self::Width];
}

impl fmt::Display for AxisName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Height => "height",
            Self::Width => "width",
        })
    }
}

/// Why a separable convolution was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{argument} must have 4 dimensions, got {} (shape {shape:?})", shape.len())]
    Rank { argument: &'static str, shape: Vec<usize> },
    #[error("{argument} must be {least} to {LIMIT} in each dimension, got {value} for the {axis}")]
    OutOfRange { argument: &'static str, axis: AxisName, value: i64, least: i64 },
    #[error(
        "depthwise_filter must have in_channels = {in_channels} as its third dimension, as the input has, \
         got {filter_channels}"
    )]
    Channels { in_channels: usize, filter_channels: usize },
    #[error(
        "in_channels and channel_multiplier must be at least 1, got in_channels = {in_channels} (input) and \
         channel_multiplier = {channel_multiplier} (depthwise_filter)"
    )]
    NoChannels { in_channels: usize, channel_multiplier: usize },
    #[error(
        "pointwise_filter must have shape [1, 1, {k}, out_channels], {k} being in_channels * channel_multiplier, \
         got [{}, {}, {}, out_channels]", got[0], got[1], got[2]
    )]
    Pointwise { got: [usize; 3], k: usize },
    #[error(
        "padding leaves no room in the {axis}: the input's extent is {input}, the depthwise_filter's {kernel} at a \
         rate of {rate}, and the output's would be negative"
    )]
    Extent { axis: AxisName, input: usize, kernel: usize, rate: usize },
    #[error("the result is too large: it must fit in {} bytes", isize::MAX)]
    TooLarge,
    #[error("no memory for {elements} elements of the result")]
    Memory { elements: usize },
    #[error(
        "the pointwise_filter was packed for numerics that take up its products otherwise, or for another instruction set"
    )]
    Packed,
    #[error("the plan is for an input of shape {expected:?}, got {got:?}")]
    Input { expected: [usize; 4], got: [usize; 4] },
    #[error("the output array must have shape {expected:?}, got {got:?}")]
    Output { expected: [usize; 4], got: [usize; 4] },
    #[error("the output must have as many elements as shape {shape:?} says, {expected}, got {got}")]
    Length { shape: [usize; 4], expected: usize, got: usize },
    #[error("{argument} must have shape {expected:?}, got {got:?}")]
    Gradient { argument: &'static str, expected: [usize; 4], got: Vec<usize> },
    #[error("step {step} behind the {part} part must have a number for each of {expected} channels, got {got}")]
    Step { part: &'static str, step: usize, expected: usize, got: usize },
    #[error("step {step} behind the {part} part is for f32 alone, got {got}")]
    StepType { part: &'static str, step: usize, got: &'static str },
    #[error("numerics: {0}")]
    Numerics(#[from] crate::numerics::ParseError),
    #[error("numerics: {what} must be {expected}, got {got}")]
    Order { what: &'static str, expected: String, got: String },
    #[error("numerics: the sum `{sum}` adds {length} products, but there are {k}")]
    SumLength { sum: String, length: usize, k: usize },
}
