//! `reveal`: the order of sums of TensorFlow, of the crate or of a program, for given shapes.

use std::fmt;

use sepconv::Numerics;
use sepconv::reveal::reveal;
use serde::{Deserialize, Serialize};

use crate::cases::{Case, with_element};
use crate::compare::equal;
use crate::drawing::draw;
use crate::implementation::{self, Crate, Implementation};
use crate::reference::{Reason, Reference};
use crate::session::Element;
use crate::whole::Whole;
use crate::worker::{Message, Sender, Stopped};

/// What TensorFlow is to be asked.
#[derive(Serialize, Deserialize)]
pub struct Task {
    pub cases: Vec<Case>,
    pub reference: Reference,
}

/// What was found for a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revealed {
    pub case: Case,
    /// A text of numerics, or why there is none.
    pub numerics: Result<String, Reason>,
}

/// In the child process: asks TensorFlow.
pub fn work(task: &Task, send: &mut Sender) -> Result<(), Stopped> {
    for case in &task.cases {
        send.send(&Message::Trying(case.clone()));
        let order = with_element!(case.element, T => {
            let geometry = case.geometry().map_err(|error| Stopped(error.to_string()))?;
            task.reference.order::<T>(case, &geometry)
        });
        let numerics = match order {
            Ok(order) => order.map(|numerics| numerics.to_string()),
            Err(error) => Err(Reason { kind: "TensorFlow failed".into(), why: error.to_string() }),
        };
        send.send(&Message::Revealed(Box::new(Revealed { case: case.clone(), numerics })));
    }
    Ok(())
}

/// Asks an implementation, which may be told `numerics`.
pub fn ask(case: &Case, numerics: Option<&Numerics>, implementation: &mut impl Implementation) -> Revealed {
    let numerics = with_element!(case.element, T => order::<T>(case, numerics, implementation));
    Revealed { case: case.clone(), numerics: numerics.map(|numerics| numerics.to_string()) }
}

/// From the implementation's halves, and checked on a whole convolution.
fn order<T: Element>(
    case: &Case,
    numerics: Option<&Numerics>,
    implementation: &mut impl Implementation,
) -> Result<Numerics, Reason> {
    let failed = |why: String| Reason { kind: "the implementation failed".into(), why };
    let geometry = case.geometry().map_err(|error| failed(error.to_string()))?;
    let found = reveal::<T, _>(&geometry, &mut Whole { case, geometry, numerics, implementation })?;
    let operands = case.operands::<T>();
    let expected = implementation.compute(case, numerics, &operands).map_err(|error| failed(error.to_string()))?;
    let checked = equal(case, Some(&found), &operands, &expected, &mut Crate);
    checked.map_err(|failure| Reason {
        kind: "the whole differs from its halves".into(),
        why: format!("the whole convolution does not follow the order of its halves, {found}: {failure}"),
    })?;
    Ok(found)
}

impl fmt::Display for Revealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.case)?;
        let numerics = match &self.numerics {
            Ok(numerics) => numerics,
            Err(reason) => return writeln!(f, "unclear: {}", reason.why),
        };
        writeln!(f, "{numerics}")?;
        let parsed = numerics.parse::<Numerics>().ok();
        match parsed.zip(self.case.geometry().ok()) {
            Some((numerics, geometry)) => f.write_str(&draw(&numerics, &geometry)),
            None => Ok(()),
        }
    }
}

/// Refuses numerics that do not fit a case's sums.
pub fn check(cases: &[Case], numerics: &Numerics) -> Result<(), implementation::Error> {
    Ok(cases.iter().try_for_each(|case| numerics.check(case.k()))?)
}
