//! The command line: the register of deviations.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sepconv_conformance::deviations::{RULES, register};
use sepconv_conformance::observe::{observable, observe};

/// TensorFlow as the reference of a separable convolution.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists where sepconv deliberately differs from one of TensorFlow's modes, and why.
    Deviations {
        /// As one JSON array, for machines.
        #[arg(long)]
        json: bool,
    },
    /// What TensorFlow answers, in this process, to what the register says of it: a line of JSON each.
    ///
    /// TensorFlow kills the process over some; who asks goes on behind these.
    #[command(hide = true)]
    Observe {
        /// How many to leave out.
        #[arg(long, default_value_t = 0)]
        skip: usize,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Deviations { json } => deviations(json),
        Command::Observe { skip } => observations(skip),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

fn deviations(json: bool) -> Result<(), Box<dyn Error>> {
    let register = register()?;
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &register)?;
        return Ok(writeln!(out)?);
    }
    for (i, rule) in RULES.iter().enumerate() {
        writeln!(out, "Rule {}. {rule}", i + 1)?;
    }
    for deviation in register {
        writeln!(out, "\n{deviation}")?;
    }
    Ok(())
}

fn observations(skip: usize) -> Result<(), Box<dyn Error>> {
    for (deviation, context) in observable(&register()?).into_iter().skip(skip) {
        let answer = observe(&deviation.case.call, context)?;
        println!("{}", serde_json::to_string(&answer)?);
    }
    Ok(())
}
