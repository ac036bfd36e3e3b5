//! Values for probes, the same in every process.

use super::Unclear;
use crate::element::Element;
use crate::numerics::Sum;

/// What a set of values is meant to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Orders of sums: from -1 to 1.
    Uniform = 1,
    /// The same, for a filter that the caller makes infinite in places.
    Infinite,
    /// What is read beside what counts: some infinities.
    Scattered,
    /// Orders of sums that rounding hides, with [`masked`] as weights: the scale's factor throughout.
    Factor,
    /// Every rounding, with [`Mirrored`](Self::Mirrored) weights: the second half of a row takes back the first, so that
    /// nothing but what was rounded away is left. Magnitudes vary, or sums of 16-bit numbers would be exact; and are
    /// large enough for what is left to be a normal number in 16 bits.
    Cancelling,
    /// The last row is the first, the last but one the second, and so on.
    Mirrored,
    /// What becomes of subnormals, with [`TinyWeights`](Self::TinyWeights): some values are subnormal, and so are many of
    /// the products. The first value is positive, so that even a single product tells.
    Tiny,
    /// The same for sums of a single product each: all products vanish, in every row.
    Vanishing,
    /// All negative: a sum of products that vanish is -0 if they are fused, +0 if not.
    TinyWeights,
}

/// So many values, or the next row's end, before they come again.
const DISTINCT: usize = 1 << 16;

impl Data {
    /// What goes with it as a filter.
    pub fn weights(self) -> Self {
        match self {
            Self::Tiny | Self::Vanishing => Self::TinyWeights,
            Self::Scattered => Self::Uniform,
            Self::Cancelling => Self::Mirrored,
            other => other,
        }
    }

    /// Rows of values. They come again after a while: making them would take longer than the probe does.
    pub fn values<T: Element, E>(self, rows: usize, columns: usize, seed: u64) -> Result<Vec<T>, Unclear<E>> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self as u64;
        // Two values around its square root have a product around it.
        let smallest = T::SMALLEST_NORMAL;
        // Wide enough for sums of four products to be rounded, where the type has such numbers.
        let spread = if T::LARGEST > 1e30 { 20 } else { 8 };
        let mut value = |n: usize| {
            let bits = next(&mut state);
            let uniform = (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
            T::from_f64(match self {
                // Without a partner.
                Self::Cancelling if 2 * (n % columns) + 1 == columns => uniform * 1e-5,
                Self::Cancelling => uniform * 256.0 * 0.5f64.powi((bits % spread) as i32),
                Self::Scattered if bits.is_multiple_of(23) => f64::INFINITY,
                Self::Factor => Scale::of::<T>().factor,
                Self::Mirrored => uniform * 64.0,
                Self::Tiny if n == 0 => smallest.sqrt() / 2.0,
                Self::Tiny if bits.is_multiple_of(3) => uniform * smallest,
                Self::Tiny if bits % 3 == 1 => uniform * smallest.sqrt(),
                Self::Vanishing => (0.5 + uniform.abs() / 2.0) * smallest.sqrt(),
                Self::TinyWeights => -uniform.abs() * smallest.sqrt(),
                _ => uniform,
            })
        };
        let mut values = filled(rows * columns, T::ZERO)?;
        // An odd number, so that no tile of rows sees the same ones again and again.
        let made = values.len().min(((DISTINCT / columns.max(1)) | 1) * columns);
        values[..made].iter_mut().enumerate().for_each(|(n, to)| *to = value(n));
        if self == Self::Cancelling {
            for row in values[..made].chunks_exact_mut(columns) {
                let (first, second) = row.split_at_mut(columns.div_ceil(2));
                second.iter_mut().zip(first.iter().rev().skip(columns % 2)).for_each(|(to, from)| {
                    *to = T::from_f64(-from.to_f64());
                });
            }
        }
        for n in (made..values.len()).step_by(made.max(1)) {
            let end = values.len().min(n + made);
            values.copy_within(..end - n, n);
        }
        if self == Self::Mirrored {
            (0..rows / 2)
                .for_each(|row| values.copy_within(row * columns..(row + 1) * columns, (rows - 1 - row) * columns));
        }
        Ok(values)
    }
}

/// What the terms of a sum are made of: one that every other is lost beside, and units that can be counted. One of a
/// term's factors is always the same.
pub struct Scale {
    pub factor: f64,
    pub mask: f64,
    pub unit: f64,
}

impl Scale {
    pub const fn of<T: Element>() -> Self {
        if T::LARGEST > 1e30 {
            Self { factor: 1.0, mask: (1u128 << 80) as f64, unit: 1.0 }
        } else {
            // The largest power of two and the smallest number of f16: 2^39 apart, 4096 units are lost in f32.
            Self { factor: 32768.0, mask: 32768.0, unit: 1.0 / 16777216.0 }
        }
    }

    /// How many units a result counts exactly.
    pub const fn most<T: Element>() -> usize {
        1 << if T::MANTISSA_DIGITS < 30 { T::MANTISSA_DIGITS } else { 30 }
    }
}

/// Depthwise weights, (taps, k), that with pixels of the scale's factor make all terms units but two, of random taps:
/// what is added between these two is lost. So the order shows, however coarsely results are rounded.
pub fn masked<T: Element, E>(taps: usize, k: usize, seed: u64) -> Result<Vec<T>, Unclear<E>> {
    let Scale { mask, unit, .. } = Scale::of::<T>();
    let mut weights = filled(taps * k, T::from_f64(unit))?;
    let mut state = seed;
    for n in 0..k {
        let [first, second] = [0; 2].map(|_| next(&mut state) as usize % taps);
        weights[first * k + n] = T::from_f64(mask);
        weights[second * k + n] = T::from_f64(-mask);
    }
    Ok(weights)
}

/// The same values, but one in three is zero.
pub fn thinned<T: Element>(mut values: Vec<T>, seed: u64) -> Vec<T> {
    let mut state = seed;
    values.iter_mut().filter(|_| next(&mut state).is_multiple_of(3)).for_each(|value| *value = T::ZERO);
    values
}

/// Pixels whose products with weights of 1 make every block of the sum a negative subnormal number, so that where these
/// are flushed the result is -0 unless something adds it to +0.
pub fn vanishing<T: Element, E>(rows: usize, k: usize, sum: &Sum) -> Result<Vec<T>, Unclear<E>> {
    let mut pixels = filled(rows * k, T::from_f64(-0.0))?;
    let pairs = last_added(sum, &mut 0, k);
    for row in pixels.chunks_exact_mut(k) {
        for &(one, other) in &pairs {
            row[one] = T::from_f64(-1.5 * T::SMALLEST_NORMAL);
            row[other] = T::from_f64(T::SMALLEST_NORMAL);
        }
    }
    Ok(pixels)
}

/// Of every block, from product `next` on, two products that no sum but the whole block's holds both of.
fn last_added(sum: &Sum, next: &mut usize, k: usize) -> Vec<(usize, usize)> {
    let start = *next;
    if let Sum::Blocks(sums) = sum {
        return sums.iter().flat_map(|sum| last_added(sum, next, k)).collect();
    }
    let length = sum.length().unwrap_or(k - start);
    *next += length;
    let distance = match sum {
        Sum::Lanes { folds, .. } => folds.distances().last().copied().unwrap_or(1),
        _ => 1,
    };
    if distance < length { vec![(start, start + distance)] } else { Vec::new() }
}

/// So many of one value.
pub fn filled<T: Clone, E>(length: usize, value: T) -> Result<Vec<T>, Unclear<E>> {
    let mut values = Vec::new();
    values.try_reserve_exact(length).map_err(|_| Unclear::Memory { elements: length })?;
    values.resize(length, value);
    Ok(values)
}

/// splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
