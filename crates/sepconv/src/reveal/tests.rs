//! Reveals what our own crate was asked for.

use half::{bf16, f16};
use ndarray::{ArrayView2, ArrayView4};
use proptest::prelude::*;

use super::*;
use crate::gradient::DepthwiseFilterOrder;
use crate::subnormals::Flushing;
use crate::{Attributes, InstructionSet, Padding};

/// However slow the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

struct Ours<'a> {
    geometry: &'a Geometry,
    numerics: Numerics,
    /// Spoils the last row of every product.
    last_row_differs: bool,
    calls: usize,
}

impl<T: Element> Probe<T> for Ours<'_> {
    type Error = String;

    fn depthwise(&mut self, input: &[T], filter: &[T]) -> Result<Vec<T>, String> {
        self.calls += 1;
        let input = ArrayView4::from_shape(self.geometry.input_shape(), input).unwrap();
        let filter = ArrayView4::from_shape(self.geometry.depthwise_filter_shape(), filter).unwrap();
        let mut result = Vec::new();
        let keep = |_, pixel: &mut [T]| {
            result.extend_from_slice(pixel);
            true
        };
        plan::depthwise(input, filter, self.geometry, &self.numerics, keep).unwrap();
        Ok(result)
    }

    fn pointwise(&mut self, pixels: &[T], filter: &[T]) -> Result<Vec<T>, String> {
        self.calls += 1;
        let (k, columns) = (self.geometry.k(), self.geometry.out_channels);
        let filter = ArrayView2::from_shape((k, columns), filter).unwrap();
        let mut result = plan::pointwise(pixels, filter, &self.numerics).unwrap();
        if self.last_row_differs {
            let mut other = self.numerics.clone();
            other.pointwise.sum = Sum::Chain(k);
            let last = result.len() - columns;
            result[last..].copy_from_slice(&plan::pointwise(&pixels[pixels.len() - k..], filter, &other).unwrap());
        }
        Ok(result)
    }
}

fn geometry(input: [usize; 4], kernel: usize, out_channels: usize) -> Geometry {
    let attributes = Attributes { strides: [1, 1], padding: Padding::Same, rate: [1, 1] };
    Geometry::new(&input, &[kernel, kernel, input[3], 1], &[1, 1, input[3], out_channels], &attributes).unwrap()
}

fn numerics(text: &str) -> Numerics {
    text.parse().unwrap()
}

#[test]
fn what_was_asked_for_is_revealed() {
    let large = geometry([1, 7, 7, 1024], 3, 64);
    let small = geometry([2, 5, 4, 24], 3, 1);
    for (geometry, sum) in [(large, "176x5+144"), (large, "1024"), (large, "(256x2)x2"), (small, "24"), (small, "16+8")]
    {
        for products in ["fused", "separate"] {
            for taps in ["inside", "all"] {
                for subnormals in ["kept", "flushed"] {
                    let asked = numerics(&format!(
                        "v1 depthwise({products}, {taps}) pointwise({products}, {sum}) subnormals({subnormals})"
                    ));
                    let mut ours =
                        Ours { geometry: &geometry, numerics: asked.clone(), last_row_differs: false, calls: 0 };
                    // Blocks of blocks read the same without the parentheses of the first.
                    let expected = asked.to_string().replace("(256x2)x2", "256x2+(256x2)");
                    assert_eq!(reveal_within::<f32, _>(PATIENCE, &geometry, &mut ours).unwrap().to_string(), expected);
                    assert!(ours.calls <= MOST_CALLS, "{} calls for {asked}", ours.calls);
                    assert_eq!(reveal_within::<f64, _>(PATIENCE, &geometry, &mut ours).unwrap().to_string(), expected);
                }
            }
        }
    }
}

#[test]
fn lanes_are_revealed_where_they_are() {
    for (input, columns, sum) in [
        (
            [1, 3, 3, 19],
            31,
            "19, rows 0..8 columns 24..30 separate lanes(1, 16, 3), rows 0..8 columns 30..31 separate lanes(1 2, 16, 3)",
        ),
        ([1, 3, 3, 19], 1, "lanes(1 2, 16, 3), rows 8..9 columns 0..1 separate 19"),
        ([2, 5, 5, 500], 40, "248x2+4, rows 0..48 columns 36..40 separate lanes(1, 248, 0)x2+4"),
        ([2, 5, 5, 735], 1, "lanes(1 2, 248, 0)x2+lanes(1 2, 236, 3), rows 48..50 columns 0..1 separate 248x2+239"),
        ([1, 2, 2, 5], 3, "lanes(1 2, 4, 1)"),
        ([1, 3, 3, 19], 4, "0+19"),
        ([1, 3, 3, 400], 2, "0+lanes(1, 248, 0)+lanes(1, 152, 0), rows 8..9 columns 0..2 separate 0+248+152"),
        ([1, 3, 3, 128], 49, "128, rows 0..9 columns 48..49 fused 128"),
        ([1, 4, 4, 33], 1, "lanes(1 4 2, 32, 0)+1"),
        ([1, 4, 4, 270], 6, "lanes(1, 134, 1)x2"),
        ([1, 7, 7, 192], 1, "0+lanes(1 4 2, 192, 0), rows 48..49 columns 0..1 fused 192"),
        ([1, 5, 5, 350], 4, "lanes(1, 174, 1)x2, rows 24..25 columns 0..4 fused 350"),
        (
            [1, 4, 5, 47],
            49,
            "47, rows 0..20 columns 48..49 separate \
             lanes(1 4 2, 32, 0)+lanes(1 4 2, 8, 0)+lanes(1 2, 4, 0)+lanes(1, 2, 0)+1",
        ),
        ([1, 5, 1, 63], 1, "lanes(1 4 2, 48, 0)+lanes(1 4 2, 8, 0)+lanes(1 2, 4, 0)+lanes(1, 2, 0)+1"),
        (
            [2, 5, 5, 1055],
            1,
            "lanes(1 4 2, 352, 0)x2+lanes(1 4 2, 336, 0)+lanes(1 4 2, 8, 0)+lanes(1 2, 4, 0)+lanes(1, 2, 0)+1",
        ),
    ] {
        let geometry = geometry(input, 3, columns);
        let asked = numerics(&format!("v1 depthwise(separate, all) pointwise(separate, {sum}) subnormals(flushed)"));
        let mut ours = Ours { geometry: &geometry, numerics: asked.clone(), last_row_differs: false, calls: 0 };
        assert_eq!(
            reveal_within::<f64, _>(PATIENCE, &geometry, &mut ours).map(|n| n.to_string()),
            Ok(asked.to_string())
        );
        assert!(ours.calls <= MOST_CALLS, "{} calls for {asked}", ours.calls);
    }
}

#[test]
fn orders_of_16_bit_numbers_are_revealed() {
    for (input, columns, depthwise, pointwise) in [
        ([1, 7, 7, 1024], 64, "fused, inside", "paired, 352x2+320"),
        ([1, 7, 7, 1024], 64, "fused, all, each", "fused, 344x2+336"),
        ([2, 14, 14, 729], 100, "fused, inside", "paired, 729"),
        ([2, 14, 14, 2047], 9, "fused, inside", "overrun, 1280+767, rows 195..196 columns 0..9 paired 1280+767"),
        ([1, 5, 5, 41], 9, "fused, inside", "overrun, 41"),
        ([1, 3, 3, 40], 3, "fused, all, each", "fused, 40"),
        ([1, 4, 4, 13], 1, "fused, all, each", "separate, lanes(1 4 2, 8, 0)+lanes(1 2, 4, 0)+1"),
        ([1, 4, 4, 101], 1, "fused, all, each", "separate, lanes(1 4 2, 96, 0)+lanes(1 2, 4, 0)+1"),
        ([1, 4, 4, 309], 1, "fused, all, each", "separate, lanes(1 4 2, 304, 0)+lanes(1 2, 4, 0)+1"),
        (
            [2, 5, 5, 735],
            1,
            "fused, all",
            "separate, lanes(1 2, 248, 0)x2+lanes(1 2, 236, 3), rows 48..50 columns 0..1 separate 248x2+239",
        ),
        // A single place is a chain or has the others' blocks, which one of twenty random inputs tells.
        (
            [1, 5, 5, 514],
            1,
            "fused, all, each",
            "fused, lanes(1 4 2, 512, 0)+lanes(1, 2, 0), rows 24..25 columns 0..1 fused 514",
        ),
        (
            [1, 5, 5, 514],
            1,
            "fused, all, each",
            "fused, lanes(1 4 2, 512, 0)+lanes(1, 2, 0), rows 24..25 columns 0..1 fused 512+2",
        ),
        // Two rows alone have these lanes, and only the last block tells them from a chain.
        (
            [1, 4, 5, 1066],
            232,
            "separate, all, each",
            "fused, 136x7+114, rows 18..20 columns 0..232 separate lanes(1, 136, 0)x7+lanes(1, 112, 2)",
        ),
    ] {
        let geometry = geometry(input, 3, columns);
        let asked = numerics(&format!("v1 depthwise({depthwise}) pointwise({pointwise}) subnormals(flushed)"));
        let mut ours = Ours { geometry: &geometry, numerics: asked.clone(), last_row_differs: false, calls: 0 };
        // Products are exact, but where they vanish.
        let alike = |text: String| text.replace("fused", "separate").replace("depthwise(paired", "depthwise(separate");
        let as_asked = |found: Numerics| alike(found.to_string());
        let expected = alike(asked.to_string());
        assert_eq!(reveal_within::<f16, _>(PATIENCE, &geometry, &mut ours).map(as_asked), Ok(expected.clone()));
        assert_eq!(reveal_within::<bf16, _>(PATIENCE, &geometry, &mut ours).map(as_asked), Ok(expected));
    }
}

#[test]
fn single_taps_of_several_channels_show_whether_they_overrun() {
    let attributes = Attributes { strides: [1, 1], padding: Padding::Same, rate: [1, 1] };
    let geometry = Geometry::new(&[1, 7, 7, 5], &[1, 1, 5, 4], &[1, 1, 20, 3], &attributes).unwrap();
    for depthwise in ["separate, all, each", "overrun, all, columns", "overrun, inside, channels"] {
        let asked = numerics(&format!("v1 depthwise({depthwise}) pointwise(fused, 20) subnormals(flushed)"));
        let mut ours = Ours { geometry: &geometry, numerics: asked.clone(), last_row_differs: false, calls: 0 };
        // A single tap's product is the same in a pair or alone.
        let overrun = |found: Numerics| found.depthwise.products == Products::Overrun;
        let found = reveal_within::<f16, _>(PATIENCE, &geometry, &mut ours).map(overrun);
        assert_eq!(found, Ok(overrun(asked.clone())), "{depthwise}");
        let found = reveal_within::<bf16, _>(PATIENCE, &geometry, &mut ours).map(overrun);
        assert_eq!(found, Ok(overrun(asked.clone())), "{depthwise}");
    }
}

#[test]
fn the_last_rows_may_have_blocks_of_their_own() {
    for (k, columns, sum) in [
        (1024, 256, "256x4, rows 48..49 columns 0..256 fused 1024"),
        (960, 59, "240x2+(240x2), rows 48..49 columns 0..59 fused 480x2"),
        (288, 15, "144x2, rows 48..49 columns 0..15 fused 288"),
        (362, 49, "181x2, rows 0..49 columns 48..49 fused lanes(1 4 2, 352, 0)+lanes(1 4 2, 8, 0)+lanes(1, 2, 0)"),
    ] {
        let geometry = geometry([1, 7, 7, k], 3, columns);
        let asked = numerics(&format!("v1 depthwise(separate, all) pointwise(fused, {sum}) subnormals(flushed)"));
        let mut ours = Ours { geometry: &geometry, numerics: asked.clone(), last_row_differs: false, calls: 0 };
        let found = reveal_within::<f32, _>(Duration::from_secs(9), &geometry, &mut ours);
        assert_eq!(found.map(|found| found.to_string()), Ok(asked.to_string()));
    }
}

#[test]
fn rows_that_differ_are_found() {
    // More columns than rows: the columns ask, so the first row answers.
    let geometry = geometry([1, 7, 7, 512], 3, 64);
    let cut = numerics("v1 depthwise(fused, inside) pointwise(fused, 352+160) subnormals(flushed)");
    let mut ours = Ours { geometry: &geometry, numerics: cut, last_row_differs: true, calls: 0 };
    let found = reveal_within::<f32, _>(Duration::from_secs(9), &geometry, &mut ours).unwrap();
    assert_eq!(found.pointwise.at(47, 0).1, &Sum::blocks(&[352, 160]));
    assert_eq!(found.pointwise.at(48, 63).1, &Sum::Chain(512));
}

#[test]
fn a_single_product_tells_by_the_sign_of_zero() {
    for columns in [1, 5] {
        let geometry = geometry([1, 1, 1, 1], 4, columns);
        let asked = numerics("v1 depthwise(separate, inside) pointwise(separate, 1) subnormals(flushed)");
        let mut ours = Ours { geometry: &geometry, numerics: asked.clone(), last_row_differs: false, calls: 0 };
        let found = reveal_within::<f32, _>(PATIENCE, &geometry, &mut ours).unwrap();
        assert_eq!(found.depthwise.products, Products::Separate);
        assert_eq!(found.pointwise.products, Products::Separate);
    }
}

#[test]
fn few_products_tell_by_the_sign_of_zero() {
    for (k, columns, order) in [
        (1, 28, "fused, 1, rows 20..22 columns 0..28 separate 1, rows 24..25 columns 0..28 separate 1"),
        (2, 19, "fused, 2, rows 0..25 columns 16..19 fused lanes(1, 2, 0)"),
        (2, 7, "fused, lanes(1, 2, 0), rows 24..25 columns 0..7 separate 2"),
        (3, 8, "fused, lanes(1, 2, 1), rows 24..25 columns 0..8 separate 3"),
    ] {
        let geometry = geometry([1, 5, 5, k], 3, columns);
        let asked = numerics(&format!("v1 depthwise(separate, all) pointwise({order}) subnormals(flushed)"));
        let mut ours = Ours { geometry: &geometry, numerics: asked.clone(), last_row_differs: false, calls: 0 };
        let found = reveal_within::<f32, _>(PATIENCE, &geometry, &mut ours).map(|found| found.pointwise);
        assert_eq!(found, Ok(asked.pointwise.clone()));
        let found = reveal_within::<f64, _>(PATIENCE, &geometry, &mut ours).map(|found| found.pointwise);
        assert_eq!(found, Ok(asked.pointwise));
    }
}

/// Of results that are a number or two, several orders give the same in one probe or another.
#[test]
fn small_gradients_have_the_order_that_is_found() {
    let attributes = Attributes { strides: [1, 1], padding: Padding::Same, rate: [1, 1] };
    let workers = plan::Workers { set: InstructionSet::preferred(), pool: None, threads: 1 };
    for (pixels, text) in
        (2..9).flat_map(|n| ["chain", "images", "rows", "shares 2", "batches 2"].map(|text| (n, text)))
    {
        let g = Geometry::depthwise(&[2, pixels, 3, 1], &[1, 1, 1, 1], &attributes).unwrap();
        let order = format!("v1 depthwise_filter(fused, inside, {text}) subnormals(flushed)").parse().unwrap();
        let by = |order: &DepthwiseFilterOrder, input: &[f32], upstream: &[f32]| {
            let input = ArrayView4::from_shape(g.input_shape(), input).unwrap();
            let upstream = ArrayView4::from_shape(g.output_shape(), upstream).unwrap();
            let into =
                |to: &mut _| crate::gradient::depthwise_filter::gradient(&workers, &g, input, upstream, order, to);
            plan::allocate(1, into).unwrap()
        };
        let mut ours = |input: &[f32], upstream: &[f32]| Ok::<_, ()>(by(&order, input, upstream));
        let found = gradient::depthwise_filter(&g, &mut ours).unwrap();
        for seed in 100..200 {
            let values = |seed| Data::Uniform.values::<f32, ()>(g.rows(), 1, seed).unwrap();
            let (input, upstream) = (values(seed), values(!seed));
            assert_eq!(by(&found, &input, &upstream), by(&order, &input, &upstream), "{found} for {order}");
        }
    }
}

/// The same of products, whose roundings rarely show in a single number: each rounded or none, also to 16 bits, which no
/// order can express.
#[test]
fn small_products_have_the_order_that_is_found() {
    fn check<T: Element>(k: usize, sum: impl Fn(&[T], &[T]) -> T) -> bool {
        let sum = |pixels: &[T], filter: &[T]| {
            let _flushing = Flushing::set(Subnormals::Flushed);
            sum(pixels, filter)
        };
        let mut ours = |pixels: &[T], filter: &[T]| Ok::<_, ()>(vec![sum(pixels, filter)]);
        // However slow the machine is.
        let found = loop {
            match gradient::product([1, k, 1], &[], &mut ours) {
                Err(Unclear::Budget { .. }) => {}
                Err(_) => return false,
                Ok(found) => break found,
            }
        };
        for seed in 100..500 {
            let values = |seed| Data::Uniform.values::<T, ()>(k, 1, seed).unwrap();
            let (pixels, filter) = (values(seed), values(!seed));
            let by_found = plan::pointwise(&pixels, ArrayView2::from_shape((k, 1), &filter).unwrap(), &found).unwrap();
            assert_eq!(by_found[0].bits(), sum(&pixels, &filter).bits(), "{found}");
        }
        true
    }
    let pairs = |a: &[f32], b: &[f32]| a.iter().copied().zip(b.iter().copied()).collect::<Vec<_>>();
    for k in 2..16 {
        assert!(check::<f32>(k, |a, b| pairs(a, b).into_iter().fold(0.0, |sum, (a, b)| sum + a * b)));
        assert!(check::<f32>(k, |a, b| pairs(a, b).into_iter().fold(0.0, |sum, (a, b)| a.mul_add(b, sum))));
        let each = |a: &[bf16], b: &[bf16]| {
            a.iter().zip(b).fold(bf16::ZERO, |sum, (&a, &b)| {
                let product = bf16::from_f32(a.to_f32() * b.to_f32());
                bf16::from_f32(sum.to_f32() + product.to_f32())
            })
        };
        assert!(!check::<bf16>(k, each));
    }
}

#[test]
fn an_empty_result_needs_no_probe() {
    let geometry = geometry([0, 7, 7, 8], 3, 8);
    let mut ours = Ours { geometry: &geometry, numerics: Numerics::REPRODUCIBLE, last_row_differs: false, calls: 0 };
    assert!(reveal_within::<f32, _>(PATIENCE, &geometry, &mut ours).is_ok());
    assert_eq!(ours.calls, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_block_list_is_followed(
        lengths in prop::collection::vec(8usize..200, 1..6), rows in 1usize..40, columns in 1usize..80,
    ) {
        let k = lengths.iter().sum();
        let geometry = geometry([1, rows, 1, k], 1, columns);
        let pointwise = Pointwise::everywhere(Products::Fused, Sum::blocks(&lengths));
        let asked = Numerics { pointwise, ..Numerics::REPRODUCIBLE };
        let mut ours = Ours { geometry: &geometry, numerics: asked.clone(), last_row_differs: false, calls: 0 };
        match reveal_within::<f32, _>(PATIENCE, &geometry, &mut ours) {
            Ok(found) => prop_assert_eq!(found.pointwise, asked.pointwise),
            // Few rows and columns answer few questions at once.
            Err(unclear) => prop_assert!(matches!(unclear, Unclear::Budget { .. }) && rows.max(columns) < 40, "{unclear}"),
        }
    }
}
