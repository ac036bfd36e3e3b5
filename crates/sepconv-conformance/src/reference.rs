//! TensorFlow's answer to a case, and the order in which it computed it.

use std::fmt;

use sepconv::reveal::{PATIENCE, Unclear, reveal_within};
use sepconv::{Geometry, Numerics};
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Operands};
use crate::composite::{Composite, ConstantHalves, Halves};
use crate::session::{Element, Error, Mode};

/// Whether the composite's filters are fed or constants of the graph. What ran before decides what TensorFlow gives, so
/// a process should stay with one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Filters {
    Fed,
    Constant,
}

/// TensorFlow in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    #[serde(flatten)]
    pub mode: Mode,
    pub filters: Filters,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let constant = if self.filters == Filters::Constant { ", constant filters" } else { "" };
        write!(f, "{}{constant}", self.mode)
    }
}

impl Reference {
    /// The output of TensorFlow's composite, row-major.
    pub fn output<T: Element>(self, case: &Case, operands: &Operands<T>, geometry: &Geometry) -> Result<Vec<T>, Error> {
        let composite = match self.filters {
            Filters::Fed => Composite::new(geometry, &case.attributes, self.mode),
            Filters::Constant => Composite::with_constant_filters(geometry, &case.attributes, self.mode, operands),
        };
        composite?.run(operands)
    }

    /// The order of the composite's sums; the outer error is TensorFlow's.
    pub fn order<T: Element>(self, case: &Case, geometry: &Geometry) -> Result<Result<Numerics, Reason>, Error> {
        let revealed = match self.filters {
            Filters::Fed => {
                let mut halves = Halves::<T>::new(geometry, &case.attributes, self.mode)?;
                reveal_within(PATIENCE, geometry, &mut halves)
            }
            Filters::Constant => {
                let (geometry, attributes, mode) = (*geometry, case.attributes, self.mode);
                reveal_within::<T, _>(PATIENCE, &geometry, &mut ConstantHalves { geometry, attributes, mode })
            }
        };
        match revealed {
            Ok(numerics) => Ok(Ok(numerics)),
            Err(Unclear::Probe(error)) => Err(error),
            Err(unclear) => Ok(Err(unclear.into())),
        }
    }
}

/// Why an order cannot be followed, and the case goes to TensorFlow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// In few words, the same for all cases of a kind.
    pub kind: String,
    pub why: String,
}

impl<E: fmt::Display> From<Unclear<E>> for Reason {
    fn from(unclear: Unclear<E>) -> Self {
        let kind = match &unclear {
            Unclear::Depthwise => "depthwise order unknown",
            Unclear::Tree => "pointwise sum no tree of ours",
            Unclear::Pointwise(_) => "pointwise order refuted",
            Unclear::Budget { .. } => "too many probes",
            Unclear::Memory { .. } => "no memory",
            Unclear::Probe(_) => "probe failed",
        };
        Self { kind: kind.into(), why: unclear.to_string() }
    }
}
