//! The ops that one kernel serves: the whole convolution, the same with steps behind its parts, and the pointwise part alone
//! with steps behind it, which models are rewritten to where a 1x1 convolution stands alone.

use std::ffi::CStr;

use crate::statistics::{self, Counter};
use crate::tensorflow::op::Op;

/// What tells one of these ops from the others. The inputs are `input`, the filters, `geometry` and `numbers`.
pub trait Form: 'static {
    /// Saved graphs hold its names.
    const OP: Op;
    /// Whether it has a depthwise filter, before the pointwise one.
    const DEPTHWISE: bool;
    /// The attributes of the [steps](crate::steps) behind the depthwise and the pointwise part.
    const STEPS: [Option<&'static CStr>; 2];

    /// Counts a call, of an element type with that counter.
    fn count(of_type: &Counter);

    /// The place of the pointwise filter among the inputs; `geometry` is the next one.
    const POINTWISE_FILTER: i32 = 1 + Self::DEPTHWISE as i32;
}

/// The whole convolution.
pub struct Plain;

impl Form for Plain {
    const OP: Op = Op {
        name: c"Sepconv>SeparableConv2D",
        attrs: &[c"T: {half, bfloat16, float, double}", c"numerics: string", c"constant_filters: bool = false"],
        inputs: &[c"input: T", c"depthwise_filter: T", c"pointwise_filter: T", c"geometry: int32"],
        outputs: &[c"output: T"],
    };
    const DEPTHWISE: bool = true;
    const STEPS: [Option<&'static CStr>; 2] = [None; 2];

    fn count(of_type: &Counter) {
        statistics::KERNEL_CALLS.add();
        of_type.add();
    }
}

/// The same with steps behind the depthwise and the pointwise part, in words, and the numbers of those that have some, one
/// after the other: vectors, which may have ones in front of their channels.
pub struct Fused;

impl Form for Fused {
    const OP: Op = Op {
        name: c"Sepconv>FusedSeparableConv2D",
        attrs: &[
            c"T: {half, bfloat16, float, double}",
            c"N: int >= 0",
            c"numerics: string",
            c"constant_filters: bool = false",
            c"depthwise_steps: string = ''",
            c"pointwise_steps: string = ''",
        ],
        inputs: &[c"input: T", c"depthwise_filter: T", c"pointwise_filter: T", c"geometry: int32", c"numbers: N * T"],
        outputs: &[c"output: T"],
    };
    const DEPTHWISE: bool = true;
    const STEPS: [Option<&'static CStr>; 2] = [Some(c"depthwise_steps"), Some(c"pointwise_steps")];

    fn count(of_type: &Counter) {
        Plain::count(of_type);
        statistics::FUSED_CALLS.add();
    }
}

/// The pointwise part alone, likewise. Of the numerics only the pointwise half counts.
pub struct PointwiseAlone;

impl Form for PointwiseAlone {
    const OP: Op = Op {
        name: c"Sepconv>FusedPointwiseConv2D",
        attrs: &[
            c"T: {half, bfloat16, float, double}",
            c"N: int >= 0",
            c"numerics: string",
            c"constant_filters: bool = false",
            c"pointwise_steps: string = ''",
        ],
        inputs: &[c"input: T", c"pointwise_filter: T", c"geometry: int32", c"numbers: N * T"],
        outputs: &[c"output: T"],
    };
    const DEPTHWISE: bool = false;
    const STEPS: [Option<&'static CStr>; 2] = [None, Some(c"pointwise_steps")];

    fn count(_: &Counter) {
        statistics::POINTWISE_CALLS.add();
    }
}
