//! What is compared with TensorFlow, and how it is chosen on the command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ndarray::ArrayView4;
use sepconv::{Numerics, SeparableConv2d};
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Operands};
use crate::composite::shapes;
use crate::op::Op;
use crate::program::{self, Program};
use crate::session::{self, Element, Mode};

/// Computes cases.
pub trait Implementation {
    /// False where it has an order of its own: it is then tried on every case, known order or not.
    fn follows_numerics(&self) -> bool;

    /// The output, row-major. One that follows numerics is always given some.
    fn compute<T: Element>(
        &mut self,
        case: &Case,
        numerics: Option<&Numerics>,
        operands: &Operands<T>,
    ) -> Result<Vec<T>, Error>;
}

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Crate(#[from] sepconv::Error),
    #[error(transparent)]
    TensorFlow(#[from] session::Error),
    #[error("the library's kernels counted {counted} calls where one was made: TensorFlow did not run the op")]
    NotCounted { counted: u64 },
    #[error("the result must have shape {expected:?}, got {got:?}")]
    Shape { expected: [usize; 4], got: Vec<usize> },
    #[error(transparent)]
    Program(#[from] program::Error),
}

/// The `sepconv` crate.
pub struct Crate;

impl Implementation for Crate {
    fn follows_numerics(&self) -> bool {
        true
    }

    fn compute<T: Element>(
        &mut self,
        case: &Case,
        numerics: Option<&Numerics>,
        operands: &Operands<T>,
    ) -> Result<Vec<T>, Error> {
        let sepconv::Attributes { strides, padding, rate } = case.attributes;
        let numerics = numerics.unwrap_or(&Numerics::REPRODUCIBLE).clone();
        let arrays = [&operands.input, &operands.depthwise_filter, &operands.pointwise_filter];
        let [input, depthwise_filter, pointwise_filter] = {
            let shapes = shapes(&case.geometry()?);
            [0, 1, 2].map(|i| ArrayView4::from_shape(shapes[i], arrays[i]).expect("operands have the case's shapes"))
        };
        let convolution = SeparableConv2d::new(strides, padding, rate).numerics(numerics);
        Ok(convolution.run(input, depthwise_filter, pointwise_filter)?.into_raw_vec_and_offset().0)
    }
}

/// An implementation's name: `crate`, `op` or `command:PROGRAM`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Choice {
    Crate,
    Op,
    Command(PathBuf),
}

/// What names no implementation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected crate, op or command:PROGRAM, got `{0}`")]
pub struct NoChoice(String);

impl FromStr for Choice {
    type Err = NoChoice;

    fn from_str(text: &str) -> Result<Self, NoChoice> {
        match text {
            "crate" => Ok(Self::Crate),
            "op" => Ok(Self::Op),
            _ => match text.strip_prefix("command:") {
                Some(program) if !program.is_empty() => Ok(Self::Command(program.into())),
                _ => Err(NoChoice(text.into())),
            },
        }
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Crate => f.write_str("crate"),
            Self::Op => f.write_str("op"),
            Self::Command(program) => write!(f, "command:{}", program.display()),
        }
    }
}

/// The one that was chosen.
pub enum Chosen {
    Crate(Crate),
    Op(Op),
    Program(Program),
}

impl Chosen {
    /// Loads the op's library, or looks for the program.
    pub fn new(choice: &Choice, library: Option<PathBuf>, mode: Mode, timeout: Duration) -> Result<Self, Error> {
        Ok(match choice {
            Choice::Crate => Self::Crate(Crate),
            Choice::Op => Self::Op(Op::load(library, mode)?),
            Choice::Command(program) => Self::Program(Program::find(program, timeout)?),
        })
    }
}

impl Implementation for Chosen {
    fn follows_numerics(&self) -> bool {
        match self {
            Self::Crate(it) => it.follows_numerics(),
            Self::Op(it) => it.follows_numerics(),
            Self::Program(it) => it.follows_numerics(),
        }
    }

    fn compute<T: Element>(
        &mut self,
        case: &Case,
        numerics: Option<&Numerics>,
        operands: &Operands<T>,
    ) -> Result<Vec<T>, Error> {
        match self {
            Self::Crate(it) => it.compute(case, numerics, operands),
            Self::Op(it) => it.compute(case, numerics, operands),
            Self::Program(it) => it.compute(case, numerics, operands),
        }
    }
}
