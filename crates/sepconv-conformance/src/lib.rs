//! TensorFlow as the reference: its own composite of a separable convolution, run through the Rust `tensorflow` crate;
//! the composite's two halves as black boxes whose order of sums can be revealed; and the space of random cases over
//! which implementations are compared with it; and the register of what is deliberately not as in TensorFlow.
//!
//! TensorFlow is loaded at run time from the directory that `TENSORFLOW_DIR` names (`ci/setup` makes one from the
//! Python wheel: `target/tensorflow`); nothing here is linked to it. oneDNN is as `TF_ENABLE_ONEDNN_OPTS` says, intra-op
//! threads as `SEPCONV_THREADS` does; both hold for the whole process.

pub mod cases;
pub mod composite;
pub mod deviations;
pub mod observe;
pub mod op;
mod random;
pub mod semantics;
pub mod session;
pub mod tally;
pub mod trials;
