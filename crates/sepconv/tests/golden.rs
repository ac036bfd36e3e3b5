//! The same bits on every machine: results for fixed inputs, whose hashes were taken on x86-64, by the reference and by
//! every instruction set that the machine has.

use half::{bf16, f16};
use ndarray::Array4;
use sepconv::{Attributes, Element, InstructionSet, Numerics, Padding, SeparableConv2d, reference};

/// What numbers the arrays hold.
#[derive(Clone, Copy)]
enum Data {
    /// From 1/8 to 2, of both signs.
    Plain,
    /// Among them zeros, infinities, NaNs, subnormal and the smallest normal numbers.
    Special,
    /// With products around the smallest normal number, hardly more or less than a power of two.
    Tiny,
}
use Data::{Plain, Special, Tiny};

/// Which of the arrays it is.
#[derive(Clone, Copy)]
enum Role {
    Input,
    DepthwiseFilter,
    PointwiseFilter,
}

struct Case {
    numerics: &'static str,
    data: Data,
    input: [usize; 4],
    /// Height, width, channel multiplier.
    kernel: [usize; 3],
    out_channels: usize,
    strides: [i64; 2],
    padding: Padding,
    rate: [i64; 2],
    /// For f32, f64, f16, bf16.
    hashes: [u64; 4],
}

const CASES: [Case; 12] = [
    Case {
        numerics: "reproducible",
        data: Plain,
        input: [2, 9, 11, 5],
        kernel: [3, 3, 1],
        out_channels: 7,
        strides: [1, 1],
        padding: Padding::Same,
        rate: [1, 1],
        hashes: [0x94cc_e2f7_67ec_ae5a, 0x1f2a_81e9_fa48_7eb7, 0x3695_94c2_e459_d4e2, 0xd920_91b5_fb2a_f955],
    },
    Case {
        numerics: "reproducible",
        data: Special,
        input: [1, 7, 13, 130],
        kernel: [3, 3, 1],
        out_channels: 33,
        strides: [1, 1],
        padding: Padding::Same,
        rate: [1, 1],
        hashes: [0xfa99_59ac_9ef1_fed3, 0xbd29_00b8_ebdd_630a, 0x9c7b_76e1_e8e1_fcd1, 0xa2d6_5db5_b523_9862],
    },
    Case {
        numerics: "reproducible",
        data: Tiny,
        input: [1, 6, 9, 6],
        kernel: [2, 3, 2],
        out_channels: 10,
        strides: [1, 1],
        padding: Padding::Valid,
        rate: [1, 1],
        hashes: [0xb22b_51d9_d1e6_6745, 0x3148_4789_d229_029d, 0x3cc7_8a01_a84c_8bf7, 0x712b_c9b3_0115_1779],
    },
    Case {
        numerics: "v1 depthwise(separate, all) pointwise(separate, 4+3+2) subnormals(flushed)",
        data: Plain,
        input: [2, 8, 7, 3],
        kernel: [5, 5, 3],
        out_channels: 13,
        strides: [2, 2],
        padding: Padding::Same,
        rate: [1, 1],
        hashes: [0x3090_c955_ed64_8353, 0xa62b_3fff_91c1_1178, 0x9f55_756e_06fc_cc52, 0xaaf3_8979_f664_a576],
    },
    Case {
        numerics: "v1 depthwise(fused, inside) pointwise(fused, 16+(8+8)+6) subnormals(flushed)",
        data: Special,
        input: [1, 12, 10, 19],
        kernel: [2, 3, 2],
        out_channels: 41,
        strides: [1, 1],
        padding: Padding::Same,
        rate: [2, 3],
        hashes: [0xadf3_ea41_e0f8_d26f, 0x3b7e_b800_6b68_0e14, 0x2a76_1959_c0eb_ac8e, 0x2f35_e65e_01ad_4a60],
    },
    Case {
        numerics: "v1 depthwise(fused, inside) pointwise(fused, chain) subnormals(flushed)",
        data: Tiny,
        input: [2, 7, 9, 6],
        kernel: [1, 1, 1],
        out_channels: 19,
        strides: [1, 1],
        padding: Padding::Same,
        rate: [1, 1],
        hashes: [0x6cf7_9b97_6f10_6aac, 0x7e8b_9e7e_ac98_4a89, 0xeb7d_9b0e_1868_a594, 0x8ab8_d6c7_2841_ba30],
    },
    Case {
        numerics: "v1 depthwise(separate, all) pointwise(separate, chain) subnormals(flushed)",
        data: Tiny,
        input: [1, 9, 14, 11],
        kernel: [3, 3, 1],
        out_channels: 24,
        strides: [1, 1],
        padding: Padding::Same,
        rate: [1, 1],
        hashes: [0x970b_938f_f934_0a20, 0x7f2a_1a57_869f_b961, 0xcb97_c165_a378_ddf9, 0x374b_20c8_c11c_97d8],
    },
    Case {
        numerics: "v1 depthwise(fused, beside, borders) pointwise(fused, lanes(1 2, 20, 3)) subnormals(flushed)",
        data: Tiny,
        input: [1, 11, 6, 23],
        kernel: [5, 5, 1],
        out_channels: 9,
        strides: [1, 1],
        padding: Padding::Explicit([[2, 1], [0, 3]]),
        rate: [1, 1],
        hashes: [0xca45_c133_4ab3_0590, 0xe6e3_4b7f_2677_2dca, 0x8ef5_330f_96f5_4d8c, 0x52ce_24b6_89de_64ce],
    },
    Case {
        numerics: "v1 depthwise(paired, all, each) pointwise(paired, 32+15) subnormals(flushed)",
        data: Plain,
        input: [1, 5, 8, 47],
        kernel: [3, 3, 1],
        out_channels: 31,
        strides: [1, 2],
        padding: Padding::Valid,
        rate: [1, 1],
        hashes: [0xff18_0fdc_56fd_6595, 0x170a_af06_9e1b_3a7c, 0x70af_f1c4_deac_fb6f, 0x7e6b_e5d0_ae57_b980],
    },
    Case {
        numerics: "v1 depthwise(paired, inside, each) pointwise(paired, chain) subnormals(kept)",
        data: Special,
        input: [3, 4, 4, 9],
        kernel: [3, 5, 3],
        out_channels: 17,
        strides: [1, 1],
        padding: Padding::Same,
        rate: [1, 1],
        hashes: [0x7a88_c864_30c4_0f94, 0xdc10_986a_dac3_91cf, 0x7071_7bc1_da56_e03e, 0x1b8d_0d3c_d39a_9b88],
    },
    Case {
        numerics: "v1 depthwise(overrun, above, columns) pointwise(overrun, 20+13) subnormals(flushed)",
        data: Tiny,
        input: [1, 8, 9, 33],
        kernel: [4, 3, 1],
        out_channels: 8,
        strides: [2, 1],
        padding: Padding::Same,
        rate: [1, 1],
        hashes: [0xe41d_fd27_9b44_1f24, 0x3f93_f758_76c1_85f3, 0x604f_377b_78ad_6c29, 0xd035_6e9c_44e5_613a],
    },
    Case {
        numerics: "v1 depthwise(separate, inside, each) pointwise(fused, 64x5+13, rows 3..20 columns 2..9 separate chain) subnormals(kept)",
        data: Plain,
        input: [1, 5, 7, 333],
        kernel: [3, 3, 1],
        out_channels: 12,
        strides: [1, 1],
        padding: Padding::Same,
        rate: [1, 1],
        hashes: [0x4afb_9d65_e411_d6cf, 0x0f90_42a2_9fab_45e5, 0xc34c_5356_93c7_c3f9, 0x782f_2e93_6dc2_25da],
    },
];

/// 2 to the power of `exponent` times (1 + `mantissa` / 2^(digits - 1)); subnormal below the least exponent.
fn number<T: Element>(negative: bool, exponent: i64, mantissa: u64) -> T {
    let (width, digits) = (8 * size_of::<T>() as i64, i64::from(T::MANTISSA_DIGITS));
    let bias = (1 << (width - digits - 1)) - 1;
    let exponent = (exponent + bias).clamp(0, 2 * bias + 1) as u64;
    let mantissa = mantissa & ((1 << (digits - 1)) - 1);
    let bits = u64::from(negative) << (width - 1) | exponent << (digits - 1) | mantissa;
    bytemuck::pod_read_unaligned(&bits.to_le_bytes()[..size_of::<T>()])
}

/// SplitMix64.
fn random(seed: u64, index: usize) -> u64 {
    let mut z = (seed.wrapping_mul(0x1000_0001) + index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn element<T: Element>(random: u64, data: Data, role: Role) -> T {
    let least = T::SMALLEST_NORMAL.log2().round() as i64;
    let (negative, choice, mantissa) = (random & 1 == 1, random >> 1 & 0x3ff, random >> 12);
    let any = (random >> 58) as i64 % 4;
    match (data, choice) {
        // Few, as each makes many results infinite or NaN.
        (Special, 0) if any == 0 => number(negative, i64::MAX / 2, mantissa & 1),
        (Special, 2..80) => number(negative, least - 1, mantissa),
        (Special, 80..100) => number(negative, least - 1, 0),
        (Special, 100..110) => number(negative, least, 0),
        (Special, 110..200) => number(negative, least / 2 + any, mantissa),
        (Tiny, _) => {
            let exponent = match role {
                Role::Input => least / 2 + any,
                Role::DepthwiseFilter => least - least / 2 - any.max(2),
                Role::PointwiseFilter => -any.min(1),
            };
            let mantissa = if choice & 1 == 0 { mantissa & 3 } else { !(mantissa & 3) };
            number(negative, exponent, mantissa)
        }
        _ => number(negative, any - 3, mantissa),
    }
}

fn array<T: Element>(shape: [usize; 4], data: Data, role: Role) -> Array4<T> {
    let seed = shape.iter().fold(role as u64, |seed, extent| seed * 31 + *extent as u64);
    let elements = (0..shape.iter().product()).map(|i| element(random(seed, i), data, role)).collect();
    Array4::from_shape_vec(shape, elements).unwrap()
}

/// FNV-1a over the bits of all elements, and how many of them are zero, NaN, and the smallest normal number.
fn hash<T: Element>(result: &Array4<T>) -> (u64, [usize; 3]) {
    let bytes = result.iter().flat_map(|element| element.bits().to_le_bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let count = |what: &dyn Fn(f64) -> bool| result.iter().filter(|element| what(element.to_f64())).count();
    (hash, [count(&|v| v == 0.0), count(&|v| v.is_nan()), count(&|v| v.abs() == T::SMALLEST_NORMAL)])
}

/// The hash, the same from all.
fn run<T: Element>(case: &Case) -> u64 {
    let [_, _, _, in_channels] = case.input;
    let [height, width, multiplier] = case.kernel;
    let input = array::<T>(case.input, case.data, Role::Input);
    let filter = array([height, width, in_channels, multiplier], case.data, Role::DepthwiseFilter);
    let pointwise = array([1, 1, in_channels * multiplier, case.out_channels], case.data, Role::PointwiseFilter);
    let numerics: Numerics = case.numerics.parse().unwrap();
    let attributes = Attributes { strides: case.strides, padding: case.padding, rate: case.rate };
    let (input, filter, pointwise) = (input.view(), filter.view(), pointwise.view());
    let expected = reference::separable_conv2d(input, filter, pointwise, &attributes, &numerics).unwrap();
    let (expected, counts) = hash(&expected);
    println!("{} of {counts:?}: {}", T::NAME, case.numerics);
    for set in InstructionSet::available() {
        let op = SeparableConv2d::new(case.strides, case.padding, case.rate).numerics(numerics.clone()).on(set);
        let result = op.run(input, filter, pointwise).unwrap();
        assert_eq!(hash(&result).0, expected, "{set:?} and the reference differ: {}", case.numerics);
    }
    expected
}

#[test]
fn hashes_are_those_of_x86_64() {
    let found = CASES.each_ref().map(|case| [run::<f32>(case), run::<f64>(case), run::<f16>(case), run::<bf16>(case)]);
    let expected = CASES.each_ref().map(|case| case.hashes);
    assert!(found == expected, "found {found:#018x?}");
}

/// When subnormal results are flushed, what rounds up to the smallest normal number is none of them.
#[test]
fn results_are_flushed_by_what_they_are_after_rounding() {
    fn check<T: Element>(products: &str, flushed: bool) {
        let subnormals = if flushed { "flushed" } else { "kept" };
        let numerics =
            format!("v1 depthwise({products}, inside) pointwise({products}, chain) subnormals({subnormals})");
        let numerics: Numerics = numerics.parse().unwrap();
        let least = T::SMALLEST_NORMAL.log2().round() as i64;
        let one = |mantissa| number::<T>(false, 0, mantissa);
        let smallest = |mantissa| number::<T>(false, least, mantissa);
        // In units of the last place, (1 + 1) (1 - 1) is 1 but for a square, and (1 + 1) (1 - 2) hardly less than 1 - 1.
        let (up, down) = (number(false, -1, u64::MAX - 1), number(false, -1, u64::MAX - 3));
        let below = if flushed { number(false, least - 1, 0) } else { number(false, least - 1, u64::MAX) };
        for (values, expected) in [
            ([smallest(1), up, one(0)], smallest(0)),
            ([smallest(1), one(0), up], smallest(0)),
            ([smallest(1), down, one(0)], below),
            ([smallest(1), one(0), down], below),
            ([smallest(0), up, one(1)], if flushed { number(false, least - 1, 0) } else { smallest(0) }),
        ] {
            for channels in [1, 3, 8, 21] {
                let [input, filter, pointwise] = values;
                // The first channel alone counts, so that the sum over channels takes up one product.
                let first = |value: T, c: usize| if c == 0 { value } else { T::ZERO };
                let input = Array4::from_shape_fn([1, 3, 5, channels], |(.., c)| first(input, c));
                let filter = Array4::from_elem([1, 1, channels, 1], filter);
                let pointwise = Array4::from_elem([1, 1, channels, 9], pointwise);
                let (input, filter, pointwise) = (input.view(), filter.view(), pointwise.view());
                let attributes = Attributes { strides: [1, 1], padding: Padding::Same, rate: [1, 1] };
                let result = reference::separable_conv2d(input, filter, pointwise, &attributes, &numerics).unwrap();
                assert!(result.iter().all(|v| v.bits() == expected.bits()), "{result:?} for {values:?}, {numerics}");
                for set in InstructionSet::available() {
                    let op = SeparableConv2d::new([1, 1], Padding::Same, [1, 1]).numerics(numerics.clone()).on(set);
                    assert_eq!(op.run(input, filter, pointwise).unwrap(), result, "{set:?} {values:?}, {numerics}");
                }
            }
        }
    }
    for products in ["fused", "separate", "paired"] {
        for flushed in [true, false] {
            check::<f32>(products, flushed);
            check::<f64>(products, flushed);
        }
    }
}
