//! NEON, part of every AArch64: 32 registers of 16 bytes.
//!
//! Where subnormal numbers are flushed, these processors look at a result before it is rounded, and so make zero of what
//! rounds up to the smallest normal number; x86-64, which [`Subnormals::Flushed`](crate::numerics::Subnormals::Flushed)
//! is defined by, looks at it afterwards. The elements' own operations put that right
//! ([`subnormals`](crate::subnormals)), which in every lane would cost as much as the arithmetic itself. The processor
//! notes, though, that it flushed a result at all: only then is the work done again, portably.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that `Vector` states")]

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

use half::{bf16, f16};

use super::instruction_set::Proof;
use super::portable::Portable;
use super::vector::{Vector, Widen, vector, widen};
use super::{
    Block, Correlation, Finish, InstructionSet, Kernel, Rows, Run, correlation, kernels, listed_taps, product, rows,
    shared_taps, taps, two_lines,
};
use crate::element::{Element, is_sum};
use crate::subnormals::results_flushed;

/// Proof that the processor has NEON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neon(());

impl Neon {
    pub fn new() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    // 8 rows by 2 vectors: 16 independent sums hide the latency of 4 cycles in up to 4 units, and leave 14 of 32
    // registers to pixels and the filter, loaded ahead. More rows would save few loads: 10 for 16 multiplications become
    // 14 for 24 with 12.
    kernels!("neon", F32x4, F64x2, [[1 2 3 4 5 6 7 8] [1 2 3 4 5 6 7 8] [1 2 3 4 5 6 7 8]], [[] [] []]);
}

vector!(
    F32x4(float32x4_t),
    f32,
    4,
    4,
    vdupq_n_f32,
    vld1q_f32,
    vst1q_f32,
    mul_add_f32,
    vmulq_f32,
    vaddq_f32,
    larger_f32,
    smaller_f32,
    if_positive_f32,
    unless_at_most_zero_f32,
    vdivq_f32,
    vrndmq_f32,
    power_of_two_f32,
    spread_f32,
    interleave_f32
);
widen!(F32x4, first_f32);
widen!(F32x4, 4, f16, uint16x4_t, vld1_u16, vst1_u16, widen_f16, narrow_f16);
widen!(F32x4, 4, bf16, uint16x4_t, vld1_u16, vst1_u16, widen_bf16, narrow_bf16);

#[inline(always)]
unsafe fn mul_add_f32(values: float32x4_t, factors: float32x4_t, addends: float32x4_t) -> float32x4_t {
    vfmaq_f32(addends, values, factors)
}

#[inline(always)]
unsafe fn first_f32(from: *const f32, count: usize) -> float32x4_t {
    let zero = vdupq_n_f32(0.0);
    match count {
        4.. => vld1q_f32(from),
        3 => vld1q_lane_f32::<2>(from.add(2), vcombine_f32(vld1_f32(from), vdup_n_f32(0.0))),
        2 => vcombine_f32(vld1_f32(from), vdup_n_f32(0.0)),
        1 => vld1q_lane_f32::<0>(from, zero),
        0 => zero,
    }
}

#[inline(always)]
unsafe fn larger_f32(values: float32x4_t, others: float32x4_t) -> float32x4_t {
    vbslq_f32(vcgtq_f32(values, others), values, others)
}

#[inline(always)]
unsafe fn smaller_f32(values: float32x4_t, others: float32x4_t) -> float32x4_t {
    vbslq_f32(vcltq_f32(values, others), values, others)
}

#[inline(always)]
unsafe fn if_positive_f32(values: float32x4_t, then: float32x4_t, others: float32x4_t) -> float32x4_t {
    vbslq_f32(vcgtzq_f32(values), then, others)
}

#[inline(always)]
unsafe fn unless_at_most_zero_f32(kept: float32x4_t, values: float32x4_t) -> float32x4_t {
    let at_most_zero = vcleq_f32(values, vdupq_n_f32(0.0));
    vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(kept), at_most_zero))
}

/// The last bits of a sum with 2^23 are what is added to it, here the exponent's; those above them are shifted out.
#[inline(always)]
unsafe fn power_of_two_f32(values: float32x4_t) -> float32x4_t {
    let biased = vaddq_f32(values, vdupq_n_f32(((1 << 23) + 127) as f32));
    vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(biased)))
}

#[inline(always)]
unsafe fn spread_f32(values: float32x4_t, lanes: &[i32; 16]) -> float32x4_t {
    // Each 32-bit lane is four bytes, from four times its number on.
    let lanes = vreinterpretq_u32_s32(vld1q_s32(lanes.as_ptr()));
    let bytes = vmlaq_n_u32(vdupq_n_u32(0x0302_0100), lanes, 0x0404_0404);
    vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(values), vreinterpretq_u8_u32(bytes)))
}

#[inline(always)]
unsafe fn interleave_f32(values: float32x4_t, others: float32x4_t) -> [float32x4_t; 2] {
    [vzip1q_f32(values, others), vzip2q_f32(values, others)]
}

#[inline(always)]
unsafe fn widen_f16(bits: uint16x4_t) -> float32x4_t {
    vcvt_f32_f16(vreinterpret_f16_u16(bits))
}

/// Subnormal results are kept, whatever becomes of those of arithmetic, as by x86-64's instruction.
#[inline(always)]
unsafe fn narrow_f16(values: float32x4_t) -> uint16x4_t {
    vreinterpret_u16_f16(vcvt_f16_f32(values))
}

#[inline(always)]
unsafe fn widen_bf16(bits: uint16x4_t) -> float32x4_t {
    vreinterpretq_f32_u32(vshll_n_u16::<16>(bits))
}

/// Not by the instruction of FEAT_BF16, which not all processors have.
#[inline(always)]
unsafe fn narrow_bf16(values: float32x4_t) -> uint16x4_t {
    let bits = vreinterpretq_u32_f32(values);
    let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
    let rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    let number = vceqq_f32(values, values);
    vshrn_n_u32::<16>(vbslq_u32(number, rounded, vdupq_n_u32(0x7fc0_0000)))
}

vector!(
    F64x2(float64x2_t),
    f64,
    2,
    4,
    vdupq_n_f64,
    vld1q_f64,
    vst1q_f64,
    mul_add_f64,
    vmulq_f64,
    vaddq_f64,
    larger_f64,
    smaller_f64,
    if_positive_f64,
    unless_at_most_zero_f64,
    vdivq_f64,
    vrndmq_f64,
    power_of_two_f64,
    spread_f64,
    interleave_f64
);
widen!(F64x2, first_f64);

#[inline(always)]
unsafe fn mul_add_f64(values: float64x2_t, factors: float64x2_t, addends: float64x2_t) -> float64x2_t {
    vfmaq_f64(addends, values, factors)
}

#[inline(always)]
unsafe fn first_f64(from: *const f64, count: usize) -> float64x2_t {
    let zero = vdupq_n_f64(0.0);
    match count {
        2.. => vld1q_f64(from),
        1 => vld1q_lane_f64::<0>(from, zero),
        0 => zero,
    }
}

#[inline(always)]
unsafe fn larger_f64(values: float64x2_t, others: float64x2_t) -> float64x2_t {
    vbslq_f64(vcgtq_f64(values, others), values, others)
}

#[inline(always)]
unsafe fn smaller_f64(values: float64x2_t, others: float64x2_t) -> float64x2_t {
    vbslq_f64(vcltq_f64(values, others), values, others)
}

#[inline(always)]
unsafe fn if_positive_f64(values: float64x2_t, then: float64x2_t, others: float64x2_t) -> float64x2_t {
    vbslq_f64(vcgtzq_f64(values), then, others)
}

#[inline(always)]
unsafe fn unless_at_most_zero_f64(kept: float64x2_t, values: float64x2_t) -> float64x2_t {
    let at_most_zero = vcleq_f64(values, vdupq_n_f64(0.0));
    vreinterpretq_f64_u64(vbicq_u64(vreinterpretq_u64_f64(kept), at_most_zero))
}

#[inline(always)]
unsafe fn power_of_two_f64(values: float64x2_t) -> float64x2_t {
    let biased = vaddq_f64(values, vdupq_n_f64(((1u64 << 52) + 1023) as f64));
    vreinterpretq_f64_u64(vshlq_n_u64::<52>(vreinterpretq_u64_f64(biased)))
}

#[inline(always)]
unsafe fn spread_f64(values: float64x2_t, lanes: &[i32; 16]) -> float64x2_t {
    let bytes = |lane: i32| vcreate_u8(0x0706_0504_0302_0100 + 0x0808_0808_0808_0808 * lane as u64);
    let bytes = vcombine_u8(bytes(lanes[0]), bytes(lanes[1]));
    vreinterpretq_f64_u8(vqtbl1q_u8(vreinterpretq_u8_f64(values), bytes))
}

#[inline(always)]
unsafe fn interleave_f64(values: float64x2_t, others: float64x2_t) -> [float64x2_t; 2] {
    [vzip1q_f64(values, others), vzip2q_f64(values, others)]
}

// Not the common wrappers: these look at what was flushed.

#[target_feature(enable = "neon")]
unsafe fn depthwise<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const EACH: bool,
    const PRODUCTS: usize,
    const SPREAD: bool,
>(
    run: &Run<S>,
) {
    // Sums of products of f16 numbers are never subnormal; only rounding them to f16 would leave the note.
    if S::MANTISSA_DIGITS == <f16 as Element>::MANTISSA_DIGITS {
        taps::depthwise::<S, V, EACH, PRODUCTS, SPREAD>(run);
    } else if results_flushed(|| taps::depthwise::<S, V, EACH, PRODUCTS, SPREAD>(run)) {
        depthwise_again::<S, V>(run, EACH, PRODUCTS, SPREAD);
    }
}

#[target_feature(enable = "neon")]
unsafe fn shared<
    S: Element<Sum = V::Element>,
    V: Widen<S>,
    const P: usize,
    const WIDTH: usize,
    const STRIDE: usize,
    const PRODUCTS: usize,
    const SPREAD: bool,
>(
    run: &Run<S>,
) {
    if results_flushed(|| shared_taps::shared::<S, V, P, WIDTH, STRIDE, PRODUCTS, SPREAD>(run)) {
        depthwise_again::<S, V>(run, false, PRODUCTS, SPREAD);
    }
}

// Never called: vectors are too short.
use two_lines::two_lines;

/// Pixel by pixel, none of which shares values with others.
#[cold]
unsafe fn depthwise_again<S: Element<Sum = V::Element>, V: Widen<S>>(
    run: &Run<S>,
    each: bool,
    products: usize,
    spread: bool,
) {
    let kernel = portable::<S>(V::LANES);
    let loops = if each { &kernel.depthwise_each } else { &kernel.depthwise[products] };
    let again = loops.alone[usize::from(spread)];
    for pixel in 0..run.count {
        let (mut inside, mut counted) = (run.inside.clone(), run.counted.clone());
        if run.shared > 0 {
            let first = (pixel * run.shared) as isize;
            let tap = |column: isize| (column - first).clamp(0, run.kernel[1] as isize) as usize;
            inside[1] = tap(run.across.start)..tap(run.across.end);
            counted[1] = if run.padding { 0..run.kernel[1] } else { inside[1].clone() };
        }
        again(&Run {
            pixels: &[run.origin(pixel)],
            count: 1,
            inside,
            counted,
            across: run.across.clone(),
            shared: 0,
            target: run.target.skip(pixel),
            ..*run
        });
    }
}

#[target_feature(enable = "neon")]
unsafe fn listed<S: Element<Sum = V::Element>, V: Widen<S>>(run: &Run<S>) {
    if results_flushed(|| listed_taps::listed::<S, V>(run)) {
        listed_again::<S, V>(run);
    }
}

#[cold]
unsafe fn listed_again<S: Element<Sum = V::Element>, V: Widen<S>>(run: &Run<S>) {
    (portable::<S>(V::LANES).depthwise_listed)(run)
}

// No group of steps reads what another one leaves (see `Vector::GROUP`), so that a call can begin again.
#[target_feature(enable = "neon")]
unsafe fn product<V: Vector, const ROWS: usize, const VECTORS: usize, const PRODUCTS: usize, const ACROSS: bool>(
    block: &Block<V::Element>,
    count: usize,
) -> *const u8 {
    let mut next = block.ahead.0;
    if results_flushed(|| next = product::product::<V, ROWS, VECTORS, PRODUCTS, ACROSS>(block, count)) {
        product_again::<V>(block, ROWS * count, VECTORS, PRODUCTS);
    }
    next
}

#[cold]
unsafe fn product_again<V: Vector>(block: &Block<V::Element>, rows: usize, vectors: usize, products: usize) {
    let again = portable::<V::Element>(V::LANES).product[products][vectors - 1][0];
    again(block, rows);
}

/// Kernels that take the same filters and tiles.
fn portable<S: Element>(lanes: usize) -> &'static Kernel<S> {
    let kernel = S::kernel(InstructionSet(Proof::Portable(Portable)));
    assert_eq!(kernel.lanes, lanes);
    kernel
}

// What is added to is kept meanwhile, so that a call can begin again.
#[target_feature(enable = "neon")]
unsafe fn correlate<S: Element<Sum = V::Element>, V: Widen<S>, const PRODUCTS: usize>(pixels: &Correlation<S>) {
    let row = pixels.channels.len().next_multiple_of(V::LANES);
    let taps = || pixels.taps.iter().map(|&(_, place)| pixels.sums.add(place));
    let before: Vec<S::Sum> = taps().flat_map(|sums| std::slice::from_raw_parts(sums, row)).copied().collect();
    if results_flushed(|| correlation::correlate::<S, V, PRODUCTS>(pixels)) {
        for (sums, before) in taps().zip(before.chunks_exact(row)) {
            std::slice::from_raw_parts_mut(sums, row).copy_from_slice(before);
        }
        correlate_again::<S, V>(pixels, PRODUCTS);
    }
}

#[cold]
unsafe fn correlate_again<S: Element<Sum = V::Element>, V: Widen<S>>(pixels: &Correlation<S>, products: usize) {
    (portable::<S>(V::LANES).correlate[products])(pixels)
}

// Portably throughout: what it reads is not there a second time.
unsafe fn finish<S: Element<Sum = V::Element>, V: Widen<S>>(rows: &Finish<S::Sum>) {
    (portable::<S>(V::LANES).finish)(rows)
}

// No arithmetic, nothing flushed.

#[target_feature(enable = "neon")]
unsafe fn pack<S: Element<Sum = V::Element>, V: Widen<S>, const VECTORS: usize>(pack: &super::Pack<S>) {
    rows::pack::<S, V, VECTORS>(pack)
}

#[target_feature(enable = "neon")]
unsafe fn widen_rows<S: Element<Sum = V::Element>, V: Widen<S>>(stored: &Rows<S, S::Sum>) {
    rows::widen_rows::<S, V>(stored)
}

#[target_feature(enable = "neon")]
unsafe fn narrow_rows<S: Element<Sum = V::Element>, V: Widen<S>>(sums: &Rows<S::Sum, S>) {
    rows::narrow_rows::<S, V>(sums)
}

#[target_feature(enable = "neon")]
unsafe fn transpose<S: Element<Sum = V::Element>, V: Widen<S>>(stored: &Rows<S, S::Sum>) {
    rows::transpose::<S, V>(stored)
}
