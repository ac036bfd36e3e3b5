//! AVX-512F: 32 registers of 64 bytes.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that `Vector` states")]

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::vector::{Vector, vector, widen};
use super::{kernels, wrappers};
use crate::element::is_sum;

/// Proof that the processor has AVX-512F.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512(());

impl Avx512 {
    pub fn new() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }

    // 14 rows by 2 vectors: 28 sums, 2 vectors of the filter and one pixel, or two products, fill 31 or 32 of 32 registers. By one
    // vector there are as many loads as products, however many rows there are.
    kernels!("avx512", F32x16, F64x8, [[1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16] [1 2 3 4 5 6 7 8 9 10 11 12 13 14] [1 2 3 4 5 6 7 8 9 10 11 12 13 14]]);
}

vector!(
    F32x16(__m512),
    f32,
    16,
    2,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_fmadd_ps,
    _mm512_mul_ps,
    _mm512_add_ps,
    _mm512_max_ps,
    _mm512_min_ps,
    if_positive_f32,
    unless_at_most_zero_f32,
    _mm512_div_ps,
    floor_f32,
    power_of_two_f32,
    spread_f32,
    interleave_f32;
    choose_f32
);
widen!(F32x16, first_f32);
widen!(F32x16, 16, f16, __m256i, _mm256_loadu_si256, _mm256_storeu_si256, _mm512_cvtph_ps, narrow_f16);
widen!(F32x16, 16, bf16, __m256i, _mm256_loadu_si256, _mm256_storeu_si256, widen_bf16, narrow_bf16);

#[inline(always)]
unsafe fn first_f32(from: *const f32, count: usize) -> __m512 {
    _mm512_maskz_loadu_ps(((1u32 << count) - 1) as __mmask16, from)
}

#[inline(always)]
pub unsafe fn if_positive_f32(values: __m512, then: __m512, others: __m512) -> __m512 {
    let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(values, _mm512_setzero_ps());
    _mm512_mask_blend_ps(positive, others, then)
}

#[inline(always)]
pub unsafe fn choose_f32(holds: bool, then: __m512, other: __m512) -> __m512 {
    _mm512_mask_blend_ps(__mmask16::from(holds).wrapping_neg(), other, then)
}

#[inline(always)]
pub unsafe fn unless_at_most_zero_f32(kept: __m512, values: __m512) -> __m512 {
    _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLE_UQ>(values, _mm512_setzero_ps()), kept)
}

#[inline(always)]
pub unsafe fn floor_f32(values: __m512) -> __m512 {
    _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(values)
}

/// The last bits of a sum with 2^23 are what is added to it, here the exponent's; those above them are shifted out.
#[inline(always)]
pub unsafe fn power_of_two_f32(values: __m512) -> __m512 {
    let biased = _mm512_add_ps(values, _mm512_set1_ps(((1 << 23) + 127) as f32));
    _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(biased)))
}

#[inline(always)]
pub unsafe fn spread_f32(values: __m512, lanes: &[i32; 16]) -> __m512 {
    _mm512_permutexvar_ps(_mm512_loadu_epi32(lanes.as_ptr()), values)
}

#[inline(always)]
pub unsafe fn interleave_f32(values: __m512, others: __m512) -> [__m512; 2] {
    let lower = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    let upper = _mm512_add_epi32(lower, _mm512_set1_epi32(8));
    [_mm512_permutex2var_ps(values, lower, others), _mm512_permutex2var_ps(values, upper, others)]
}

#[inline(always)]
unsafe fn narrow_f16(values: __m512) -> __m256i {
    _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values)
}

#[inline(always)]
unsafe fn widen_bf16(bits: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
}

/// Not by the instruction of AVX-512 BF16, which flushes subnormals always.
#[inline(always)]
unsafe fn narrow_bf16(values: __m512) -> __m256i {
    let bits = _mm512_castps_si512(values);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
    let rounded = _mm512_mask_blend_epi32(nan, rounded, _mm512_set1_epi32(0x7fc0_0000));
    _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded))
}

vector!(
    F64x8(__m512d),
    f64,
    8,
    2,
    _mm512_set1_pd,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_fmadd_pd,
    _mm512_mul_pd,
    _mm512_add_pd,
    _mm512_max_pd,
    _mm512_min_pd,
    if_positive_f64,
    unless_at_most_zero_f64,
    _mm512_div_pd,
    floor_f64,
    power_of_two_f64,
    spread_f64,
    interleave_f64;
    choose_f64
);
widen!(F64x8, first_f64);

#[inline(always)]
unsafe fn first_f64(from: *const f64, count: usize) -> __m512d {
    _mm512_maskz_loadu_pd(((1u32 << count) - 1) as __mmask8, from)
}

#[inline(always)]
unsafe fn if_positive_f64(values: __m512d, then: __m512d, others: __m512d) -> __m512d {
    let positive = _mm512_cmp_pd_mask::<_CMP_GT_OQ>(values, _mm512_setzero_pd());
    _mm512_mask_blend_pd(positive, others, then)
}

#[inline(always)]
unsafe fn choose_f64(holds: bool, then: __m512d, other: __m512d) -> __m512d {
    _mm512_mask_blend_pd(__mmask8::from(holds).wrapping_neg(), other, then)
}

#[inline(always)]
unsafe fn unless_at_most_zero_f64(kept: __m512d, values: __m512d) -> __m512d {
    _mm512_maskz_mov_pd(_mm512_cmp_pd_mask::<_CMP_NLE_UQ>(values, _mm512_setzero_pd()), kept)
}

#[inline(always)]
unsafe fn floor_f64(values: __m512d) -> __m512d {
    _mm512_roundscale_pd::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(values)
}

#[inline(always)]
unsafe fn power_of_two_f64(values: __m512d) -> __m512d {
    let biased = _mm512_add_pd(values, _mm512_set1_pd(((1u64 << 52) + 1023) as f64));
    _mm512_castsi512_pd(_mm512_slli_epi64::<52>(_mm512_castpd_si512(biased)))
}

#[inline(always)]
unsafe fn spread_f64(values: __m512d, lanes: &[i32; 16]) -> __m512d {
    let lanes = _mm512_castsi512_si256(_mm512_loadu_epi32(lanes.as_ptr()));
    _mm512_permutexvar_pd(_mm512_cvtepi32_epi64(lanes), values)
}

#[inline(always)]
unsafe fn interleave_f64(values: __m512d, others: __m512d) -> [__m512d; 2] {
    let lower = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    let upper = _mm512_add_epi64(lower, _mm512_set1_epi64(4));
    [_mm512_permutex2var_pd(values, lower, others), _mm512_permutex2var_pd(values, upper, others)]
}

wrappers!("avx512f");
