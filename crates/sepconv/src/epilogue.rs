//! Steps behind the two parts of a separable convolution: bias, batch normalisation, activations. Each is rounded to the
//! storage type, as an operation of its own would round it, so that the result has the bits of the operations one after the
//! other.

use crate::element::{Element, Number, larger, smaller};
use crate::error::Error;
use crate::sigmoid;

/// One step, channel by channel.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Step<'a, T> {
    /// Adds a number for each channel: a bias, or the second half of a batch normalisation.
    Add(&'a [T]),
    /// Multiplies by a number for each channel: the first half of a batch normalisation.
    Multiply(&'a [T]),
    /// Multiplies by a number for each channel and adds another one, rounded once, as fused multiply-add instructions do: the
    /// last of a batch normalisation's steps in oneDNN.
    MultiplyAdd(&'a [T], &'a [T]),
    /// max(x, 0); NaN stays, and of f32 and f64 no zero is negative (as where TensorFlow's loops are vectorised).
    Relu,
    /// min(max(x, 0), 6), likewise.
    Relu6,
    /// max(x, 0), where NaN becomes 0 and no zero is negative: as oneDNN computes it in one with a convolution.
    ReluOneDnn,
    /// The same, and 6 at most.
    Relu6OneDnn,
    /// x where it is positive, otherwise x times this number, rounded to the storage type.
    LeakyRelu(T),
    /// x * (relu6(x + 3) * (1 / 6)), rounded after each of the four and 1 / 6 too: TensorFlow's graphs multiply so where a
    /// division by 6 is written.
    HardSwish,
    /// (x * (1 / 6)) * relu6(x + 3), rounded likewise: TensorFlow's optimiser moves the sixth there.
    HardSwishSixthFirst,
    /// x * sigmoid(x), of f32 alone: as TensorFlow's two operations compute it by Eigen, unless the elements of the tensor
    /// are no multiple of 8, where the last ones are others.
    Swish,
    /// The same, as oneDNN computes it in one on a processor with AVX2 or AVX-512.
    SwishOneDnn,
}

/// The steps behind the depthwise part, whose channels are in_channels * channel_multiplier, and those behind the pointwise
/// part, whose channels are out_channels.
#[derive(Clone, Debug, PartialEq)]
pub struct Epilogues<'a, T> {
    pub depthwise: Vec<Step<'a, T>>,
    pub pointwise: Vec<Step<'a, T>>,
}

impl<T> Epilogues<'_, T> {
    /// No steps.
    pub const NONE: Self = Self { depthwise: Vec::new(), pointwise: Vec::new() };
}

impl<T: Element> Epilogues<'_, T> {
    /// That each step is of the type, and has a number for each channel.
    pub(crate) fn check(&self, k: usize, out_channels: usize) -> Result<(), Error> {
        self.check_depthwise(k)?;
        self.check_pointwise(out_channels)
    }

    /// The same of the depthwise part alone.
    pub(crate) fn check_depthwise(&self, k: usize) -> Result<(), Error> {
        check("depthwise", &self.depthwise, k)
    }

    /// The same of the pointwise part alone.
    pub(crate) fn check_pointwise(&self, out_channels: usize) -> Result<(), Error> {
        check("pointwise", &self.pointwise, out_channels)
    }
}

fn check<T: Element>(part: &'static str, steps: &[Step<T>], expected: usize) -> Result<(), Error> {
    let of_f32 = |step: &Step<T>| matches!(step, Step::Swish | Step::SwishOneDnn);
    if let Some(step) = steps.iter().position(of_f32).filter(|_| T::NAME != f32::NAME) {
        return Err(Error::StepType { part, step, got: T::NAME });
    }
    let mut lengths = (0..).zip(steps).flat_map(|(n, step)| step.numbers().map(move |numbers| (n, numbers.len())));
    match lengths.find(|(_, length)| *length != expected) {
        Some((step, got)) => Err(Error::Step { part, step, expected, got }),
        None => Ok(()),
    }
}

impl<T: Element> Step<'_, T> {
    /// Those that it has, each of them one for each channel.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = &[T]> {
        let numbers = match self {
            Self::Add(numbers) | Self::Multiply(numbers) => [Some(*numbers), None],
            Self::MultiplyAdd(factors, addends) => [Some(*factors), Some(*addends)],
            Self::Relu | Self::Relu6 | Self::ReluOneDnn | Self::Relu6OneDnn | Self::LeakyRelu(_) => [None; 2],
            Self::HardSwish | Self::HardSwishSixthFirst | Self::Swish | Self::SwishOneDnn => [None; 2],
        };
        numbers.into_iter().flatten()
    }

    /// Of one element.
    pub(crate) fn apply(&self, value: T, channel: usize) -> T {
        let (x, number) = (value.widen(), |number: f64| T::Sum::from_f64(number));
        let rounded = |sum: T::Sum| T::narrow(sum).widen();
        let positive = |x| if x > number(0.0) { x } else { number(0.0) };
        let sixth = T::from_f64(1.0 / 6.0).widen();
        let gate = || smaller(number(6.0), relu::<T>(rounded(x.add(number(3.0)))));
        T::narrow(match self {
            Self::Add(values) => x.add(values[channel].widen()),
            Self::Multiply(values) => x.mul(values[channel].widen()),
            Self::MultiplyAdd(factors, addends) => x.mul_add(factors[channel].widen(), addends[channel].widen()),
            Self::Relu => relu::<T>(x),
            Self::Relu6 => smaller(number(6.0), relu::<T>(x)),
            Self::ReluOneDnn => positive(x),
            Self::Relu6OneDnn => smaller(number(6.0), positive(x)),
            Self::LeakyRelu(_) if x > number(0.0) => x,
            Self::LeakyRelu(alpha) => x.mul(alpha.widen()),
            Self::HardSwish => x.mul(rounded(gate().mul(sixth))),
            Self::HardSwishSixthFirst => rounded(x.mul(sixth)).mul(gate()),
            Self::Swish => x.mul(sigmoid::of_eigen(x)),
            Self::SwishOneDnn => x.mul(sigmoid::of_onednn(x)),
        })
    }
}

fn relu<T: Element>(x: T::Sum) -> T::Sum {
    let zero = T::Sum::ZERO;
    let largest = larger(zero, x);
    if crate::element::is_sum::<T>() { largest.add(zero) } else { largest }
}
