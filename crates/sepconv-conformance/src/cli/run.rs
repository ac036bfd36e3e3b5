//! `run`: prints what failed as soon as it is known, counts at the end, and goes on where a case ended the process.

use std::io;
use std::path::PathBuf;

use clap::Args;

use super::progress::bar;
use super::{Done, Selection, Settings, Timeout, case, case_help, cases_help, complain, print};
use crate::cases::Case;
use crate::compare::Told;
use crate::files;
use crate::implementation::{Choice, Chosen};
use crate::op::OpLibrary;
use crate::reference::Filters;
use crate::report::Report;
use crate::run::{Record, Task, Verdict};
use crate::tally::{Counts, Tally};
use crate::trials::Trials;
use crate::worker::{self, Error, Message};

/// Compare the crate, the op or a program with TensorFlow over named and random cases
#[derive(Args)]
#[command(mut_arg("cases", |cases| cases.help(cases_help(CASES))), after_help = case_help())]
pub struct Arguments {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    settings: Settings,
    /// What is compared with TensorFlow: crate, op or command:PROGRAM, a program of yours (see PROTOCOL.md)
    #[arg(long, value_name = "NAME", default_value = "crate")]
    implementation: Choice,
    /// Whether the filters are fed to TensorFlow's graph or constants of it, as in a frozen model
    #[arg(long, value_enum, default_value = "fed")]
    filters: Filters,
    /// Try this case only, see below [default: named and random ones]
    #[arg(long, value_name = "CASE", value_parser = case, conflicts_with_all = ["cases", "seed", "dtype"])]
    case: Option<Case>,
    /// Write all results to FILE as JSON, and as a page beside it with the ending .html [default: neither]
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The library of the op, for --implementation op [default: what SEPCONV_LIBRARY names, or libsepconv_tensorflow.so beside this executable]
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
    #[command(flatten)]
    timeout: Timeout,
}

const CASES: u32 = 2000;

/// A report was to be written to a page's name.
#[derive(Debug, thiserror::Error)]
#[error("--report must name a JSON file, for the page is written beside it; got {0}")]
struct NoReport(PathBuf);

pub fn main(arguments: Arguments) -> Done {
    let Arguments { selection, settings, implementation, filters, report, library, timeout, .. } = arguments;
    if let Some(path) = &report {
        if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("html")) || path.file_name().is_none() {
            return Err(NoReport(path.clone()).into());
        }
        files::check(path)?;
        files::check(&path.with_extension("html"))?;
    }
    let reference = settings.reference(filters);
    let mut trials = selection.trials(reference.mode, CASES);
    if let Some(case) = arguments.case {
        trials = Trials { given: vec![case], random: 0, ..trials };
    }
    let library = match implementation {
        // Found here, so that what is missing is said before TensorFlow is loaded.
        Choice::Op => Some(OpLibrary::find(library)?),
        Choice::Command(_) => {
            Chosen::new(&implementation, None, reference.mode, timeout.duration())?;
            None
        }
        Choice::Crate => None,
    };
    print(format_args!(
        "{implementation} against TensorFlow, {reference}: {} named cases, {} random ones of seed {}",
        trials.given.len(),
        trials.random,
        trials.seed
    ))?;
    let task = Task { trials, reference, implementation, library, timeout: timeout.duration(), from: 0 };
    let (tensorflow, records, trouble) = do_all(&task)?;
    print(Tally::of(&records))?;
    let counts = Counts::of(&records);
    print(&counts)?;
    print(counts.summary())?;
    // Counts first: they are known even where the report cannot be written after all.
    if let Some(path) = &report {
        Report::new(&task, &tensorflow, &records).write(path)?;
    }
    if let Some(trouble) = &trouble {
        complain(trouble);
    }
    Ok(counts.failed == 0 && trouble.is_none() && counts.skipped() < counts.all())
}

/// The version of TensorFlow, what came of every case, and what went wrong in none of them. A case that ends the process
/// has failed; another process does the rest.
fn do_all(task: &Task) -> Result<(String, Vec<Record>, Option<Error>), Error> {
    let bar = bar(task.trials.len());
    let mut records = Vec::new();
    let add = |records: &mut Vec<Record>, record: Record| -> io::Result<()> {
        if let Some(text) = failure(task, &record) {
            bar.suspend(|| print(text))?;
        }
        bar.inc(1);
        records.push(record);
        Ok(())
    };
    let (mut tensorflow, mut kernel_calls, mut trouble) = (String::new(), None::<u64>, None);
    while records.len() < task.trials.len() {
        let rest = worker::Task::Run(Task { from: records.len(), ..task.clone() });
        let ended = worker::run(&rest, task.reference.mode, |message| {
            match message {
                Message::Record(record) => add(&mut records, *record)?,
                Message::Loaded(version) => tensorflow = version,
                Message::KernelCalls(calls) => kernel_calls = Some(kernel_calls.unwrap_or(0) + calls),
                _ => {}
            }
            Ok(())
        });
        let why = ended.as_ref().err().map(Error::to_string).unwrap_or_default();
        match ended {
            Err(Error::Died { case, .. }) => {
                let index = records.len();
                let outcome = Verdict::Failed { case, numerics: None, told: Told { why, difference: None } };
                add(
                    &mut records,
                    Record { index, case: task.trials.case(index), numerics: None, reason: None, outcome },
                )?;
            }
            Err(error @ Error::Idle { .. }) if !records.is_empty() => {
                trouble = Some(error);
                break;
            }
            ended => {
                ended?;
                break;
            }
        }
    }
    let (done, all) = (records.len(), task.trials.len());
    if done < all && trouble.is_none() {
        trouble = Some(Error::Missing { done, all });
    }
    bar.finish_and_clear();
    if let Some(calls) = kernel_calls {
        print(format_args!("the op library's kernels counted {calls} calls"))?;
    }
    Ok((tensorflow, records, trouble))
}

/// What is to be said of a record that is one of a failure.
fn failure(task: &Task, record: &Record) -> Option<String> {
    let Verdict::Failed { case, numerics, told } = &record.outcome else { return None };
    let numerics = numerics.as_ref().map(|numerics| format!("\n  with {numerics}")).unwrap_or_default();
    let found = if **case == record.case { String::new() } else { format!("\n  found as {}", record.case) };
    Some(format!("FAILED {case}\n  {}{numerics}{found}\n  repeat it: {}", told.why, task.repeat(case)))
}
