//! What the algorithms need of a vector register.

use crate::element::{Element, Number};
use crate::numerics::Products;

/// A register of `LANES` elements. Every operation works lane by lane, so that a result never depends on `LANES`, and
/// rounds as the element's own operation does.
///
/// All methods are unsafe for the same reason: the processor must have the implementing type's instruction set. Where
/// there is a pointer, it must be valid for the elements named; it need not be aligned.
pub trait Vector: Copy {
    type Element: Number;
    const LANES: usize;
    /// How many such registers the processor has: of loops that make the most of them. None where it is not a register.
    const REGISTERS: usize = if cfg!(target_arch = "aarch64") || size_of::<Self>() == 64 { 32 } else { 16 };
    /// Whether all lanes can be multiplied by a number in memory that has not been loaded into a register.
    const FACTORS_FROM_MEMORY: bool = cfg!(target_arch = "x86_64") && size_of::<Self>() == 64;
    /// Products that the inner loop of the pointwise product takes at a time.
    const UNROLLED: usize;
    /// Products of a pointwise sum that all rows of a tile take before any takes the next: with two vectors of columns as
    /// much of the filter as stays in the first-level cache meanwhile. All of them on AArch64, where the panels are half
    /// as wide, and a call may have to begin again (see `neon`).
    const GROUP: usize = if cfg!(target_arch = "aarch64") { usize::MAX } else { 256 };

    unsafe fn splat(value: Self::Element) -> Self;
    unsafe fn load(from: *const Self::Element) -> Self;
    /// Asks for the cache line of an address that need not exist.
    unsafe fn prefetch<T>(place: *const T);
    /// The same, into the second-level cache.
    unsafe fn prefetch_far<T>(place: *const T);
    unsafe fn store(self, to: *mut Self::Element);
    /// Whether it can be stored rounded to the one 16-bit type that it serves.
    const NARROWS: bool = false;
    /// Stores it so.
    unsafe fn store_narrow(self, _to: *mut u16) {
        unreachable!("only where it can be")
    }
    /// `self * factor + addend`, rounded once.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// The same, also of sums whose `mul_add` takes pairs of 16-bit numbers.
    #[inline(always)]
    unsafe fn scaled(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { self.mul_add(factor, addend) }
    }
    unsafe fn mul(self, factor: Self) -> Self;
    unsafe fn add(self, addend: Self) -> Self;
    /// `self > other ? self : other`: the other where one is NaN or both are zeros.
    unsafe fn larger(self, other: Self) -> Self;
    /// `self < other ? self : other`, likewise.
    unsafe fn smaller(self, other: Self) -> Self;
    /// `self > 0 ? then : other`.
    unsafe fn if_positive(self, then: Self, other: Self) -> Self;
    /// `holds ? then : other`; by masks where two lines share values (see [`two_lines`](super::sharing::two_lines)), which are all
    /// that asks for it.
    #[inline(always)]
    unsafe fn choose(holds: bool, then: Self, other: Self) -> Self {
        if holds { then } else { other }
    }
    /// `values <= 0 ? +0 : self`.
    unsafe fn unless_at_most_zero(self, values: Self) -> Self;
    unsafe fn div(self, divisor: Self) -> Self;
    unsafe fn floor(self) -> Self;
    /// As the element's own.
    unsafe fn power_of_two(self) -> Self;
    /// Lane `l` is what lane `lanes[l]` was.
    unsafe fn spread(self, lanes: &[i32; 16]) -> Self;
    /// The lanes of both in turn: of their first halves, and of their second.
    unsafe fn interleave(self, other: Self) -> [Self; 2];
}

/// A vector of sums of numbers that are stored as `S`.
///
/// All methods are unsafe for the reasons that [`Vector`] states.
pub trait Widen<S: Element<Sum = Self::Element>>: Vector {
    /// Whether widening costs no more than a load: then it pays to have loops in which pixels share what is loaded.
    const CHEAP: bool;
    unsafe fn widen(from: *const S) -> Self;
    /// The first `count` (at most `LANES`) lanes; the others are +0 and not read.
    unsafe fn widen_first(from: *const S, count: usize) -> Self;
    /// Rounded to `S` and widened again.
    unsafe fn round(self) -> Self;
    /// Rounded to `S`.
    unsafe fn narrow(self, to: *mut S);
}

/// How products enter a sum, as the constant that a loop is compiled for.
pub const FUSED: usize = Products::Fused as usize;
pub const SEPARATE: usize = Products::Separate as usize;
pub const PAIRED: usize = Products::Paired as usize;

/// `x * w + sum`, with one rounding or two.
///
/// # Safety
/// As for every method of [`Vector`].
#[inline(always)]
pub unsafe fn accumulate<V: Vector, const PRODUCTS: usize>(x: V, w: V, sum: V) -> V {
    // SAFETY: the caller's promise.
    unsafe { if PRODUCTS == SEPARATE { sum.add(x.mul(w)) } else { x.mul_add(w, sum) } }
}

/// What [`Vector::prefetch`] does where the processor has an instruction for it, and with `FAR` [`Vector::prefetch_far`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn prefetch<T, const FAR: bool>(place: *const T) {
    use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
    // SAFETY: SSE is part of x86-64, and a prefetch of no matter which address does nothing but that.
    unsafe { if FAR { _mm_prefetch::<_MM_HINT_T1>(place.cast()) } else { _mm_prefetch::<_MM_HINT_T0>(place.cast()) } }
}

/// What [`Vector::prefetch`] does where the processor has an instruction for it, and with `FAR` [`Vector::prefetch_far`].
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub fn prefetch<T, const FAR: bool>(place: *const T) {
    use std::arch::asm;
    // SAFETY: a prefetch of no matter which address does nothing but that.
    unsafe {
        if FAR {
            asm!("prfm pldl2keep, [{}]", in(reg) place.addr(), options(nomem, nostack, preserves_flags));
        } else {
            asm!("prfm pldl1keep, [{}]", in(reg) place.addr(), options(nomem, nostack, preserves_flags));
        }
    }
}

/// The same pointer, of which the compiler no longer knows how it came about: where it would keep each sum of pointer and
/// offset of a loop in a register of its own, and has not enough of them.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[expect(clippy::pointers_in_nomem_asm_block, reason = "nothing is read or written through it")]
#[inline(always)]
pub fn unpredicted<T>(mut place: *const T) -> *const T {
    // SAFETY: no instruction at all.
    unsafe { std::arch::asm!("/* {} */", inout(reg) place, options(pure, nomem, nostack, preserves_flags)) }
    place
}

/// The same pointer, where what there are of registers is not known.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub use std::convert::identity as unpredicted;

/// A [`Vector`] on one kind of register.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! vector {
    (
        $name:ident($register:ty), $element:ty, $lanes:literal, $unrolled:literal, $splat:ident, $load:ident, $store:ident,
        $mul_add:ident, $mul:ident, $add:ident, $larger:ident, $smaller:ident, $if_positive:ident,
        $unless_at_most_zero:ident, $div:ident, $floor:ident, $power_of_two:ident, $spread:ident,
        $interleave:ident
        $(; $choose:ident $(, $narrow:ident, $scaled:ident)?)?
    ) => {
        #[derive(Clone, Copy)]
        pub struct $name($register);

        impl $crate::kernels::vector::Vector for $name {
            type Element = $element;
            const LANES: usize = $lanes;
            const UNROLLED: usize = $unrolled;
            $(
                #[inline(always)]
                unsafe fn choose(holds: bool, then: Self, other: Self) -> Self {
                    Self($choose(holds, then.0, other.0))
                }
                $(
                    const NARROWS: bool = true;

                    #[inline(always)]
                    unsafe fn store_narrow(self, to: *mut u16) {
                        $narrow(to, self.0)
                    }
                    #[inline(always)]
                    unsafe fn scaled(self, factor: Self, addend: Self) -> Self {
                        Self($scaled(self.0, factor.0, addend.0))
                    }
                )?
            )?

            #[inline(always)]
            unsafe fn splat(value: $element) -> Self {
                Self($splat(value))
            }
            #[inline(always)]
            unsafe fn load(from: *const $element) -> Self {
                Self($load(from))
            }
            #[inline(always)]
            unsafe fn prefetch<T>(place: *const T) {
                $crate::kernels::vector::prefetch::<_, false>(place)
            }
            #[inline(always)]
            unsafe fn prefetch_far<T>(place: *const T) {
                $crate::kernels::vector::prefetch::<_, true>(place)
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $element) {
                $store(to, self.0)
            }
            #[inline(always)]
            unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
                Self($mul_add(self.0, factor.0, addend.0))
            }
            #[inline(always)]
            unsafe fn mul(self, factor: Self) -> Self {
                Self($mul(self.0, factor.0))
            }
            #[inline(always)]
            unsafe fn add(self, addend: Self) -> Self {
                Self($add(self.0, addend.0))
            }
            #[inline(always)]
            unsafe fn larger(self, other: Self) -> Self {
                Self($larger(self.0, other.0))
            }
            #[inline(always)]
            unsafe fn smaller(self, other: Self) -> Self {
                Self($smaller(self.0, other.0))
            }
            #[inline(always)]
            unsafe fn if_positive(self, then: Self, other: Self) -> Self {
                Self($if_positive(self.0, then.0, other.0))
            }
            #[inline(always)]
            unsafe fn unless_at_most_zero(self, values: Self) -> Self {
                Self($unless_at_most_zero(self.0, values.0))
            }
            #[inline(always)]
            unsafe fn div(self, divisor: Self) -> Self {
                Self($div(self.0, divisor.0))
            }
            #[inline(always)]
            unsafe fn floor(self) -> Self {
                Self($floor(self.0))
            }
            #[inline(always)]
            unsafe fn power_of_two(self) -> Self {
                Self($power_of_two(self.0))
            }
            #[inline(always)]
            unsafe fn spread(self, lanes: &[i32; 16]) -> Self {
                Self($spread(self.0, lanes))
            }
            #[inline(always)]
            unsafe fn interleave(self, other: Self) -> [Self; 2] {
                let [first, second] = $interleave(self.0, other.0);
                [Self(first), Self(second)]
            }
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use vector;

/// How such a vector is had from what is stored: the first elements by a function of a pointer and a count; of a 16-bit
/// type, by those that load and store its bits and convert them.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! widen {
    ($name:ident, $first:ident) => {
        impl $crate::kernels::vector::Widen<<$name as Vector>::Element> for $name {
            const CHEAP: bool = true;

            #[inline(always)]
            unsafe fn widen(from: *const <$name as Vector>::Element) -> Self {
                Self::load(from)
            }
            #[inline(always)]
            unsafe fn widen_first(from: *const <$name as Vector>::Element, count: usize) -> Self {
                Self($first(from, count))
            }
            #[inline(always)]
            unsafe fn round(self) -> Self {
                self
            }
            #[inline(always)]
            unsafe fn narrow(self, to: *mut <$name as Vector>::Element) {
                self.store(to)
            }
        }
    };
    ($name:ident, $lanes:literal, $storage:ty, $bits:ty, $load:ident, $store:ident, $from:ident, $to:ident) => {
        impl $crate::kernels::vector::Widen<$storage> for $name {
            const CHEAP: bool = false;

            #[inline(always)]
            unsafe fn widen(from: *const $storage) -> Self {
                Self($from($load(from.cast())))
            }
            #[inline(always)]
            unsafe fn widen_first(from: *const $storage, count: usize) -> Self {
                // There are no masked loads of 16-bit numbers before AVX-512BW.
                let mut first = [0u16; $lanes];
                std::ptr::copy_nonoverlapping(from.cast(), first.as_mut_ptr(), count);
                Self($from($load(first.as_ptr().cast())))
            }
            #[inline(always)]
            unsafe fn round(self) -> Self {
                Self($from($to(self.0)))
            }
            #[inline(always)]
            unsafe fn narrow(self, to: *mut $storage) {
                $store(to.cast(), $to(self.0))
            }
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use widen;
