//! AVX2 with FMA and F16C: 16 registers of 32 bytes.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that `Vector` states")]

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::vector::{Vector, vector, widen};
use super::{kernels, wrappers};
use crate::element::is_sum;

/// Proof that the processor has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

impl Avx2 {
    pub fn new() -> Option<Self> {
        let all =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        all.then_some(Self(()))
    }

    // 6 rows by 2 vectors: 12 sums, 2 vectors of the filter and one pixel fill 15 of 16 registers. Products of their own
    // need more, and a sum that has to lie in memory is waited for.
    kernels!("avx2", F32x8, F64x4, [[1 2 3 4 5 6 7 8] [1 2 3 4 5 6] [1 2 3 4 5]]);
}

/// Read from `8 - count` on, these are the masks of the first `count` lanes.
static FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

vector!(
    F32x8(__m256),
    f32,
    8,
    4,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_fmadd_ps,
    _mm256_mul_ps,
    _mm256_add_ps,
    _mm256_max_ps,
    _mm256_min_ps,
    if_positive_f32,
    unless_at_most_zero_f32,
    _mm256_div_ps,
    _mm256_floor_ps,
    power_of_two_f32,
    spread_f32,
    interleave_f32
);
widen!(F32x8, first_f32);
widen!(F32x8, 8, f16, __m128i, _mm_loadu_si128, _mm_storeu_si128, _mm256_cvtph_ps, narrow_f16);
widen!(F32x8, 8, bf16, __m128i, _mm_loadu_si128, _mm_storeu_si128, widen_bf16, narrow_bf16);

#[inline(always)]
unsafe fn first_f32(from: *const f32, count: usize) -> __m256 {
    _mm256_maskload_ps(from, _mm256_loadu_si256(FIRST.as_ptr().add(8 - count).cast()))
}

#[inline(always)]
unsafe fn if_positive_f32(values: __m256, then: __m256, others: __m256) -> __m256 {
    _mm256_blendv_ps(others, then, _mm256_cmp_ps::<_CMP_GT_OQ>(values, _mm256_setzero_ps()))
}

#[inline(always)]
unsafe fn unless_at_most_zero_f32(kept: __m256, values: __m256) -> __m256 {
    _mm256_and_ps(kept, _mm256_cmp_ps::<_CMP_NLE_UQ>(values, _mm256_setzero_ps()))
}

/// The last bits of a sum with 2^23 are what is added to it, here the exponent's; those above them are shifted out.
#[inline(always)]
unsafe fn power_of_two_f32(values: __m256) -> __m256 {
    let biased = _mm256_add_ps(values, _mm256_set1_ps(((1 << 23) + 127) as f32));
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(biased)))
}

#[inline(always)]
unsafe fn spread_f32(values: __m256, lanes: &[i32; 16]) -> __m256 {
    _mm256_permutevar8x32_ps(values, _mm256_loadu_si256(lanes.as_ptr().cast()))
}

#[inline(always)]
unsafe fn interleave_f32(values: __m256, others: __m256) -> [__m256; 2] {
    let (lower, upper) = (_mm256_unpacklo_ps(values, others), _mm256_unpackhi_ps(values, others));
    [_mm256_permute2f128_ps::<0x20>(lower, upper), _mm256_permute2f128_ps::<0x31>(lower, upper)]
}

#[inline(always)]
unsafe fn narrow_f16(values: __m256) -> __m128i {
    _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values)
}

#[inline(always)]
unsafe fn widen_bf16(bits: __m128i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
}

#[inline(always)]
unsafe fn narrow_bf16(values: __m256) -> __m128i {
    let bits = _mm256_castps_si256(values);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(values, values));
    let rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0_0000), nan);
    let halves = _mm256_srli_epi32::<16>(rounded);
    _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves))
}

vector!(
    F64x4(__m256d),
    f64,
    4,
    4,
    _mm256_set1_pd,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_fmadd_pd,
    _mm256_mul_pd,
    _mm256_add_pd,
    _mm256_max_pd,
    _mm256_min_pd,
    if_positive_f64,
    unless_at_most_zero_f64,
    _mm256_div_pd,
    _mm256_floor_pd,
    power_of_two_f64,
    spread_f64,
    interleave_f64
);
widen!(F64x4, first_f64);

#[inline(always)]
unsafe fn first_f64(from: *const f64, count: usize) -> __m256d {
    let mask = _mm_loadu_si128(FIRST.as_ptr().add(8 - count).cast());
    _mm256_maskload_pd(from, _mm256_cvtepi32_epi64(mask))
}

#[inline(always)]
unsafe fn if_positive_f64(values: __m256d, then: __m256d, others: __m256d) -> __m256d {
    _mm256_blendv_pd(others, then, _mm256_cmp_pd::<_CMP_GT_OQ>(values, _mm256_setzero_pd()))
}

#[inline(always)]
unsafe fn unless_at_most_zero_f64(kept: __m256d, values: __m256d) -> __m256d {
    _mm256_and_pd(kept, _mm256_cmp_pd::<_CMP_NLE_UQ>(values, _mm256_setzero_pd()))
}

#[inline(always)]
unsafe fn power_of_two_f64(values: __m256d) -> __m256d {
    let biased = _mm256_add_pd(values, _mm256_set1_pd(((1u64 << 52) + 1023) as f64));
    _mm256_castsi256_pd(_mm256_slli_epi64::<52>(_mm256_castpd_si256(biased)))
}

#[inline(always)]
unsafe fn spread_f64(values: __m256d, lanes: &[i32; 16]) -> __m256d {
    // Each 64-bit lane is two of 32 bits, of twice its number and that plus one.
    let lanes = _mm256_cvtepi32_epi64(_mm_slli_epi32::<1>(_mm_loadu_si128(lanes.as_ptr().cast())));
    let both = _mm256_or_si256(lanes, _mm256_slli_epi64::<32>(_mm256_add_epi64(lanes, _mm256_set1_epi64x(1))));
    _mm256_castsi256_pd(_mm256_permutevar8x32_epi32(_mm256_castpd_si256(values), both))
}

#[inline(always)]
unsafe fn interleave_f64(values: __m256d, others: __m256d) -> [__m256d; 2] {
    let (lower, upper) = (_mm256_unpacklo_pd(values, others), _mm256_unpackhi_pd(values, others));
    [_mm256_permute2f128_pd::<0x20>(lower, upper), _mm256_permute2f128_pd::<0x31>(lower, upper)]
}

wrappers!("avx2,fma,f16c");
