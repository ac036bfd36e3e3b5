//! A program and all that it starts, ended together: on Unix they are a process group of their own. What a terminal sends
//! to the group of this process, as for Ctrl-C, does not reach them there; so it is passed on to them.

use std::io;
use std::process::{Child, Command, ExitStatus};

use crate::signals::{self, Deferred, Waited};

/// The one that runs; there is one at a time.
pub struct Group {
    program: Child,
    // A signal that comes before the program's number is known is passed on when it is.
    _deferred: Deferred,
}

impl Group {
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let deferred = Deferred::begin();
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        let program = command.spawn()?;
        signals::wait_for(Waited::Group(program.id()));
        Ok(Self { program, _deferred: deferred })
    }

    /// The program's status, if it has ended.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.program.try_wait()
    }

    /// Ends the program and what it started, but for what has left the group.
    pub fn kill(mut self) -> io::Result<()> {
        #[cfg(unix)]
        // SAFETY: only a number is passed; it is the group's, for its program has not been waited for.
        unsafe {
            libc::kill(-(self.program.id() as i32), libc::SIGKILL);
        }
        self.program.kill()?;
        self.program.wait().map(drop)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        signals::wait_for(Waited::Nothing);
    }
}
