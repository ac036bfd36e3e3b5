//! [`crate::sigmoid`] in vectors.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that `Vector` states")]

use super::vector::Vector;
use crate::element::Element;
use crate::sigmoid::{eigen, onednn};

/// A vector of it.
///
/// # Safety
/// As for every method of [`Vector`].
#[inline(always)]
pub unsafe fn number<V: Vector>(number: f64) -> V {
    V::splat(V::Element::from_f64(number))
}

/// As [`crate::sigmoid::of_eigen`].
#[inline(always)]
pub unsafe fn of_eigen<V: Vector>(x: V) -> V {
    let (half, one): (V, V) = (number(0.5), number(1.0));
    let [high, low] = eigen::LN_2;
    let [p2, p3, p4, p5] = eigen::POLYNOMIAL;
    let clamped = number::<V>(eigen::HIGHEST).smaller(number::<V>(eigen::LOWEST).larger(x));
    let halved = clamped.mul(half);
    let n = halved.mul(number(std::f64::consts::LOG2_E)).add(half).floor();
    let r = halved.add(n.mul(number(-high))).add(n.mul(number(-low)));
    let square = r.mul(r);
    let even = square.mul(number(p4)).add(number(p2));
    let odd = square.mul(number(p5)).add(number(p3));
    let exp = square.mul(r.mul(odd).add(even)).add(r.add(one));
    let root = exp.mul(n.power_of_two());
    let exp = root.mul(root);
    exp.div(one.add(exp))
}

/// As [`crate::sigmoid::of_onednn`].
#[inline(always)]
pub unsafe fn of_onednn<V: Vector>(x: V) -> V {
    let (one, minus): (V, V) = (number(1.0), number(-1.0));
    let [p1, p2, p3, p4, p5] = onednn::POLYNOMIAL;
    let clamped = number::<V>(onednn::LOWEST).larger(x.if_positive(x.mul(minus), x));
    let n = clamped.mul(number(std::f64::consts::LOG2_E)).add(number(0.5)).floor();
    let r = n.mul_add(number(-onednn::LN_2), clamped);
    let exp = number::<V>(p5).mul_add(r, number(p4)).mul_add(r, number(p3)).mul_add(r, number(p2));
    let exp = exp.mul_add(r, number(p1)).mul_add(r, one);
    let exp = exp.mul(n.add(minus).power_of_two()).mul(number(2.0));
    let sigmoid = exp.div(exp.add(one));
    x.if_positive(one.add(sigmoid.mul(minus)), sigmoid)
}
