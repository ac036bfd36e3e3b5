//! `run`: cases one after the other, each compared with TensorFlow in the same process, and what came of each.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cases::{Case, Space};
use crate::compare::{Compared, Outcome, Told, compare};
use crate::implementation::{Choice, Chosen, Implementation};
use crate::reference::{Filters, Reason, Reference};
use crate::session::{self, Mode};
use crate::tally::{Counts, Tally};
use crate::trials::Trials;
use crate::worker::{Message, Sender, Stopped};

/// What a run is to do: all that decides about its result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    pub trials: Trials,
    pub reference: Reference,
    pub implementation: Choice,
    pub library: Option<PathBuf>,
    pub timeout: Duration,
    /// The first case to be tried: later ones of a run that was interrupted.
    pub from: usize,
}

impl Task {
    /// The command that tries a case alone.
    pub fn repeat(&self, case: &Case) -> String {
        let Self { reference: Reference { mode, filters }, implementation, library, .. } = self;
        let quoted = |text: String| format!("'{}'", text.replace('\'', r"'\''"));
        let mut command = format!(
            "sepconv-conformance run --case {} --onednn {} --threads {}",
            quoted(case.to_string()),
            if mode.onednn { "on" } else { "off" },
            mode.threads
        );
        if *implementation != Choice::Crate {
            command += &format!(" --implementation {}", quoted(implementation.to_string()));
        }
        if let Some(library) = library {
            command += &format!(" --library {}", quoted(library.display().to_string()));
        }
        if *filters == Filters::Constant {
            command += " --filters constant";
        }
        command
    }
}

/// What came of one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub index: usize,
    pub case: Case,
    /// Of the order that was revealed.
    pub numerics: Option<String>,
    /// Why none was.
    pub reason: Option<Reason>,
    pub outcome: Verdict,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The implementation gave every bit.
    Passed,
    /// The order cannot be followed: TensorFlow's own ops do it.
    TensorFlow,
    /// The smallest case that was found to fail, the order that was revealed for it, and why it failed.
    Failed { case: Box<Case>, numerics: Option<String>, told: Told },
}

/// Tries one case; `trying` is told of every case before it is, smaller ones of a failing case included.
pub fn attempt(
    trials: &Trials,
    index: usize,
    reference: Reference,
    implementation: &mut impl Implementation,
    mut trying: impl FnMut(&Case),
) -> Record {
    let (mut first, mut smallest) = (None, None);
    let attempted = trials.attempt(index, |case| {
        trying(case);
        let Compared { order, outcome } = compare(case, reference, implementation);
        let (numerics, reason) = match order {
            Ok(numerics) => (Some(numerics.to_string()), None),
            Err(reason) => (None, Some(reason)),
        };
        let (left, result) = match outcome {
            Outcome::Equal => (None, Ok(())),
            Outcome::LeftToTensorFlow(reason) => (Some(reason), Ok(())),
            Outcome::Failed(failure) => {
                smallest.clone_from(&numerics);
                (None, Err(failure))
            }
        };
        // Of the case itself, not of the smaller ones that may follow.
        first.get_or_insert((numerics, reason, left));
        result
    });
    let (numerics, reason, left) = first.expect("the case itself was tried");
    let outcome = match attempted {
        Ok(()) if left.is_some() => Verdict::TensorFlow,
        Ok(()) => Verdict::Passed,
        Err(failing) => Verdict::Failed { case: Box::new(failing.case), numerics: smallest, told: failing.why.into() },
    };
    Record { index, case: trials.case(index), numerics, reason: left.or(reason), outcome }
}

/// In the child process.
pub fn work(task: &Task, send: &mut Sender) -> Result<(), Stopped> {
    let Task { trials, reference, timeout, .. } = task;
    let chosen = Chosen::new(&task.implementation, task.library.clone(), reference.mode, *timeout);
    let mut implementation = chosen.map_err(|error| Stopped(error.to_string()))?;
    for index in task.from..trials.len() {
        let record = attempt(trials, index, *reference, &mut implementation, |case| {
            send.send(&Message::Trying(case.clone()));
        });
        send.send(&Message::Record(Box::new(record)));
    }
    if let Chosen::Op(op) = &implementation {
        send.send(&Message::KernelCalls(op.kernel_calls()));
    }
    Ok(())
}

/// What the tests do: the cases that the environment names, in this process, panicking where one fails or where fewer
/// go through the implementation than must. Returns how many did.
pub fn against_tensorflow(implementation: &mut impl Implementation) -> usize {
    session::load().unwrap_or_else(|error| panic!("{error}"));
    let mode = Mode::of_this_process();
    let trials = Trials::from_env(Space { element: None, onednn: mode.onednn });
    println!("{mode}, seed {}, {} cases", trials.seed, trials.len());
    let reference = Reference { mode, filters: Filters::Fed };
    let mut records = Vec::new();
    for index in 0..trials.len() {
        let record = attempt(&trials, index, reference, implementation, |_| {});
        match &record.outcome {
            Verdict::Failed { case, numerics, told } => {
                let (why, found) = (&told.why, &record.case);
                panic!("{mode}: {why}, with {numerics:?}\nrepeat it with SEPCONV_CASE='{case}'\nfound as {found}");
            }
            Verdict::TensorFlow => println!("{}: {}", record.reason.as_ref().map_or("", |r| &r.kind), record.case),
            Verdict::Passed => {}
        }
        records.push(record);
    }
    let tally = Tally::of(&records);
    println!("{tally}");
    tally.check(mode);
    Counts::of(&records).passed
}
