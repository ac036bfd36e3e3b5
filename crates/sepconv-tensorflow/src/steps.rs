//! The steps behind a part of the op, in words: `"multiply add relu6"`. Saved graphs hold them: a word that was ever
//! released stays readable.

use std::ffi::CStr;

use sepconv::Element;
use sepconv::epilogue::Step;

use crate::tensorflow::kernel::{Construction, Context};
use crate::tensorflow::status::Failure;
use crate::tensorflow::tensor::{Tensor, TensorElement};

/// A step without its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Word {
    Add,
    Multiply,
    MultiplyAdd,
    Relu,
    Relu6,
    ReluOneDnn,
    Relu6OneDnn,
    LeakyRelu(f64),
    HardSwish,
    HardSwishSixthFirst,
    Swish,
    SwishOneDnn,
}

/// Separated by blanks: `add`, `multiply`, `multiply_add`, `relu`, `relu6`, `relu_onednn`, `relu6_onednn`, `leaky_relu(0.2)`,
/// `hard_swish`, `hard_swish_sixth_first`, `swish`, `swish_onednn`.
fn words(text: &str) -> Result<Vec<Word>, String> {
    text.split_whitespace().map(word).collect()
}

fn word(word: &str) -> Result<Word, String> {
    Ok(match word {
        "add" => Word::Add,
        "multiply" => Word::Multiply,
        "multiply_add" => Word::MultiplyAdd,
        "relu" => Word::Relu,
        "relu6" => Word::Relu6,
        "relu_onednn" => Word::ReluOneDnn,
        "relu6_onednn" => Word::Relu6OneDnn,
        "hard_swish" => Word::HardSwish,
        "hard_swish_sixth_first" => Word::HardSwishSixthFirst,
        "swish" => Word::Swish,
        "swish_onednn" => Word::SwishOneDnn,
        _ => {
            let alpha = word.strip_prefix("leaky_relu(").and_then(|rest| rest.strip_suffix(')'));
            let alpha = alpha.and_then(|alpha| alpha.parse().ok());
            Word::LeakyRelu(alpha.ok_or_else(|| {
                format!(
                    "a step must be add, multiply, multiply_add, relu, relu6, relu_onednn, relu6_onednn, \
                     leaky_relu(number), hard_swish, hard_swish_sixth_first, swish or swish_onednn, got {word:?}"
                )
            })?)
        }
    })
}

impl Word {
    /// How many tensors of numbers belong to it.
    fn numbers(self) -> usize {
        match self {
            Self::Add | Self::Multiply => 1,
            Self::MultiplyAdd => 2,
            Self::Relu | Self::Relu6 | Self::ReluOneDnn | Self::Relu6OneDnn | Self::LeakyRelu(_) => 0,
            Self::HardSwish | Self::HardSwishSixthFirst | Self::Swish | Self::SwishOneDnn => 0,
        }
    }
}

/// The steps of an attribute.
pub fn of_attribute(construction: &Construction, name: &CStr) -> Result<Vec<Word>, Failure> {
    let of = |error| Failure::invalid_argument(format!("{}: {error}", name.to_string_lossy()));
    words(&construction.string(name)?).map_err(of)
}

/// The tensors of the steps that have numbers, which are the inputs from that one on: a number for each channel, along the
/// last of up to four dimensions, as TensorFlow's own operations would take them behind a convolution.
pub fn numbers<'a>(
    context: &Context,
    first: usize,
    steps: impl Iterator<Item = &'a Word>,
) -> Result<Vec<Tensor>, Failure> {
    let (expected, got) = (steps.map(|word| word.numbers()).sum::<usize>(), context.inputs() - first);
    if got != expected {
        let message = format!("numbers must be {expected} tensors, as many as the steps have, got {got}");
        return Err(Failure::invalid_argument(message));
    }
    let tensor = |n| {
        let tensor = context.input((first + n) as i32)?;
        along_the_last(n, tensor.shape()).map_err(Failure::invalid_argument)?;
        Ok(tensor)
    };
    (0..expected).map(tensor).collect()
}

/// That a tensor of numbers differs by channel alone, and leaves an image its four dimensions.
fn along_the_last(n: usize, shape: &[usize]) -> Result<(), String> {
    match shape {
        [] => Ok(()), // one channel's
        [before @ .., _] if before.len() < 4 && before.iter().all(|&extent| extent == 1) => Ok(()),
        _ => {
            Err(format!("numbers[{n}] must have at most 4 dimensions, all of them 1 but the last, got shape {shape:?}"))
        }
    }
}

/// The steps, each of which takes the next numbers if it has some.
pub fn with_numbers<'a, T: Element + TensorElement>(
    words: &[Word],
    numbers: &mut impl Iterator<Item = &'a Tensor>,
) -> Result<Vec<Step<'a, T>>, Failure> {
    let mut next = || match numbers.next() {
        Some(tensor) => tensor.elements::<T>(),
        None => Err(Failure::internal("fewer numbers than steps")),
    };
    let step = |word: &Word| {
        Ok(match *word {
            Word::Add => Step::Add(next()?),
            Word::Multiply => Step::Multiply(next()?),
            Word::MultiplyAdd => Step::MultiplyAdd(next()?, next()?),
            Word::Relu => Step::Relu,
            Word::Relu6 => Step::Relu6,
            Word::ReluOneDnn => Step::ReluOneDnn,
            Word::Relu6OneDnn => Step::Relu6OneDnn,
            Word::LeakyRelu(alpha) => Step::LeakyRelu(T::from_f64(alpha)),
            Word::HardSwish => Step::HardSwish,
            Word::HardSwishSixthFirst => Step::HardSwishSixthFirst,
            Word::Swish => Step::Swish,
            Word::SwishOneDnn => Step::SwishOneDnn,
        })
    };
    words.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_steps() {
        assert_eq!(words(" "), Ok(Vec::new()));
        assert_eq!(
            words("multiply add  relu relu6 leaky_relu(0.25) hard_swish hard_swish_sixth_first multiply_add"),
            Ok(vec![
                Word::Multiply,
                Word::Add,
                Word::Relu,
                Word::Relu6,
                Word::LeakyRelu(0.25),
                Word::HardSwish,
                Word::HardSwishSixthFirst,
                Word::MultiplyAdd
            ])
        );
        assert_eq!(words("swish swish_onednn"), Ok(vec![Word::Swish, Word::SwishOneDnn]));
        for wrong in ["gelu", "leaky_relu", "leaky_relu(x)", "add,relu"] {
            assert!(words(wrong).unwrap_err().ends_with(&format!("got {wrong:?}")));
        }
    }

    #[test]
    fn numbers_lie_along_the_channels() {
        for shape in [&[][..], &[2], &[0], &[1, 2], &[1, 1, 1, 2], &[1, 1, 1, 1]] {
            assert_eq!(along_the_last(0, shape), Ok(()));
        }
        for shape in [&[2, 1][..], &[2, 1, 1, 1], &[1, 2, 1, 1], &[0, 2], &[1, 1, 1, 1, 2]] {
            let limit = "must have at most 4 dimensions, all of them 1 but the last";
            assert_eq!(along_the_last(3, shape), Err(format!("numbers[3] {limit}, got shape {shape:?}")));
        }
    }
}
