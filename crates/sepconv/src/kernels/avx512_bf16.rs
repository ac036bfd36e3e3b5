//! AVX-512 BF16: AVX-512F, and for bfloat16 the dot product of pairs, two products in one instruction. (The processors that
//! have it have AVX-512BW and AVX-512VL too.)

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that `Vector` states")]

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::avx512::{
    Avx512, choose_f32, floor_f32, if_positive_f32, interleave_f32, power_of_two_f32, spread_f32,
    unless_at_most_zero_f32,
};
use super::kernel::{ByRows, Depthwises, Dots};
use super::vector::{Vector, Widen, vector};
use super::{Kernel, Rows, by_rows, depthwises, loops, rows};

/// Proof that the processor has AVX-512F and AVX-512 BF16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512Bf16(Avx512);

impl Avx512Bf16 {
    pub fn new() -> Option<Self> {
        let masks_of_16_bits = is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl");
        Avx512::new().filter(|_| masks_of_16_bits && is_x86_feature_detected!("avx512bf16")).map(Self)
    }

    pub fn f32(self) -> Kernel<f32> {
        Kernel { name: "avx512_bf16-f32", ..self.0.f32() }
    }

    pub fn f64(self) -> Kernel<f64> {
        Kernel { name: "avx512_bf16-f64", ..self.0.f64() }
    }

    pub fn f16(self) -> Kernel<f16> {
        Kernel { name: "avx512_bf16-f16", ..self.0.f16() }
    }

    pub fn bf16(self) -> Kernel<bf16> {
        let depthwise: Depthwises<bf16> = depthwises!(bf16, Pairs, false, FUSED);
        let product: [ByRows<f32>; 2] = [
            by_rows!(Pairs, 1, FUSED, false, [1 2 3 4 5 6 7 8]),
            by_rows!(Pairs, 2, FUSED, false, [1 2 3 4 5 6 7 8 9 10 11 12 13 14]),
        ];
        let dots = Some(Dots { depthwise, widen, product, pair_columns, pair_rows, narrow });
        Kernel { name: "avx512_bf16-bf16", dots, ..self.0.bf16() }
    }
}

// Sums in f32, or in each lane a pair of bfloat16 as such a sum's bits: a pair's products are added to a sum in the place
// of one, the second first.
vector!(
    Pairs(__m512),
    f32,
    16,
    2,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    add_dot,
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
    choose_f32,
    store_narrow,
    _mm512_fmadd_ps
);

#[inline(always)]
unsafe fn store_narrow(to: *mut u16, sums: __m512) {
    _mm256_storeu_si256(to.cast(), std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(sums)));
}

#[inline(always)]
unsafe fn add_dot(pairs: __m512, weights: __m512, sum: __m512) -> __m512 {
    let bits = |pairs: __m512| std::mem::transmute::<__m512, __m512bh>(pairs);
    _mm512_dpbf16_ps(sum, bits(pairs), bits(weights))
}

/// Numbers as they are stored have +0 as partners.
impl Widen<bf16> for Pairs {
    const CHEAP: bool = true;

    #[inline(always)]
    unsafe fn widen(from: *const bf16) -> Self {
        Self(_mm512_castsi512_ps(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()))))
    }
    #[inline(always)]
    unsafe fn widen_first(from: *const bf16, count: usize) -> Self {
        let first = _mm256_maskz_loadu_epi16(((1u32 << count) - 1) as __mmask16, from.cast());
        Self(_mm512_castsi512_ps(_mm512_cvtepu16_epi32(first)))
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        let bits = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(self.0));
        Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits))))
    }
    #[inline(always)]
    unsafe fn narrow(self, to: *mut bf16) {
        self.store_narrow(to.cast());
    }
}

loops!("avx512f,avx512bw,avx512vl,avx512bf16");

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn widen(stored: &Rows<bf16, f32>) {
    rows::widen_rows::<bf16, Pairs>(stored)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn narrow(sums: &Rows<f32, bf16>) {
    for row in 0..sums.rows {
        let (from, to) = (sums.from.add(row * sums.from_stride), sums.to.offset(row as isize * sums.to_stride));
        // The last columns too: one by one they take noticeably longer.
        for i in (0..sums.columns).step_by(Pairs::LANES) {
            let there = ((1u32 << (sums.columns - i).min(Pairs::LANES)) - 1) as __mmask16;
            let rounded = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(there, from.add(i)));
            _mm256_mask_storeu_epi16(to.add(i).cast(), there, std::mem::transmute::<__m256bh, __m256i>(rounded));
        }
    }
}

/// As [`Dots::pair_columns`] says.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pair_columns(rows: &Rows<f32, f32>) {
    let lane = |number: usize| rows.columns.saturating_sub(number).min(16) as u32;
    for row in 0..rows.rows {
        let from = rows.from.wrapping_add(row * rows.from_stride);
        let to = rows.to.wrapping_offset(row as isize * rows.to_stride);
        for column in (0..rows.columns).step_by(32) {
            let [lower, upper] = [column, column + 16].map(|column| {
                let there = ((1u32 << lane(column)) - 1) as __mmask16;
                _mm512_maskz_loadu_ps(there, from.wrapping_add(column))
            });
            let pairs = _mm512_cvtne2ps_pbh(upper, lower);
            _mm512_storeu_ps(to.wrapping_add(column / 2), std::mem::transmute::<__m512bh, __m512>(pairs));
        }
    }
}

/// As [`Dots::pair_rows`] says.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pair_rows(rows: &Rows<f32, f32>) {
    for first in (0..rows.rows).step_by(2) {
        let from = rows.from.wrapping_add(first * rows.from_stride);
        let to = rows.to.wrapping_offset((first / 2) as isize * rows.to_stride);
        for column in (0..rows.columns).step_by(16) {
            let load = |row: usize| {
                let there = if first + row < rows.rows { __mmask16::MAX } else { 0 };
                let values = _mm512_maskz_loadu_ps(there, from.wrapping_add(row * rows.from_stride + column));
                _mm512_castps_si512(values)
            };
            let lower = _mm512_srli_epi32::<16>(load(0));
            let upper = _mm512_and_si512(load(1), _mm512_set1_epi32(0xffff_0000u32 as i32));
            _mm512_storeu_ps(to.wrapping_add(column), _mm512_castsi512_ps(_mm512_or_si512(lower, upper)));
        }
    }
}
