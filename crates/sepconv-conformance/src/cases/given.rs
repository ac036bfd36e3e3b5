//! Cases that a user gives: a text or the name of one of the corpus, refused where nothing could come of it.

use super::{Case, ElementType, NotACase, corpus};

/// Most elements of one array: two gigabytes of the largest type.
const LARGEST: usize = 1 << 28;

/// Why a case was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCase {
    #[error("`{given}` is none of the named cases ({}), and {why}", names())]
    Text { given: String, why: NotACase },
    #[error(transparent)]
    Geometry(#[from] sepconv::Error),
    #[error("{argument} must have at least 1 element in every dimension, got shape {shape:?}")]
    Empty { argument: &'static str, shape: [usize; 4] },
    #[error("{argument} must have at most {LARGEST} elements, got shape {shape:?}")]
    TooLarge { argument: &'static str, shape: [usize; 4] },
}

fn names() -> String {
    corpus(ElementType::F32).map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}

impl Case {
    /// From a case's text or a name of the corpus, which an element type may precede: `f16 mbv1_7`.
    pub fn given(text: &str) -> Result<Self, BadCase> {
        let words: Vec<_> = text.split_whitespace().collect();
        let named = match words[..] {
            [name] => Some((ElementType::F32, name)),
            [element, name] => element.parse().ok().map(|element| (element, name)),
            _ => None,
        };
        let named = named.and_then(|(element, name)| corpus(element).find(|(n, _)| *n == name));
        let case = match named {
            Some((_, case)) => case,
            None => text.parse().map_err(|why| BadCase::Text { given: text.into(), why })?,
        };
        case.check()?;
        Ok(case)
    }

    /// Refuses what is not a convolution, has nothing to compute, or is larger than any machine's memory.
    fn check(&self) -> Result<(), BadCase> {
        let product = |shape: &[usize]| shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
        let fits = |argument, shape: [usize; 4]| match product(&shape) {
            Some(0) => Err(BadCase::Empty { argument, shape }),
            Some(n) if n <= LARGEST => Ok(()),
            _ => Err(BadCase::TooLarge { argument, shape }),
        };
        let ([height, width], m) = (self.kernel, self.channel_multiplier);
        fits("input", self.input)?;
        fits("depthwise_filter", [height, width, self.input[3], m])?;
        fits("pointwise_filter", [1, 1, self.k(), self.out_channels])?;
        let geometry = self.geometry()?;
        fits("output", geometry.output_shape())?;
        let [height, width] = [geometry.height, geometry.width].map(|axis| axis.padded);
        fits("the padded image", [self.input[0], height, width, self.input[3]])?;
        fits("the depthwise result", [geometry.batch, geometry.height.output, geometry.width.output, self.k()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_read() {
        assert_eq!(Case::given("mbv1_7").unwrap().input, [1, 14, 14, 512]);
        assert_eq!(Case::given("bf16 tiny").unwrap().element, ElementType::Bf16);
        let text = "f32 input 1,8,8,3 kernel 3,3 multiplier 1 columns 5 strides 1,1 padding same rate 1,1";
        let case = Case::given(text).unwrap();
        assert_eq!(case.to_string(), format!("{text} values uniform seed 0"));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_values() {
        let error = |text: &str| Case::given(text).unwrap_err().to_string();
        assert!(error("mbv9").starts_with("`mbv9` is none of the named cases (mbv1_1, "), "{}", error("mbv9"));
        let with = |input: &str, strides: &str| {
            error(&format!(
                "f32 input {input} kernel 3,3 multiplier 1 columns 5 strides {strides} padding valid rate 1,1"
            ))
        };
        assert!(with("1,8,8,0", "1,1").starts_with("input must have at least 1 element"));
        assert!(with("1,99999,99999,3", "1,1").starts_with("input must have at most 268435456 elements"));
        assert!(with("1,8,8,3", "0,1").starts_with("strides must be 1 to 2147483647"));
        assert!(with("1,2,2,3", "1,1").starts_with("output must have at least 1 element"));
        assert!(with("1,1,1,3", "1,1").starts_with("padding leaves no room in the height"));
    }
}
