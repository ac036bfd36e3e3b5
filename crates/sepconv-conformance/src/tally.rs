//! How many cases went through the implementation, how many were left to TensorFlow and why, and how many must go through.

use std::collections::BTreeMap;
use std::fmt;

use crate::cases::{Case, ElementType};
use crate::run::{Record, Verdict};
use crate::session::Mode;

/// Fewer cases than these say nothing about shares.
const ENOUGH: usize = 100;

/// Counts per kind of case.
#[derive(Default)]
pub struct Tally {
    counts: BTreeMap<String, Counts>,
}

/// What became of some cases.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub passed: usize,
    /// By reason.
    pub tensorflow: BTreeMap<String, usize>,
    pub failed: usize,
}

/// With oneDNN these go through its ordinary convolution, whose taps have another order: they are counted apart.
const ONE_CHANNEL: &str = "f32, one input channel";

fn kind(case: &Case) -> String {
    match case.element {
        ElementType::F32 if case.input[3] == 1 => ONE_CHANNEL.into(),
        element => element.to_string(),
    }
}

impl Counts {
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut counts = Self::default();
        records.into_iter().for_each(|record| counts.add(record));
        counts
    }

    fn add(&mut self, record: &Record) {
        match (&record.outcome, &record.reason) {
            (Verdict::Passed, _) => self.passed += 1,
            (Verdict::TensorFlow, reason) => {
                let reason = reason.as_ref().map_or("unknown", |reason| &reason.kind);
                *self.tensorflow.entry(reason.into()).or_default() += 1;
            }
            (Verdict::Failed { .. }, _) => self.failed += 1,
        }
    }

    pub fn left(&self) -> usize {
        self.tensorflow.values().sum()
    }

    pub fn all(&self) -> usize {
        self.passed + self.left() + self.failed
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} through the implementation, {} to TensorFlow", self.passed, self.left())?;
        for (i, (reason, count)) in self.tensorflow.iter().enumerate() {
            write!(f, "{}{count} {reason}", if i == 0 { " (" } else { ", " })?;
        }
        f.write_str(if self.tensorflow.is_empty() { "" } else { ")" })?;
        if self.failed > 0 { write!(f, ", {} failed", self.failed) } else { Ok(()) }
    }
}

impl Tally {
    pub fn of(records: &[Record]) -> Self {
        let mut tally = Self::default();
        for record in records {
            tally.counts.entry(kind(&record.case)).or_default().add(record);
        }
        tally
    }

    /// Panics where a case failed, or where fewer orders were followed than must be.
    pub fn check(&self, mode: Mode) {
        let least = if mode.onednn { 0.97 } else { 0.80 };
        let counted = || self.counts.iter().filter(|(kind, _)| !mode.onednn || *kind != ONE_CHANNEL).map(|(_, c)| c);
        let all: usize = counted().map(Counts::all).sum();
        let share = counted().map(|counts| counts.passed).sum::<usize>() as f64 / all as f64;
        assert!(self.counts.values().all(|counts| counts.failed == 0), "{self}");
        assert!(all < ENOUGH || share >= least, "{self}: {share:.3} followed, at least {least} must be");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (kind, counts)) in self.counts.iter().enumerate() {
            write!(f, "{}{kind}: {counts}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}
