//! The pure crate against TensorFlow's composite, bit for bit, over the case space: an order is revealed from the
//! composite's halves, and what the crate then computes from other data must have the composite's bits. One test, so
//! that TensorFlow sees one kind of call in one sequence.

use sepconv_conformance::implementation::Crate;
use sepconv_conformance::run::against_tensorflow;

#[test]
fn every_order_that_is_followed_gives_tensorflows_bits() {
    against_tensorflow(&mut Crate);
}
