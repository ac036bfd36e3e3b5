//! The inner loops, each written once over [`Vector`](vector::Vector), in [`taps`], [`listed_taps`], [`shared_taps`],
//! [`two_lines`], [`product`], [`rows`], [`steps`] and [`correlation`]; a thin module for each instruction set; and around
//! them the two halves of the operation over one tile of output pixels, [`depthwise`] and [`pointwise`].
//!
//! All loops are inlined into the wrappers of an instruction set, which are what enables its instructions.
//!
//! An instruction set never changes a bit of a result: one output element is one lane, and every lane rounds as the
//! element's own operations do.

mod block;
mod correlation;
pub mod depthwise;
pub mod epilogue;
mod instruction_set;
mod kernel;
mod listed_taps;
mod macros;
pub mod memory;
mod pages;
mod pixel;
pub mod pointwise;
mod portable;
mod product;
mod rows;
mod run;
mod shared_taps;
mod sharing;
mod sigmoid;
mod steps;
mod taps;
pub mod tile;
mod two_lines;
mod vector;

#[cfg(target_arch = "x86_64")]
mod avx2;
// Unit tests do without: compiling its loops a second time takes minutes, and the tests beside the crate have them.
#[cfg(all(target_arch = "x86_64", not(test)))]
mod avx512;
#[cfg(all(target_arch = "x86_64", not(test)))]
mod avx512_bf16;
#[cfg(target_arch = "aarch64")]
mod neon;

use block::Block;
pub use correlation::{Correlation, Threes};
pub use instruction_set::{InstructionSet, Kernels};
pub use kernel::Kernel;
use macros::{by_rows, depthwises, kernel, kernels, loops, products, wrappers};
use rows::Pack;
pub use rows::Rows;
use run::Run;
pub use run::Target;
use steps::Finish;
