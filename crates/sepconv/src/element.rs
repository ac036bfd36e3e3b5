//! The element types: what the reference and the kernels need of a number.

use bytemuck::Pod;
use half::{bf16, f16};

use crate::kernels::Kernels;

/// A storage type of the convolution: `f32`, `f64`, [`half::f16`] or [`half::bf16`]. Sealed: its arithmetic is part of
/// the contract.
pub trait Element: Pod + PartialEq + std::fmt::Debug + Send + Sync + Kernels {
    /// What sums are in: `f32` for the 16-bit types, the type itself for the others.
    type Sum: Number;
    /// `f32`, `f64`, `f16` or `bf16`.
    const NAME: &'static str;
    const ZERO: Self;
    /// Smallest positive number that is not subnormal.
    const SMALLEST_NORMAL: f64;
    /// Largest finite number.
    const LARGEST: f64;
    /// Of a normal number, the first one included.
    const MANTISSA_DIGITS: i32;
    /// Exact.
    fn widen(self) -> Self::Sum;
    /// Rounded to the nearest, to even where two are.
    fn narrow(sum: Self::Sum) -> Self;
    /// Rounds; for test data and probes.
    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
    /// The bits, so that results can be compared as integers; every NaN is alike.
    fn bits(self) -> u64;
}

/// A type that sums are in.
pub trait Number: Element<Sum = Self> + PartialOrd {
    /// `self * factor + addend` with one rounding, on every machine.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    fn mul(self, factor: Self) -> Self;
    fn add(self, addend: Self) -> Self;
    fn div(self, divisor: Self) -> Self;
    /// The largest whole number that is not larger.
    fn floor(self) -> Self;
    /// 2 to this power, a whole number: that of some normal number, or one less, where it gives 0.
    fn power_of_two(self) -> Self;
}

/// The limit where it is larger; NaN stays.
pub fn larger<T: Number>(limit: T, x: T) -> T {
    if limit > x { limit } else { x }
}

/// The limit where it is smaller, likewise.
pub fn smaller<T: Number>(limit: T, x: T) -> T {
    if limit < x { limit } else { x }
}

/// True for the types that are stored as they are summed up.
pub const fn is_sum<T: Element>() -> bool {
    size_of::<T>() == size_of::<T::Sum>()
}

macro_rules! element {
    ($type:ident, $sum:ty, $zero:expr, $widen:expr, $narrow:expr, $to_f64:expr, $from_f64:expr, [$smallest:expr, $largest:expr]) => {
        impl Element for $type {
            type Sum = $sum;
            const NAME: &'static str = stringify!($type);
            const ZERO: Self = $zero;
            const SMALLEST_NORMAL: f64 = $smallest;
            const LARGEST: f64 = $largest;
            const MANTISSA_DIGITS: i32 = $type::MANTISSA_DIGITS as i32;
            #[inline(always)]
            fn widen(self) -> $sum {
                $widen(self)
            }
            #[inline(always)]
            fn narrow(sum: $sum) -> Self {
                $narrow(sum)
            }
            fn from_f64(value: f64) -> Self {
                $from_f64(value)
            }
            fn to_f64(self) -> f64 {
                $to_f64(self)
            }
            fn bits(self) -> u64 {
                if self.is_nan() { $type::NAN.to_bits().into() } else { self.to_bits().into() }
            }
        }
    };
}

/// A value as it is.
fn same<T>(value: T) -> T {
    value
}

macro_rules! number {
    ($type:ident, $bits:ty, $scale:literal) => {
        element!(
            $type,
            Self,
            0.0,
            same,
            same,
            f64::from,
            |v| v as $type,
            [$type::MIN_POSITIVE as f64, $type::MAX as f64]
        );

        impl Number for $type {
            #[cfg_attr(not(target_arch = "aarch64"), inline(always))]
            fn mul_add(self, factor: Self, addend: Self) -> Self {
                let scaled = |scale| $type::mul_add(self * scale, factor, addend * scale);
                rounded_up!($type, $type::mul_add(self, factor, addend), scaled, $scale)
            }
            #[cfg_attr(not(target_arch = "aarch64"), inline(always))]
            fn mul(self, factor: Self) -> Self {
                rounded_up!($type, self * factor, |scale| self * scale * factor, $scale)
            }
            #[inline(always)]
            fn add(self, addend: Self) -> Self {
                self + addend
            }
            #[cfg_attr(not(target_arch = "aarch64"), inline(always))]
            fn div(self, divisor: Self) -> Self {
                rounded_up!($type, self / divisor, |scale| self * scale / divisor, $scale)
            }
            #[inline(always)]
            fn floor(self) -> Self {
                $type::floor(self)
            }
            #[inline(always)]
            fn power_of_two(self) -> Self {
                let biased = self + ($type::MAX_EXP - 1) as $type;
                $type::from_bits((biased as $bits) << ($type::MANTISSA_DIGITS - 1))
            }
        }
    };
}

/// A result; where that is zero, perhaps what x86-64 gives in its place. When both flush subnormal numbers, x86-64 looks
/// at a result after it is rounded, and AArch64 before, so that only there what rounds up to the smallest normal number
/// is flushed too. It shows when everything is computed again on a larger scale, where nothing is flushed; nothing
/// overflows either if the result is that number. (Sums without a product are exact where they are so small.) There, this is
/// not for inner loops: only for the reference and for what is done again.
macro_rules! rounded_up {
    ($type:ident, $result:expr, $scaled:expr, $scale:literal) => {{
        let result = $result;
        if cfg!(target_arch = "aarch64") && result == 0.0 {
            const SCALE: $type = (1u128 << $scale) as $type;
            let scaled: $type = $scaled(SCALE);
            if scaled.abs() == $type::MIN_POSITIVE * SCALE {
                return $type::MIN_POSITIVE.copysign(scaled);
            }
        }
        result
    }};
}

number!(f32, u32, 64);
number!(f64, u64, 100);
element!(
    f16,
    f32,
    f16::ZERO,
    f16::to_f32,
    f16::from_f32,
    f16::to_f64,
    f16::from_f64,
    [f16::MIN_POSITIVE.to_f64_const(), f16::MAX.to_f64_const()]
);
element!(
    bf16,
    f32,
    bf16::ZERO,
    bf16::to_f32,
    bf16::from_f32,
    bf16::to_f64,
    bf16::from_f64,
    [bf16::MIN_POSITIVE.to_f64_const(), bf16::MAX.to_f64_const()]
);
