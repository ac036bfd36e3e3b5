//! What the sessions promise besides bits: constants on request, one number of threads, flushed subnormals.

use sepconv::{Attributes, Geometry, Padding};
use sepconv_conformance::cases::{Case, Operands};
use sepconv_conformance::composite::{Composite, Halves};
use sepconv_conformance::session::{Error, Mode, load};

const PLAIN: Attributes = Attributes { strides: [1, 1], padding: Padding::Same, rate: [1, 1] };

#[test]
fn constant_filters_give_the_same_where_k_is_small() {
    load().unwrap_or_else(|error| panic!("{error}"));
    let mode = Mode::of_this_process();
    let text = "f32 input 2,9,8,12 kernel 3,2 multiplier 2 columns 7 strides 2,2 padding 1,0,2,1 rate 2,1 values uniform seed 7";
    let case: Case = text.parse().unwrap();
    let (geometry, operands) = (case.geometry().unwrap(), case.operands::<f32>());
    let fed = Composite::new(&geometry, &case.attributes, mode).unwrap();
    let constant = Composite::with_constant_filters(&geometry, &case.attributes, mode, &operands).unwrap();
    let expected = fed.run(&operands).unwrap();
    assert_eq!(constant.run(&operands).unwrap(), expected);
    assert_eq!(expected.len(), geometry.output_shape().iter().product::<usize>());

    // Its own filters, whatever others are given.
    let ones = |v: &[f32]| vec![1.0; v.len()];
    let others = Operands {
        depthwise_filter: ones(&operands.depthwise_filter),
        pointwise_filter: ones(&operands.pointwise_filter),
        ..operands
    };
    assert_eq!(constant.run(&others).unwrap(), expected);
    assert_ne!(fed.run(&others).unwrap(), expected);
}

#[test]
fn the_halves_make_up_the_composite() {
    let mode = Mode::of_this_process();
    let text =
        "f64 input 1,9,8,3 kernel 3,2 multiplier 2 columns 4 strides 2,2 padding same rate 3,2 values uniform seed 7";
    let case: Case = text.parse().unwrap();
    let (geometry, operands) = (case.geometry().unwrap(), case.operands::<f64>());
    let halves = Halves::<f64>::new(&geometry, &case.attributes, mode).unwrap();
    let pixels = halves.depthwise(&operands.input, &operands.depthwise_filter).unwrap();
    assert_eq!(pixels.len(), geometry.rows() * geometry.k());
    let whole = Composite::new(&geometry, &case.attributes, mode).unwrap().run(&operands).unwrap();
    assert_eq!(halves.pointwise(&pixels, &operands.pointwise_filter).unwrap(), whole);
}

#[test]
fn subnormals_are_flushed_in_both_halves() {
    let geometry = Geometry::new(&[1, 1, 1, 1], &[1, 1, 1, 1], &[1, 1, 1, 1], &PLAIN).unwrap();
    let halves = Halves::<f32>::new(&geometry, &PLAIN, Mode::of_this_process()).unwrap();
    assert_eq!(halves.depthwise(&[1e-40], &[1e5]).unwrap(), [0.0]);
    assert_eq!(halves.pointwise(&[1e-30], &[1e-10]).unwrap(), [0.0]);
    assert_eq!(halves.pointwise(&[1e-30], &[1e-5]).unwrap(), [1e-30 * 1e-5]);
}

#[test]
fn another_number_of_threads_is_refused() {
    let mode = Mode::of_this_process();
    let geometry = Geometry::new(&[1, 1, 1, 1], &[1, 1, 1, 1], &[1, 1, 1, 1], &PLAIN).unwrap();
    Composite::<f32>::new(&geometry, &PLAIN, mode).unwrap();
    let other = Mode { threads: mode.threads + 1, ..mode };
    assert!(matches!(Composite::<f32>::new(&geometry, &PLAIN, other), Err(Error::Threads { .. })));
}

/// Strides that differ in height and width are what only oneDNN accepts, so this asks TensorFlow itself; the case space
/// relies on it too.
#[test]
fn onednn_is_as_the_mode_says() {
    let mode = Mode::of_this_process();
    let attributes = Attributes { strides: [1, 2], ..PLAIN };
    let geometry = Geometry::new(&[1, 8, 8, 2], &[3, 3, 2, 1], &[1, 1, 2, 3], &attributes).unwrap();
    let halves = Halves::<f32>::new(&geometry, &attributes, mode).unwrap();
    assert_eq!(halves.depthwise(&[1.0; 128], &[1.0; 18]).is_ok(), mode.onednn);
}
