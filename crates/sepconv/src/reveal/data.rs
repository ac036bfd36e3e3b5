//! Values for probes, the same in every process.

use crate::element::Element;

/// What a set of values is meant to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Orders of sums: from -1 to 1.
    Uniform,
    /// The same, for a filter that the caller makes infinite in places.
    Infinite,
    /// Fused from separate products: neighbours nearly cancel, so that what was rounded away decides.
    Cancelling,
    /// What becomes of subnormals: some values are subnormal, and so are many of the products.
    Tiny,
}

impl Data {
    pub fn values<T: Element>(self, length: usize, seed: u64) -> Vec<T> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self as u64;
        // A subnormal of T times a small power of two stays subnormal; its square root's square is one.
        let smallest = T::SMALLEST_NORMAL;
        let mut last = 0.0;
        let value = |n: usize| {
            let bits = next(&mut state);
            let uniform = (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
            let value = match self {
                Self::Cancelling if n % 2 == 1 => -last + uniform * 1e-5,
                Self::Tiny if bits.is_multiple_of(3) => uniform * smallest,
                Self::Tiny if bits % 3 == 1 => uniform * smallest.sqrt(),
                _ => uniform,
            };
            last = value;
            T::from_f64(value)
        };
        (0..length).map(value).collect()
    }
}

/// splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
