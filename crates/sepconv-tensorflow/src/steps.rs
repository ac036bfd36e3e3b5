//! The steps behind a part of the op, in words: `"multiply add relu6"`. Saved graphs hold them: a word that was ever
//! released stays readable.

use sepconv::Element;
use sepconv::epilogue::Step;

use crate::tensorflow::status::Failure;

/// A step without its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Word {
    Add,
    Multiply,
    Relu,
    Relu6,
    LeakyRelu(f64),
    HardSwish,
}

/// Separated by blanks: `add`, `multiply`, `relu`, `relu6`, `leaky_relu(0.2)`, `hard_swish`.
pub fn words(text: &str) -> Result<Vec<Word>, String> {
    text.split_whitespace().map(word).collect()
}

fn word(word: &str) -> Result<Word, String> {
    Ok(match word {
        "add" => Word::Add,
        "multiply" => Word::Multiply,
        "relu" => Word::Relu,
        "relu6" => Word::Relu6,
        "hard_swish" => Word::HardSwish,
        _ => {
            let alpha = word.strip_prefix("leaky_relu(").and_then(|rest| rest.strip_suffix(')'));
            let alpha = alpha.and_then(|alpha| alpha.parse().ok());
            Word::LeakyRelu(alpha.ok_or_else(|| {
                format!("a step must be add, multiply, relu, relu6, leaky_relu(number) or hard_swish, got {word:?}")
            })?)
        }
    })
}

impl Word {
    pub fn has_numbers(self) -> bool {
        matches!(self, Self::Add | Self::Multiply)
    }

    /// The step, which takes the next numbers if it has some.
    pub fn step<'a, T: Element>(
        self,
        numbers: &mut impl Iterator<Item = Result<&'a [T], Failure>>,
    ) -> Result<Step<'a, T>, Failure> {
        let mut next = || numbers.next().unwrap_or_else(|| Err(Failure::internal("fewer numbers than steps")));
        Ok(match self {
            Self::Add => Step::Add(next()?),
            Self::Multiply => Step::Multiply(next()?),
            Self::Relu => Step::Relu,
            Self::Relu6 => Step::Relu6,
            Self::LeakyRelu(alpha) => Step::LeakyRelu(T::from_f64(alpha)),
            Self::HardSwish => Step::HardSwish,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_steps() {
        assert_eq!(words(" "), Ok(Vec::new()));
        assert_eq!(
            words("multiply add  relu relu6 leaky_relu(0.25) hard_swish"),
            Ok(vec![Word::Multiply, Word::Add, Word::Relu, Word::Relu6, Word::LeakyRelu(0.25), Word::HardSwish])
        );
        for wrong in ["gelu", "leaky_relu", "leaky_relu(x)", "add,relu"] {
            assert!(words(wrong).unwrap_err().ends_with(&format!("got {wrong:?}")));
        }
    }
}
