//! The named cases: layers of networks in use, and the few that are hard in ways that random small cases are not.

use sepconv::{Attributes, Padding};

use super::{Case, ElementType, Values};

/// Name; batch, height, width, in_channels; channel_multiplier, kernel, stride, rate, out_channels.
type Shape = (&'static str, [usize; 4], [usize; 5]);

const SHAPES: [Shape; 15] = [
    ("mbv1_1", [1, 112, 112, 32], [1, 3, 1, 1, 64]),
    ("mbv1_2s2", [1, 112, 112, 64], [1, 3, 2, 1, 128]),
    ("mbv1_3", [1, 56, 56, 128], [1, 3, 1, 1, 128]),
    ("mbv1_6s2", [1, 28, 28, 256], [1, 3, 2, 1, 512]),
    ("mbv1_7", [1, 14, 14, 512], [1, 3, 1, 1, 512]),
    ("mbv1_13", [1, 7, 7, 1024], [1, 3, 1, 1, 1024]),
    ("xcep_mid", [1, 19, 19, 728], [1, 3, 1, 1, 728]),
    ("xcep_b2", [1, 147, 147, 64], [1, 3, 1, 1, 128]),
    ("aspp_r2", [1, 33, 33, 256], [1, 3, 1, 2, 256]),
    ("aspp_r12", [1, 33, 33, 256], [1, 3, 1, 12, 256]),
    ("b8_mbv1_7", [8, 14, 14, 512], [1, 3, 1, 1, 512]),
    ("b32_cifar", [32, 32, 32, 64], [1, 3, 1, 1, 64]),
    ("m4", [1, 56, 56, 32], [4, 3, 1, 1, 64]),
    ("k5", [1, 28, 28, 120], [1, 5, 1, 1, 40]),
    ("tiny", [1, 8, 8, 16], [1, 3, 1, 1, 16]),
];

/// All of them, each with its name, of one element type.
pub fn corpus(element: ElementType) -> impl Iterator<Item = (&'static str, Case)> {
    SHAPES.iter().map(move |&(name, input, [channel_multiplier, kernel, stride, rate, out_channels])| {
        let attributes = Attributes { strides: [stride as i64; 2], padding: Padding::Same, rate: [rate as i64; 2] };
        let (kernel, values) = ([kernel; 2], Values::Uniform);
        (name, Case { element, input, kernel, channel_multiplier, out_channels, attributes, values, seed: 0 })
    })
}
