//! How many pixels the depthwise loops take at a time, and which of them share values.

use super::vector::{Vector, Widen};
use crate::element::Element;

/// How many pixels of a depthwise run share the loads of the filter: with two vectors each, eight independent sums hide
/// the latency of the additions.
pub const PIXELS: usize = 4;

/// Columns of taps and strides for which there are loops that share values between pixels.
pub const SHARED: [[usize; 2]; 3] = [[3, 1], [3, 2], [5, 1]];

/// How many pixels share values there: none, some, or, where there are registers enough for their sums, as many as take an
/// eighth less for each. No loops where they are much code for little, as 16-bit types spend their time on conversions.
pub const fn sharing<S: Element<Sum = V::Element>, V: Widen<S>>() -> [usize; 3] {
    match size_of::<V>() {
        _ if !V::CHEAP || !V::REGISTERS => [0; 3],
        64 => [0, PIXELS, MANY],
        _ => [0, PIXELS, PIXELS],
    }
}

const MANY: usize = 7;

/// Whether two lines of pixels share values as well: where there are registers for the sums and the filter.
pub const fn two_lines<V: Vector>() -> bool {
    V::REGISTERS && size_of::<V>() == 64
}

/// Which of the three suits so many pixels, [`PIXELS`] or more: the last ones may be computed twice.
pub fn sharing_of(pixels: usize) -> usize {
    let many = pixels >= MANY && 7 * pixels.next_multiple_of(MANY) <= 8 * pixels.next_multiple_of(PIXELS);
    1 + usize::from(many)
}
