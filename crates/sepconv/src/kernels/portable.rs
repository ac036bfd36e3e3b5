//! No instruction set in particular: arrays of elements and the elements' own operations, so that every processor,
//! with fused multiply-add or without, gives the same bits. The compiler vectorises what it can.

use half::{bf16, f16};

use super::vector::{Vector, Widen};
use super::{kernels, wrappers};
use crate::element::{Element, Number, is_sum};

/// Proof of nothing: every processor can run this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portable;

impl Portable {
    // 16-byte vectors are what SSE2 and NEON, the least of their architectures, have; 4 rows by 2 of them fit into the
    // 16 registers of SSE2.
    kernels!("portable", Lanes<f32, 4>, Lanes<f64, 2>, [[1 2 3 4] [1 2 3 4] [1 2 3 4]]);
}

#[derive(Clone, Copy)]
struct Lanes<T, const N: usize>([T; N]);

impl<T: Number, const N: usize> Vector for Lanes<T, N> {
    type Element = T;
    const LANES: usize = N;
    const REGISTERS: usize = 0;
    const UNROLLED: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: T) -> Self {
        Self([value; N])
    }
    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: the caller promises that the elements are there; an array of them needs no other alignment.
        Self(unsafe { *from.cast::<[T; N]>() })
    }
    #[inline(always)]
    unsafe fn prefetch<P>(_place: *const P) {}
    #[inline(always)]
    unsafe fn prefetch_far<P>(_place: *const P) {}
    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: as for `load`.
        unsafe { *to.cast::<[T; N]>() = self.0 }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(std::array::from_fn(|l| self.0[l].mul_add(factor.0[l], addend.0[l])))
    }
    #[inline(always)]
    unsafe fn mul(self, factor: Self) -> Self {
        Self(std::array::from_fn(|l| self.0[l].mul(factor.0[l])))
    }
    #[inline(always)]
    unsafe fn add(self, addend: Self) -> Self {
        Self(std::array::from_fn(|l| self.0[l].add(addend.0[l])))
    }
    #[inline(always)]
    unsafe fn larger(self, other: Self) -> Self {
        Self(std::array::from_fn(|l| if self.0[l] > other.0[l] { self.0[l] } else { other.0[l] }))
    }
    #[inline(always)]
    unsafe fn smaller(self, other: Self) -> Self {
        Self(std::array::from_fn(|l| if self.0[l] < other.0[l] { self.0[l] } else { other.0[l] }))
    }
    #[inline(always)]
    unsafe fn if_positive(self, then: Self, other: Self) -> Self {
        Self(std::array::from_fn(|l| if self.0[l] > T::ZERO { then.0[l] } else { other.0[l] }))
    }
    #[inline(always)]
    unsafe fn unless_at_most_zero(self, values: Self) -> Self {
        Self(std::array::from_fn(|l| if values.0[l] <= T::ZERO { T::ZERO } else { self.0[l] }))
    }
    #[inline(always)]
    unsafe fn div(self, divisor: Self) -> Self {
        Self(std::array::from_fn(|l| self.0[l].div(divisor.0[l])))
    }
    #[inline(always)]
    unsafe fn floor(self) -> Self {
        Self(self.0.map(T::floor))
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        Self(self.0.map(T::power_of_two))
    }
    #[inline(always)]
    unsafe fn spread(self, lanes: &[i32; 16]) -> Self {
        Self(std::array::from_fn(|l| self.0[lanes[l] as usize % N]))
    }
    #[inline(always)]
    unsafe fn interleave(self, other: Self) -> [Self; 2] {
        let half = |first: usize| Self(std::array::from_fn(|l| [self, other][l % 2].0[first + l / 2]));
        [half(0), half(N / 2)]
    }
}

impl<T: Number, S: Element<Sum = T>, const N: usize> Widen<S> for Lanes<T, N> {
    const CHEAP: bool = false;

    #[inline(always)]
    unsafe fn widen(from: *const S) -> Self {
        // SAFETY: the caller promises that the elements are there.
        Self(std::array::from_fn(|l| unsafe { *from.add(l) }.widen()))
    }
    #[inline(always)]
    unsafe fn widen_first(from: *const S, count: usize) -> Self {
        // SAFETY: only the lanes that the caller promises are read.
        Self(std::array::from_fn(|l| if l < count { unsafe { *from.add(l) }.widen() } else { T::ZERO }))
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(self.0.map(|sum| S::narrow(sum).widen()))
    }
    #[inline(always)]
    unsafe fn narrow(self, to: *mut S) {
        for (l, sum) in self.0.into_iter().enumerate() {
            // SAFETY: the caller promises room for them.
            unsafe { to.add(l).write(S::narrow(sum)) };
        }
    }
}

wrappers!();
