//! Compares an implementation with golden vectors; no TensorFlow is needed or loaded.

use std::io;
use std::path::Path;

use super::{Error, Index};
use crate::case_directory;
use crate::cases::{Case, with_element};
use crate::compare::{Failure, Told, equal};
use crate::implementation::Implementation;
use crate::session;

/// What came of one case.
#[derive(Clone, Debug, PartialEq)]
pub enum Checked {
    Passed,
    /// And why.
    Skipped(String),
    Failed(Told),
}

/// Checks every case; `each` is told of each: its directory's name, the case, what came of it. Its error is the end.
pub fn check(
    directory: &Path,
    implementation: &mut impl Implementation,
    mut each: impl FnMut(&str, &Case, Checked) -> io::Result<()>,
) -> Result<(), Error> {
    for name in &Index::read(directory)?.cases {
        let (case, checked) = with_one(&directory.join(name), implementation)?;
        each(name, &case, checked)?;
    }
    Ok(())
}

fn with_one(directory: &Path, implementation: &mut impl Implementation) -> Result<(Case, Checked), Error> {
    let (case, order) = case_directory::read(directory)?;
    let checked = match &order {
        Err(reason) if implementation.follows_numerics() => Checked::Skipped(format!("no numerics: {reason}")),
        _ => {
            let numerics = order.as_ref().ok();
            with_element!(case.element, T => compare::<T>(directory, &case, numerics, implementation)?)
        }
    };
    Ok((case, checked))
}

fn compare<T: session::Element>(
    directory: &Path,
    case: &Case,
    numerics: Option<&sepconv::Numerics>,
    implementation: &mut impl Implementation,
) -> Result<Checked, Error> {
    let operands = case_directory::read_operands::<T>(directory, case)?;
    let expected = case_directory::read_output::<T>(directory, case)?;
    let told = |failure: Failure| match failure.not_supported() {
        Some(why) => Checked::Skipped(why),
        None => Checked::Failed(failure.into()),
    };
    Ok(equal(case, numerics, &operands, &expected, implementation).map_or_else(told, |()| Checked::Passed))
}
