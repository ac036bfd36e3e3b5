//! How many of TensorFlow's orders could be followed, of what kind the others were, and how many must be.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use sepconv::Numerics;
use sepconv::reveal::Unclear;

use crate::cases::{Case, ElementType};
use crate::session::Mode;

/// Fewer cases than these say nothing about shares.
const ENOUGH: usize = 100;

/// Counts per kind of case.
pub struct Tally {
    mode: Mode,
    counts: RefCell<BTreeMap<&'static str, BTreeMap<&'static str, usize>>>,
}

const FOLLOWED: &str = "followed";
/// With oneDNN these go through its ordinary convolution, whose taps have another order: they are counted apart.
const ONE_CHANNEL: &str = "f32, one input channel";

impl Tally {
    pub fn new(mode: Mode) -> Self {
        Self { mode, counts: RefCell::default() }
    }

    /// Counts what was revealed for a case; prints the case if nothing was.
    pub fn add<E>(&self, case: &Case, revealed: &Result<Numerics, Unclear<E>>) {
        let kind = match case.element {
            ElementType::F32 if case.input[3] == 1 => ONE_CHANNEL,
            ElementType::F32 => "f32",
            ElementType::F64 => "f64",
            ElementType::F16 => "f16",
            ElementType::Bf16 => "bf16",
        };
        let outcome = match revealed {
            Ok(_) => FOLLOWED,
            Err(Unclear::Depthwise) => "depthwise order unknown",
            Err(Unclear::Tree) => "pointwise sum no tree of ours",
            Err(Unclear::Pointwise(_)) => "pointwise order refuted",
            Err(Unclear::Budget { .. }) => "too many probes",
            Err(Unclear::Memory { .. }) => "no memory",
            Err(Unclear::Probe(_)) => "probe failed",
        };
        if outcome != FOLLOWED {
            println!("{outcome}: {case}");
        }
        *self.counts.borrow_mut().entry(kind).or_default().entry(outcome).or_default() += 1;
    }

    /// Followed cases of every kind.
    pub fn followed(&self) -> usize {
        self.counts.borrow().values().filter_map(|outcomes| outcomes.get(FOLLOWED)).sum()
    }

    /// Panics where fewer orders were followed than must be.
    pub fn check_shares(&self) {
        let least = if self.mode.onednn { 0.97 } else { 0.80 };
        let counts = self.counts.borrow();
        let counted = counts.iter().filter(|(kind, _)| !self.mode.onednn || **kind != ONE_CHANNEL);
        let (mut all, mut followed) = (0, 0);
        for (_, outcomes) in counted {
            all += outcomes.values().sum::<usize>();
            followed += outcomes.get(FOLLOWED).copied().unwrap_or(0);
        }
        let share = followed as f64 / all as f64;
        assert!(all < ENOUGH || share >= least, "{self}: {share:.3} followed, at least {least} must be");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.mode)?;
        for (kind, outcomes) in self.counts.borrow().iter() {
            write!(f, "\n  {kind}:")?;
            for (i, (outcome, count)) in outcomes.iter().enumerate() {
                write!(f, "{} {count} {outcome}", if i == 0 { "" } else { "," })?;
            }
        }
        Ok(())
    }
}
