//! The process in which TensorFlow runs: a child of the command, so that oneDNN is as asked for before TensorFlow is
//! loaded, and so that a call that ends the process ends the child only, while the command knows which case it was.
//!
//! The child is the same executable with a task as its argument, and writes one message per line to its standard output.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use serde::{Deserialize, Serialize};

use crate::cases::Case;
use crate::program::last_line;
use crate::session::{self, Mode, ONEDNN};
use crate::signals::{self, Deferred, Waited};
use crate::{reveal, run, vectors};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "worker";

#[derive(Serialize, Deserialize)]
pub enum Task {
    Run(run::Task),
    Export(vectors::export::Task),
    Reveal(reveal::Task),
}

#[derive(Serialize, Deserialize)]
pub enum Message {
    /// The version of TensorFlow that was loaded.
    Loaded(String),
    /// Sent before anything is done with a case.
    Trying(Case),
    Record(Box<run::Record>),
    /// What the op's library counted.
    KernelCalls(u64),
    Exported(Case),
    Revealed(Box<reveal::Revealed>),
    /// Nothing was or will be done, and why.
    Stopped(String),
}

/// Why a task cannot be done at all.
#[derive(Debug)]
pub struct Stopped(pub String);

/// The way to the parent.
pub struct Sender(io::Stdout);

impl Sender {
    pub fn send(&mut self, message: &Message) {
        let line = serde_json::to_string(message).expect("messages are made of texts and numbers");
        let sent = writeln!(self.0, "{line}").and_then(|()| self.0.flush());
        if sent.is_err() {
            // Nobody is left to work for.
            std::process::exit(1);
        }
    }
}

/// The child's main function.
pub fn main(task: &str) -> ExitCode {
    let mut send = Sender(io::stdout());
    let done = serde_json::from_str(task).map_err(|error| Stopped(error.to_string())).and_then(|task| {
        session::load().map_err(|error| Stopped(error.to_string()))?;
        send.send(&Message::Loaded(tensorflow::version().unwrap_or_default()));
        match task {
            Task::Run(task) => run::work(&task, &mut send),
            Task::Export(task) => vectors::export::work(&task, &mut send),
            Task::Reveal(task) => reveal::work(&task, &mut send),
        }
    });
    if let Err(Stopped(why)) = done {
        send.send(&Message::Stopped(why));
    }
    ExitCode::SUCCESS
}

/// Why a child did not do its task.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the process for TensorFlow cannot be started: {0}")]
    Start(io::Error),
    #[error("{0}")]
    Stopped(String),
    #[error("the process for TensorFlow ended ({status}) while no case was being tried{said}")]
    Idle { status: ExitStatus, said: String },
    #[error("the process ended ({status}) in the case {case}{said}")]
    Died { status: ExitStatus, case: Box<Case>, said: String },
    #[error("the process for TensorFlow ended after {done} of {all} cases")]
    Missing { done: usize, all: usize },
    /// What came of it could not be told.
    #[error("{0}")]
    Untold(#[from] io::Error),
}

/// Does a task in a child; `on` gets every message but the child's own ending. Its error is the end of the task.
pub fn run(task: &Task, mode: Mode, mut on: impl FnMut(Message) -> io::Result<()>) -> Result<(), Error> {
    let mut command = Command::new(env::current_exe().map_err(Error::Start)?);
    command.arg(SUBCOMMAND).arg(serde_json::to_string(task).expect("tasks are made of texts and numbers"));
    command.env(ONEDNN, if mode.onednn { "1" } else { "0" }).stdin(Stdio::null()).stdout(Stdio::piped());
    let _deferred = Deferred::begin();
    // Where the child keeps its files for a while, so that they go even if it cannot clear them away.
    let scratch = tempfile::tempdir().map_err(Error::Start)?;
    command.env("TMPDIR", scratch.path());
    // What TensorFlow and libraries print is of interest only where it is the last thing they do.
    let mut log = tempfile::tempfile().map_err(Error::Start)?;
    command.stderr(log.try_clone().map_err(Error::Start)?);
    let mut child = command.spawn().map_err(Error::Start)?;
    signals::wait_for(Waited::Process(child.id()));
    let (mut trying, mut stopped, mut told) = (None, None, Ok(()));
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    for line in lines.map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Message::Stopped(why)) => stopped = Some(why),
            Ok(message) => {
                match &message {
                    Message::Trying(case) => trying = Some(case.clone()),
                    Message::Record(_) | Message::Revealed(_) | Message::Exported(_) => trying = None,
                    _ => {}
                }
                told = on(message);
                if told.is_err() {
                    // With the pipe closed the child ends when it has something to say.
                    break;
                }
            }
            // What a library printed.
            Err(_) => {}
        }
    }
    let status = child.wait().map_err(Error::Start)?;
    signals::wait_for(Waited::Nothing);
    told?;
    if let Some(why) = stopped {
        return Err(Error::Stopped(why));
    }
    // Whatever the status, a case that was being tried has not been done.
    if status.success() && trying.is_none() {
        return Ok(());
    }
    let mut text = Vec::new();
    log.rewind().and_then(|()| log.read_to_end(&mut text)).map_err(Error::Start)?;
    let said = last_line(&text);
    Err(match trying {
        Some(case) => Error::Died { status, case: Box::new(case), said },
        None => Error::Idle { status, said },
    })
}
