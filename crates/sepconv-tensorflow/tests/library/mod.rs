//! The op library for the tests.
//!
//! Cargo builds no cdylib for a package's integration tests, so this does, into the directory and with the profile of
//! the running test. `SEPCONV_LIBRARY` names another file: an installed one, or a copy.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sepconv_conformance::op::OpLibrary;

#[allow(dead_code, reason = "some tests need the path only")]
/// Loads the library into TensorFlow; panics with what failed.
pub fn load() -> OpLibrary {
    OpLibrary::load(path()).unwrap_or_else(|error| panic!("{error}"))
}

/// The library's file, built once.
pub fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(build)
}

fn build() -> PathBuf {
    if let Some(path) = env::var_os("SEPCONV_LIBRARY") {
        return path.into();
    }
    // <target>/<profile>/deps/<test>
    let test = env::current_exe().expect("a running test has a path");
    let profile = test.ancestors().nth(2).expect("cargo puts tests into <target>/<profile>/deps");
    let target = profile.parent().expect("a profile's directory is in a target directory");
    let name = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let status = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["build", "--quiet", "--lib", "--profile", name, "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../sepconv-tensorflow/Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "cargo could not build the op library (see above)");
    profile.join("libsepconv_tensorflow.so")
}
