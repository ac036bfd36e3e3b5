//! Registers the op when the library is loaded, unless TensorFlow is absent or another copy has done so. Once in a
//! process: what is registered stays.

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::copies::Owner;
use crate::guard::guarded;
use crate::tensorflow::abi;
use crate::tensorflow::status::Failure;
use crate::{depthwise, gradient, kernel};

enum State {
    /// Nothing is registered; why.
    Not(&'static CStr),
    /// This copy registered the op.
    Here,
    /// Another copy did.
    Elsewhere(Owner),
    /// The op is there but not its kernels, and cannot be taken back; why.
    Broken(&'static CStr),
}

static STATE: Mutex<State> = Mutex::new(State::Not(c"the library has not been initialised"));
/// Apart from the state, so that another copy never waits for it.
static HERE: AtomicBool = AtomicBool::new(false);

// The dynamic linker calls this while it loads the library; it holds its lock, so copies cannot get into each other's way.
#[used]
#[unsafe(link_section = ".init_array")]
static ON_LOAD: extern "C" fn() = {
    extern "C" fn on_load() {
        register();
    }
    on_load
};

/// Registers the op if that has not been done. Afterwards [`error`] tells.
pub fn register() {
    let outcome = guarded(|| {
        let mut state = lock();
        if let State::Not(before) = *state {
            *state = attempt(before);
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        *lock() = State::Broken(forever(failure.message));
    }
}

fn attempt(before: &'static CStr) -> State {
    if let Some(owner) = Owner::find() {
        return State::Elsewhere(owner);
    }
    if let Err(message) = abi::connect() {
        // Asking again and again shall not use memory.
        return State::Not(if before.to_bytes() == message.as_bytes() { before } else { forever(message) });
    }
    // From here on another copy must keep off, whatever comes of it.
    HERE.store(true, Ordering::Release);
    match register_all() {
        Ok(()) => State::Here,
        Err(Failure { message, .. }) => State::Broken(forever(format!("TensorFlow refused the op: {message}"))),
    }
}

fn register_all() -> Result<(), Failure> {
    kernel::register_ops()?;
    depthwise::register_op()?;
    gradient::register_ops()?;
    kernel::register_kernels()?;
    depthwise::register_kernels()?;
    gradient::register_kernels()
}

/// Why the op is not there; `None` where it is, whichever copy registered it.
pub fn error() -> Option<&'static CStr> {
    match *lock() {
        State::Here | State::Elsewhere(_) => None,
        State::Not(message) | State::Broken(message) => Some(message),
    }
}

/// True in the copy that registered the op.
pub fn here() -> bool {
    HERE.load(Ordering::Acquire)
}

/// What `ask` says about the copy that registered the op, if that is another one.
pub fn elsewhere<R>(ask: impl FnOnce(&Owner) -> R) -> Option<R> {
    match &*lock() {
        State::Elsewhere(owner) => Some(ask(owner)),
        _ => None,
    }
}

fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn forever(message: String) -> &'static CStr {
    Box::leak(CString::new(message.replace('\0', "\\0")).unwrap_or_default().into_boxed_c_str())
}
