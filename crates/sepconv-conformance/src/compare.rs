//! One case: what an implementation gives against what TensorFlow gave, bit for bit.

use sepconv::Numerics;
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Operands, with_element};
use crate::difference::Difference;
use crate::implementation::{self, Implementation};
use crate::program;
use crate::reference::{Reason, Reference};
use crate::session;

/// What came of a case.
#[derive(Debug)]
pub struct Compared {
    pub order: Result<Numerics, Reason>,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub enum Outcome {
    /// The implementation gave every bit.
    Equal,
    /// An order that cannot be followed, or that a program does not support: left to TensorFlow's own ops, whose bits
    /// are right by definition.
    LeftToTensorFlow(Reason),
    Failed(Failure),
}

/// Why a case failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Bits(Box<Difference>),
    #[error("{expected} elements expected, got {got}")]
    Length { expected: usize, got: usize },
    #[error(transparent)]
    Implementation(#[from] implementation::Error),
    #[error(transparent)]
    TensorFlow(#[from] session::Error),
}

impl Failure {
    /// What a program said that does not do such a case.
    pub fn not_supported(&self) -> Option<String> {
        match self {
            Self::Implementation(implementation::Error::Program(error @ program::Error::NotSupported { .. })) => {
                Some(error.to_string())
            }
            _ => None,
        }
    }
}

/// A failure as it is told and kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    pub why: String,
    pub difference: Option<Box<Difference>>,
}

impl From<Failure> for Told {
    fn from(failure: Failure) -> Self {
        let why = failure.to_string();
        let difference = if let Failure::Bits(difference) = failure { Some(difference) } else { None };
        Self { why, difference }
    }
}

/// Reveals TensorFlow's order and compares its output with the implementation's.
pub fn compare(case: &Case, reference: Reference, implementation: &mut impl Implementation) -> Compared {
    with_element!(case.element, T => compare_in::<T>(case, reference, implementation)).unwrap_or_else(|error| {
        Compared {
            order: Err(Reason { kind: "TensorFlow failed".into(), why: error.to_string() }),
            outcome: Outcome::Failed(error),
        }
    })
}

fn compare_in<T: session::Element>(
    case: &Case,
    reference: Reference,
    implementation: &mut impl Implementation,
) -> Result<Compared, Failure> {
    let geometry = case.geometry().map_err(implementation::Error::from)?;
    let operands = case.operands::<T>();
    let expected = reference.output(case, &operands, &geometry)?;
    let order = reference.order::<T>(case, &geometry)?;
    let outcome = match &order {
        Err(reason) if implementation.follows_numerics() => Outcome::LeftToTensorFlow(reason.clone()),
        _ => match equal(case, order.as_ref().ok(), &operands, &expected, implementation) {
            Ok(()) => Outcome::Equal,
            Err(failure) => match failure.not_supported() {
                Some(why) => Outcome::LeftToTensorFlow(Reason { kind: program::SKIPPED.into(), why }),
                None => Outcome::Failed(failure),
            },
        },
    };
    Ok(Compared { order, outcome })
}

/// Compares an implementation's output with what is expected.
pub fn equal<T: session::Element>(
    case: &Case,
    numerics: Option<&Numerics>,
    operands: &Operands<T>,
    expected: &[T],
    implementation: &mut impl Implementation,
) -> Result<(), Failure> {
    let got = implementation.compute(case, numerics, operands)?;
    if got.len() != expected.len() {
        return Err(Failure::Length { expected: expected.len(), got: got.len() });
    }
    let shape = case.geometry().map_err(implementation::Error::from)?.output_shape();
    Difference::between(shape, expected, &got).map_err(Failure::Bits)
}
