//! Other copies of this library in the process, loaded from other paths. The one that registered the op serves every
//! call of it; the others register nothing and pass questions on.
//!
//! Neither TensorFlow's framework library (nothing in its C ABI asks for an op) nor global symbols (libraries are loaded
//! privately) tell whether the op is there, so every loaded object is asked for the marker that all copies export.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use crate::exports::{sepconv_free, sepconv_registered_here, sepconv_set_threads, sepconv_stats_json};

/// The copy that registered the op.
pub struct Owner {
    set_threads: extern "C" fn(i32),
    stats_json: extern "C" fn() -> *mut c_char,
    free: unsafe extern "C" fn(*mut c_char),
}

impl Owner {
    /// Finds it, if it is not this one.
    pub fn find() -> Option<Self> {
        loaded_objects().iter().find_map(|path| {
            // SAFETY: a string that ends in zero. The object is loaded already and is kept from now on.
            let object = Object(unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_LAZY) });
            let symbol = object.symbol(c"sepconv_registered_here")?;
            let ours: extern "C" fn() -> i32 = sepconv_registered_here;
            if symbol == ours as *mut c_void {
                return None;
            }
            // SAFETY: the function of this name has this signature in every version of this library.
            let registered_here: extern "C" fn() -> i32 = unsafe { std::mem::transmute(symbol) };
            (registered_here() == 1).then_some(())?;
            object.owner()
        })
    }

    pub fn set_threads(&self, threads: i32) {
        (self.set_threads)(threads);
    }

    pub fn stats_json(&self) -> String {
        let text = (self.stats_json)();
        if text.is_null() {
            return "null".into();
        }
        // SAFETY: a string that ends in zero and is ours to give back, once.
        unsafe {
            let json = CStr::from_ptr(text).to_string_lossy().into_owned();
            (self.free)(text);
            json
        }
    }
}

/// A handle of the dynamic linker's; null where the object has gone.
struct Object(*mut c_void);

impl Object {
    fn symbol(&self, name: &CStr) -> Option<*mut c_void> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: an open handle and a string that ends in zero.
        let symbol = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!symbol.is_null()).then_some(symbol)
    }

    fn owner(&self) -> Option<Owner> {
        let _same_signatures: Owner =
            Owner { set_threads: sepconv_set_threads, stats_json: sepconv_stats_json, free: sepconv_free };
        // SAFETY: the functions of these names have these signatures in every version of this library.
        unsafe {
            Some(Owner {
                set_threads: std::mem::transmute::<*mut c_void, extern "C" fn(i32)>(
                    self.symbol(c"sepconv_set_threads")?,
                ),
                stats_json: std::mem::transmute::<*mut c_void, extern "C" fn() -> *mut c_char>(
                    self.symbol(c"sepconv_stats_json")?,
                ),
                free: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_char)>(
                    self.symbol(c"sepconv_free")?,
                ),
            })
        }
    }
}

/// The paths of everything that the dynamic linker has loaded; the program itself has none.
fn loaded_objects() -> Vec<CString> {
    unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _: usize, paths: *mut c_void) -> c_int {
        // SAFETY: the linker's own description of an object, and the vector below, for this call.
        let (name, paths) = unsafe { ((*info).dlpi_name, &mut *paths.cast::<Vec<CString>>()) };
        if !name.is_null() {
            // SAFETY: a string that ends in zero.
            let name = unsafe { CStr::from_ptr(name) };
            if !name.is_empty() {
                paths.push(name.to_owned());
            }
        }
        0
    }
    let mut paths: Vec<CString> = Vec::new();
    // SAFETY: `note` takes a vector of paths; it neither loads nor unloads anything.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut paths).cast()) };
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_is_among_the_loaded_objects_and_no_owner_is() {
        assert!(loaded_objects().iter().any(|path| path.to_string_lossy().contains("libc.so")));
        assert!(Owner::find().is_none());
    }
}
