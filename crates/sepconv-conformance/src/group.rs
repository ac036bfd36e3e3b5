//! A program and all that it starts, ended together: on Unix they are a process group of their own. What a terminal sends
//! to the group of this process, as for Ctrl-C, does not reach them there; so it ends them before it ends this process.

use std::io;
use std::process::{Child, Command, ExitStatus};

/// The one that runs; there is one at a time.
pub struct Group(Child);

impl Group {
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        #[cfg(unix)]
        {
            signals::begin();
            std::os::unix::process::CommandExt::process_group(command, 0);
        }
        let child = command.spawn();
        #[cfg(unix)]
        signals::begun(child.as_ref().map_or(0, |program| program.id() as i32));
        Ok(Self(child?))
    }

    /// The program's status, if it has ended.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// Ends the program and what it started, but for what has left the group.
    pub fn kill(mut self) -> io::Result<()> {
        #[cfg(unix)]
        signals::kill();
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        signals::begun(0);
    }
}

#[cfg(unix)]
mod signals {
    use std::sync::Once;
    use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

    use libc::{SIG_DFL, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, c_int, sighandler_t};

    /// The group's number, which is its program's; 0 where there is none.
    static GROUP: AtomicI32 = AtomicI32::new(0);
    /// It is being made: its number is not yet known.
    const UNKNOWN: i32 = -1;
    /// One that came; 0 before.
    static SIGNAL: AtomicI32 = AtomicI32::new(0);

    /// From here on signals that end this process end the group as well.
    pub fn begin() {
        handle();
        GROUP.store(UNKNOWN, SeqCst);
    }

    /// Of that number, or 0. A signal has waited for it.
    pub fn begun(group: i32) {
        GROUP.store(group, SeqCst);
        match SIGNAL.load(SeqCst) {
            0 => {}
            signal => end(signal),
        }
    }

    pub fn kill() {
        let group = GROUP.load(SeqCst);
        if group > 0 {
            // SAFETY: only a number is passed; it is the group's, for its program has not been waited for.
            unsafe { libc::kill(-group, SIGKILL) };
        }
    }

    extern "C" fn came(signal: c_int) {
        SIGNAL.store(signal, SeqCst);
        if GROUP.load(SeqCst) != UNKNOWN {
            end(signal);
        }
    }

    /// Ends the group, then this process as the signal would have.
    fn end(signal: c_int) {
        kill();
        // SAFETY: a handler may call both; in one, the signal comes when it returns.
        unsafe {
            libc::signal(signal, SIG_DFL);
            libc::raise(signal);
        }
    }

    fn handle() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
                // SAFETY: `came` calls nothing that a handler may not.
                unsafe {
                    let before = libc::signal(signal, came as extern "C" fn(c_int) as sighandler_t);
                    // Ignored (`nohup`) or another's: it stays so.
                    if before != SIG_DFL {
                        libc::signal(signal, before);
                    }
                }
            }
        });
    }
}
