//! Keeps the library in the process once it is loaded: TensorFlow holds pointers into it and has no way to let go.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
