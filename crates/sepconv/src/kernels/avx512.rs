//! AVX-512F: 32 registers of 64 bytes.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that `Vector` states")]

use std::arch::x86_64::*;

use super::generic;
use super::vector::{Vector, vector};
use super::{Block, Kernel, Pack, Run, kernel, products};

/// Proof that the processor has AVX-512F.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512(());

impl Avx512 {
    pub fn new() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }

    // 14 rows by 2 vectors: 28 sums, 2 vectors of the filter and one pixel fill 31 of 32 registers.
    pub fn f32(self) -> Kernel<f32> {
        kernel!("avx512-f32", F32x16, [1 2 3 4 5 6 7 8 9 10 11 12 13 14])
    }

    pub fn f64(self) -> Kernel<f64> {
        kernel!("avx512-f64", F64x8, [1 2 3 4 5 6 7 8 9 10 11 12 13 14])
    }
}

vector!(
    F32x16(__m512),
    f32,
    16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_fmadd_ps,
    _mm512_mul_ps,
    _mm512_add_ps,
    load_first_f32,
    load_spread_f32
);

#[inline(always)]
unsafe fn load_first_f32(from: *const f32, count: usize) -> __m512 {
    _mm512_maskz_loadu_ps(((1u32 << count) - 1) as __mmask16, from)
}

#[inline(always)]
unsafe fn load_spread_f32(from: *const f32, count: usize, lanes: &[i32; 16]) -> __m512 {
    _mm512_permutexvar_ps(_mm512_loadu_epi32(lanes.as_ptr()), load_first_f32(from, count))
}

vector!(
    F64x8(__m512d),
    f64,
    8,
    _mm512_set1_pd,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_fmadd_pd,
    _mm512_mul_pd,
    _mm512_add_pd,
    load_first_f64,
    load_spread_f64
);

#[inline(always)]
unsafe fn load_first_f64(from: *const f64, count: usize) -> __m512d {
    _mm512_maskz_loadu_pd(((1u32 << count) - 1) as __mmask8, from)
}

#[inline(always)]
unsafe fn load_spread_f64(from: *const f64, count: usize, lanes: &[i32; 16]) -> __m512d {
    let lanes = _mm512_castsi512_si256(_mm512_loadu_epi32(lanes.as_ptr()));
    _mm512_permutexvar_pd(_mm512_cvtepi32_epi64(lanes), load_first_f64(from, count))
}

#[target_feature(enable = "avx512f")]
unsafe fn depthwise<V: Vector, const FUSED: bool, const ALL: bool, const SPREAD: bool>(run: &Run<V::Element>) {
    generic::depthwise::<V, FUSED, ALL, SPREAD>(run)
}

#[target_feature(enable = "avx512f")]
unsafe fn product<V: Vector, const ROWS: usize, const VECTORS: usize, const FUSED: bool, const COPY: bool>(
    block: &Block<V::Element>,
) {
    generic::product::<V, ROWS, VECTORS, FUSED, COPY>(block)
}

#[target_feature(enable = "avx512f")]
unsafe fn pack<V: Vector, const VECTORS: usize>(pack: &Pack<V::Element>) {
    generic::pack::<V, VECTORS>(pack)
}
