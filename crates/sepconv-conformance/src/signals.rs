//! Signals that end this process, such as that of Ctrl-C, while there are files that shall not stay: the signal ends what
//! this process waits for, and this process when it has cleared the files away, as it does after an error.

/// While there is one, signals do not end this process; when the last is dropped, one that came does. To be begun before
/// the files are made, so that it is dropped after them.
pub struct Deferred(());

impl Deferred {
    pub fn begin() -> Self {
        #[cfg(unix)]
        unix::begin();
        Self(())
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        #[cfg(unix)]
        unix::over();
    }
}

/// What this process waits for: a signal that comes, or has come already, is passed on to it. There is one at a time.
#[derive(Clone, Copy)]
pub enum Waited {
    Nothing,
    /// A process, by its number: it clears its own files away.
    Process(u32),
    /// A group, by its number: it is killed, for its processes are other people's programs.
    Group(u32),
}

pub fn wait_for(waited: Waited) {
    #[cfg(unix)]
    unix::wait_for(match waited {
        Waited::Nothing => 0,
        Waited::Process(process) => process as i32,
        Waited::Group(group) => -(group as i32),
    });
    let _ = waited;
}

#[cfg(unix)]
mod unix {
    use std::sync::Once;
    use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

    use libc::{SIG_DFL, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, c_int, sighandler_t};

    /// How many `Deferred` there are.
    static DEFERRED: AtomicI32 = AtomicI32::new(0);
    /// What is waited for, as `kill` has it: a process, the negative number of a group, or 0 for nothing.
    static WAITED: AtomicI32 = AtomicI32::new(0);
    /// The signal that came; 0 before.
    static SIGNAL: AtomicI32 = AtomicI32::new(0);

    // Whatever is stored on either side is stored before the other side's is read, so that one of them sees both.

    pub fn begin() {
        handle();
        DEFERRED.fetch_add(1, SeqCst);
    }

    pub fn over() {
        if DEFERRED.fetch_sub(1, SeqCst) == 1 {
            match SIGNAL.load(SeqCst) {
                0 => {}
                signal => end(signal),
            }
        }
    }

    pub fn wait_for(waited: i32) {
        WAITED.store(waited, SeqCst);
        pass_on();
    }

    extern "C" fn came(signal: c_int) {
        SIGNAL.store(signal, SeqCst);
        pass_on();
        if DEFERRED.load(SeqCst) == 0 {
            end(signal);
        }
    }

    fn pass_on() {
        let (signal, waited) = (SIGNAL.load(SeqCst), WAITED.load(SeqCst));
        if signal != 0 && waited != 0 {
            // SAFETY: only numbers are passed, those of a process or group that is waited for.
            unsafe { libc::kill(waited, if waited < 0 { SIGKILL } else { signal }) };
        }
    }

    /// Ends this process as the signal would have.
    fn end(signal: c_int) {
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
                // SAFETY: `came` calls nothing that a handler may not; `before` is written before it is read.
                unsafe {
                    let mut before = std::mem::zeroed::<libc::sigaction>();
                    libc::sigaction(signal, std::ptr::null(), &mut before);
                    // Ignored (`nohup`) or another's: it stays so.
                    if before.sa_sigaction == SIG_DFL {
                        libc::signal(signal, came as extern "C" fn(c_int) as sighandler_t);
                    }
                }
            }
        });
    }
}
