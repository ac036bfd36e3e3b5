//! Which cases are tried, and how a failing one is made smaller.

use std::env;
use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::time::{Duration, Instant};

use proptest::strategy::ValueTree;
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Space, tree};

/// Enough to see what a mode does, in well under a minute.
const CASES: u32 = 250;
/// A failure is worth a minute of shrinking.
const LONGEST_SHRINKING: Duration = Duration::from_secs(60);

/// The cases to be tried: some that are given, then random ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trials {
    pub given: Vec<Case>,
    pub space: Space,
    pub seed: u64,
    pub random: u32,
}

/// A case of which a property does not hold: the smallest that was found, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Failing<E> {
    pub case: Case,
    pub why: E,
}

impl Trials {
    /// As the tests' environment says: `SEPCONV_CASES` random cases (250) of the seed `SEPCONV_SEED` (a new one each
    /// time), or only `SEPCONV_CASE`.
    pub fn from_env(space: Space) -> Self {
        let (given, random) = match variable("SEPCONV_CASE") {
            Some(case) => (vec![case], 0),
            None => (Vec::new(), variable("SEPCONV_CASES").unwrap_or(CASES)),
        };
        Self { given, space, seed: variable("SEPCONV_SEED").unwrap_or_else(any_seed), random }
    }

    pub fn len(&self) -> usize {
        self.given.len() + self.random as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn case(&self, index: usize) -> Case {
        match index.checked_sub(self.given.len()) {
            None => self.given[index].clone(),
            Some(random) => Case::random(self.space, self.seed, random as u32),
        }
    }

    /// Tries one case; a random one that fails is shrunk.
    pub fn attempt<E>(
        &self,
        index: usize,
        mut property: impl FnMut(&Case) -> Result<(), E>,
    ) -> Result<(), Box<Failing<E>>> {
        let case = self.case(index);
        let Err(why) = property(&case) else { return Ok(()) };
        let failing = Failing { case, why };
        Err(Box::new(match index.checked_sub(self.given.len()) {
            None => failing,
            Some(random) => smallest(tree(self.space, self.seed, random as u32), failing, property),
        }))
    }

    /// Panics where `property` fails: with the smallest case found for which it does, and why.
    pub fn run(&self, property: impl Fn(&Case) -> Result<(), String>) {
        println!("seed {}, {} cases", self.seed, self.len());
        for index in 0..self.len() {
            if let Err(failing) = self.attempt(index, &property) {
                let Failing { case, why } = *failing;
                panic!("{why}\nrepeat it with SEPCONV_CASE='{case}'\nfound as {}", self.case(index));
            }
        }
    }
}

fn smallest<E>(
    mut tree: impl ValueTree<Value = Case>,
    mut failing: Failing<E>,
    mut property: impl FnMut(&Case) -> Result<(), E>,
) -> Failing<E> {
    let begun = Instant::now();
    let mut more = tree.simplify();
    while more && begun.elapsed() < LONGEST_SHRINKING {
        let case = tree.current();
        more = match property(&case) {
            Ok(()) => tree.complicate(),
            Err(why) => {
                failing = Failing { case, why };
                tree.simplify()
            }
        };
    }
    failing
}

/// A seed short enough to be typed.
pub fn any_seed() -> u64 {
    RandomState::new().hash_one(()) % 1_000_000
}

/// An environment variable's value; a panic where it is not what it should be.
pub fn variable<T: FromStr<Err: Display>>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|why| panic!("{name}={text}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_shrunk_and_repeatable() {
        let space = Space { element: None, onednn: true };
        let trials = Trials { given: Vec::new(), space, seed: 1, random: 50 };
        let property =
            |case: &Case| if case.input[3] < 40 { Ok(()) } else { Err(format!("{} channels", case.input[3])) };
        let panic = std::panic::catch_unwind(|| trials.run(property)).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        let case: Case = message.split('\'').nth(1).unwrap().parse().unwrap();
        assert_eq!((case.input, case.out_channels), ([1, 1, 1, 40], 2), "{message}");
        let again = Trials { given: vec![case], random: 0, ..trials };
        std::panic::catch_unwind(|| again.run(property)).unwrap_err();
    }
}
