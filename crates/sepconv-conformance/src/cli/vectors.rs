//! `vectors export` and `vectors check`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::progress::bar;
use super::{Done, Selection, Settings, Timeout, cases_help, print};
use crate::files::Unfinished;
use crate::implementation::{Choice, Chosen};
use crate::reference::Filters;
use crate::vectors::Index;
use crate::vectors::check::{Checked, check};
use crate::vectors::export::Task;
use crate::worker::{self, Message};

/// Golden vectors: TensorFlow's results as files
#[derive(Subcommand)]
pub enum Command {
    Export(ExportArguments),
    Check(CheckArguments),
}

/// Write cases with TensorFlow's output into a new directory
#[derive(Args)]
#[command(mut_arg("cases", |cases| cases.help(cases_help(CASES))), after_help = SIZE)]
pub struct ExportArguments {
    /// The directory that is made; it must not exist yet
    directory: PathBuf,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    settings: Settings,
    /// Whether the filters are fed to TensorFlow's graph or constants of it, as in a frozen model
    #[arg(long, value_enum, default_value = "fed")]
    filters: Filters,
}

/// Compare an implementation with golden vectors; needs no TensorFlow
#[derive(Args)]
pub struct CheckArguments {
    /// A directory that `vectors export` wrote
    directory: PathBuf,
    /// What is compared with the vectors: crate or command:PROGRAM, a program of yours (see PROTOCOL.md)
    #[arg(long, value_name = "NAME", value_parser = without_tensorflow)]
    implementation: Choice,
    #[command(flatten)]
    timeout: Timeout,
}

/// What depends on no seed is said to the megabyte.
const SIZE: &str = "The named cases take 293 MB, those of f32 alone 73 MB; 100 random ones take some 70 MB more.";

/// Besides the named cases.
const CASES: u32 = 100;

fn without_tensorflow(text: &str) -> Result<Choice, String> {
    match text.parse() {
        Ok(choice @ (Choice::Crate | Choice::Command(_))) => Ok(choice),
        _ => Err(format!("expected crate or command:PROGRAM, got `{text}`")),
    }
}

pub fn main(command: Command) -> Done {
    match command {
        Command::Export(arguments) => export(&arguments),
        Command::Check(arguments) => compare(&arguments),
    }
}

fn export(arguments: &ExportArguments) -> Done {
    let ExportArguments { directory, selection, settings, filters } = arguments;
    let reference = settings.reference(*filters);
    let trials = selection.trials(reference.mode, CASES);
    let unfinished = Unfinished::begin(directory)?;
    let (count, seed) = (trials.len(), trials.seed);
    let bar = bar(count);
    let path = std::path::absolute(unfinished.path())?;
    let task = worker::Task::Export(Task { trials, reference, directory: path });
    worker::run(&task, reference.mode, |message| {
        if let Message::Exported(_) = message {
            bar.inc(1);
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    let megabytes = unfinished.size()? as f64 / 1e6;
    unfinished.finish()?;
    let directory = directory.display();
    print(format_args!("{count} cases (seed {seed}) of TensorFlow, {reference}: {directory}, {megabytes:.0} MB"))?;
    Ok(true)
}

fn compare(arguments: &CheckArguments) -> Done {
    let CheckArguments { directory, implementation: choice, timeout } = arguments;
    let index = Index::read(directory)?;
    // The mode is the vectors' own; neither the crate nor a program has one.
    let mut implementation = Chosen::new(choice, None, index.reference.mode, timeout.duration())?;
    print(format_args!("{choice} against vectors of TensorFlow {}, {}", index.tensorflow, index.reference))?;
    let bar = bar(index.cases.len());
    let (mut passed, mut skipped, mut failed) = (0, 0, 0);
    check(directory, &mut implementation, |name, case, checked| {
        bar.inc(1);
        let line = match checked {
            Checked::Passed => {
                passed += 1;
                return Ok(());
            }
            Checked::Skipped(why) => {
                skipped += 1;
                format!("skipped {name}: {case}\n  {why}")
            }
            Checked::Failed(told) => {
                failed += 1;
                format!("FAILED {name}: {case}\n  {}", told.why)
            }
        };
        bar.suspend(|| print(line))
    })?;
    bar.finish_and_clear();
    if skipped > 0 {
        print(format_args!("{skipped} skipped"))?;
    }
    print(format_args!("{passed} passed, {failed} failed"))?;
    // Where nothing but skipping was done, nothing was compared.
    Ok(failed == 0 && passed > 0)
}
