//! The op `Sepconv>SeparableConv2D` for TensorFlow 2: loading the library (`tf.load_op_library`, `TF_LoadLibrary`)
//! registers the op, its shape function and its CPU kernels through TensorFlow's C ABI. The library links to nothing of
//! TensorFlow: where TensorFlow is absent nothing is registered, and `sepconv_registration_error` says what is missing.
//!
//! Nothing unwinds out of this library. Its only public items are the C functions in [`exports`].

#[cfg(not(target_os = "linux"))]
compile_error!("sepconv-tensorflow works on Linux only (ELF loading and glibc); the crate `sepconv` works elsewhere");

mod carrier;
mod copies;
mod depthwise;
mod exports;
mod form;
mod gradient;
mod guard;
mod keeper;
mod kernel;
mod queries;
mod registration;
mod shape_function;
mod statistics;
mod steps;
mod tensorflow;
mod threads;
