//! The strata, what is drawn, and how a case is made of that.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sepconv::{Attributes, Padding};
use serde::{Deserialize, Serialize};

use super::{Case, ElementType, Values};
use crate::random::Random;

/// Multiplications of one case. TensorFlow does so many in about a millisecond, our reference in some ten.
const MOST_PRODUCTS: usize = 6_000_000;
/// Elements of the image with its padding, which is what SpaceToBatchND copies.
const MOST_PADDED: usize = 1_000_000;
/// Longest sum over K: the deepest layers of the usual networks.
const DEEPEST: usize = 2048;
/// From here on TensorFlow cuts the sum over K.
pub(super) const DEEP: usize = 512;

/// Which part of the space cases are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// `None`: all of them, f32 most often.
    pub element: Option<ElementType>,
    /// Only oneDNN accepts strides that differ in height and width, and it takes f32 and bf16 only.
    pub onednn: bool,
}

/// The strata that one case lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Strata {
    /// K >= 512, a fifth: the sum over K is cut into blocks, by rules that depend on everything.
    deep: bool,
    /// One output channel, a tenth: matrix-vector paths.
    one_column: bool,
    /// One output pixel in all, a tenth: vector-matrix paths.
    one_row: bool,
    /// One input channel, a tenth: oneDNN takes it for an ordinary convolution.
    one_channel: bool,
    /// A rate above 1, a fifth: space-to-batch, whose zeros are data.
    dilated: bool,
    /// A rate and a stride above 1, a tenth (of all; these are dilated too): TensorFlow's own meaning of it.
    dilated_strided: bool,
    /// Explicit padding, a tenth.
    explicit: bool,
    /// Special values, a tenth.
    special: bool,
}

impl Strata {
    /// Those of case number `index`. Each stratum follows the multiples of a square root of its own, whose fractional
    /// parts fill the unit interval evenly, alone and together: every run of consecutive cases has nearly the exact
    /// shares, and the strata meet as often as independent ones would.
    fn of(seed: u64, index: u32) -> Self {
        let mut random = Random::new(seed);
        let [deep, column, row, channel, rate, padding, values] = [2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0]
            .map(|prime: f64| (random.uniform().abs() + prime.sqrt() * f64::from(index)).fract());
        Self {
            deep: deep < 0.2,
            one_column: column < 0.1,
            one_row: row < 0.1,
            one_channel: channel < 0.1,
            dilated: rate < 0.2,
            dilated_strided: rate < 0.1,
            explicit: padding < 0.1,
            special: values < 0.1,
        }
    }
}

/// The value tree of case number `index`: the case, and how it shrinks. Strata are left where the failure allows it.
pub fn tree(space: Space, seed: u64, index: u32) -> impl ValueTree<Value = Case> {
    let mut random = Random::new(seed ^ u64::from(index).rotate_left(32));
    let bytes: Vec<u8> = (0..4).flat_map(|_| random.next().to_le_bytes()).collect();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    match strategy(space, Strata::of(seed, index)).new_tree(&mut runner) {
        Ok(tree) => tree,
        Err(reason) => unreachable!("nothing in the strategy is rejected: {reason}"),
    }
}

/// What is drawn; [`build`] makes a case of it. Where an alternative is drawn, the first is the simplest: cases shrink to it.
#[derive(Clone, Debug)]
struct Draft {
    strata: Strata,
    element: ElementType,
    batch: usize,
    extent: [usize; 2],
    kernel: [usize; 2],
    k: usize,
    channel_multiplier: usize,
    out_channels: usize,
    strides: [usize; 2],
    rate: [usize; 2],
    valid: bool,
    paddings: [[usize; 2]; 2],
    wide_padding: bool,
    values: Values,
    /// A third of the cases without special values.
    cancelling: bool,
    seed: u64,
}

/// Cases of the given strata.
fn strategy(space: Space, strata: Strata) -> impl Strategy<Value = Case> {
    // Always what the stratum says, but a bool that shrinks to false.
    let held = |on: bool| prop::bool::weighted(if on { 1.0 } else { 0.0 });
    let strata = (
        held(strata.deep),
        held(strata.one_column),
        held(strata.one_row),
        held(strata.one_channel),
        (held(strata.dilated), held(strata.dilated_strided)),
        held(strata.explicit),
        held(strata.special),
    )
        .prop_map(|(deep, one_column, one_row, one_channel, (dilated, strided), explicit, special)| Strata {
            deep,
            one_column,
            one_row,
            one_channel,
            dilated,
            dilated_strided: dilated && strided,
            explicit,
            special,
        });
    let shapes = (batches(), extents(), kernels(), depths(), multipliers(), columns());
    let paddings = ([[0..=12usize, 0..=12], [0..=12, 0..=12]], prop::bool::weighted(0.1));
    let attributes = (strides(), rates(), any::<bool>(), paddings);
    let values =
        select(&[Values::NonFinite, Values::InfiniteTaps, Values::SignedZeros, Values::Subnormal, Values::Wide]);
    let values = (values, prop::bool::weighted(0.33));
    (strata, element_types(space), shapes, attributes, values, any::<u64>().no_shrink()).prop_map(
        move |(strata, element, shapes, attributes, (values, cancelling), seed)| {
            let (batch, extent, kernel, k, channel_multiplier, out_channels) = shapes;
            let (strides, rate, valid, (paddings, wide_padding)) = attributes;
            build(
                space,
                Draft {
                    strata,
                    element,
                    batch,
                    extent,
                    kernel,
                    k,
                    channel_multiplier,
                    out_channels,
                    strides,
                    rate,
                    valid,
                    paddings,
                    wide_padding,
                    values,
                    cancelling,
                    seed,
                },
            )
        },
    )
}

fn element_types(space: Space) -> BoxedStrategy<ElementType> {
    match space.element {
        Some(element) => Just(element).boxed(),
        None => select(&[
            ElementType::F32,
            ElementType::F32,
            ElementType::F32,
            ElementType::F64,
            ElementType::F16,
            ElementType::Bf16,
        ])
        .boxed(),
    }
}

/// Single images are what most inference sees, and what TensorFlow treats on its own.
fn batches() -> impl Strategy<Value = usize> {
    prop_oneof![2 => Just(1usize), 3 => 1..=8usize]
}

/// Before it is made smaller to fit the limits: with few channels, images of some size remain.
fn extents() -> impl Strategy<Value = [usize; 2]> {
    prop_oneof![1 => (1..=40usize).prop_map(|n| [n, n]), 2 => [1..=40usize, 1..=40usize]]
}

/// Even ones too, whose padding is lopsided, and unequal ones.
fn kernels() -> impl Strategy<Value = [usize; 2]> {
    prop_oneof![2 => [1..=9usize, 1..=9usize], 2 => (1..=9usize).prop_map(|n| [n, n]), 2 => Just([3, 3])]
}

/// K: the usual depths and any others; what [`build`] makes of it keeps to the side of 512 that the stratum says.
fn depths() -> impl Strategy<Value = usize> {
    prop_oneof![
        1 => 1..=64usize,
        1 => 1..=DEEPEST,
        1 => (1..=16usize).prop_map(|n| n * 32),
        1 => select(&[512usize, 576, 640, 728, 768, 960, 1024, 1152, 1280, 1536, 2048]),
    ]
}

fn multipliers() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(1usize), 2 => 1..=8usize]
}

/// Small numbers, any, and whole vectors.
fn columns() -> impl Strategy<Value = usize> {
    prop_oneof![1 => 2..=16usize, 1 => 2..=256usize, 1 => (1..=32usize).prop_map(|n| n * 32)]
}

fn strides() -> impl Strategy<Value = [usize; 2]> {
    prop_oneof![
        4 => Just([1usize, 1]),
        2 => (2..=4usize).prop_map(|n| [n, n]),
        1 => [1..=4usize, 1..=4usize],
    ]
}

/// Equal, unequal, one only (the other axis is then dealt out by 1), and large ones.
fn rates() -> impl Strategy<Value = [usize; 2]> {
    prop_oneof![3 => (2..=4usize).prop_map(|n| [n, n]), 2 => [1..=4usize, 1..=4usize], 1 => [1..=12usize, 1..=12usize]]
}

/// Overrules the draft by its strata, then makes it smaller until it fits the limits.
fn build(space: Space, mut draft: Draft) -> Case {
    let Strata { deep, one_column, one_row, one_channel, dilated, dilated_strided, special, .. } = draft.strata;
    if one_row {
        draft.batch = 1;
    }
    if one_column {
        draft.out_channels = 1;
    }
    draft.rate = match (dilated, draft.rate) {
        (false, _) => [1, 1],
        (true, [1, 1]) => [2, 2],
        (true, rate) => rate,
    };
    draft.strides = match draft.strides {
        _ if dilated && !dilated_strided => [1, 1],
        [1, 1] if dilated_strided => [2, 2],
        [height, width] if !(space.onednn && draft.element.of_onednn()) => [height.max(width); 2],
        strides => strides,
    };
    if !special {
        draft.values = if draft.cancelling { Values::Cancelling } else { Values::Uniform };
    }
    // Shallow ones take what is drawn for deep ones, a quarter of it: K up to 511.
    draft.k = match draft.k {
        k if deep => k.max(DEEP),
        k if k >= DEEP => k / 4,
        k => k,
    };
    if one_channel {
        // A deep sum over one channel is one with a large multiplier; else the multiplier is an ordinary one.
        draft.channel_multiplier = if deep { draft.k } else { draft.channel_multiplier };
    } else {
        // At least two channels, and a K that keeps to its side of 512 and to 2048.
        let m = draft.channel_multiplier;
        let channels = if deep { draft.k.div_ceil(m).min(DEEPEST / m) } else { (draft.k / m).max(2) };
        draft.k = channels * m;
    }
    loop {
        let case = place(&draft);
        if !too_large(&case) || !reduce(&mut draft) {
            return case;
        }
    }
}

fn too_large(case: &Case) -> bool {
    let Ok(g) = case.geometry() else { return false };
    let products = g.rows() * g.k() * (g.height.kernel * g.width.kernel + g.out_channels);
    let padded = g.batch * g.height.padded * g.width.padded * g.in_channels;
    products > MOST_PRODUCTS || padded > MOST_PADDED
}

/// Makes the draft smaller without leaving its strata; false where nothing is left to take away.
fn reduce(draft: &mut Draft) -> bool {
    let [height, width] = draft.extent;
    let larger = usize::from(width > height);
    let higher = usize::from(draft.rate[1] > draft.rate[0]);
    let longer = usize::from(draft.kernel[1] > draft.kernel[0]);
    if draft.batch > 2 && draft.batch >= draft.extent[larger] {
        draft.batch -= 1;
    } else if draft.extent[larger] > 1 {
        draft.extent[larger] -= draft.extent[larger].div_ceil(8);
    } else if let Some(padding) = draft.paddings.as_flattened_mut().iter_mut().filter(|p| **p > 0).max() {
        *padding -= 1;
    } else if draft.rate[higher] > 2 {
        draft.rate[higher] -= 1;
    } else if draft.kernel[longer] > 1 {
        draft.kernel[longer] -= 1;
    } else if draft.out_channels > 2 {
        draft.out_channels /= 2;
    } else {
        return false;
    }
    true
}

/// The case of a draft: finds the input extents and paddings that its strata ask for.
fn place(draft: &Draft) -> Case {
    let strata = draft.strata;
    let (mut extents, mut paddings) = ([0; 2], [[0i64; 2]; 2]);
    for i in 0..2 {
        let window = (draft.kernel[i] - 1) * draft.rate[i] + 1;
        // What the extent of an image with one output may exceed the smallest by: the rest of a stride.
        let spare = if strata.dilated { 0 } else { draft.extent[i] % draft.strides[i] };
        let [before, after] = match (strata.explicit, draft.wide_padding) {
            (false, _) => [0, 0],
            // As wide as the window only at times: oneDNN then leaves its usual path.
            (true, false) => draft.paddings[i].map(|n| n % window),
            (true, true) => draft.paddings[i],
        };
        extents[i] = match (strata.one_row, strata.explicit || draft.valid) {
            (true, false) => 1 + spare,
            (true, true) => {
                let room = window + spare - 1;
                let [before, after] = [before.min(room), after.min(room - before.min(room))];
                paddings[i] = [before as i64, after as i64];
                window + spare - before - after
            }
            (false, false) => draft.extent[i],
            (false, true) => {
                paddings[i] = [before as i64, after as i64];
                draft.extent[i].max(window.saturating_sub(before + after))
            }
        };
    }
    let padding = match (strata.explicit, draft.valid) {
        (true, _) => Padding::Explicit(paddings),
        (false, true) => Padding::Valid,
        (false, false) => Padding::Same,
    };
    let in_channels = if strata.one_channel { 1 } else { draft.k / draft.channel_multiplier };
    Case {
        element: draft.element,
        input: [draft.batch, extents[0], extents[1], in_channels],
        kernel: draft.kernel,
        channel_multiplier: draft.channel_multiplier,
        out_channels: draft.out_channels,
        attributes: Attributes {
            strides: draft.strides.map(|n| n as i64),
            padding,
            rate: draft.rate.map(|n| n as i64),
        },
        values: draft.values,
        seed: draft.seed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: Space = Space { element: None, onednn: true };
    const OFF: Space = Space { element: None, onednn: false };

    fn all(space: Space) -> impl Iterator<Item = Case> {
        (0..1000).map(move |index| Case::random(space, 3, index))
    }

    #[test]
    fn shares_are_as_promised() {
        let share = |is: fn(&Case) -> bool| all(ON).filter(is).count();
        let dilated = |case: &Case| case.attributes.rate != [1, 1];
        assert!((195..).contains(&share(|c| c.geometry().unwrap().k() >= DEEP)));
        assert!((95..).contains(&share(|c| c.out_channels == 1)));
        assert!((95..).contains(&share(|c| c.geometry().unwrap().rows() == 1)));
        assert!((95..).contains(&share(|c| c.input[3] == 1)));
        assert!((195..).contains(&share(dilated)));
        assert!((95..).contains(&share(|c| c.attributes.rate != [1, 1] && c.attributes.strides != [1, 1])));
        assert!((95..).contains(&share(|c| matches!(c.attributes.padding, Padding::Explicit(_)))));
        assert!((95..).contains(&share(|c| !matches!(c.values, Values::Uniform | Values::Cancelling))));
        assert!((1..=8).all(|batch| all(ON).any(|c| c.input[0] == batch)));
        assert!((1..=9).all(|kernel| all(ON).any(|c| c.kernel[0] == kernel)));
    }

    #[test]
    fn every_case_has_a_geometry_and_is_small() {
        for case in all(ON).chain(all(OFF)) {
            let g = case.geometry().unwrap_or_else(|e| panic!("{case}: {e}"));
            assert!(g.rows() > 0 && g.k() <= DEEPEST && !too_large(&case), "{case}");
        }
    }

    #[test]
    fn without_onednn_strides_are_equal() {
        let unequal = |case: &Case| case.attributes.strides[0] != case.attributes.strides[1];
        assert!(!all(OFF).any(|c| unequal(&c)));
        assert!(!all(ON).any(|c| unequal(&c) && c.element == ElementType::F64));
        assert!(all(ON).any(|c| unequal(&c)));
    }

    #[test]
    fn the_same_number_is_the_same_case() {
        assert_eq!(Case::random(ON, 1, 7), Case::random(ON, 1, 7));
        assert_ne!(Case::random(ON, 1, 7), Case::random(ON, 2, 7));
        assert_ne!(Case::random(ON, 1, 7), Case::random(ON, 1, 8));
    }

    #[test]
    fn a_failing_case_shrinks_out_of_its_strata() {
        let mut tree = (0..).map(|index| tree(ON, 1, index)).find(|t| t.current().out_channels == 1).unwrap();
        while tree.simplify() {}
        let case = tree.current();
        assert_eq!((case.input, case.out_channels, case.values), ([1, 1, 1, 2], 2, Values::Uniform), "{case}");
    }
}
