//! The dozen things that the algorithms need of a vector register.

use crate::element::Element;

/// A register of `LANES` elements. Every operation works lane by lane, so that a result never depends on `LANES`, and
/// rounds as the element's own operation does.
///
/// All methods are unsafe for the same reason: the processor must have the implementing type's instruction set. Where
/// there is a pointer, it must be valid for the elements named; it need not be aligned.
pub trait Vector: Copy {
    type Element: Element;
    const LANES: usize;

    unsafe fn splat(value: Self::Element) -> Self;
    unsafe fn load(from: *const Self::Element) -> Self;
    /// The first `count` (at most `LANES`) lanes; the others are +0 and not read.
    unsafe fn load_first(from: *const Self::Element, count: usize) -> Self;
    /// Lane `l` is `from[lanes[l]]`; `lanes` holds at least `LANES` values, all below `count`, which is at most `LANES`.
    unsafe fn load_spread(from: *const Self::Element, count: usize, lanes: &[i32; 16]) -> Self;
    /// Asks for the cache line of an address that need not exist.
    unsafe fn prefetch(place: *const Self::Element);
    unsafe fn store(self, to: *mut Self::Element);
    /// `self * factor + addend`, rounded once.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    unsafe fn mul(self, factor: Self) -> Self;
    unsafe fn add(self, addend: Self) -> Self;
}

/// `x * w + sum`, with one rounding or two.
///
/// # Safety
/// As for every method of [`Vector`].
#[inline(always)]
pub unsafe fn accumulate<V: Vector, const FUSED: bool>(x: V, w: V, sum: V) -> V {
    // SAFETY: the caller's promise.
    unsafe { if FUSED { x.mul_add(w, sum) } else { sum.add(x.mul(w)) } }
}

/// A [`Vector`] on one kind of register; what differs between instruction sets beyond names is given as functions.
#[cfg(target_arch = "x86_64")]
macro_rules! vector {
    (
        $name:ident($register:ty), $element:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident,
        $mul_add:ident, $mul:ident, $add:ident, $load_first:ident, $load_spread:ident
    ) => {
        #[derive(Clone, Copy)]
        pub struct $name($register);

        impl $crate::kernels::vector::Vector for $name {
            type Element = $element;
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn splat(value: $element) -> Self {
                Self($splat(value))
            }
            #[inline(always)]
            unsafe fn load(from: *const $element) -> Self {
                Self($load(from))
            }
            #[inline(always)]
            unsafe fn load_first(from: *const $element, count: usize) -> Self {
                Self($load_first(from, count))
            }
            #[inline(always)]
            unsafe fn load_spread(from: *const $element, count: usize, lanes: &[i32; 16]) -> Self {
                Self($load_spread(from, count, lanes))
            }
            #[inline(always)]
            unsafe fn prefetch(place: *const $element) {
                _mm_prefetch::<_MM_HINT_T0>(place.cast())
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $element) {
                $store(to, self.0)
            }
            #[inline(always)]
            unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
                Self($mul_add(self.0, factor.0, addend.0))
            }
            #[inline(always)]
            unsafe fn mul(self, factor: Self) -> Self {
                Self($mul(self.0, factor.0))
            }
            #[inline(always)]
            unsafe fn add(self, addend: Self) -> Self {
                Self($add(self.0, addend.0))
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use vector;
