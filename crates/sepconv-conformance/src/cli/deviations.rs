//! `deviations`: the register, and what TensorFlow answers to what it says.

use clap::Args;

use super::{Done, print};
use crate::deviations::{RULES, register};
use crate::observe::{observable, observe};

/// List where sepconv deliberately differs from one of TensorFlow's modes, and why
#[derive(Args)]
pub struct Arguments {
    /// Print them as one JSON array, for machines
    #[arg(long)]
    json: bool,
}

/// What TensorFlow answers, in this process, to what the register says of it: a line of JSON each
///
/// TensorFlow kills the process over some; who asks goes on behind these.
#[derive(Args)]
pub struct ObserveArguments {
    /// How many to leave out
    #[arg(long, default_value_t = 0)]
    skip: usize,
}

pub fn main(arguments: &Arguments) -> Done {
    let register = register()?;
    if arguments.json {
        print(serde_json::to_string_pretty(&register)?)?;
        return Ok(true);
    }
    for (i, rule) in RULES.iter().enumerate() {
        print(format_args!("Rule {}. {rule}", i + 1))?;
    }
    for deviation in register {
        print(format_args!("\n{deviation}"))?;
    }
    Ok(true)
}

pub fn observations(arguments: &ObserveArguments) -> Done {
    for (deviation, context) in observable(&register()?).into_iter().skip(arguments.skip) {
        let answer = observe(&deviation.case.call, context)?;
        print(serde_json::to_string(&answer)?)?;
    }
    Ok(true)
}
