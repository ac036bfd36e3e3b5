//! `reveal`: the order of sums, as text and as a picture.

use std::str::FromStr;

use clap::Args;
use sepconv::Numerics;

use super::{Done, Settings, Timeout, case, case_help, print};
use crate::cases::Case;
use crate::implementation::{Choice, Chosen};
use crate::reference::Filters;
use crate::reveal::{Revealed, Task, ask, check};
use crate::worker::{self, Message};

/// Find and print the order in which sums are taken
#[derive(Args)]
#[command(after_help = case_help())]
pub struct Arguments {
    /// Whose sums: one or more cases, see below
    #[arg(required = true, value_name = "CASE", value_parser = case)]
    shapes: Vec<Case>,
    /// Who takes the sums: tensorflow, crate or command:PROGRAM, a program of yours (see PROTOCOL.md)
    #[arg(long, value_name = "NAME", default_value = "tensorflow")]
    implementation: Whose,
    /// The order that the crate is to follow, for --implementation crate: reproducible, or a text that `reveal` printed
    #[arg(long, value_name = "TEXT", default_value = "reproducible")]
    numerics: Numerics,
    /// Whether the filters are fed to TensorFlow's graph or constants of it, as in a frozen model
    #[arg(long, value_enum, default_value = "fed")]
    filters: Filters,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    timeout: Timeout,
}

/// Whose order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Whose {
    TensorFlow,
    Other(Choice),
}

impl FromStr for Whose {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "tensorflow" => Ok(Self::TensorFlow),
            Ok(choice @ (Choice::Crate | Choice::Command(_))) => Ok(Self::Other(choice)),
            _ => Err(format!("expected tensorflow, crate or command:PROGRAM, got `{text}`")),
        }
    }
}

pub fn main(arguments: Arguments) -> Done {
    let Arguments { shapes: cases, implementation, numerics, filters, settings, timeout } = arguments;
    let mut all = true;
    let mut show = |revealed: &Revealed| {
        all &= revealed.numerics.is_ok();
        print(revealed)
    };
    let choice = match implementation {
        Whose::TensorFlow => {
            let reference = settings.reference(filters);
            let task = worker::Task::Reveal(Task { cases, reference });
            worker::run(&task, reference.mode, |message| match message {
                Message::Revealed(revealed) => show(&revealed),
                _ => Ok(()),
            })?;
            return Ok(all);
        }
        Whose::Other(choice) => choice,
    };
    let follows = choice == Choice::Crate;
    if follows {
        check(&cases, &numerics)?;
    }
    let mut implementation = Chosen::new(&choice, None, settings.mode(), timeout.duration())?;
    for case in &cases {
        show(&ask(case, follows.then_some(&numerics), &mut implementation))?;
    }
    Ok(all)
}
