//! The inner loops; one folder per instruction set, the same algorithm in each.

/// What the kernels provide for an element type.
pub trait Kernels: Sized {}
impl Kernels for f32 {}
impl Kernels for f64 {}
