//! 1 / (1 + exp(-x)) of f32 numbers, as each of the two libraries that TensorFlow computes it with approximates it: operation
//! by operation, for what these give is off by a few units in the last place, each in its own way.
//!
//! Both split x into n * ln 2 + r with a whole n, take a polynomial for exp(r), and multiply it by 2^n.

use crate::element::{Number, larger, smaller};

/// Eigen's for whole registers, without fused multiply-add; what does not fill one, it computes otherwise.
pub mod eigen {
    /// From there on the result is 1.
    pub const HIGHEST: f64 = 16.635_532;
    /// And below that one 0: Eigen sets it to 0 below -104, where the formula has long come to that. Numbers that are much
    /// smaller make no n.
    pub const LOWEST: f64 = -105.0;
    /// ln 2 is their sum: products of n and the first are exact.
    pub const LN_2: [f64; 2] = [0.693_359_375, -0.000_212_194_44];
    /// Of r, from the square on.
    pub const POLYNOMIAL: [f64; 4] = [0.499_991_42, 0.166_668_77, 0.041_898_668, 0.008_334_713];
}

/// oneDNN's, in the code that it makes for AVX2 and AVX-512.
pub mod onednn {
    /// Below it, exp(x) is 0. The logarithm of the smallest normal number.
    pub const LOWEST: f64 = -87.336_55;
    pub const LN_2: f64 = std::f64::consts::LN_2;
    /// Of r, from the first power on.
    pub const POLYNOMIAL: [f64; 5] = [0.999_999_7, 0.499_991_5, 0.166_676_52, 0.041_897_822, 0.008_289_291];
}

/// exp(x) = exp(x / 2)^2, so that nothing on the way is subnormal.
pub fn of_eigen<F: Number>(x: F) -> F {
    let number = F::from_f64;
    let [half, one] = [0.5, 1.0].map(number);
    let [high, low] = eigen::LN_2.map(|part| number(-part));
    let [p2, p3, p4, p5] = eigen::POLYNOMIAL.map(number);
    let clamped = smaller(number(eigen::HIGHEST), larger(number(eigen::LOWEST), x));
    let halved = clamped.mul(half);
    let n = halved.mul(number(std::f64::consts::LOG2_E)).add(half).floor();
    let r = halved.add(n.mul(high)).add(n.mul(low));
    let square = r.mul(r);
    let [even, odd] = [[p2, p4], [p3, p5]].map(|[first, second]| square.mul(second).add(first));
    let exp = square.mul(r.mul(odd).add(even)).add(r.add(one));
    let root = exp.mul(n.power_of_two());
    let exp = root.mul(root);
    exp.div(one.add(exp))
}

/// Of -|x|, and what is missing to 1 where x is positive.
pub fn of_onednn<F: Number>(x: F) -> F {
    let number = F::from_f64;
    let [zero, half, one, two, minus] = [0.0, 0.5, 1.0, 2.0, -1.0].map(number);
    let negative = if x > zero { x.mul(minus) } else { x };
    let clamped = larger(number(onednn::LOWEST), negative);
    let n = clamped.mul(number(std::f64::consts::LOG2_E)).add(half).floor();
    let r = n.mul_add(number(-onednn::LN_2), clamped);
    let mut exp = zero;
    for factor in onednn::POLYNOMIAL.into_iter().rev().map(number).chain([one]) {
        exp = exp.mul_add(r, factor);
    }
    // 2^n in two factors; the first is 0 at the lowest x.
    let exp = exp.mul(n.add(minus).power_of_two()).mul(two);
    let sigmoid = exp.div(exp.add(one));
    if x > zero { one.add(sigmoid.mul(minus)) } else { sigmoid }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each x with the bits of its product with its sigmoid, by TensorFlow 2.21 without oneDNN and with it.
    const SWISHES: [(f32, [u32; 2]); 8] = [
        (-104.5, [0x8000_0000, 0x8000_0000]),
        (-30.25, [0xac1b_2165, 0xac1b_2168]),
        (-5.1, [0xbcfd_2c75, 0xbcfd_2c76]),
        (-0.3, [0xbe02_bb33, 0xbe02_bb34]),
        (1e-6, [0x3506_37c1, 0x3506_37c1]),
        (0.7, [0x3eef_7a7e, 0x3eef_7a7f]),
        (16.7, [0x4185_999a, 0x4185_9999]),
        (90.0, [0x42b4_0000, 0x42b4_0000]),
    ];

    #[test]
    fn they_are_tensorflows() {
        for (x, expected) in SWISHES {
            assert_eq!([of_eigen(x), of_onednn(x)].map(|sigmoid| (x * sigmoid).to_bits()), expected, "{x}");
        }
    }
}
