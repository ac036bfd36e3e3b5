//! The text form of a case: whatever fails is repeated from this one line.

use std::fmt;
use std::str::FromStr;

use sepconv::{Attributes, Padding};

use super::{Case, ElementType, Values};

const ELEMENTS: [(&str, ElementType); 4] =
    [("f32", ElementType::F32), ("f64", ElementType::F64), ("f16", ElementType::F16), ("bf16", ElementType::Bf16)];
const VALUES: [(&str, Values); 7] = [
    ("uniform", Values::Uniform),
    ("non-finite", Values::NonFinite),
    ("infinite-taps", Values::InfiniteTaps),
    ("signed-zeros", Values::SignedZeros),
    ("subnormal", Values::Subnormal),
    ("wide", Values::Wide),
    ("cancelling", Values::Cancelling),
];

fn word<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, v)| *v == value).map_or("", |(word, _)| word)
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(&ELEMENTS, *self))
    }
}

impl FromStr for ElementType {
    type Err = NotACase;

    fn from_str(text: &str) -> Result<Self, NotACase> {
        let element = ELEMENTS.iter().find(|(name, _)| *name == text);
        element.map(|(_, element)| *element).ok_or(NotACase("f32, f64, f16 or bf16"))
    }
}

/// For example `f32 input 1,8,8,3 kernel 3,3 multiplier 1 columns 5 strides 1,1 padding same rate 1,1 values uniform
/// seed 7`; explicit padding is `padding top,bottom,left,right`; without values and seed, they are `uniform` and 0.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |numbers: &[i64]| numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
        let sizes = |numbers: &[usize]| list(&numbers.iter().map(|&n| n as i64).collect::<Vec<_>>());
        let padding = match self.attributes.padding {
            Padding::Same => "same".into(),
            Padding::Valid => "valid".into(),
            Padding::Explicit(paddings) => list(paddings.as_flattened()),
        };
        write!(
            f,
            "{} input {} kernel {} multiplier {} columns {} strides {} padding {padding} rate {} values {} seed {}",
            self.element,
            sizes(&self.input),
            sizes(&self.kernel),
            self.channel_multiplier,
            self.out_channels,
            list(&self.attributes.strides),
            list(&self.attributes.rate),
            word(&VALUES, self.values),
            self.seed,
        )
    }
}

/// A text that is not of a case's form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a case: expected {0}")]
pub struct NotACase(&'static str);

impl FromStr for Case {
    type Err = NotACase;

    fn from_str(text: &str) -> Result<Self, NotACase> {
        let mut words = text.split_whitespace();
        let element = words.next().unwrap_or_default().parse()?;
        let data = text.contains(" values ") || text.contains(" seed ");
        let mut field = |name: &'static str| match (words.next(), words.next()) {
            (Some(word), Some(value)) if word == name => Ok(value),
            _ => Err(NotACase(name)),
        };
        let case = Self {
            element,
            input: sizes(field("input")?).ok_or(NotACase("input B,H,W,C"))?,
            kernel: sizes(field("kernel")?).ok_or(NotACase("kernel H,W"))?,
            channel_multiplier: sizes(field("multiplier")?).map(|[n]| n).ok_or(NotACase("multiplier N"))?,
            out_channels: sizes(field("columns")?).map(|[n]| n).ok_or(NotACase("columns N"))?,
            attributes: Attributes {
                strides: numbers(field("strides")?).ok_or(NotACase("strides H,W"))?,
                padding: match field("padding")? {
                    "same" => Padding::Same,
                    "valid" => Padding::Valid,
                    four => numbers(four)
                        .map(|[top, bottom, left, right]| Padding::Explicit([[top, bottom], [left, right]]))
                        .ok_or(NotACase("padding same, valid or T,B,L,R"))?,
                },
                rate: numbers(field("rate")?).ok_or(NotACase("rate H,W"))?,
            },
            values: match data.then(|| field("values")).transpose()? {
                None => Values::Uniform,
                Some(name) => VALUES.iter().find(|(word, _)| *word == name).ok_or(NotACase("a kind of values"))?.1,
            },
            seed: match data.then(|| field("seed")).transpose()? {
                None => 0,
                Some(seed) => seed.parse().map_err(|_| NotACase("seed N"))?,
            },
        };
        words.next().map_or(Ok(case), |_| Err(NotACase("the end")))
    }
}

impl From<Case> for String {
    fn from(case: Case) -> Self {
        case.to_string()
    }
}

impl TryFrom<String> for Case {
    type Error = NotACase;

    fn try_from(text: String) -> Result<Self, NotACase> {
        text.parse()
    }
}

fn numbers<const N: usize>(text: &str) -> Option<[i64; N]> {
    text.split(',').map(|n| n.parse().ok()).collect::<Option<Vec<_>>>()?.try_into().ok()
}

fn sizes<const N: usize>(text: &str) -> Option<[usize; N]> {
    let numbers = numbers::<N>(text)?;
    numbers.iter().all(|n| *n >= 0).then(|| numbers.map(|n| n as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::Space;

    #[test]
    fn texts_read_and_write() {
        for index in 0..100 {
            let case = Case::random(Space { element: None, onednn: true }, 1, index);
            assert_eq!(case.to_string().parse(), Ok(case));
        }
        for element in ElementType::ALL {
            assert_eq!(element.to_string().parse(), Ok(element));
        }
        assert_eq!("f8".parse::<Case>(), Err(NotACase("f32, f64, f16 or bf16")));
        assert_eq!("f32 input 1,2,3 kernel".parse::<Case>(), Err(NotACase("input B,H,W,C")));
    }
}
