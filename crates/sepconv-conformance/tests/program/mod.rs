//! The program under test, and programs that it is given.
#![allow(dead_code, reason = "each test file uses a part")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a command did.
pub struct Ended {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The last line of the standard output, where `run` and `vectors check` count.
    pub fn last(&self) -> &str {
        self.stdout.lines().last().unwrap_or_default()
    }

    /// The one line of an error, without which the test fails.
    pub fn error(&self) -> &str {
        assert_eq!((self.status, self.stdout.as_str()), (Some(2), ""), "{}", self.stderr);
        self.stderr.trim_end()
    }
}

pub const EXECUTABLE: &str = env!("CARGO_BIN_EXE_sepconv-conformance");

/// Runs `sepconv-conformance` in this process's environment.
pub fn sepconv_conformance(arguments: &[&str]) -> Ended {
    ended(Command::new(EXECUTABLE).args(arguments))
}

pub fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ended { status: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// A shell script that is given a case's directory as `$1`; the argument that names it as an implementation.
pub fn script(directory: &Path, text: &str) -> String {
    let path = directory.join("program");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("command:{}", path.display())
}

/// A Python that has numpy: `PYTHON`, or the one that `ci/setup` makes.
pub fn python() -> PathBuf {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python");
    std::env::var_os("PYTHON").map_or(made, PathBuf::from)
}
