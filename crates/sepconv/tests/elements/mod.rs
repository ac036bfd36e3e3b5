//! Pseudo-random elements for arrays.

use ndarray::Array4;
use sepconv::Element;

/// Pseudo-random elements (SplitMix64): normal numbers of both signs, and with `special` everything else that a float can be.
pub fn elements<T: Element>(count: usize, seed: u64, special: bool) -> Vec<T> {
    let smallest = T::SMALLEST_NORMAL;
    let odd =
        [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, smallest / 8.0, -smallest / 4.0, smallest, -smallest];
    let element = |i: usize| {
        let mut z = (seed.wrapping_mul(0x1000_0001) + i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let value = (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
        match z % 64 {
            0..9 if special => odd[(z % 64) as usize],
            9..20 if special => value * smallest,
            _ => value,
        }
    };
    (0..count).map(|i| T::from_f64(element(i))).collect()
}

/// An array of these.
pub fn array<T: Element>(shape: [usize; 4], seed: u64, special: bool) -> Array4<T> {
    Array4::from_shape_vec(shape, elements(shape.iter().product(), seed, special)).unwrap()
}
