//! A property over the case space, as the tests run it: `SEPCONV_CASES` cases (250) of the seed `SEPCONV_SEED` (a new
//! one each time), one after the other in one process. What fails is shrunk and printed with the variable that repeats
//! it alone, `SEPCONV_CASE`.

use std::env;
use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;

use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use crate::cases::{Case, Space, tree};

/// Enough to see what a mode does, in well under a minute.
const CASES: u32 = 250;
/// A failure is worth a minute of shrinking.
const MOST_SHRINKING_MS: u32 = 60_000;

/// The cases to be tried.
pub struct Trials {
    space: Space,
    seed: u64,
    cases: u32,
    only: Option<Case>,
}

impl Trials {
    /// As the environment says.
    pub fn from_env(space: Space) -> Self {
        let seed = variable("SEPCONV_SEED").unwrap_or_else(|| RandomState::new().hash_one(()) % 1_000_000);
        Self { space, seed, cases: variable("SEPCONV_CASES").unwrap_or(CASES), only: variable("SEPCONV_CASE") }
    }

    /// Panics where `property` fails: with the smallest case found for which it does, and why.
    pub fn run(&self, property: impl Fn(&Case) -> Result<(), String>) {
        if let Some(case) = &self.only {
            return property(case).unwrap_or_else(|why| panic!("{why}\n{}", repeat(case)));
        }
        println!("seed {}, {} cases", self.seed, self.cases);
        let config = Config { max_shrink_time: MOST_SHRINKING_MS, failure_persistence: None, ..Config::default() };
        for index in 0..self.cases {
            let property = |case: Case| property(&case).map_err(TestCaseError::fail);
            let outcome = TestRunner::new(config.clone()).run_one(tree(self.space, self.seed, index), property);
            if let Err(TestError::Fail(why, case)) = outcome {
                let found = Case::random(self.space, self.seed, index);
                panic!("{why}\n{}\nfound as case {index} of seed {}: {found}", repeat(&case), self.seed);
            }
        }
    }
}

fn repeat(case: &Case) -> String {
    format!("repeat it with SEPCONV_CASE='{case}'")
}

/// An environment variable's value; a panic where it is not what it should be.
pub fn variable<T: FromStr<Err: Display>>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|why| panic!("{name}={text}: {why}")))
}

/// `Ok` where all bits are equal, every NaN alike; else where the first difference is, in hex and in units in the last
/// place.
pub fn same_bits<T: sepconv::Element>(expected: &[T], got: &[T]) -> Result<(), String> {
    if expected.len() != got.len() {
        return Err(format!("{} elements expected, got {}", expected.len(), got.len()));
    }
    let different = |i: &usize| expected[*i].bits() != got[*i].bits();
    let count = (0..got.len()).filter(different).count();
    let Some(first) = (0..got.len()).find(different) else { return Ok(()) };
    let (expected, actual) = (expected[first], got[first]);
    let digits = 2 * size_of::<T>();
    Err(format!(
        "{count} of {} elements differ; the first is element {first}: expected {expected:?} ({:#0digits$x}), got \
         {actual:?} ({:#0digits$x}), {} units in the last place apart",
        got.len(),
        expected.bits(),
        actual.bits(),
        place(expected).abs_diff(place(actual)),
        digits = digits + 2,
    ))
}

/// The number's place among all of its type, in order; both zeros have one.
fn place<T: sepconv::Element>(value: T) -> i64 {
    let sign = 1 << (8 * size_of::<T>() - 1);
    let magnitude = (value.bits() & (sign - 1)) as i64;
    if value.bits() & sign == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told() {
        assert_eq!(same_bits(&[1.0, f32::NAN], &[1.0, -f32::NAN]), Ok(()));
        assert_eq!(
            same_bits(&[1.0, 0.0, 2.0], &[1.0, -0.0, 2.0f32.next_up()]).unwrap_err(),
            "2 of 3 elements differ; the first is element 1: expected 0.0 (0x00000000), got -0.0 (0x80000000), 0 units \
             in the last place apart"
        );
        assert!(same_bits(&[-1.0], &[(-1.0f64).next_down().next_down()]).unwrap_err().contains("2 units"));
        assert!(same_bits(&[1.0], &[1.0, 1.0f64]).is_err());
    }

    #[test]
    fn a_failure_is_shrunk_and_repeatable() {
        let space = Space { element: None, onednn: true };
        let trials = Trials { space, seed: 1, cases: 50, only: None };
        let property =
            |case: &Case| if case.input[3] < 40 { Ok(()) } else { Err(format!("{} channels", case.input[3])) };
        let panic = std::panic::catch_unwind(|| trials.run(property)).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        let case: Case = message.split('\'').nth(1).unwrap().parse().unwrap();
        assert_eq!((case.input, case.out_channels), ([1, 1, 1, 40], 2), "{message}");
        let again = Trials { only: Some(case), ..trials };
        std::panic::catch_unwind(|| again.run(property)).unwrap_err();
    }
}
