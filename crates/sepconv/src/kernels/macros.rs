//! What makes an instruction set's [`Kernel`](super::Kernel)s of the loops: wrappers, which are what enables its
//! instructions, and the functions that collect them.

/// The functions that give an instruction set's [`Kernel`](super::Kernel)s, over the wrappers in scope; vectors of f32
/// and f64, and the numbers of rows of register tiles that are one vector wide and two, and of these where products are
/// separate; the same again for tiles that have a row for each product, if they are others there.
macro_rules! kernels {
    ($set:literal, $singles:ty, $doubles:ty, $rows:tt) => {
        $crate::kernels::kernels!($set, $singles, $doubles, $rows, $rows);
    };
    ($set:literal, $singles:ty, $doubles:ty, $rows:tt, $across:tt) => {
        $crate::kernels::kernel!($set, f32, $singles, $rows, $across);
        $crate::kernels::kernel!($set, f64, $doubles, $rows, $across);
        $crate::kernels::kernel!($set, f16, $singles, $rows, $across);
        $crate::kernels::kernel!($set, bf16, $singles, $rows, $across);
    };
}
pub(super) use kernels;

/// One of these functions.
macro_rules! kernel {
    (
        $set:literal, $element:ident, $vector:ty,
        [$ones:tt $twos:tt $separates:tt], [$across_ones:tt $across_twos:tt $across_separates:tt]
    ) => {
        pub fn $element(self) -> $crate::kernels::Kernel<$element> {
            $crate::kernels::Kernel {
                name: concat!($set, "-", stringify!($element)),
                lanes: <$vector>::LANES,
                group: <$vector>::GROUP,
                unrolled: <$vector>::UNROLLED,
                depthwise: [
                    $crate::kernels::depthwises!($element, $vector, false, FUSED),
                    $crate::kernels::depthwises!($element, $vector, false, SEPARATE),
                ],
                depthwise_each: $crate::kernels::depthwises!($element, $vector, { !is_sum::<$element>() }, SEPARATE),
                depthwise_listed: listed::<$element, $vector>,
                product: [
                    $crate::kernels::products!($vector, FUSED, false, $ones, $twos),
                    $crate::kernels::products!($vector, SEPARATE, false, $ones, $separates),
                    $crate::kernels::products!($vector, PAIRED, false, $ones, $twos),
                    $crate::kernels::products!($vector, PAIRED, false, $ones, $twos),
                ],
                finishes: $crate::kernels::product::finishes::<$vector, { $crate::kernels::vector::FUSED }, false>(),
                product_across: [
                    $crate::kernels::products!($vector, FUSED, true, $across_ones, $across_twos),
                    $crate::kernels::products!($vector, SEPARATE, true, $across_ones, $across_separates),
                ],
                dots: None,
                pack: [pack::<$element, $vector, 1>, pack::<$element, $vector, 2>],
                widen: widen_rows::<$element, $vector>,
                narrow: narrow_rows::<$element, $vector>,
                transpose: transpose::<$element, $vector>,
                finish: finish::<$element, $vector>,
                correlate: [
                    correlate::<$element, $vector, { $crate::kernels::vector::FUSED }>,
                    correlate::<$element, $vector, { $crate::kernels::vector::SEPARATE }>,
                ],
            }
        }
    };
}
pub(super) use kernel;

/// [`Depthwises`](super::kernel::Depthwises), over the wrappers in scope.
macro_rules! depthwises {
    ($element:ident, $vector:ty, $each:expr, $products:ident) => {{
        use $crate::kernels::kernel::Depthwises;
        use $crate::kernels::sharing::{SHARED, shares, sharing};
        use $crate::kernels::vector::$products;
        macro_rules! shared {
            ($shape:literal, $many:literal, $spread:literal) => {
                shared::<
                    $element,
                    $vector,
                    { sharing::<$vector>()[$many] },
                    { SHARED[$shape][0] },
                    { SHARED[$shape][1] },
                    $products,
                    $spread,
                >
            };
            ($shape:literal) => {
                [
                    [shared!($shape, 0, false), shared!($shape, 0, true)],
                    [shared!($shape, 1, false), shared!($shape, 1, true)],
                ]
            };
        }
        macro_rules! two_lines {
            ($shape:literal, $many:literal) => {
                two_lines::<
                    $element,
                    $vector,
                    { sharing::<$vector>()[$many] },
                    { SHARED[$shape][0] },
                    { SHARED[$shape][1] },
                    $products,
                >
            };
        }
        Depthwises {
            alone: [
                depthwise::<$element, $vector, $each, $products, false>,
                depthwise::<$element, $vector, $each, $products, true>,
            ],
            // Constants, so that what is never called is not compiled.
            shared: if const { shares::<$element, $vector>() } {
                Some([shared!(0), shared!(1), shared!(2), shared!(3), shared!(4)])
            } else {
                None
            },
            two_lines: if const { $crate::kernels::sharing::two_lines::<$element, $vector>() } {
                Some([
                    [two_lines!(0, 0), two_lines!(0, 1)],
                    [two_lines!(1, 0), two_lines!(1, 1)],
                    [two_lines!(2, 0), two_lines!(2, 1)],
                ])
            } else {
                None
            },
        }
    }};
}
pub(super) use depthwises;

/// An element of [`Kernel::product`](super::Kernel::product) or
/// [`Kernel::product_across`](super::Kernel::product_across).
macro_rules! products {
    ($vector:ty, $products:ident, $across:literal, $ones:tt, $twos:tt) => {
        [
            $crate::kernels::by_rows!($vector, 1, $products, $across, $ones),
            $crate::kernels::by_rows!($vector, 2, $products, $across, $twos),
        ]
    };
}
pub(super) use products;

macro_rules! by_rows {
    ($vector:ty, $vectors:literal, $products:ident, $across:literal, [$($rows:literal)*]) => {
        &[$(product::<$vector, $rows, $vectors, { $crate::kernels::vector::$products }, $across>),*]
    };
}
pub(super) use by_rows;

/// What enables an instruction set's features for the generic algorithms.
macro_rules! wrappers {
    ($($features:literal)?) => {
        $crate::kernels::loops!($($features)?);

        $(#[target_feature(enable = $features)])?
        unsafe fn listed<S: $crate::element::Element<Sum = V::Element>, V: $crate::kernels::vector::Widen<S>>(
            run: &$crate::kernels::Run<S>,
        ) {
            // SAFETY: the caller's promise.
            unsafe { $crate::kernels::listed_taps::listed::<S, V>(run) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn pack<
            S: $crate::element::Element<Sum = V::Element>,
            V: $crate::kernels::vector::Widen<S>,
            const VECTORS: usize,
        >(
            pack: &$crate::kernels::Pack<S>,
        ) {
            // SAFETY: the caller's promise.
            unsafe { $crate::kernels::rows::pack::<S, V, VECTORS>(pack) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn widen_rows<S: $crate::element::Element<Sum = V::Element>, V: $crate::kernels::vector::Widen<S>>(
            stored: &$crate::kernels::Rows<S, S::Sum>,
        ) {
            // SAFETY: the caller's promise.
            unsafe { $crate::kernels::rows::widen_rows::<S, V>(stored) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn narrow_rows<S: $crate::element::Element<Sum = V::Element>, V: $crate::kernels::vector::Widen<S>>(
            sums: &$crate::kernels::Rows<S::Sum, S>,
        ) {
            // SAFETY: the caller's promise.
            unsafe { $crate::kernels::rows::narrow_rows::<S, V>(sums) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn transpose<S: $crate::element::Element<Sum = V::Element>, V: $crate::kernels::vector::Widen<S>>(
            stored: &$crate::kernels::Rows<S, S::Sum>,
        ) {
            // SAFETY: the caller's promise.
            unsafe { $crate::kernels::rows::transpose::<S, V>(stored) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn finish<S: $crate::element::Element<Sum = V::Element>, V: $crate::kernels::vector::Widen<S>>(
            rows: &$crate::kernels::Finish<S::Sum>,
        ) {
            // SAFETY: the caller's promise.
            unsafe { $crate::kernels::steps::finish::<S, V>(rows) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn correlate<
            S: $crate::element::Element<Sum = V::Element>,
            V: $crate::kernels::vector::Widen<S>,
            const PRODUCTS: usize,
        >(
            pixels: &$crate::kernels::Correlation<S>,
        ) {
            // SAFETY: the caller's promise.
            unsafe { $crate::kernels::correlation::correlate::<S, V, PRODUCTS>(pixels) }
        }
    };
}
pub(super) use wrappers;

/// The same for the loops that products in pairs have too.
macro_rules! loops {
    ($($features:literal)?) => {
        $(#[target_feature(enable = $features)])?
        unsafe fn depthwise<
            S: $crate::element::Element<Sum = V::Element>,
            V: $crate::kernels::vector::Widen<S>,
            const EACH: bool,
            const PRODUCTS: usize,
            const SPREAD: bool,
        >(
            run: &$crate::kernels::Run<S>,
        ) {
            // SAFETY: the caller's promise.
            unsafe { $crate::kernels::taps::depthwise::<S, V, EACH, PRODUCTS, SPREAD>(run) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn shared<
            S: $crate::element::Element<Sum = V::Element>,
            V: $crate::kernels::vector::Widen<S>,
            const P: usize,
            const WIDTH: usize,
            const STRIDE: usize,
            const PRODUCTS: usize,
            const SPREAD: bool,
        >(
            run: &$crate::kernels::Run<S>,
        ) {
            // SAFETY: the caller's promise.
            unsafe { $crate::kernels::shared_taps::shared::<S, V, P, WIDTH, STRIDE, PRODUCTS, SPREAD>(run) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn two_lines<
            S: $crate::element::Element<Sum = V::Element>,
            V: $crate::kernels::vector::Widen<S>,
            const P: usize,
            const WIDTH: usize,
            const STRIDE: usize,
            const PRODUCTS: usize,
        >(
            run: &$crate::kernels::Run<S>,
        ) {
            // SAFETY: the caller's promise.
            unsafe { $crate::kernels::two_lines::two_lines::<S, V, P, WIDTH, STRIDE, PRODUCTS>(run) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn product<
            V: $crate::kernels::vector::Vector,
            const ROWS: usize,
            const VECTORS: usize,
            const PRODUCTS: usize,
            const ACROSS: bool,
        >(
            block: &$crate::kernels::Block<V::Element>,
            count: usize,
        ) -> *const u8 {
            // SAFETY: the caller's promise.
            unsafe { $crate::kernels::product::product::<V, ROWS, VECTORS, PRODUCTS, ACROSS>(block, count) }
        }
    };
}
pub(super) use loops;
