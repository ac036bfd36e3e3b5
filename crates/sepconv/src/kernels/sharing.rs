//! How many pixels the depthwise loops take at a time, and which of them share values.

use super::vector::{Vector, Widen};
use crate::element::Element;

/// How many pixels of a depthwise run share the loads of the filter: with two vectors each, eight independent sums hide
/// the latency of the additions.
pub const PIXELS: usize = 4;

/// Columns of taps and strides for which there are loops over pixels that share values. The last two are what the input's gradient
/// takes of three columns at stride 2; of a single one nothing is shared, but these loops have less to do for each pixel.
pub const SHARED: [[usize; 2]; 5] = [[3, 1], [3, 2], [5, 1], [2, 1], [1, 1]];

/// So many of them, the first ones, have loops over two lines as well.
pub const IN_TWO_LINES: usize = 3;

/// Whether there are such loops: not where they are much code for little, as 16-bit types spend their time on conversions.
pub const fn shares<S: Element<Sum = V::Element>, V: Widen<S>>() -> bool {
    V::CHEAP && V::REGISTERS > 0
}

/// How many pixels share values there: some, or, where there are registers enough for their sums, as many as take an eighth less
/// for each.
pub const fn sharing<V: Vector>() -> [usize; 2] {
    [PIXELS, if size_of::<V>() == 64 { MANY } else { PIXELS }]
}

const MANY: usize = 7;

/// Whether two lines of pixels share values as well: where there are registers for the sums and the filter.
pub const fn two_lines<S: Element<Sum = V::Element>, V: Widen<S>>() -> bool {
    shares::<S, V>() && size_of::<V>() == 64
}

/// Which of the two suits so many pixels, [`PIXELS`] or more: the last ones may be computed twice.
pub fn sharing_of(pixels: usize) -> usize {
    let many = pixels >= MANY && 7 * pixels.next_multiple_of(MANY) <= 8 * pixels.next_multiple_of(PIXELS);
    many.into()
}
