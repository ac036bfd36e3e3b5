//! A program of any language as an implementation: it is given a case directory as its only argument and writes its
//! output there (`PROTOCOL.md`). The directory is a fresh one for every case, gone afterwards, and holds no output
//! beforehand.

use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sepconv::Numerics;

use crate::case_directory;
use crate::cases::{Case, Operands};
use crate::group::Group;
use crate::implementation::{self, Implementation};
use crate::session::Element;
use crate::signals::Deferred;

/// The exit status by which a program says that it does not do such cases.
const NOT_SUPPORTED: i32 = 3;
/// The kind of reason for it.
pub const SKIPPED: &str = "not supported by the program";
/// Characters of what a program said.
const SHOWN: usize = 300;

pub struct Program {
    path: PathBuf,
    timeout: Duration,
}

/// What went wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the program {path} cannot be started: {error}")]
    Start { path: PathBuf, error: io::Error },
    #[error("the program {path} is not executable")]
    NotExecutable { path: PathBuf },
    #[error("no room for the case's files: {0}")]
    Scratch(io::Error),
    #[error("the program {path} failed ({status}){said}")]
    Failed { path: PathBuf, status: ExitStatus, said: String },
    #[error("not supported by the program{said}")]
    NotSupported { said: String },
    #[error("the program {path} was ended after {timeout:?}, the limit of --timeout")]
    Hung { path: PathBuf, timeout: Duration },
    #[error("the program {path} wrote no output.npy")]
    Nothing { path: PathBuf },
    #[error(transparent)]
    Files(#[from] case_directory::Error),
}

impl Program {
    /// A path, or a name that `PATH` knows.
    pub fn find(path: &Path, timeout: Duration) -> Result<Self, Error> {
        let named = path.components().count() == 1 && !path.to_string_lossy().contains('/');
        let candidates: Vec<PathBuf> = match std::env::var_os("PATH").filter(|_| named) {
            Some(paths) => std::env::split_paths(&paths).map(|directory| directory.join(path)).collect(),
            None => vec![path.into()],
        };
        // Absolute, for it runs in another directory.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let files: Vec<PathBuf> = candidates.into_iter().map(absolute).filter(|path| path.is_file()).collect();
        match files.iter().find(|file| executable(file)).or(files.first()) {
            Some(file) if executable(file) => Ok(Self { path: file.clone(), timeout }),
            Some(file) => Err(Error::NotExecutable { path: file.clone() }),
            None => Err(Error::Start { path: path.into(), error: io::ErrorKind::NotFound.into() }),
        }
    }

    /// Runs it in and on that directory.
    fn run(&self, directory: &Path) -> Result<(), Error> {
        // A file rather than a pipe, which whatever the program leaves behind could keep open; of no name, so that it stays.
        let mut said = tempfile::tempfile().map_err(Error::Scratch)?;
        let stderr = said.try_clone().map_err(Error::Scratch)?;
        let mut command = Command::new(&self.path);
        command.arg(directory).current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let group = Group::spawn(&mut command).map_err(|error| Error::Start { path: self.path.clone(), error })?;
        let status = self.wait(group)?;
        if status.success() {
            return Ok(());
        }
        let mut text = Vec::new();
        let length = said.metadata().map_err(Error::Scratch)?.len();
        // No more than that: what is left behind may be writing yet.
        said.rewind().and_then(|()| said.take(length).read_to_end(&mut text)).map_err(Error::Scratch)?;
        let said = last_line(&text);
        Err(match status.code() {
            Some(NOT_SUPPORTED) => Error::NotSupported { said },
            _ => Error::Failed { path: self.path.clone(), status, said },
        })
    }

    fn wait(&self, mut group: Group) -> Result<ExitStatus, Error> {
        let failed = |error| Error::Start { path: self.path.clone(), error };
        let (begun, mut pause) = (Instant::now(), Duration::from_micros(200));
        loop {
            if let Some(status) = group.try_wait().map_err(failed)? {
                return Ok(status);
            }
            if begun.elapsed() > self.timeout {
                group.kill().map_err(failed)?;
                return Err(Error::Hung { path: self.path.clone(), timeout: self.timeout });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

fn executable(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
    }
    #[cfg(not(unix))]
    path.is_file()
}

/// What a program said last, to be put behind a message.
pub fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    last.map_or(String::new(), |line| format!(": {}", line.chars().take(SHOWN).collect::<String>()))
}

impl Implementation for Program {
    fn follows_numerics(&self) -> bool {
        false
    }

    fn compute<T: Element>(
        &mut self,
        case: &Case,
        numerics: Option<&Numerics>,
        operands: &Operands<T>,
    ) -> Result<Vec<T>, implementation::Error> {
        let _deferred = Deferred::begin();
        let scratch = tempfile::tempdir().map_err(Error::Scratch)?;
        let order = numerics.cloned().ok_or_else(String::new);
        case_directory::write(scratch.path(), case, &order, operands).map_err(Error::Files)?;
        self.run(scratch.path())?;
        if !scratch.path().join("output.npy").exists() {
            return Err(Error::Nothing { path: self.path.clone() }.into());
        }
        Ok(case_directory::read_output(scratch.path(), case).map_err(Error::Files)?)
    }
}
