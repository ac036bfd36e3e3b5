//! The op, loaded into TensorFlow, against TensorFlow's composite in the same process, bit for bit, over the case space.
//! One test, so that TensorFlow sees one kind of call in one sequence. That the op's kernels computed, and TensorFlow
//! nothing in their place, is counted for every case.

mod library;

use sepconv_conformance::op::Op;
use sepconv_conformance::run::against_tensorflow;
use sepconv_conformance::session::Mode;

#[test]
fn the_op_gives_the_bits_of_the_composite() {
    let mut op = Op::load(Some(library::path().into()), Mode::of_this_process()).unwrap_or_else(|e| panic!("{e}"));
    let passed = against_tensorflow(&mut op);
    assert_eq!(op.kernel_calls(), passed as u64, "every case that went through the op is one call of its kernels");
}
