//! TensorFlow's status: a code and a message, and the object that carries them across the C ABI.

use std::ffi::{CStr, CString, c_int};
use std::ops::Deref;
use std::ptr::NonNull;

use super::abi::{TfStatus, abi};

/// A `TF_Code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(c_int);

impl Code {
    const OK: Self = Self(0);
    pub const INVALID_ARGUMENT: Self = Self(3);
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    pub const INTERNAL: Self = Self(13);
}

/// What TensorFlow is told, or has told, about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub message: String,
}

impl Failure {
    pub fn invalid_argument(message: impl ToString) -> Self {
        Self { code: Code::INVALID_ARGUMENT, message: message.to_string() }
    }

    pub fn internal(message: impl ToString) -> Self {
        Self { code: Code::INTERNAL, message: message.to_string() }
    }
}

impl From<sepconv::Error> for Failure {
    fn from(error: sepconv::Error) -> Self {
        let code = match error {
            sepconv::Error::Memory { .. } => Code::RESOURCE_EXHAUSTED,
            // The output is ours.
            sepconv::Error::Output { .. } => Code::INTERNAL,
            _ => Code::INVALID_ARGUMENT,
        };
        Self { code, message: error.to_string() }
    }
}

/// A status that lives as long as this value; for calls it is a [`TfStatus`].
pub struct Status(NonNull<TfStatus>);

impl Status {
    /// OK.
    pub fn new() -> Self {
        // SAFETY: takes nothing; the object is deleted once, when this value is dropped.
        Self(unsafe { (abi().NewStatus)() }.expect("TensorFlow makes a status"))
    }

    pub fn of(failure: &Failure) -> Self {
        let status = Self::new();
        status.set(failure);
        status
    }

    /// What the last call that took this status said.
    pub fn result(&self) -> Result<(), Failure> {
        // SAFETY: the status lives.
        let code = Code(unsafe { (abi().GetCode)(self) });
        if code == Code::OK {
            return Ok(());
        }
        // SAFETY: the message belongs to the status, ends in zero and is copied before anybody changes it.
        let message = unsafe { CStr::from_ptr((abi().Message)(self)) };
        Err(Failure { code, message: message.to_string_lossy().into_owned() })
    }
}

impl Deref for Status {
    type Target = TfStatus;

    fn deref(&self) -> &TfStatus {
        // SAFETY: the object lives as long as this value.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        // SAFETY: made by NewStatus, deleted here only.
        unsafe { (abi().DeleteStatus)(self.0) };
    }
}

impl TfStatus {
    pub fn set(&self, failure: &Failure) {
        // A message in C ends at its first zero.
        let message = CString::new(failure.message.replace('\0', "\\0")).unwrap_or_default();
        // SAFETY: a living status and a string that ends in zero, which is copied.
        unsafe { (abi().SetStatus)(self, failure.code.0, message.as_ptr()) };
    }
}
