//! The element types: what the reference and the kernels need of a number.

use bytemuck::Pod;

use crate::kernels::Kernels;

/// A storage type of the convolution: `f32` or `f64`. Sealed: its arithmetic is part of the contract.
pub trait Element: Pod + PartialEq + std::fmt::Debug + Send + Sync + Kernels {
    const ZERO: Self;
    /// Smallest positive number that is not subnormal.
    const SMALLEST_NORMAL: f64;
    /// Of a normal number, the first one included.
    const MANTISSA_DIGITS: i32;
    /// `self * factor + addend` with one rounding, on every machine.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    fn mul(self, factor: Self) -> Self;
    fn add(self, addend: Self) -> Self;
    /// Rounds; for test data and probes.
    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
    /// The bits, so that results can be compared as integers; every NaN is alike.
    fn bits(self) -> u64;
}

macro_rules! element {
    ($type:ty) => {
        impl Element for $type {
            const ZERO: Self = 0.0;
            const SMALLEST_NORMAL: f64 = <$type>::MIN_POSITIVE as f64;
            const MANTISSA_DIGITS: i32 = <$type>::MANTISSA_DIGITS as i32;
            #[inline(always)]
            fn mul_add(self, factor: Self, addend: Self) -> Self {
                <$type>::mul_add(self, factor, addend)
            }
            #[inline(always)]
            fn mul(self, factor: Self) -> Self {
                self * factor
            }
            #[inline(always)]
            fn add(self, addend: Self) -> Self {
                self + addend
            }
            fn from_f64(value: f64) -> Self {
                value as $type
            }
            fn to_f64(self) -> f64 {
                self as f64
            }
            fn bits(self) -> u64 {
                if self.is_nan() { <$type>::NAN.to_bits() as u64 } else { self.to_bits() as u64 }
            }
        }
    };
}

element!(f32);
element!(f64);
