//! The pure crate against TensorFlow's composite, bit for bit, over the case space: an order is revealed from the
//! composite's halves, and what the crate then computes from other data must have the composite's bits. One test, so
//! that TensorFlow sees one kind of call in one sequence.

use std::error::Error;

use half::{bf16, f16};
use ndarray::ArrayView4;
use sepconv::SeparableConv2d;
use sepconv::reveal::{Unclear, reveal};
use sepconv_conformance::cases::{Case, ElementType, Space};
use sepconv_conformance::composite::{Composite, Halves};
use sepconv_conformance::session::{Element, Mode, load};
use sepconv_conformance::tally::Tally;
use sepconv_conformance::trials::{Trials, same_bits};

#[test]
fn every_order_that_is_followed_gives_tensorflows_bits() {
    load().unwrap_or_else(|error| panic!("{error}"));
    let mode = Mode::of_this_process();
    let tally = Tally::new(mode);
    Trials::from_env(Space { element: None, onednn: mode.onednn }).run(|case| {
        let outcome = match case.element {
            ElementType::F32 => check::<f32>(case, mode, &tally),
            ElementType::F64 => check::<f64>(case, mode, &tally),
            ElementType::F16 => check::<f16>(case, mode, &tally),
            ElementType::Bf16 => check::<bf16>(case, mode, &tally),
        };
        outcome.map_err(|error| format!("{mode}: {error}"))
    });
    println!("{tally}");
    tally.check_shares();
}

fn check<T: Element>(case: &Case, mode: Mode, tally: &Tally) -> Result<(), Box<dyn Error>> {
    let geometry = case.geometry()?;
    let operands = case.operands::<T>();
    let expected = Composite::new(&geometry, &case.attributes, mode)?.run(&operands)?;

    let revealed = reveal(&geometry, &mut Halves::<T>::new(&geometry, &case.attributes, mode)?);
    tally.add(case, &revealed);
    let numerics = match revealed {
        Ok(numerics) => numerics,
        Err(Unclear::Probe(error)) => return Err(error.into()),
        Err(_) => return Ok(()),
    };
    let sepconv::Attributes { strides, padding, rate } = case.attributes;
    let got = SeparableConv2d::new(strides, padding, rate).numerics(numerics.clone()).run(
        ArrayView4::from_shape(geometry.input_shape(), &operands.input)?,
        ArrayView4::from_shape(geometry.depthwise_filter_shape(), &operands.depthwise_filter)?,
        ArrayView4::from_shape(geometry.pointwise_filter_shape(), &operands.pointwise_filter)?,
    )?;
    let got: Vec<T> = got.iter().copied().collect();
    same_bits(&expected, &got).map_err(|difference| format!("{difference}, with {numerics}").into())
}
