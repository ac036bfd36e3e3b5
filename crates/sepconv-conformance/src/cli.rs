//! The command line: what it takes, and what its exit status says: 0 if all is well, 1 if a case failed or all were skipped, 2 for bad usage
//! and for what keeps a command from being done at all. Where nobody reads on, as behind `| head`, it is 2 with no word.

mod deviations;
mod progress;
mod reveal;
mod run;
mod vectors;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::iter::successors;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cases::{Case, ElementType, Space, corpus};
use crate::reference::{Filters, Reference};
use crate::session::Mode;
use crate::trials::{Trials, any_seed};
use crate::worker;

/// Compares implementations of tf.nn.separable_conv2d with TensorFlow's own, bit for bit.
#[derive(Parser)]
#[command(name = "sepconv-conformance", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    Reveal(reveal::Arguments),
    #[command(subcommand)]
    Vectors(vectors::Command),
    Deviations(deviations::Arguments),
    #[command(hide = true)]
    Observe(deviations::ObserveArguments),
    /// What the child process does.
    #[command(name = worker::SUBCOMMAND, hide = true)]
    Worker {
        task: String,
    },
}

/// Parses the process's arguments and does what they say.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(arguments) => run::main(arguments),
        Command::Reveal(arguments) => reveal::main(arguments),
        Command::Vectors(command) => vectors::main(command),
        Command::Deviations(arguments) => deviations::main(&arguments),
        Command::Observe(arguments) => deviations::observations(&arguments),
        Command::Worker { task } => return worker::main(&task),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            if !unread(&*error) {
                complain(&*error);
            }
            ExitCode::from(2)
        }
    }
}

/// Prints a line at once, or says that nobody can read it: a closed pipe, a full disk.
fn print(line: impl Display) -> io::Result<()> {
    let printed = writeln!(io::stdout(), "{line}");
    printed.map_err(|error| io::Error::new(error.kind(), format!("standard output: {error}")))
}

/// Whether whoever read the output has closed the pipe: they have had enough.
fn unread(error: &(dyn Error + 'static)) -> bool {
    let closed = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    successors(Some(error), |&error| error.source()).any(|error| error.downcast_ref().is_some_and(closed))
}

/// The status tells it to those who do not read it.
fn complain(error: &dyn Error) {
    let _ = writeln!(io::stderr(), "error: {error}");
}

/// Whether all is well, or why nothing could be done.
type Done = Result<bool, Box<dyn Error>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// How TensorFlow is to run.
#[derive(Args)]
struct Settings {
    /// Whether TensorFlow uses oneDNN [default: as TensorFlow itself would have it in this environment]
    #[arg(long, value_name = "SWITCH")]
    onednn: Option<Switch>,
    /// How many threads TensorFlow has within one operation (intra-op), 1 to 127
    #[arg(long, value_name = "NUMBER", default_value_t = 1, allow_negative_numbers = true, value_parser = number(1..=127u8))]
    threads: u8,
}

impl Settings {
    fn mode(&self) -> Mode {
        let onednn = self.onednn.map(|switch| switch == Switch::On);
        Mode { onednn: onednn.unwrap_or_else(Mode::onednn_of_this_process), threads: self.threads }
    }

    fn reference(&self, filters: Filters) -> Reference {
        Reference { mode: self.mode(), filters }
    }
}

fn cases_help(default: u32) -> String {
    format!("How many random cases follow the named ones [default: {default}]")
}

/// Below the options of those commands that take cases from the user.
fn case_help() -> String {
    let names: Vec<_> = corpus(ElementType::F32).map(|(name, _)| name).collect();
    format!(
        "A case is one of these names, behind an element type if that is not f32 (\"mbv1_7\", \"f16 mbv1_7\"):\n  {}\n\
         or a text, which values and a seed may follow, as they do where failures are printed:\n  \"{CASE}\"",
        names.join(" ")
    )
}

/// The example of a text.
const CASE: &str = "f32 input 1,8,8,3 kernel 3,3 multiplier 1 columns 5 strides 1,1 padding same rate 1,1";

/// Reads a number of that range. (`allow_negative_numbers` lets it say so of -1, which would be an unknown option otherwise.)
fn number<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Clone,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("expected a whole number from {} to {}", range.start(), range.end()))
    }
}

/// Which cases.
#[derive(Args)]
struct Selection {
    // Its help is each command's own: `cases_help`.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = number(0..=u32::MAX))]
    cases: Option<u32>,
    /// Seed of the random cases: the same ones for the same options [default: another one each time, which is printed]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = number(0..=u64::MAX))]
    seed: Option<u64>,
    /// Element type of the cases: f32, f64, f16, bf16 or all
    #[arg(long, value_name = "TYPE", default_value = "all", value_parser = element)]
    dtype: Dtype,
}

/// `None`: all of them.
type Dtype = Option<ElementType>;

fn element(text: &str) -> Result<Dtype, String> {
    match text {
        "all" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| "expected f32, f64, f16, bf16 or all".into()),
    }
}

fn case(text: &str) -> Result<Case, String> {
    Case::given(text).map_err(|error| error.to_string())
}

impl Selection {
    /// The named cases of the element types, then as many random ones (`default`, if not said).
    fn trials(&self, mode: Mode, default: u32) -> Trials {
        let elements = self.dtype.map_or(ElementType::ALL.to_vec(), |element| vec![element]);
        Trials {
            given: elements.into_iter().flat_map(corpus).map(|(_, case)| case).collect(),
            space: Space { element: self.dtype, onednn: mode.onednn },
            seed: self.seed.unwrap_or_else(any_seed),
            random: self.cases.unwrap_or(default),
        }
    }
}

/// How long a program may take for one case.
#[derive(Args)]
struct Timeout {
    /// Seconds that the program of command:PROGRAM may take for one case before it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 60, allow_negative_numbers = true, value_parser = number(1..=u64::MAX))]
    timeout: u64,
}

impl Timeout {
    fn duration(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}
