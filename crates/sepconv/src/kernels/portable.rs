//! No instruction set in particular: arrays of elements and the elements' own operations, so that every processor,
//! with fused multiply-add or without, gives the same bits. The compiler vectorises what it can.

use super::generic;
use super::vector::Vector;
use super::{Block, Kernel, Pack, Run, kernel, products};
use crate::element::Element;

/// Proof of nothing: every processor can run this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portable;

impl Portable {
    // 16-byte vectors are what SSE2 and NEON, the least of their architectures, have; 4 rows by 2 of them fit into the
    // 16 registers of SSE2.
    pub fn f32(self) -> Kernel<f32> {
        kernel!("portable-f32", Lanes<f32, 4>, [1 2 3 4])
    }

    pub fn f64(self) -> Kernel<f64> {
        kernel!("portable-f64", Lanes<f64, 2>, [1 2 3 4])
    }
}

#[derive(Clone, Copy)]
struct Lanes<T, const N: usize>([T; N]);

impl<T: Element, const N: usize> Vector for Lanes<T, N> {
    type Element = T;
    const LANES: usize = N;

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
    unsafe fn load_first(from: *const T, count: usize) -> Self {
        // SAFETY: only the lanes that the caller promises are read.
        Self(std::array::from_fn(|l| if l < count { unsafe { *from.add(l) } } else { T::ZERO }))
    }
    #[inline(always)]
    unsafe fn load_spread(from: *const T, _count: usize, lanes: &[i32; 16]) -> Self {
        // SAFETY: the caller promises that every lane is among the elements that are there.
        Self(std::array::from_fn(|l| unsafe { *from.add(lanes[l] as usize) }))
    }
    #[inline(always)]
    unsafe fn prefetch(_place: *const T) {}
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
}

unsafe fn depthwise<V: Vector, const FUSED: bool, const ALL: bool, const SPREAD: bool>(run: &Run<V::Element>) {
    // SAFETY: the caller's promise.
    unsafe { generic::depthwise::<V, FUSED, ALL, SPREAD>(run) }
}

unsafe fn product<V: Vector, const ROWS: usize, const VECTORS: usize, const FUSED: bool, const COPY: bool>(
    block: &Block<V::Element>,
) {
    // SAFETY: the caller's promise.
    unsafe { generic::product::<V, ROWS, VECTORS, FUSED, COPY>(block) }
}

unsafe fn pack<V: Vector, const VECTORS: usize>(pack: &Pack<V::Element>) {
    // SAFETY: the caller's promise.
    unsafe { generic::pack::<V, VECTORS>(pack) }
}
