//! Depthwise separable convolution on CPUs: a depthwise convolution followed by a 1x1 convolution, as
//! `tf.nn.separable_conv2d` computes it, on [`ndarray`] arrays and with no TensorFlow in it.
//!
//! The bits of a result are fully determined by the [geometry] and the [numerics], never by thread count, instruction
//! set (AVX-512, AVX2, NEON, or none in particular), batch size or alignment. The default numerics are [`Numerics::REPRODUCIBLE`]; a text that sepconv's Python
//! package or command line printed gives TensorFlow's own bits.
//!
//! ```
//! use ndarray::Array4;
//! use sepconv::{Padding, separable_conv2d};
//!
//! let input = Array4::<f32>::ones((1, 8, 8, 3)); // batch, height, width, in_channels
//! let depthwise_filter = Array4::ones((3, 3, 3, 1)); // height, width, in_channels, channel_multiplier
//! let pointwise_filter = Array4::ones((1, 1, 3, 5)); // 1, 1, in_channels * channel_multiplier, out_channels
//! let output = separable_conv2d(
//!     input.view(), depthwise_filter.view(), pointwise_filter.view(), [1, 1], Padding::Same, [1, 1],
//! )?;
//! assert_eq!(output.shape(), [1, 8, 8, 5]);
//! assert_eq!(output[(0, 4, 4, 0)], 27.0);
//! # Ok::<(), sepconv::Error>(())
//! ```

mod convolution;
mod element;
pub mod epilogue;
mod error;
pub mod geometry;
pub mod gradient;
mod kernels;
pub mod numerics;
pub mod orders;
mod plan;
pub mod reference;
pub mod reveal;
mod sigmoid;
mod split;
mod subnormals;
mod tap_order;
mod team;

pub use convolution::{PackedFilter, Plan, SeparableConv2d, WithSteps, separable_conv2d};
pub use element::Element;
pub use error::{AxisName, Error};
pub use geometry::{Attributes, Geometry, Padding};
#[doc(hidden)]
pub use kernels::InstructionSet;
pub use numerics::Numerics;
pub use orders::Orders;
