//! The inner loops of the steps behind a part. There are no closures: these are not always inlined, and then do without
//! the instructions.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that its caller states")]
#![expect(clippy::needless_range_loop, reason = "indices into arrays of registers are unrolled; iterators hide that")]

use std::marker::PhantomData;

use super::epilogue::{self, Step};
use super::sigmoid::{self, number};
use super::vector::{Vector, Widen};
use crate::element::{Element, is_sum};

/// What the result of each step is rounded to.
pub trait Rounding<V: Vector> {
    /// Whether that is what sums are in, so that nothing is rounded.
    const NOTHING: bool;
    /// # Safety
    /// As for every method of [`Vector`].
    unsafe fn round(value: V) -> V;
}

/// The type in which sums are.
pub struct AsSummed;

impl<V: Vector> Rounding<V> for AsSummed {
    const NOTHING: bool = true;

    #[inline(always)]
    unsafe fn round(value: V) -> V {
        value
    }
}

/// This storage type.
pub struct As<S>(PhantomData<S>);

impl<S: Element<Sum = V::Element>, V: Widen<S>> Rounding<V> for As<S> {
    const NOTHING: bool = is_sum::<S>();

    #[inline(always)]
    unsafe fn round(value: V) -> V {
        value.round()
    }
}

/// Takes the steps with vectors of some rows of some lines, whose first column's numbers are there.
///
/// # Safety
/// The numbers of each step that has them are there in whole vectors, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn take_steps<V: Vector, R: Rounding<V>, const LINES: usize, const ROWS: usize, const VECTORS: usize>(
    steps: &[Step<V::Element>],
    numbers: *const V::Element,
    values: &mut [[[V; VECTORS]; ROWS]; LINES],
) {
    macro_rules! each {
        (|$x:ident, $v:ident| $value:expr) => {
            for $v in 0..VECTORS {
                for l in 0..LINES {
                    for r in 0..ROWS {
                        let $x = values[l][r][$v];
                        values[l][r][$v] = $value;
                    }
                }
            }
        };
    }
    for step in steps {
        match *step {
            Step::Add(first) => {
                each!(|x, v| R::round(x.add(V::load(numbers.wrapping_add(first + v * V::LANES)))));
            }
            Step::Multiply(first) => {
                each!(|x, v| R::round(x.mul(V::load(numbers.wrapping_add(first + v * V::LANES)))));
            }
            Step::MultiplyAdd(factors, addends) => each!(|x, v| {
                let factor = V::load(numbers.wrapping_add(factors + v * V::LANES));
                R::round(x.scaled(factor, V::load(numbers.wrapping_add(addends + v * V::LANES))))
            }),
            Step::Relu => each!(|x, v| relu::<V, R>(x)),
            Step::Relu6 => each!(|x, v| relu6::<V, R>(x)),
            Step::ReluOneDnn => each!(|x, v| positive(x)),
            Step::Relu6OneDnn => each!(|x, v| number::<V>(6.0).smaller(positive(x))),
            Step::LeakyRelu(alpha) => each!(|x, v| x.if_positive(x, R::round(x.mul(V::splat(alpha))))),
            Step::HardSwish(sixth) => {
                each!(|x, v| R::round(x.mul(R::round(gate::<V, R>(x).mul(V::splat(sixth))))));
            }
            Step::HardSwishSixthFirst(sixth) => {
                each!(|x, v| R::round(R::round(x.mul(V::splat(sixth))).mul(gate::<V, R>(x))));
            }
            _ if const { !R::NOTHING || size_of::<V::Element>() != size_of::<f32>() } => unreachable!("of f32 alone"),
            // In a loop over memory: unrolled it is so much code that the compiler would leave it, and the sums in memory.
            Step::Swish => {
                let mut each = *values;
                for x in each.as_flattened_mut().as_flattened_mut() {
                    *x = x.mul(sigmoid::of_eigen(*x));
                }
                *values = each;
            }
            Step::SwishOneDnn => {
                let mut each = *values;
                for x in each.as_flattened_mut().as_flattened_mut() {
                    *x = x.mul(sigmoid::of_onednn(*x));
                }
                *values = each;
            }
        }
    }
}

/// max(x, 0). Where sums are stored as they are, no zero is negative.
#[inline(always)]
unsafe fn relu<V: Vector, R: Rounding<V>>(x: V) -> V {
    if R::NOTHING { x.unless_at_most_zero(x) } else { V::splat(V::Element::ZERO).larger(x) }
}

/// min(6, relu(x)).
#[inline(always)]
unsafe fn relu6<V: Vector, R: Rounding<V>>(x: V) -> V {
    let six = number::<V>(6.0);
    if R::NOTHING { six.smaller(x).unless_at_most_zero(x) } else { six.smaller(relu::<V, R>(x)) }
}

/// x where it is above zero, and zero.
#[inline(always)]
unsafe fn positive<V: Vector>(x: V) -> V {
    x.if_positive(x, V::splat(V::Element::ZERO))
}

/// relu6(x + 3).
#[inline(always)]
unsafe fn gate<V: Vector, R: Rounding<V>>(x: V) -> V {
    relu6::<V, R>(R::round(x.add(number::<V>(3.0))))
}

/// Rows of sums, in whose place are to come what the steps behind them make of them.
pub struct Finish<'a, T> {
    /// Whole vectors of them are there.
    pub start: *mut T,
    /// Bytes from one row to the next.
    pub stride: isize,
    pub rows: usize,
    pub columns: usize,
    pub steps: &'a [epilogue::Step<T>],
    /// For each step that has them, the numbers of the first column and those behind it, in whole vectors.
    pub numbers: *const T,
}

/// So many rows at a time hide the latency of the steps.
const FINISHED: usize = 8;

/// Rounds sums to the storage type, and takes the steps behind them, each of which is rounded.
///
/// # Safety
/// What [`Finish`] says of its pointers holds, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn finish<S: Element<Sum = V::Element>, V: Widen<S>>(finish: &Finish<V::Element>) {
    let mut row = 0;
    while row < finish.rows {
        let many = V::REGISTERS > 0 && row + FINISHED <= finish.rows;
        for column in (0..finish.columns).step_by(V::LANES) {
            if many {
                finish_rows::<S, V, FINISHED>(finish, row, column);
            } else {
                finish_rows::<S, V, 1>(finish, row, column);
            }
        }
        row += if many { FINISHED } else { 1 };
    }
}

/// A vector of each of `ROWS` rows.
#[inline(always)]
unsafe fn finish_rows<S: Element<Sum = V::Element>, V: Widen<S>, const ROWS: usize>(
    finish: &Finish<V::Element>,
    row: usize,
    column: usize,
) {
    let first = finish.start.byte_offset(row as isize * finish.stride).add(column);
    let mut values = [[[V::splat(V::Element::ZERO)]; ROWS]];
    for r in 0..ROWS {
        values[0][r][0] = V::load(first.byte_offset(r as isize * finish.stride)).round();
    }
    take_steps::<V, As<S>, 1, ROWS, 1>(finish.steps, finish.numbers.wrapping_add(column), &mut values);
    for r in 0..ROWS {
        values[0][r][0].store(first.byte_offset(r as isize * finish.stride));
    }
}
