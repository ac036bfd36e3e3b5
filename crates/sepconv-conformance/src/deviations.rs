//! The register of deviations: every call whose shape or refusal TensorFlow's modes do not agree on, or sepconv differs
//! from all of them, with what each of them does. One definition for Rust and Python: `tests/deviations.json`, whose rows
//! name rows of `tests/semantics.json`. What is not in the register, sepconv answers as TensorFlow does in every mode;
//! tests hold both to it.
//!
//! It is about what is known when a call is built. A graph that does not know the filters' shapes goes to TensorFlow's own
//! operations, and answers as these do; `rate2_same` is the exception. Bits are a matter of the numerics, not of this.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::semantics::{self, Answer, Row};

/// What decides where TensorFlow disagrees with itself; a deviation names its rule, counted from 1.
pub const RULES: [&str; 5] = [
    "The modes that compute agree on the shape: that is the answer.",
    "They differ, or one kills the process: eager with oneDNN off decides.",
    "Some compute and some refuse (unequal strides, NCHW, no output channels, an empty filter, a shape not yet known): \
     compute.",
    "Always refused: what is not of rank 4, explicit padding of batch or channels, what does not fit; answers to these \
     are accidents.",
    "All refuse: refuse, with InvalidArgumentError eagerly, with ValueError or TypeError while a graph is built.",
];

/// One row of the register as it is written down.
#[derive(Debug, Deserialize)]
struct Entry {
    case: String,
    rule: usize,
    tensorflow: String,
    sepconv: String,
    answer: Answer,
}

#[derive(Debug, Serialize)]
pub struct Deviation {
    /// Where in [`RULES`], counted from 1.
    pub rule: usize,
    /// What TensorFlow does, and in which mode: a sentence.
    pub tensorflow: String,
    /// What sepconv does instead.
    pub sepconv: String,
    /// sepconv's, eager and in a graph that knows the shapes. An error is the eager one.
    pub answer: Answer,
    /// The name, the call that shows it, and what TensorFlow's modes answer.
    pub case: Row,
}

/// Why the register cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("tests/deviations.json names the case {0}, which tests/semantics.json does not have")]
    NoCase(String),
    #[error("{case} names rule {rule}: there are rules 1 to {}", RULES.len())]
    NoRule { case: String, rule: usize },
}

/// The whole register.
pub fn register() -> Result<Vec<Deviation>, Error> {
    let rows = semantics::rows()?;
    let entries: Vec<Entry> = serde_json::from_str(include_str!("../../../tests/deviations.json"))?;
    entries
        .into_iter()
        .map(|Entry { case, rule, tensorflow, sepconv, answer }| {
            if !(1..=RULES.len()).contains(&rule) {
                return Err(Error::NoRule { case, rule });
            }
            let row = rows.iter().find(|row| row.name == case).ok_or(Error::NoCase(case))?;
            Ok(Deviation { rule, tensorflow, sepconv, answer, case: row.clone() })
        })
        .collect()
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, tensorflow, sepconv, answer, case } = self;
        writeln!(f, "{} (rule {rule}): {}", case.name, case.call)?;
        writeln!(f, "  TensorFlow: {tensorflow}")?;
        for (mode, answer) in &case.tensorflow {
            writeln!(f, "    {mode:<26}  {answer}")?;
        }
        write!(f, "  sepconv: {sepconv}\n    {:<26}  {answer}", "eager and graph")
    }
}
