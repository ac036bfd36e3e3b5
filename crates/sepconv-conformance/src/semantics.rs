//! What TensorFlow answers to odd and bad input: the rows of `tests/semantics.json`, with the answers that its modes
//! gave when they were recorded from Python. Errors have Python's names for TensorFlow's status codes; whatever refuses
//! an argument while a graph is built is a `ValueError`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One call, as it came: nothing about it need fit.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Call {
    pub input: Vec<usize>,
    pub depthwise_filter: Vec<usize>,
    pub pointwise_filter: Vec<usize>,
    pub strides: Vec<i64>,
    pub padding: Padding,
    pub rate: Option<Vec<i64>>,
    pub data_format: Option<String>,
    pub dtype: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Padding {
    Word(String),
    /// One pair per dimension of the input.
    Pairs(Vec<[i64; 2]>),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Answer {
    Computes {
        shape: Vec<usize>,
        /// All that occur, ascending, where every element of all three arrays is 1; none where they are accidental.
        #[serde(skip_serializing_if = "Option::is_none")]
        values: Option<Vec<f64>>,
    },
    Refuses {
        error: String,
    },
    /// By this signal, negated.
    Dies {
        process_died: i32,
    },
}

impl Answer {
    /// Whether `observed` is what is recorded here; values count where they are recorded.
    pub fn is(&self, observed: &Self) -> bool {
        match (self, observed) {
            (Self::Computes { shape, values }, Self::Computes { shape: seen, values: seen_values }) => {
                shape == seen && (values.is_none() || values == seen_values)
            }
            (Self::Refuses { error }, Self::Refuses { error: seen }) => error == seen,
            (Self::Dies { process_died }, Self::Dies { process_died: seen }) => process_died == seen,
            _ => false,
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    pub name: String,
    #[serde(flatten)]
    pub call: Call,
    /// By mode: "eager", "graph" or "unknown shapes" (a graph that knows none), then "oneDNN off" or "oneDNN on".
    pub tensorflow: BTreeMap<String, Answer>,
}

/// All rows, in the file's order.
pub fn rows() -> Result<Vec<Row>, serde_json::Error> {
    serde_json::from_str(include_str!("../../../tests/semantics.json"))
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { input, depthwise_filter, pointwise_filter, strides, padding, rate, data_format, dtype } = self;
        write!(f, "{dtype} input {input:?}, depthwise_filter {depthwise_filter:?}, ")?;
        write!(f, "pointwise_filter {pointwise_filter:?}, strides {strides:?}, ")?;
        match padding {
            Padding::Word(word) => write!(f, "padding {word}")?,
            Padding::Pairs(pairs) => write!(f, "padding {pairs:?}")?,
        }
        if let Some(rate) = rate {
            write!(f, ", rate {rate:?}")?;
        }
        data_format.as_ref().map_or(Ok(()), |format| write!(f, ", {format}"))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Computes { shape, values: None } => write!(f, "shape {shape:?}"),
            Self::Computes { shape, values: Some(values) } => write!(f, "shape {shape:?}, values {values:?}"),
            Self::Refuses { error } => f.write_str(error),
            Self::Dies { process_died } => write!(f, "dies by signal {}", -process_died),
        }
    }
}
