//! The fast path against the reference, compared as integers: every instruction set that the machine has, over shapes
//! with tails, borders, views, threads, special values and orders of the sum.

mod elements;

use std::sync::Arc;

use elements::{array, elements};
use half::{bf16, f16};
use ndarray::{Array4, ArrayView4, Axis, s};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use sepconv::epilogue::{Epilogues, Step};
use sepconv::numerics::{Depthwise, Elsewhere, Folds, Pointwise, Products, Rounding, Subnormals, Sum, TapOrder, Taps};
use sepconv::{
    Attributes, Element, Error, InstructionSet, Numerics, PackedFilter, Padding, SeparableConv2d, reference,
};

/// One call: shapes, attributes, numerics and how the arrays lie in memory.
#[derive(Clone, Debug)]
struct Case {
    input: [usize; 4],
    /// Height, width, channel multiplier.
    kernel: [usize; 3],
    out_channels: usize,
    attributes: Attributes,
    numerics: Numerics,
    layout: Layout,
    special: bool,
    seed: u64,
    threads: usize,
}

#[derive(Clone, Copy, Debug)]
enum Layout {
    Standard,
    /// Starts one element into its memory.
    Misaligned,
    /// Every second row of a larger array, columns from right to left, channels adjacent.
    Strided,
    /// Channels first in memory.
    ChannelsFirst,
}

/// The same values in the layout.
struct Laid<T> {
    memory: Array4<T>,
    layout: Layout,
}

impl<T: Element> Laid<T> {
    fn new(shape: [usize; 4], seed: u64, special: bool, layout: Layout) -> Self {
        let [a, b, c, d] = shape;
        let memory_shape = match layout {
            Layout::Standard => shape,
            Layout::Misaligned => [1, 1, 1, a * b * c * d + 1],
            Layout::Strided => [a, 2 * b, c, d + 3],
            Layout::ChannelsFirst => [a, d, b, c],
        };
        let count = memory_shape.iter().product();
        let memory = Array4::from_shape_vec(memory_shape, elements(count, seed, special)).unwrap();
        let memory = match layout {
            Layout::Misaligned => Array4::from_shape_vec(memory_shape, memory.into_raw_vec_and_offset().0).unwrap(),
            _ => memory,
        };
        Self { memory, layout }
    }

    fn view(&self, shape: [usize; 4]) -> ArrayView4<'_, T> {
        match self.layout {
            Layout::Standard => self.memory.view(),
            Layout::Misaligned => ArrayView4::from_shape(shape, &self.memory.as_slice().unwrap()[1..]).unwrap(),
            Layout::Strided => self.memory.slice(s![.., ..;2, ..;-1, 3..]),
            Layout::ChannelsFirst => self.memory.view().permuted_axes([0, 2, 3, 1]),
        }
    }
}

fn bits<T: Element>(result: &Result<Array4<T>, Error>) -> Result<(Vec<usize>, Vec<u64>), Error> {
    let bits = |array: &Array4<T>| (array.shape().to_vec(), array.iter().map(|v| v.bits()).collect());
    result.as_ref().map(bits).map_err(Error::clone)
}

/// Runs the case in every instruction set and compares.
fn check<T: Element>(case: &Case) -> Result<(), TestCaseError> {
    let [_, _, _, in_channels] = case.input;
    let [height, width, multiplier] = case.kernel;
    let filter_shape = [height, width, in_channels, multiplier];
    let pointwise_shape = [1, 1, in_channels * multiplier, case.out_channels];
    let input = Laid::<T>::new(case.input, case.seed, case.special, case.layout);
    let filter = Laid::<T>::new(filter_shape, case.seed + 1, case.special, case.layout);
    let pointwise = Laid::<T>::new(pointwise_shape, case.seed + 2, case.special, case.layout);
    let (input, filter, pointwise) =
        (input.view(case.input), filter.view(filter_shape), pointwise.view(pointwise_shape));
    let expected = bits(&reference::separable_conv2d(input, filter, pointwise, &case.attributes, &case.numerics));
    let Attributes { strides, padding, rate } = case.attributes;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(case.threads).build().unwrap();
    for set in InstructionSet::available() {
        let op = SeparableConv2d::new(strides, padding, rate).numerics(case.numerics.clone()).on(set);
        let result = bits(&pool.install(|| op.run(input, filter, pointwise)));
        if let (Ok((_, result)), Ok((_, expected))) = (&result, &expected) {
            let first = result.iter().zip(expected).position(|(result, expected)| result != expected);
            prop_assert!(first.is_none(), "{set:?} differs, first in element {first:?}: {case:?}");
        }
        prop_assert!(result == expected, "{set:?} differs in shape or error: {case:?}");
        if let Ok((shape, expected)) = &expected {
            // Into a view that is not contiguous.
            let mut memory = Array4::from_elem([shape[0], shape[1], shape[2], shape[3] + 1], T::from_f64(7.0));
            let output = memory.slice_mut(s![.., .., .., ..shape[3]]);
            op.run_into(input, filter, pointwise, output).unwrap();
            let written = memory.slice(s![.., .., .., ..shape[3]]).iter().map(|v| v.bits()).collect::<Vec<_>>();
            prop_assert!(written == *expected, "{set:?} differs in run_into: {case:?}");
            prop_assert!(memory.index_axis(Axis(3), shape[3]).iter().all(|v| v.to_f64() == 7.0));
        }
    }
    Ok(())
}

/// The same with steps behind the two parts, of these kinds, in one call and by a plan.
fn check_steps<T: Element>(case: &Case, kinds: &[Vec<usize>; 2]) -> Result<(), TestCaseError> {
    let [_, _, _, in_channels] = case.input;
    let [height, width, multiplier] = case.kernel;
    let (filter_shape, k) = ([height, width, in_channels, multiplier], in_channels * multiplier);
    let pointwise_shape = [1, 1, k, case.out_channels];
    let input = Laid::<T>::new(case.input, case.seed, case.special, case.layout);
    let filter = Laid::<T>::new(filter_shape, case.seed + 1, case.special, Layout::Standard);
    let pointwise = Laid::<T>::new(pointwise_shape, case.seed + 2, case.special, case.layout);
    let (input, filter, pointwise) =
        (input.view(case.input), filter.view(filter_shape), pointwise.view(pointwise_shape));
    let numbers: Vec<T> = elements(k.max(case.out_channels) + 9, case.seed + 3, case.special);
    let steps = |kinds, channels| steps_of_kinds(kinds, channels, &numbers);
    let epilogues = Epilogues { depthwise: steps(&kinds[0], k), pointwise: steps(&kinds[1], case.out_channels) };
    let Attributes { strides, padding, rate } = case.attributes;
    let expected = bits(&reference::with_steps(input, filter, pointwise, &case.attributes, &case.numerics, &epilogues));
    let depthwise = reference::depthwise_with_steps(input, filter, &case.attributes, &case.numerics, &epilogues);
    let depthwise = bits(&depthwise);
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(case.threads).build().unwrap());
    for set in InstructionSet::available() {
        let op =
            SeparableConv2d::new(strides, padding, rate).numerics(case.numerics.clone()).pool(pool.clone()).on(set);
        let op = op.with_steps(&epilogues);
        let result = bits(&op.run(input, filter, pointwise));
        prop_assert!(result == expected, "{set:?} differs with {kinds:?}: {case:?}");
        let planned = op.plan(case.input, filter, pointwise).and_then(|plan| {
            let mut output = Array4::from_elem(plan.output_shape(), T::ZERO);
            plan.run_into(input, output.view_mut()).map(|()| output)
        });
        prop_assert!(bits(&planned) == expected, "{set:?} differs in a plan with {kinds:?}: {case:?}");
        let alone = bits(&op.depthwise(input, filter));
        prop_assert!(alone == depthwise, "{set:?} differs in the depthwise part with {kinds:?}: {case:?}");
    }
    Ok(())
}

/// With numbers for each of these channels from those, of which there are nine more.
fn steps_of_kinds<'a, T: Element>(kinds: &[usize], channels: usize, numbers: &'a [T]) -> Vec<Step<'a, T>> {
    let step = |(n, kind): (usize, &usize)| match kind {
        0 => Step::Add(&numbers[n..][..channels]),
        1 => Step::Multiply(&numbers[n + 4..][..channels]),
        2 => Step::Relu,
        3 => Step::Relu6,
        4 => Step::LeakyRelu(T::from_f64(0.3)),
        5 => Step::HardSwish,
        6 => Step::HardSwishSixthFirst,
        7 => Step::Swish,
        8 => Step::SwishOneDnn,
        9 => Step::ReluOneDnn,
        10 => Step::Relu6OneDnn,
        _ => Step::MultiplyAdd(&numbers[n + 2..][..channels], &numbers[n + 5..][..channels]),
    };
    kinds.iter().enumerate().map(step).collect()
}

/// The pointwise part alone with steps behind it, of these kinds: in one call, into a view that is not contiguous, and by plans.
/// Of the case's kernel nothing counts.
fn check_pointwise<T: Element>(case: &Case, kinds: &[usize]) -> Result<(), TestCaseError> {
    let [_, _, _, k] = case.input;
    let filter_shape = [1, 1, k, case.out_channels];
    let input = Laid::<T>::new(case.input, case.seed, case.special, case.layout);
    let filter = Laid::<T>::new(filter_shape, case.seed + 2, case.special, case.layout);
    let (input, filter) = (input.view(case.input), filter.view(filter_shape));
    let numbers: Vec<T> = elements(case.out_channels + 9, case.seed + 3, case.special);
    let pointwise = steps_of_kinds(kinds, case.out_channels, &numbers);
    // Those behind the other part do not count.
    let epilogues = Epilogues { depthwise: vec![Step::Relu, Step::Add(&[])], pointwise };
    let expected = reference::pointwise_with_steps(input, filter, &case.attributes, &case.numerics, &epilogues);
    let expected = bits(&expected);
    prop_assert!(expected.is_ok(), "{expected:?}: {case:?}");
    let Attributes { strides, padding, rate } = case.attributes;
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(case.threads).build().unwrap());
    for set in InstructionSet::available() {
        let convolution =
            SeparableConv2d::new(strides, padding, rate).numerics(case.numerics.clone()).pool(pool.clone()).on(set);
        let op = convolution.with_steps(&epilogues);
        let result = bits(&op.pointwise(input, filter));
        prop_assert!(result == expected, "{set:?} differs with {kinds:?}: {case:?}");
        let shape = &result.unwrap().0;
        let mut memory = Array4::from_elem([shape[0], shape[1], shape[2], shape[3] + 1], T::from_f64(7.0));
        op.pointwise_into(input, filter, memory.slice_mut(s![.., .., .., ..shape[3]])).unwrap();
        let written = bits(&Ok(memory.slice(s![.., .., .., ..shape[3]]).to_owned()));
        prop_assert!(written == expected, "{set:?} differs in pointwise_into with {kinds:?}: {case:?}");
        prop_assert!(memory.index_axis(Axis(3), shape[3]).iter().all(|v| v.to_f64() == 7.0));
        let packed = convolution.pack(filter).unwrap();
        let planned = op.plan_pointwise(case.input, &packed).and_then(|plan| {
            let mut output = Array4::from_elem(plan.output_shape(), T::ZERO);
            plan.run_into(input, output.view_mut()).map(|()| output)
        });
        prop_assert!(bits(&planned) == expected, "{set:?} differs in a plan with {kinds:?}: {case:?}");
    }
    Ok(())
}

/// For every type of element.
fn check_all_pointwise(case: &Case, kinds: &[usize]) -> Result<(), TestCaseError> {
    check_pointwise::<f32>(case, kinds)?;
    // The swishes are of f32 alone.
    let kinds: Vec<_> = kinds.iter().copied().filter(|kind| ![7, 8].contains(kind)).collect();
    check_pointwise::<f64>(case, &kinds)?;
    check_pointwise::<f16>(case, &kinds)?;
    check_pointwise::<bf16>(case, &kinds)
}

/// For every type of element.
fn check_all(case: &Case) -> Result<(), TestCaseError> {
    check::<f32>(case)?;
    check::<f64>(case)?;
    check::<f16>(case)?;
    check::<bf16>(case)
}

/// A sum over exactly `k` products: chains, blocks, blocks of blocks, cut where the seed says.
fn sum(k: usize, depth: usize, seed: &mut u64) -> Sum {
    let mut random = |n: usize| {
        *seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (*seed >> 33) as usize % n
    };
    if k < 2 || random(3) == 0 {
        return Sum::Chain(k);
    }
    let folds: [&[usize]; 5] = [&[1], &[1, 2], &[2, 1], &[1, 4, 2], &[1, 2, 4, 8]];
    let folds = Folds::new(folds[random(5)]).unwrap();
    if k >= folds.lanes() && random(3) == 0 {
        let each = 1 + random(k / folds.lanes());
        return Sum::Lanes { tail: k - folds.lanes() * each, folds, each };
    }
    let first = 1 + random(k - 1);
    let parts = match random(3) {
        0 if k > first + 1 => vec![first, 1, k - first - 1],
        1 => (0..k).step_by(first).map(|at| first.min(k - at)).collect(),
        _ => vec![first, k - first],
    };
    let nested = |k| if depth < 3 { sum(k, depth + 1, seed) } else { Sum::Chain(k) };
    Sum::Blocks(parts.into_iter().map(nested).collect())
}

fn padding() -> impl Strategy<Value = Padding> {
    let explicit = [[0i64..5, 0..5], [0..5, 0..5]].prop_map(Padding::Explicit);
    prop_oneof![2 => Just(Padding::Same), 1 => Just(Padding::Valid), 2 => explicit]
}

fn numerics(k: usize) -> impl Strategy<Value = Numerics> {
    let products = || {
        prop_oneof![Just(Products::Fused), Just(Products::Separate), Just(Products::Paired), Just(Products::Overrun)]
    };
    let rounding = prop_oneof![2 => Just(Rounding::Once), 1 => Just(Rounding::Each)];
    let taps = prop_oneof![Just(Taps::Inside), Just(Taps::All), Just(Taps::Beside), Just(Taps::Above)];
    let order = prop_oneof![2 => Just(TapOrder::Rows), 1 => Just(TapOrder::Columns), 1 => Just(TapOrder::Borders), 1 => Just(TapOrder::Channels), 1 => (1usize..4).prop_map(TapOrder::RowsAtOnce)];
    let taps = (taps, order);
    let subnormals = prop_oneof![Just(Subnormals::Kept), Just(Subnormals::Flushed)];
    let sums = move || any::<u64>().prop_map(move |mut seed| sum(k, 0, &mut seed));
    let sum = move || prop_oneof![1 => Just(Sum::Whole), 3 => sums(), 1 => sums().prop_map(|sum| sum.after_zero())];
    let range = || (0usize..40, 0usize..40).prop_map(|(start, length)| start..start + length);
    let elsewhere = (range(), range(), products(), sum()).prop_map(|(rows, columns, products, sum)| Elsewhere {
        rows,
        columns,
        products,
        sum,
    });
    let pointwise = (products(), sum(), prop::collection::vec(elsewhere, 0..3))
        .prop_map(|(products, sum, elsewhere)| Pointwise { products, sum, elsewhere });
    (products(), taps, rounding, pointwise, subnormals).prop_map(
        |(products, (taps, order), rounding, pointwise, subnormals)| Numerics {
            depthwise: Depthwise { products, taps, order, rounding },
            pointwise,
            subnormals,
        },
    )
}

fn layout() -> impl Strategy<Value = Layout> {
    prop_oneof![Just(Layout::Standard), Just(Layout::Misaligned), Just(Layout::Strided), Just(Layout::ChannelsFirst)]
}

/// Small images with few to many channels.
fn case(
    image: impl Strategy<Value = [usize; 3]>,
    channels: impl Strategy<Value = (usize, usize)>,
    out_channels: impl Strategy<Value = usize>,
) -> impl Strategy<Value = Case> {
    let kernel = [prop_oneof![9 => 1usize..6, 1 => Just(0)], prop_oneof![9 => 1usize..6, 1 => Just(0)]];
    let attributes = ([1i64..4, 1..4], padding(), prop_oneof![1 => Just([1, 1]), 1 => [1i64..4, 1..4]]);
    let attributes = attributes.prop_map(|(strides, padding, rate)| Attributes { strides, padding, rate });
    let shapes = (image, channels, out_channels, kernel, attributes);
    shapes.prop_flat_map(|([n, h, w], (c, m), out_channels, kernel, attributes)| {
        let rest = (numerics(c * m), layout(), any::<bool>(), 0u64..1 << 32, 1usize..5);
        rest.prop_map(move |(numerics, layout, special, seed, threads)| Case {
            input: [n, h, w, c],
            kernel: [kernel[0], kernel[1], m],
            out_channels,
            attributes,
            numerics,
            layout,
            special,
            seed,
            threads,
        })
    })
}

/// So many cases, or no more than the environment variable `PROPTEST_CASES` says.
fn config(cases: u32) -> ProptestConfig {
    let most = std::env::var("PROPTEST_CASES").map_or(cases, |most| most.parse().expect("a number"));
    let cases = cases.min(most);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(2500))]

    #[test]
    fn small_images(case in case([0usize..3, 0..12, 0..12], (1usize..40, 1usize..5), 0usize..80)) {
        check_all(&case)?;
    }
}

proptest! {
    #![proptest_config(config(250))]

    /// Long sums, more than a panel of a tile, and one-pixel images.
    #[test]
    fn many_channels(case in case([1usize..3, 1..4, 1..4], (200usize..1500, 1usize..2), 1usize..40)) {
        check_all(&case)?;
    }

    /// Enough work for several threads, and many rows.
    #[test]
    fn large_images(case in case([1usize..3, 10..40, 10..40], (8usize..40, 1usize..3), 30usize..140)) {
        check::<f32>(&case)?;
    }

    /// Few rows and many columns: shared between threads by columns.
    #[test]
    fn many_columns(case in case([1usize..2, 1..6, 1..6], (100usize..400, 1usize..2), 200usize..600)) {
        check_all(&case)?;
    }
}

proptest! {
    #![proptest_config(config(300))]

    /// Stride 1, where pixels share what they read: neighbours, or if dilated those that are as far apart.
    #[test]
    fn dense_images(case in case([1usize..3, 1..9, 4..30], (1usize..80, 1usize..3), 1usize..40), rate in 1i64..4) {
        let attributes = Attributes { strides: [1, 1], rate: [1, rate], ..case.attributes };
        let [_, _, multiplier] = case.kernel;
        let kernel = [3, [3, 5, 2, 1][case.seed as usize % 4], multiplier];
        let case = Case { attributes, kernel, ..case };
        check_all(&case)?;
    }
}

proptest! {
    #![proptest_config(config(250))]

    /// 3x3 taps at strides 1 and 2 and 5x5 in row-major order, where two lines of pixels share what they read: with borders that count
    /// or do not, tiles that end anywhere, dilated, and with steps behind.
    #[test]
    fn two_lines(
        case in case([1usize..3, 1..20, 1..70], (1usize..80, 1usize..2), 1usize..40),
        all in any::<bool>(),
        rate in prop_oneof![3 => Just([1, 1]), 1 => [1i64..4, 1..5]],
        stride in prop_oneof![2 => Just(1i64), 1 => Just(2)],
        separate in any::<bool>(),
        kinds in [prop::collection::vec(0usize..7, 0..3), prop::collection::vec(0usize..7, 0..2)],
    ) {
        let rate = if stride == 1 { rate } else { [1, 1] };
        let attributes = Attributes { strides: [stride; 2], rate, ..case.attributes };
        let taps = if all { Taps::All } else { Taps::Inside };
        let products = if separate { Products::Separate } else { Products::Fused };
        let depthwise = Depthwise { products, taps, order: TapOrder::Rows, rounding: Rounding::Once };
        let numerics = Numerics { depthwise, ..case.numerics };
        let taps = if stride == 1 && case.seed % 2 == 0 { 5 } else { 3 };
        let case = Case { attributes, kernel: [taps, taps, 1], numerics, ..case };
        check::<f32>(&case)?;
        check_steps::<f32>(&case, &kinds)?;
        check_steps::<f64>(&case, &kinds)?;
        let depthwise = Depthwise { products: Products::Paired, ..depthwise };
        let numerics = Numerics { depthwise, subnormals: Subnormals::Flushed, ..case.numerics };
        check_steps::<bf16>(&Case { numerics, ..case }, &kinds)?;
    }
}

proptest! {
    #![proptest_config(config(600))]

    /// Depthwise products that overrun: of pixels in the middle of a row and of those whose sums reach its end.
    #[test]
    fn overrunning(case in case([1usize..3, 1..9, 4..30], (1usize..20, 1usize..5), 1usize..20)) {
        let depthwise = Depthwise { products: Products::Overrun, ..case.numerics.depthwise };
        let case = Case { numerics: Numerics { depthwise, ..case.numerics }, ..case };
        check::<f32>(&case)?;
        check::<bf16>(&case)?;
    }

    /// What instructions for pairs do: subnormal numbers flushed, no product parted from its partner.
    #[test]
    fn pairs(
        case in case([1usize..3, 1..7, 1..20], (1usize..400, 1usize..4), 1usize..80),
        block in 1usize..300,
        nested in any::<bool>(),
        overrun in any::<bool>(),
    ) {
        let [.., channels] = case.input;
        let k = channels * case.kernel[2];
        let blocks: Vec<usize> = (0..k).step_by(2 * block).map(|at| (2 * block).min(k - at)).collect();
        let sum = if nested && blocks.len() > 2 {
            Sum::Blocks(vec![Sum::Chain(blocks[0]), Sum::blocks(&blocks[1..])])
        } else {
            Sum::blocks(&blocks)
        };
        let (products, order, rounding) = (Products::Paired, TapOrder::Rows, Rounding::Once);
        // Of an even number of products none has to do without a partner.
        let others = if overrun { Products::Overrun } else { products };
        let elsewhere = Elsewhere { rows: 2..9, columns: 3..20, products: others, sum: Sum::Chain(k) };
        let pointwise = Pointwise { products, sum, elsewhere: vec![elsewhere] };
        let depthwise = Depthwise { products, order, rounding, ..case.numerics.depthwise };
        let numerics = Numerics { depthwise, pointwise, subnormals: Subnormals::Flushed };
        let case = Case { numerics, ..case };
        check::<bf16>(&case)?;
        check_steps::<bf16>(&case, &[vec![0, 2], vec![1]])?;
    }
}

proptest! {
    #![proptest_config(config(700))]

    #[test]
    fn steps(
        case in case([1usize..3, 1..9, 1..12], (1usize..40, 1usize..4), 1usize..80),
        depthwise in prop::collection::vec(0usize..12, 0..4),
        pointwise in prop::collection::vec(0usize..12, 0..4),
    ) {
        let kinds = [depthwise, pointwise];
        check_steps::<f32>(&case, &kinds)?;
        // The swishes are of f32 alone.
        let kinds = kinds.map(|kinds| kinds.into_iter().filter(|kind| ![7, 8].contains(kind)).collect());
        check_steps::<f64>(&case, &kinds)?;
        check_steps::<f16>(&case, &kinds)?;
        check_steps::<bf16>(&case, &kinds)?;
    }
}

fn kinds() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0usize..12, 0..4)
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn pointwise_part(case in case([0usize..3, 0..12, 0..12], (1usize..40, 1usize..2), 0usize..80), kinds in kinds()) {
        check_all_pointwise(&case, &kinds)?;
    }

    /// The reference's, where a depthwise part multiplies by one what neither is zero nor rounded by that.
    #[test]
    fn pointwise_part_behind_ones(case in case([0usize..3, 0..12, 0..12], (1usize..20, 1usize..2), 0usize..20)) {
        let [_, _, _, k] = case.input;
        let (attributes, numerics) = (&case.attributes, &case.numerics);
        let input = Laid::<f64>::new(case.input, case.seed, false, case.layout);
        let filter = Laid::<f64>::new([1, 1, k, case.out_channels], case.seed + 2, case.special, case.layout);
        let (input, filter) = (input.view(case.input), filter.view([1, 1, k, case.out_channels]));
        let alone = reference::pointwise_with_steps(input, filter, attributes, numerics, &Epilogues::NONE);
        let ones = Array4::ones((1, 1, k, 1));
        let behind = reference::separable_conv2d(input, ones.view(), filter, attributes, numerics);
        prop_assert!(bits(&alone) == bits(&behind), "{case:?}");
    }
}

proptest! {
    #![proptest_config(config(150))]

    /// Long sums, more than a panel of a tile, and one-pixel images.
    #[test]
    fn pointwise_part_of_many_channels(
        case in case([1usize..3, 1..4, 1..4], (200usize..1500, 1usize..2), 1usize..40),
        kinds in kinds(),
    ) {
        check_all_pointwise(&case, &kinds)?;
    }

    /// Enough work for several threads, and many rows.
    #[test]
    fn pointwise_part_of_large_images(
        case in case([1usize..3, 20..60, 20..60], (8usize..40, 1usize..2), 60usize..140),
        kinds in kinds(),
    ) {
        check_pointwise::<f32>(&case, &kinds)?;
    }

    /// What instructions for pairs do.
    #[test]
    fn pointwise_part_in_pairs(
        case in case([1usize..3, 1..7, 1..20], (1usize..400, 1usize..2), 1usize..80),
        kinds in prop::collection::vec(0usize..7, 0..3),
        halves in any::<bool>(),
    ) {
        let [_, _, _, k] = case.input;
        let sum = if halves && k > 3 { Sum::blocks(&[k / 4 * 2, k - k / 4 * 2]) } else { Sum::Chain(k) };
        let pointwise = Pointwise::everywhere(Products::Paired, sum);
        let numerics = Numerics { pointwise, subnormals: Subnormals::Flushed, ..case.numerics };
        check_pointwise::<bf16>(&Case { numerics, ..case }, &kinds)?;
    }
}

/// The part alone is refused for what it has, and not for what it has not.
#[test]
fn a_pointwise_part_that_does_not_fit_is_an_error() {
    let (input, filter) = (Array4::<f32>::ones((1, 3, 3, 2)), Array4::ones((1, 1, 2, 4)));
    let convolution = SeparableConv2d::new([2, 2], Padding::Valid, [1, 1]);
    let with = |numbers: &[f32]| {
        let depthwise = vec![Step::Multiply(&[0.0; 5][..])];
        let epilogues = Epilogues { depthwise, pointwise: vec![Step::Relu, Step::Add(numbers)] };
        let op = convolution.with_steps(&epilogues);
        let planned = op.plan_pointwise([1, 3, 3, 2], &convolution.pack(filter.view())?);
        let result = op.pointwise(input.view(), filter.view());
        assert_eq!(planned.err(), result.clone().err());
        result
    };
    assert_eq!(with(&[1.0; 4]), Ok(Array4::from_elem((1, 2, 2, 4), 3.0)));
    assert_eq!(
        with(&[1.0; 2]).unwrap_err().to_string(),
        "step 1 behind the pointwise part must have a number for each of 4 channels, got 2"
    );
    let run = |input: [usize; 4], filter: [usize; 4]| {
        let [input, filter] = [input, filter].map(Array4::<f32>::ones);
        convolution.pointwise(input.view(), filter.view()).map(|output| output.len())
    };
    assert_eq!(run([1, 3, 3, 2], [1, 1, 3, 4]), Err(Error::Pointwise { got: [1, 1, 3], k: 2 }));
    assert_eq!(run([1, 3, 3, 2], [1, 3, 2, 4]), Err(Error::Pointwise { got: [1, 3, 2], k: 2 }));
    assert_eq!(run([1, 3, 3, 0], [1, 1, 0, 4]), Err(Error::NoChannels { in_channels: 0, channel_multiplier: 1 }));
    assert_eq!(run([1, 0, 3, 2], [1, 1, 2, 4]), Ok(0));
    assert_eq!(run([1, 3, 3, 2], [1, 1, 2, 0]), Ok(0));
    let other = convolution
        .clone()
        .numerics("v1 depthwise(fused, inside) pointwise(fused, 3) subnormals(kept)".parse().unwrap());
    assert!(matches!(other.pointwise(input.view(), filter.view()), Err(Error::SumLength { length: 3, k: 2, .. })));
    assert!(matches!(other.pack(filter.view()), Err(Error::SumLength { length: 3, k: 2, .. })));
    let mut output = Array4::zeros((1, 2, 2, 3));
    let result =
        convolution.with_steps(&Epilogues::NONE).pointwise_into(input.view(), filter.view(), output.view_mut());
    assert_eq!(result, Err(Error::Output { expected: [1, 2, 2, 4], got: [1, 2, 2, 3] }));
    // Of the depthwise half nothing counts.
    let numerics = Numerics {
        depthwise: Depthwise { order: TapOrder::RowsAtOnce(0), ..Depthwise::REPRODUCIBLE },
        ..Numerics::REPRODUCIBLE
    };
    let other = convolution.clone().numerics(numerics);
    let ones = Array4::ones((1, 1, 2, 1));
    assert!(matches!(other.run(input.view(), ones.view(), filter.view()), Err(Error::Order { .. })));
    assert!(other.plan([1, 3, 3, 2], ones.view(), filter.view()).is_err());
    assert_eq!(other.pointwise(input.view(), filter.view()), convolution.pointwise(input.view(), filter.view()));
}

/// Of every exponent and both signs, infinite and not a number; behind either part, and a zero may be negative.
#[test]
fn steps_of_any_number() {
    let lower = |upper: u32| if upper & 0x7f == 0 { 0 } else { upper.wrapping_mul(40_503) & 0xffff };
    let numbers = (0..1u32 << 16).map(|upper| f32::from_bits(upper << 16 | lower(upper)));
    let input = Array4::from_shape_vec((1, 64, 64, 16), numbers.collect()).unwrap();
    // With 0 it is a ReLU of oneDNN, where what is not positive keeps its sign.
    steps_of(&input, &[Step::Swish, Step::Relu, Step::Relu6, Step::HardSwish, Step::LeakyRelu(0.0)], "kept");
    steps_of(
        &input,
        &[Step::SwishOneDnn, Step::Relu, Step::Relu6, Step::LeakyRelu(0.3), Step::LeakyRelu(0.0)],
        "flushed",
    );
    steps_of(&input, &[Step::ReluOneDnn, Step::Relu6OneDnn], "kept");
    let input = input.mapv(|value| f64::from(value) * 1e-290);
    for subnormals in ["kept", "flushed"] {
        steps_of(&input, &[Step::Relu, Step::Relu6, Step::LeakyRelu(0.0)], subnormals);
    }
}

/// Each of these steps, behind one that changes the sign.
fn steps_of<T: Element>(input: &Array4<T>, steps: &[Step<T>], subnormals: &str) {
    let numerics: Numerics =
        format!("v1 depthwise(fused, inside) pointwise(fused, 16) subnormals({subnormals})").parse().unwrap();
    let attributes = Attributes { strides: [1, 1], padding: Padding::Valid, rate: [1, 1] };
    let one = |same: bool| if same { T::from_f64(1.0) } else { T::ZERO };
    let (ones, same) = (
        Array4::from_elem((1, 1, 16, 1), one(true)),
        Array4::from_shape_fn((1, 1, 16, 16), |(_, _, i, j)| one(i == j)),
    );
    let minus = [T::from_f64(-1.0); 16];
    for step in steps {
        let steps = vec![Step::Multiply(&minus), step.clone()];
        let depthwise = Epilogues { depthwise: steps.clone(), pointwise: Vec::new() };
        let pointwise = Epilogues { depthwise: Vec::new(), pointwise: steps };
        let arrays = (input.view(), ones.view(), same.view());
        let expected = [
            reference::depthwise_with_steps(arrays.0, arrays.1, &attributes, &numerics, &depthwise),
            reference::with_steps(arrays.0, arrays.1, arrays.2, &attributes, &numerics, &pointwise),
            reference::pointwise_with_steps(arrays.0, arrays.2, &attributes, &numerics, &pointwise),
        ];
        for set in InstructionSet::available() {
            let op = SeparableConv2d::new([1, 1], Padding::Valid, [1, 1]).numerics(numerics.clone()).on(set);
            let results = [
                op.with_steps(&depthwise).depthwise(arrays.0, arrays.1),
                op.with_steps(&pointwise).run(arrays.0, arrays.1, arrays.2),
                op.with_steps(&pointwise).pointwise(arrays.0, arrays.2),
            ];
            for (result, expected) in results.iter().zip(&expected) {
                assert_eq!(bits(result), bits(expected), "{set:?} differs with {step:?}");
            }
        }
    }
}

/// Behind the last row an overrunning sum finds zeros, whatever the steps make of zeros.
#[test]
fn nothing_is_behind_the_last_row() {
    let ones = Array4::<f32>::ones((1, 1, 1, 1));
    let numerics: Numerics = "v1 depthwise(fused, inside) pointwise(overrun, chain) subnormals(kept)".parse().unwrap();
    let epilogues = Epilogues { depthwise: vec![Step::Add(&[f32::INFINITY])], pointwise: Vec::new() };
    for set in InstructionSet::available() {
        let convolution = SeparableConv2d::new([1, 1], Padding::Valid, [1, 1]).numerics(numerics.clone()).on(set);
        let result = convolution.with_steps(&epilogues).run(ones.view(), ones.view(), ones.view()).unwrap();
        assert_eq!(result[(0, 0, 0, 0)], f32::INFINITY, "{set:?}");
    }
}

/// No columns, and steps that have a number for each of them.
#[test]
fn no_out_channels_have_no_numbers() {
    let (input, filter) = (Array4::<f32>::ones((1, 3, 3, 2)), Array4::ones((1, 1, 2, 1)));
    let pointwise = Array4::ones((1, 1, 2, 0));
    let epilogues = Epilogues { depthwise: Vec::new(), pointwise: vec![Step::Add(&[])] };
    let convolution = SeparableConv2d::new([1, 1], Padding::Valid, [1, 1]);
    let plan = convolution.with_steps(&epilogues).plan([1, 3, 3, 2], filter.view(), pointwise.view()).unwrap();
    plan.run_into(input.view(), Array4::zeros((1, 3, 3, 0)).view_mut()).unwrap();
}

/// A filter packed for another instruction set, other numerics, or another layer.
#[test]
fn packed_filters_that_do_not_fit_are_an_error() {
    let ones = |shape: [usize; 4]| Array4::from_elem(shape, bf16::ONE);
    let (input, filter) = (ones([1, 3, 3, 2]), ones([1, 1, 2, 1]));
    let pointwise = Array4::from_shape_fn((1, 1, 2, 4), |(_, _, k, column)| bf16::from_f32((4 * k + column) as f32));
    let convolution = SeparableConv2d::new([1, 1], Padding::Valid, [1, 1]);
    let run = |convolution: &SeparableConv2d, packed: &PackedFilter<bf16>| {
        let mut output = ones([1, 3, 3, 4]);
        let plan = convolution.with_steps(&Epilogues::NONE).plan_packed([1, 3, 3, 2], filter.view(), packed)?;
        plan.run_into(input.view(), output.view_mut())?;
        assert_eq!(output, convolution.run(input.view(), filter.view(), pointwise.view())?);
        Ok(())
    };
    let sets = InstructionSet::available();
    for (&set, &other) in sets.iter().zip(&sets[1..]) {
        let (convolution, other) = (convolution.clone().on(set), convolution.clone().on(other));
        let packed = other.pack(pointwise.view()).unwrap();
        assert!(packed.is_for(&other) && !packed.is_for(&convolution));
        run(&other, &packed).unwrap();
        assert_eq!(run(&convolution, &packed), Err(Error::Packed), "{set:?}");
    }
    let paired = "v1 depthwise(paired, inside) pointwise(paired, chain) subnormals(flushed)".parse().unwrap();
    let paired = convolution.clone().numerics(paired);
    for set in sets {
        let [single, paired] = [&convolution, &paired].map(|convolution| convolution.clone().on(set));
        for (own, other) in [(&single, &paired), (&paired, &single)] {
            let packed = own.pack(pointwise.view()).unwrap();
            assert_eq!(run(own, &packed), Ok(()));
            // Where there are instructions for pairs.
            let alike = set.name() != "avx512_bf16";
            assert_eq!(packed.is_for(other), alike, "{set:?}");
            assert_eq!(run(other, &packed), if alike { Ok(()) } else { Err(Error::Packed) });
        }
    }
    let message = |filter: Array4<bf16>| convolution.pack(filter.view()).err().unwrap().to_string();
    assert_eq!(
        message(ones([1, 2, 3, 4])),
        "pointwise_filter must have shape [1, 1, 3, out_channels], 3 being in_channels * channel_multiplier, got [1, 2, 3, \
         out_channels]"
    );
    let packed = convolution.pack(ones([1, 1, 3, 4]).view()).unwrap();
    assert_eq!(run(&convolution, &packed), Err(Error::Pointwise { got: [1, 1, 3], k: 2 }));
}

/// Each step has a number for each channel of its part.
#[test]
fn steps_that_do_not_fit_are_an_error() {
    let (input, filter) = (Array4::<f32>::ones((1, 3, 3, 2)), Array4::ones((1, 1, 2, 1)));
    let pointwise = Array4::ones((1, 1, 2, 4));
    let convolution = SeparableConv2d::new([1, 1], Padding::Valid, [1, 1]);
    let message = |epilogues: Epilogues<f32>| {
        let fused = convolution.with_steps(&epilogues);
        let result = fused.run(input.view(), filter.view(), pointwise.view());
        let planned = fused.plan([1, 3, 3, 2], filter.view(), pointwise.view());
        assert_eq!(planned.err(), result.clone().err());
        result.unwrap_err().to_string()
    };
    let depthwise = vec![Step::Relu, Step::Add(&[1.0; 3])];
    assert_eq!(
        message(Epilogues { depthwise, pointwise: Vec::new() }),
        "step 1 behind the depthwise part must have a number for each of 2 channels, got 3"
    );
    assert_eq!(
        message(Epilogues { depthwise: Vec::new(), pointwise: vec![Step::Multiply(&[])] }),
        "step 0 behind the pointwise part must have a number for each of 4 channels, got 0"
    );
    of_f32_alone(f64::from, "f64");
    of_f32_alone(f16::from_f32, "f16");
    of_f32_alone(bf16::from_f32, "bf16");
}

fn of_f32_alone<T: Element>(from: fn(f32) -> T, name: &str) {
    let (input, filter) = (Array4::from_elem((1, 3, 3, 2), from(1.0)), Array4::from_elem((1, 1, 2, 1), from(1.0)));
    for swish in [Step::Swish, Step::SwishOneDnn] {
        let epilogues = Epilogues { depthwise: vec![Step::Relu, swish], pointwise: Vec::new() };
        let convolution = SeparableConv2d::new([1, 1], Padding::Valid, [1, 1]);
        let result = convolution.with_steps(&epilogues).depthwise(input.view(), filter.view());
        let expected = format!("step 1 behind the depthwise part is for f32 alone, got {name}");
        assert_eq!(result.unwrap_err().to_string(), expected);
    }
}

/// What lies behind a tap's last channel may be inside the image where the tap is not.
#[test]
fn taps_outside_have_nothing_behind_them() {
    for (taps, seed) in ["inside", "all", "beside", "above"].into_iter().zip(0..) {
        let numerics = format!("v1 depthwise(overrun, {taps}, channels) pointwise(fused, chain) subnormals(kept)");
        let padding = Padding::Explicit([[1, 0], [1, 1]]);
        let case = Case {
            input: [2, 4, 4, 3],
            kernel: [1, 1, 2],
            out_channels: 6,
            attributes: Attributes { strides: [1, 1], padding, rate: [1, 1] },
            numerics: numerics.parse().unwrap(),
            layout: Layout::Standard,
            special: true,
            seed,
            threads: 1,
        };
        check_all(&case).unwrap();
    }
}

/// A layer large enough for several threads.
fn layer() -> [Array4<f32>; 3] {
    [array([2, 28, 28, 40], 1, true), array([3, 3, 40, 1], 2, false), array([1, 1, 40, 96], 3, false)]
}

#[test]
fn results_do_not_depend_on_threads_or_on_the_batch() {
    let [input, depthwise, pointwise] = layer();
    let op = SeparableConv2d::new([1, 1], Padding::Same, [1, 1]);
    let run = |threads: usize, input: ArrayView4<f32>| {
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
        let from_outside = op.clone().pool(pool.clone()).run(input, depthwise.view(), pointwise.view());
        let inside = pool.install(|| op.run(input, depthwise.view(), pointwise.view()));
        assert!(bits(&from_outside) == bits(&inside), "{threads} threads");
        for at_most in [1, 2, threads + 1] {
            let op = op.clone().pool(pool.clone()).threads(at_most);
            let run = || op.run(input, depthwise.view(), pointwise.view());
            assert!(bits(&run()) == bits(&inside), "{at_most} threads, a pool of {threads}");
            assert!(bits(&pool.install(run)) == bits(&inside), "{at_most} threads of a pool of {threads}");
        }
        bits(&inside).unwrap().1
    };
    let expected = run(1, input.view());
    for threads in [2, 3, 7, 16] {
        assert!(run(threads, input.view()) == expected, "{threads} threads");
    }
    let second = run(2, input.slice(s![1.., .., .., ..]));
    assert!(second == expected[expected.len() / 2..]);
}

#[test]
#[cfg(target_arch = "x86_64")]
#[expect(deprecated, reason = "there is no other way to see the floating-point state")]
fn the_callers_floating_point_state_is_put_back() {
    use std::arch::x86_64::{_mm_getcsr, _mm_setcsr};
    const FLUSH: u32 = 1 << 15 | 1 << 6;
    let [input, depthwise, pointwise] = layer();
    // SAFETY: SSE is part of x86-64; only the flush bits are changed, and in the end put back.
    let (state, set_state) = (|| unsafe { _mm_getcsr() }, |state| unsafe { _mm_setcsr(state) });
    let plain = state();
    for (flushing, subnormals) in [(0, "kept"), (0, "flushed"), (FLUSH, "kept"), (FLUSH, "flushed")] {
        let numerics = format!("v1 depthwise(fused, inside) pointwise(fused, chain) subnormals({subnormals})");
        let numerics: Numerics = numerics.parse().unwrap();
        let attributes = Attributes { strides: [1, 1], padding: Padding::Same, rate: [1, 1] };
        let (input, filter, pointwise) = (input.view(), depthwise.view(), pointwise.view());
        let expected = bits(&reference::separable_conv2d(input, filter, pointwise, &attributes, &numerics));
        let op = SeparableConv2d::new([1, 1], Padding::Same, [1, 1]).numerics(numerics);
        set_state(plain & !FLUSH | flushing);
        // Its threads, which help this one, start with this one's state.
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap());
        let on_this_thread = bits(&op.clone().pool(pool.clone()).run(input, filter, pointwise));
        let after = state();
        let on_several = bits(&pool.install(|| op.run(input, filter, pointwise)));
        let in_pool = pool.broadcast(|_| state());
        set_state(plain);
        assert!(on_this_thread == expected && on_several == expected, "{flushing:x} {subnormals}");
        assert!(in_pool.iter().chain([&after]).all(|state| state & FLUSH == flushing), "{flushing:x} {subnormals}");
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let padding = Padding::Explicit([[i32::MAX as i64, 0], [i32::MAX as i64, 0]]);
    let (input, filter) = (Array4::<f32>::ones([1, 2, 2, 1]), Array4::ones([1, 1, 1, 1]));
    let run = |input: ArrayView4<f32>| {
        let op = SeparableConv2d::new([1, 1], padding, [1, 1]);
        op.run(input, filter.view(), filter.view()).map(|output| output.len())
    };
    assert!(matches!(run(input.view()), Err(Error::Memory { .. } | Error::TooLarge)));
    assert_eq!(run(input.slice(s![..0, .., .., ..])), Ok(0));
}
