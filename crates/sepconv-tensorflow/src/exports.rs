//! The functions that the library exports to C (and so to Python's `ctypes`): none of them unwinds, and every string
//! that is returned as `char *` goes back through [`sepconv_free`].

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;

use crate::guard::guarded;
use crate::{queries, registration, statistics, threads};

/// `const char *sepconv_version(void)`: never freed.
#[unsafe(no_mangle)]
pub extern "C" fn sepconv_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version holds no zero"),
    };
    VERSION.as_ptr()
}

/// `const char *sepconv_registration_error(void)`: why the op is not registered, or null if it is; never freed.
#[unsafe(no_mangle)]
pub extern "C" fn sepconv_registration_error() -> *const c_char {
    registration::error().map_or(ptr::null(), CStr::as_ptr)
}

/// `const char *sepconv_register(void)`: tries again, for a library that was loaded before TensorFlow; returns what
/// `sepconv_registration_error` returns then. Does nothing where the op is registered.
#[unsafe(no_mangle)]
pub extern "C" fn sepconv_register() -> *const c_char {
    registration::register();
    sepconv_registration_error()
}

/// `int32_t sepconv_registered_here(void)`: 1 in the copy of the library that registered the op, 0 in others. Copies of
/// every version recognise each other by it.
#[unsafe(no_mangle)]
pub extern "C" fn sepconv_registered_here() -> i32 {
    registration::here().into()
}

/// `void sepconv_set_threads(int32_t threads)`: for kernels that start from now on; less than 1: as many as the process
/// may run at once.
#[unsafe(no_mangle)]
pub extern "C" fn sepconv_set_threads(threads: i32) {
    let passed_on = registration::elsewhere(|owner| owner.set_threads(threads));
    passed_on.unwrap_or_else(|| threads::set(threads));
}

/// `char *sepconv_stats_json(void)`: what the kernels did in this process.
#[unsafe(no_mangle)]
pub extern "C" fn sepconv_stats_json() -> *mut c_char {
    text(|| registration::elsewhere(|owner| owner.stats_json()).unwrap_or_else(statistics::json))
}

/// `char *sepconv_geometry(const char *question)`: the answer of [`queries::geometry`].
///
/// # Safety
/// `question` is a string that ends in zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sepconv_geometry(question: *const c_char) -> *mut c_char {
    // SAFETY: as the caller vouches.
    let question = unsafe { CStr::from_ptr(question) };
    text(|| queries::geometry(&question.to_string_lossy()))
}

/// `char *sepconv_reveal(const char *question, probe *callback, void *user)`: the answer of
/// [`queries::reveal_numerics`].
///
/// # Safety
/// `question` is a string that ends in zero; `callback` can be called with `user` and arrays of the question's shapes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sepconv_reveal(
    question: *const c_char,
    callback: queries::Callback,
    user: *mut c_void,
) -> *mut c_char {
    // SAFETY: as the caller vouches.
    let question = unsafe { CStr::from_ptr(question) };
    // SAFETY: as the caller vouches.
    text(|| unsafe { queries::reveal_numerics(&question.to_string_lossy(), callback, user) })
}

/// `void sepconv_free(char *text)`
///
/// # Safety
/// `text` is null or what another function here returned as `char *`, and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sepconv_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: `text` came from `CString::into_raw` in `text`, and the caller gives it up.
        drop(unsafe { CString::from_raw(text) });
    }
}

/// A string for C, which the caller gives back through [`sepconv_free`]; null if `make` panics.
fn text(make: impl FnOnce() -> String) -> *mut c_char {
    let text = guarded(|| Ok(CString::new(make().replace('\0', "\\0")).unwrap_or_default()));
    text.map_or(ptr::null_mut(), CString::into_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tensorflow_the_functions_work() {
        assert!(!sepconv_register().is_null());
        assert_eq!(sepconv_registered_here(), 0);
        // SAFETY: strings that end in zero; each `char *` is given back once.
        let (message, version, stats) = unsafe {
            let stats = sepconv_stats_json();
            let copied = CStr::from_ptr(stats).to_owned();
            sepconv_free(stats);
            sepconv_free(ptr::null_mut());
            (CStr::from_ptr(sepconv_registration_error()), CStr::from_ptr(sepconv_version()), copied)
        };
        assert!(message.to_string_lossy().contains("TensorFlow is not loaded"));
        assert_eq!(version.to_string_lossy(), env!("CARGO_PKG_VERSION"));
        assert!(stats.to_string_lossy().starts_with("{\"kernel_calls\": "));
    }
}
