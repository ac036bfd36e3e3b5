//! AVX2 with FMA: 16 registers of 32 bytes.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that `Vector` states")]

use std::arch::x86_64::*;

use super::generic;
use super::vector::{Vector, vector};
use super::{Block, Kernel, Pack, Run, kernel, products};

/// Proof that the processor has AVX2 and FMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

impl Avx2 {
    pub fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }

    // 6 rows by 2 vectors: 12 sums, 2 vectors of the filter and one pixel fill 15 of 16 registers.
    pub fn f32(self) -> Kernel<f32> {
        kernel!("avx2-f32", F32x8, [1 2 3 4 5 6])
    }

    pub fn f64(self) -> Kernel<f64> {
        kernel!("avx2-f64", F64x4, [1 2 3 4 5 6])
    }
}

/// Read from `8 - count` on, these are the masks of the first `count` lanes.
static FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

vector!(
    F32x8(__m256),
    f32,
    8,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_fmadd_ps,
    _mm256_mul_ps,
    _mm256_add_ps,
    load_first_f32,
    load_spread_f32
);

#[inline(always)]
unsafe fn load_first_f32(from: *const f32, count: usize) -> __m256 {
    _mm256_maskload_ps(from, _mm256_loadu_si256(FIRST.as_ptr().add(8 - count).cast()))
}

#[inline(always)]
unsafe fn load_spread_f32(from: *const f32, count: usize, lanes: &[i32; 16]) -> __m256 {
    _mm256_permutevar8x32_ps(load_first_f32(from, count), _mm256_loadu_si256(lanes.as_ptr().cast()))
}

vector!(
    F64x4(__m256d),
    f64,
    4,
    _mm256_set1_pd,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_fmadd_pd,
    _mm256_mul_pd,
    _mm256_add_pd,
    load_first_f64,
    load_spread_f64
);

#[inline(always)]
unsafe fn load_first_f64(from: *const f64, count: usize) -> __m256d {
    let mask = _mm_loadu_si128(FIRST.as_ptr().add(8 - count).cast());
    _mm256_maskload_pd(from, _mm256_cvtepi32_epi64(mask))
}

#[inline(always)]
unsafe fn load_spread_f64(from: *const f64, _count: usize, lanes: &[i32; 16]) -> __m256d {
    let lane = |l: usize| *from.add(lanes[l] as usize);
    _mm256_setr_pd(lane(0), lane(1), lane(2), lane(3))
}

#[target_feature(enable = "avx2,fma")]
unsafe fn depthwise<V: Vector, const FUSED: bool, const ALL: bool, const SPREAD: bool>(run: &Run<V::Element>) {
    generic::depthwise::<V, FUSED, ALL, SPREAD>(run)
}

#[target_feature(enable = "avx2,fma")]
unsafe fn product<V: Vector, const ROWS: usize, const VECTORS: usize, const FUSED: bool, const COPY: bool>(
    block: &Block<V::Element>,
) {
    generic::product::<V, ROWS, VECTORS, FUSED, COPY>(block)
}

#[target_feature(enable = "avx2,fma")]
unsafe fn pack<V: Vector, const VECTORS: usize>(pack: &Pack<V::Element>) {
    generic::pack::<V, VECTORS>(pack)
}
