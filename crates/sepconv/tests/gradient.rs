//! The gradients against their reference, compared as integers: every instruction set that the machine has, random
//! geometries, types, orders, threads and special values; and against finite differences.

mod elements;

use std::mem::MaybeUninit;

use elements::array;
use half::{bf16, f16};
use ndarray::{Array4, s};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use sepconv::gradient::{DepthwiseFilterOrder, Direction, InputOrder, Pixels, reference};
use sepconv::numerics::{Depthwise, Folds, Pointwise, Products, Subnormals, Sum, Taps};
use sepconv::{Attributes, Element, Error, Geometry, InstructionSet, Numerics, Padding, SeparableConv2d};

#[derive(Clone, Debug)]
struct Case {
    input: [usize; 4],
    /// Height, width, channel multiplier.
    kernel: [usize; 3],
    out_channels: usize,
    attributes: Attributes,
    products: Products,
    taps: Taps,
    direction: Direction,
    pixels: Pixels,
    strips: Option<usize>,
    /// Products in the first chain of a matrix product, if there are more.
    block: usize,
    subnormals: Subnormals,
    special: bool,
    seed: u64,
    threads: usize,
}

fn bits<T: Element>(result: Result<Array4<T>, Error>) -> Result<(Vec<usize>, Vec<u64>), Error> {
    result.map(|array| (array.shape().to_vec(), array.iter().map(|v| v.bits()).collect()))
}

fn check<T: Element>(case: &Case) -> Result<(), TestCaseError> {
    let [height, width, multiplier] = case.kernel;
    let filter_shape = [height, width, case.input[3], multiplier];
    let k = case.input[3] * multiplier;
    let pointwise_shape = [1, 1, k, case.out_channels];
    let Ok(g) = Geometry::new(&case.input, &filter_shape, &pointwise_shape, &case.attributes) else { return Ok(()) };
    let array = |shape, seed| array::<T>(shape, case.seed + seed, case.special);
    let (input, filter, pointwise) = (array(case.input, 1), array(filter_shape, 2), array(pointwise_shape, 3));
    let (upstream, pixels) =
        (array(g.output_shape(), 4), array([g.output_shape()[0], g.height.output, g.width.output, k], 5));
    let Case { products, taps, direction, subnormals, .. } = *case;
    let depthwise = Depthwise { products, taps, ..Depthwise::REPRODUCIBLE };
    let numerics = |length: usize| {
        let first = case.block.min(length);
        let sum = if first < length { Sum::blocks(&[first, length - first]) } else { Sum::Chain(length) };
        let sum = if case.seed.is_multiple_of(2) { sum.after_zero() } else { sum };
        Numerics { depthwise, pointwise: Pointwise::everywhere(products, sum), subnormals }
    };
    let input_order = InputOrder { direction, depthwise, subnormals };
    let pixels_order = match &case.pixels {
        // As long as there are pixels in all, those that are taken off included.
        Pixels::Sum(Sum::Chain(_)) => {
            let [rows, columns] = [&g.height, &g.width].map(|axis| axis.output + axis.crop);
            let length = g.batch * rows * columns;
            let lanes = Sum::Lanes { folds: Folds::new(&[1, 2]).unwrap(), each: length / 4, tail: length % 4 };
            Pixels::Sum(if length < 4 { Sum::Chain(length) } else { lanes })
        }
        other => other.clone(),
    };
    let in_pairs = products == Products::Paired;
    let filter_order = DepthwiseFilterOrder {
        products: if in_pairs { Products::Fused } else { products },
        taps,
        pixels: pixels_order,
        strips: case.strips,
        subnormals,
    };
    let attributes = &case.attributes;
    let expected = [
        bits(Ok(reference::backprop_pixels(pointwise.view(), upstream.view(), &numerics(case.out_channels)))),
        bits(reference::backprop_input(case.input, filter.view(), pixels.view(), attributes, &input_order)),
        bits(reference::backprop_depthwise_filter(
            input.view(),
            filter_shape,
            pixels.view(),
            attributes,
            &filter_order,
        )),
        bits(reference::backprop_pointwise_filter(
            input.view(),
            filter.view(),
            upstream.view(),
            attributes,
            &numerics(g.rows()),
        )),
    ];
    let Attributes { strides, padding, rate } = case.attributes;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(case.threads).build().unwrap();
    for set in InstructionSet::available() {
        let op = SeparableConv2d::new(strides, padding, rate).on(set);
        let of_rows = op.clone().numerics(numerics(g.rows()));
        let of_columns = op.clone().numerics(numerics(case.out_channels));
        let got = pool.install(|| {
            [
                bits(of_columns.backprop_pixels(pointwise.view(), upstream.view())),
                bits(op.backprop_input(case.input, filter.view(), pixels.view(), &input_order)),
                bits(op.backprop_depthwise_filter(input.view(), filter_shape, pixels.view(), &filter_order)),
                bits(of_rows.backprop_pointwise_filter(input.view(), filter.view(), pointwise_shape, upstream.view())),
            ]
        });
        for (name, (got, expected)) in
            ["pixels", "input", "depthwise_filter", "pointwise_filter"].iter().zip(got.iter().zip(&expected))
        {
            if let (Ok((_, got)), Ok((_, expected))) = (got, expected) {
                let first = got.iter().zip(expected).position(|(got, expected)| got != expected);
                prop_assert!(first.is_none(), "{name} by {set:?} differs, first in element {first:?}: {case:?}");
            }
            prop_assert!(got == expected, "{name} by {set:?} differs in shape or error: {case:?}");
        }
    }
    Ok(())
}

fn cases() -> impl Strategy<Value = Case> {
    let shapes = (
        (1usize..4, 1usize..13, 1usize..13, prop_oneof![1usize..20, 30usize..40]),
        (1usize..5, 1usize..6, 1usize..4),
        prop_oneof![0usize..20, 30usize..70],
    );
    let padding = prop_oneof![
        Just(Padding::Same),
        Just(Padding::Valid),
        prop::array::uniform2(prop::array::uniform2(0i64..6)).prop_map(Padding::Explicit)
    ];
    // Some beyond the image's extent.
    let extent = || prop::array::uniform2(prop_oneof![8 => 1i64..4, 1 => 4i64..20]);
    let attributes = (extent(), padding, extent());
    let orders = (
        prop_oneof![Just(Products::Fused), Just(Products::Separate), Just(Products::Paired)],
        prop_oneof![Just(Taps::Inside), Just(Taps::All)],
        prop_oneof![Just(Direction::Ascending), Just(Direction::Descending), Just(Direction::Apart)],
        prop_oneof![
            Just(Pixels::Chain),
            Just(Pixels::Images),
            Just(Pixels::Rows),
            (1usize..5).prop_map(Pixels::Shares),
            (1usize..5).prop_map(Pixels::Batches),
            Just(Pixels::Sum(Sum::Whole)),
            Just(Pixels::Sum(Sum::Chain(0))),
        ],
        prop::option::of(1usize..6),
        1usize..400,
        prop_oneof![Just(Subnormals::Kept), Just(Subnormals::Flushed)],
    );
    (shapes, attributes, orders, any::<bool>(), any::<u32>(), 1usize..4).prop_map(
        |((input, kernel, out_channels), (strides, padding, rate), orders, special, seed, threads)| {
            let (products, taps, direction, pixels, strips, block, subnormals) = orders;
            Case {
                input: input.into(),
                kernel: kernel.into(),
                out_channels,
                attributes: Attributes { strides, padding, rate },
                products,
                taps,
                direction,
                pixels,
                strips,
                block,
                subnormals,
                special,
                seed: seed.into(),
                threads,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_gradient_is_the_references(case in cases()) {
        check::<f32>(&case)?;
        check::<f64>(&case)?;
        check::<f16>(&case)?;
        check::<bf16>(&case)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Where two lines of pixels share what they read, from either end of the image.
    #[test]
    fn two_lines(
        case in cases(),
        height in 2usize..9,
        width in 7usize..40,
        channels in prop_oneof![Just(5usize), Just(16), Just(32)],
        rate in 1i64..3,
    ) {
        let attributes = Attributes { strides: [1, 1], padding: Padding::Same, rate: [rate, 1] };
        let input = [case.input[0], height, width, channels];
        let case = Case { input, kernel: [3, 3, 1], attributes, ..case };
        check::<f32>(&case)?;
        check::<f64>(&case)?;
    }
}

/// Large enough for several tiles, panels of them, chunks of pixels and threads.
#[test]
fn large_images() {
    for (input, multiplier, out_channels, strides, rate) in [
        ([2, 40, 37, 70], 1, 90, [1, 1], [1, 1]),
        ([1, 60, 60, 8], 1, 16, [2, 2], [1, 1]),
        // Runs of pixels that are taken together, of one column of taps, two and three, by two vectors.
        ([1, 9, 31, 40], 1, 8, [2, 2], [1, 1]),
        ([2, 12, 50, 64], 1, 8, [2, 2], [1, 1]),
        ([1, 33, 33, 40], 1, 24, [1, 1], [2, 3]),
        ([1, 9, 8, 300], 1, 300, [1, 1], [1, 1]),
        ([1, 5, 12, 101], 3, 40, [1, 1], [1, 1]),
        // Few pixels, sums of two blocks, and a last panel that is not whole.
        ([1, 17, 19, 150], 1, 120, [1, 1], [1, 1]),
    ] {
        let orders = [
            (Taps::Inside, Direction::Ascending),
            (Taps::Inside, Direction::Descending),
            (Taps::All, Direction::Apart),
        ];
        for ((taps, direction), seed) in orders.into_iter().zip(7..) {
            let case = Case {
                input,
                kernel: [3, 3, multiplier],
                out_channels,
                attributes: Attributes { strides, padding: Padding::Same, rate },
                products: Products::Fused,
                taps,
                direction,
                pixels: Pixels::Chain,
                strips: Some(15),
                block: if input[1] == 17 { 200 } else { 700 },
                subnormals: Subnormals::Kept,
                special: false,
                seed,
                threads: 3,
            };
            check::<f32>(&case).unwrap();
            check::<f64>(&case).unwrap();
        }
    }
}

/// Filters that lie in memory from end to beginning, or by another axis.
#[test]
fn filters_of_any_layout() {
    fn check<T: Element>() {
        let convolution = SeparableConv2d::new([1, 1], Padding::Same, [1, 1]);
        let (input, upstream) = (array::<T>([1, 5, 6, 37], 1, false), array([1, 5, 6, 45], 2, false));
        let (filter, pointwise) = (array::<T>([37, 3, 3, 1], 3, false), array::<T>([1, 1, 37, 45], 4, false));
        let filter = filter.view().permuted_axes([1, 2, 0, 3]);
        let backwards = pointwise.slice(s![.., .., ..;-1, ..]);
        for (filter, pointwise) in [(filter, backwards), (filter.slice(s![..;-1, ..;-1, ..;-1, ..]), pointwise.view())]
        {
            let [own_filter, own_pointwise] = [&filter, &pointwise].map(|view| view.as_standard_layout().into_owned());
            for set in InstructionSet::available() {
                let on = convolution.clone().on(set);
                let got = on.gradients(input.view(), filter, pointwise, upstream.view()).unwrap();
                let of_copies = (own_filter.view(), own_pointwise.view());
                let expected = on.gradients(input.view(), of_copies.0, of_copies.1, upstream.view()).unwrap();
                for (got, expected) in [
                    (got.input, expected.input),
                    (got.depthwise_filter, expected.depthwise_filter),
                    (got.pointwise_filter, expected.pointwise_filter),
                ] {
                    assert_eq!(bits(Ok(got)), bits(Ok(expected)), "{set:?}");
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
    check::<f16>();
    check::<bf16>();
}

/// The gradient of a weighted sum of the result, which is linear in each argument: differences are exact but for rounding.
#[test]
fn differences_agree() {
    for (strides, padding, rate) in [
        ([1, 1], Padding::Same, [1, 1]),
        ([2, 1], Padding::Valid, [1, 1]),
        ([2, 3], Padding::Explicit([[1, 4], [5, 0]]), [2, 1]),
        ([1, 1], Padding::Same, [3, 2]),
    ] {
        let convolution = SeparableConv2d::new(strides, padding, rate);
        let arrays: [Array4<f64>; 3] =
            [([2, 7, 8, 3], 1), ([3, 2, 3, 2], 2), ([1, 1, 6, 4], 3)].map(|(shape, seed)| array(shape, seed, false));
        let run = |[input, filter, pointwise]: &[Array4<f64>; 3]| {
            convolution.run(input.view(), filter.view(), pointwise.view()).unwrap()
        };
        let output = run(&arrays);
        let upstream = array::<f64>(output.dim().into(), 4, false);
        let [input, filter, pointwise] = &arrays;
        let gradients = convolution.gradients(input.view(), filter.view(), pointwise.view(), upstream.view()).unwrap();
        let gradients = [gradients.input, gradients.depthwise_filter, gradients.pointwise_filter];
        for (argument, gradient) in gradients.iter().enumerate() {
            for element in (0..gradient.len()).step_by(5) {
                let mut moved = arrays.clone();
                moved[argument].as_slice_mut().unwrap()[element] += 1.0;
                let difference = ((run(&moved) - &output) * &upstream).sum();
                let got = gradient.as_slice().unwrap()[element];
                assert!((got - difference).abs() < 1e-10, "argument {argument}, element {element}: {got} {difference}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let convolution = SeparableConv2d::new([1, 1], Padding::Same, [1, 1]);
    let (input, filter) = (Array4::<f32>::zeros((1, 4, 4, 2)), Array4::zeros((3, 3, 2, 1)));
    let (pointwise, upstream) = (Array4::zeros((1, 1, 2, 5)), Array4::zeros((1, 4, 3, 5)));
    let error = convolution.gradients(input.view(), filter.view(), pointwise.view(), upstream.view()).unwrap_err();
    assert_eq!(error.to_string(), "upstream must have shape [1, 4, 4, 5], got [1, 4, 3, 5]");
    let pixels = Array4::zeros((1, 4, 4, 3));
    let error = convolution.backprop_input([1, 4, 4, 2], filter.view(), pixels.view(), &InputOrder::REPRODUCIBLE);
    assert!(error.unwrap_err().to_string().contains("must have shape [1, 4, 4, 2], got [1, 4, 4, 3]"));
    let numerics =
        convolution.numerics("v1 depthwise(fused, all) pointwise(fused, 7) subnormals(kept)".parse().unwrap());
    let upstream = Array4::zeros((1, 4, 4, 5));
    let error = numerics.backprop_pointwise_filter(input.view(), filter.view(), [1, 1, 2, 5], upstream.view());
    assert_eq!(error.unwrap_err().to_string(), "numerics: the sum `7` adds 7 products, but there are 16");
    assert!(numerics.backprop_pixels(pointwise.view(), upstream.view()).is_err());
}

/// Another number of elements than the result has is refused before one is written.
#[test]
fn an_output_of_another_length_is_an_error() {
    let convolution = SeparableConv2d::new([1, 1], Padding::Same, [1, 1]);
    let (input, filter) = (Array4::<f32>::ones((1, 4, 4, 2)), Array4::ones((3, 3, 2, 1)));
    let (pointwise, upstream) = (Array4::ones((1, 1, 2, 5)), Array4::ones((1, 4, 4, 5)));
    let (input, filter, pointwise, upstream) = (input.view(), filter.view(), pointwise.view(), upstream.view());
    let (of_input, of_filter) = (InputOrder::REPRODUCIBLE, DepthwiseFilterOrder::REPRODUCIBLE);
    for length in [0, 1, 17, 19, 31, 33, 1000] {
        let mut output = vec![MaybeUninit::new(7f32); length];
        let errors = [
            convolution.backprop_pixels_into(pointwise, upstream, &mut output),
            convolution.backprop_input_into([1, 4, 4, 2], filter, input, &of_input, &mut output),
            convolution.backprop_depthwise_filter_into(input, [3, 3, 2, 1], input, &of_filter, &mut output),
            convolution.backprop_pointwise_filter_into(input, filter, [1, 1, 2, 5], upstream, &mut output),
        ];
        let shapes = [[1, 4, 4, 2], [1, 4, 4, 2], [3, 3, 2, 1], [1, 1, 2, 5]];
        for (error, shape) in errors.into_iter().zip(shapes) {
            let expected = shape.iter().product();
            assert_eq!(error, Err(Error::Length { shape, expected, got: length }));
        }
        // SAFETY: it has been written.
        assert!(output.iter().all(|value| unsafe { value.assume_init() } == 7.0));
    }
}

/// Whether or not the result has elements, and however many it would have.
#[test]
fn shapes_that_do_not_fit_are_errors() {
    let convolution = SeparableConv2d::new([1, 1], Padding::Same, [1, 1]);
    let (input, filter) = (Array4::<f32>::ones((1, 4, 4, 2)), Array4::ones((3, 3, 2, 1)));
    let upstream = Array4::ones((1, 4, 4, 3));
    let (input, filter, upstream) = (input.view(), filter.view(), upstream.view());
    for shape in [[0, 9, 9, 9], [1 << 32, 1 << 32, 1, 2], [1, 1 << 32, 1 << 32, 2]] {
        assert!(convolution.backprop_input(shape, filter, input, &InputOrder::REPRODUCIBLE).is_err(), "{shape:?}");
    }
    for shape in [[0, 3, 9, 1], [1 << 40, 1 << 40, 2, 1], [0, 1 << 40, 1 << 40, 2]] {
        let order = DepthwiseFilterOrder::REPRODUCIBLE;
        assert!(convolution.backprop_depthwise_filter(input, shape, input, &order).is_err(), "{shape:?}");
    }
    for shape in [[1, 1, 7, 0], [1, 1, 1 << 40, 1 << 40]] {
        assert!(convolution.backprop_pointwise_filter(input, filter, shape, upstream).is_err(), "{shape:?}");
    }
    let error = convolution.backprop_pixels(Array4::ones((5, 1, 0, 3)).view(), upstream).unwrap_err();
    assert_eq!(error.to_string(), "pointwise_filter must have shape [1, 1, 0, 3], got [5, 1, 0, 3]");
}

/// What is far beyond the image is as if it were just beyond, and takes no longer.
#[test]
fn enormous_strides_and_rates() {
    const MOST: i64 = i32::MAX as i64;
    fn gradients(strides: [i64; 2], rate: [i64; 2], padding: Padding, kernel: usize) -> Vec<Vec<u64>> {
        let convolution = SeparableConv2d::new(strides, padding, rate);
        let (input, filter) = (array::<f32>([2, 5, 4, 3], 1, true), array([kernel, kernel, 3, 2], 2, true));
        let pixels = convolution.depthwise(input.view(), filter.view()).unwrap();
        let pixels = array::<f32>(pixels.dim().into(), 3, true);
        let mut all = Vec::new();
        for text in ["ascending, fused, inside", "descending, separate, all", "apart, fused, all, borders"] {
            let order = format!("v1 input({text}) subnormals(flushed)").parse().unwrap();
            let gradient = convolution.backprop_input(input.dim().into(), filter.view(), pixels.view(), &order);
            all.push(bits(gradient).unwrap().1);
        }
        for text in ["inside, rows", "all, chain", "all, batches 2", "all, rows, strips 1", "all, sum chain"] {
            let order = format!("v1 depthwise_filter(fused, {text}) subnormals(flushed)").parse().unwrap();
            let gradient =
                convolution.backprop_depthwise_filter(input.view(), filter.dim().into(), pixels.view(), &order);
            all.push(bits(gradient).unwrap().1);
        }
        all
    }
    for (padding, kernel) in [(Padding::Same, 3), (Padding::Same, 2), (Padding::Valid, 1)] {
        for [strides, rate] in [[[MOST, MOST], [1, 1]], [[1, 1], [MOST, MOST]], [[MOST, 2], [1, MOST]], [[MOST; 2]; 2]]
        {
            let nearer = |values: [i64; 2]| values.map(|value| if value == MOST { 1001 } else { value });
            let expected = gradients(nearer(strides), nearer(rate), padding, kernel);
            assert_eq!(gradients(strides, rate, padding, kernel), expected, "{strides:?} {rate:?} {padding:?}");
        }
    }
}

/// Where a tile ends, the next channel is behind its last one.
#[test]
fn only_the_last_channel_has_nothing_behind_it() {
    let input = Array4::from_elem((1, 1, 1, 200), f32::INFINITY);
    let (filter, upstream) = (Array4::ones((1, 1, 200, 1)), Array4::ones((1, 1, 1, 3)));
    let numerics: Numerics = "v1 depthwise(fused, inside) pointwise(overrun, chain) subnormals(kept)".parse().unwrap();
    let attributes = Attributes { strides: [1, 1], padding: Padding::Valid, rate: [1, 1] };
    let expected =
        reference::backprop_pointwise_filter(input.view(), filter.view(), upstream.view(), &attributes, &numerics);
    for set in InstructionSet::available() {
        let op = SeparableConv2d::new([1, 1], Padding::Valid, [1, 1]).numerics(numerics.clone()).on(set);
        let got = op.backprop_pointwise_filter(input.view(), filter.view(), [1, 1, 200, 3], upstream.view());
        assert_eq!(bits(got), bits(expected.clone()), "{set:?}");
    }
}

/// No products at all, in pairs.
#[test]
fn no_out_channels_pass_nothing_back() {
    let numerics: Numerics =
        "v1 depthwise(paired, inside) pointwise(paired, chain) subnormals(flushed)".parse().unwrap();
    for set in InstructionSet::available() {
        let op = SeparableConv2d::new([1, 1], Padding::Valid, [1, 1]).numerics(numerics.clone()).on(set);
        let zeros = |shape: [usize; 4]| Array4::from_elem(shape, bf16::ZERO);
        let (filter, upstream) = (zeros([1, 1, 3, 0]), zeros([1, 2, 2, 0]));
        let pixels = op.backprop_pixels(filter.view(), upstream.view()).unwrap();
        assert_eq!(pixels, zeros([1, 2, 2, 3]), "{set:?}");
    }
}
