//! What kind of geometry a case has: the strata of the case space as they can be told from any case.

use sepconv::Padding;

use super::space::DEEP;
use super::{Case, Values};

/// A name, and whether a case is of that kind.
pub type Kind = (&'static str, fn(&Case) -> bool);

/// The kinds in the order of a report, each with what makes a case one.
pub const KINDS: [Kind; 9] = [
    ("K of 512 or more", |case| case.k() >= DEEP),
    ("one output channel", |case| case.out_channels == 1),
    ("one output pixel", |case| case.geometry().is_ok_and(|g| g.rows() == 1)),
    ("one input channel", |case| case.input[3] == 1),
    ("rate above 1", |case| case.attributes.space_to_batch()),
    ("rate and stride above 1", |case| case.attributes.space_to_batch() && case.attributes.strides != [1, 1]),
    ("explicit padding", |case| matches!(case.attributes.padding, Padding::Explicit(_))),
    ("special values", |case| !matches!(case.values, Values::Uniform | Values::Cancelling)),
    ("none of these", |case| KINDS[..8].iter().all(|(_, is)| !is(case))),
];
