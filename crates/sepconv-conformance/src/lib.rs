//! TensorFlow as the reference: its own composite of a separable convolution, run through the Rust `tensorflow` crate;
//! the composite's two halves as black boxes whose order of sums can be revealed; and the space of random cases over
//! which implementations are compared with it; and the register of what is deliberately not as in TensorFlow.
//!
//! TensorFlow is loaded at run time from the directory that `TENSORFLOW_DIR` names (`ci/setup` makes one from the
//! Python wheel: `target/tensorflow`); nothing here is linked to it. oneDNN is as `TF_ENABLE_ONEDNN_OPTS` says, intra-op
//! threads as `SEPCONV_THREADS` does; both hold for the whole process. The [command line](cli) has options for both.

mod case_directory;
pub mod cases;
pub mod cli;
pub mod compare;
pub mod composite;
pub mod deviations;
pub mod difference;
mod drawing;
mod files;
mod group;
pub mod implementation;
mod npy;
pub mod observe;
pub mod op;
pub mod program;
mod random;
pub mod reference;
mod report;
pub mod reveal;
pub mod run;
pub mod semantics;
pub mod session;
mod signals;
pub mod tally;
pub mod trials;
pub mod vectors;
mod whole;
mod worker;
