//! The inner loops: one algorithm in [`generic`], [`steps`] and [`correlation`], a thin module for each instruction set, and
//! around them the two halves of the operation over one tile of output pixels, [`depthwise`] and [`pointwise`].
//!
//! An instruction set never changes a bit of a result: one output element is one lane, and every lane rounds as the
//! element's own operations do.

use std::ops::Range;
use std::sync::OnceLock;

use half::{bf16, f16};

use crate::element::Element;
use crate::numerics::Products;

mod correlation;
pub mod depthwise;
pub mod epilogue;
mod generic;
pub mod memory;
mod pages;
pub mod pointwise;
mod portable;
mod sigmoid;
mod steps;
pub mod tile;
mod vector;

#[cfg(target_arch = "x86_64")]
mod avx2;
// Unit tests do without: compiling its loops a second time takes minutes, and the tests beside the crate have them.
#[cfg(all(target_arch = "x86_64", not(test)))]
mod avx512;
#[cfg(all(target_arch = "x86_64", not(test)))]
mod avx512_bf16;
#[cfg(target_arch = "aarch64")]
mod neon;

/// An instruction set that this processor has: values exist for no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionSet(Proof);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    #[cfg(all(target_arch = "x86_64", not(test)))]
    Avx512Bf16(avx512_bf16::Avx512Bf16),
    #[cfg(all(target_arch = "x86_64", not(test)))]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
    Portable(portable::Portable),
}

impl InstructionSet {
    /// All that this processor has, the best first.
    pub fn available() -> Vec<Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            #[cfg(not(test))]
            sets.extend(avx512_bf16::Avx512Bf16::new().map(Proof::Avx512Bf16));
            #[cfg(not(test))]
            sets.extend(avx512::Avx512::new().map(Proof::Avx512));
            sets.extend(avx2::Avx2::new().map(Proof::Avx2));
        }
        #[cfg(target_arch = "aarch64")]
        sets.extend(neon::Neon::new().map(Proof::Neon));
        sets.push(Proof::Portable(portable::Portable));
        sets.into_iter().map(Self).collect()
    }

    /// The one named by the environment variable `SEPCONV_INSTRUCTION_SET` (`avx512_bf16`, `avx512`,
    /// `avx2`, `neon`, `portable`) if this processor has it, otherwise the best one. The variable is read once.
    pub fn preferred() -> Self {
        static PREFERRED: OnceLock<InstructionSet> = OnceLock::new();
        *PREFERRED.get_or_init(|| Self::named(&std::env::var("SEPCONV_INSTRUCTION_SET").unwrap_or_default()))
    }

    fn named(name: &str) -> Self {
        let sets = Self::available();
        *sets.iter().find(|set| set.name() == name).unwrap_or(&sets[0])
    }

    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(all(target_arch = "x86_64", not(test)))]
            Proof::Avx512Bf16(_) => "avx512_bf16",
            #[cfg(all(target_arch = "x86_64", not(test)))]
            Proof::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Proof::Avx2(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Proof::Neon(_) => "neon",
            Proof::Portable(_) => "portable",
        }
    }
}

/// What the kernels provide for an element type.
pub trait Kernels: Sized {
    fn kernel(set: InstructionSet) -> Kernel<Self>
    where
        Self: Element;
}

macro_rules! provide {
    ($($element:ident)*) => {$(
        impl Kernels for $element {
            fn kernel(set: InstructionSet) -> Kernel<Self> {
                match set.0 {
                    #[cfg(all(target_arch = "x86_64", not(test)))]
                    Proof::Avx512Bf16(proof) => proof.$element(),
                    #[cfg(all(target_arch = "x86_64", not(test)))]
                    Proof::Avx512(proof) => proof.$element(),
                    #[cfg(target_arch = "x86_64")]
                    Proof::Avx2(proof) => proof.$element(),
                    #[cfg(target_arch = "aarch64")]
                    Proof::Neon(proof) => proof.$element(),
                    Proof::Portable(proof) => proof.$element(),
                }
            }
        }
    )*};
}
provide!(f32 f64 f16 bf16);

/// The inner loops of one element type and instruction set. A value exists only where the processor has the instruction
/// set; what else the functions ask for is said by their arguments' types.
#[derive(Clone, Copy)]
pub struct Kernel<T: Element> {
    /// Such as `avx512-f32`.
    pub name: &'static str,
    /// Elements of a vector of sums.
    pub lanes: usize,
    /// Products of a group: [`vector::Vector::GROUP`].
    pub group: usize,
    /// Products for each cache line that is asked for: [`vector::Vector::UNROLLED`].
    pub unrolled: usize,
    /// Taps in rows, the sum rounded once: by fused or separate products.
    depthwise: [Depthwises<T>; 2],
    /// Rounded after each separate product.
    depthwise_each: Depthwises<T>,
    /// Whatever the order, products and roundings.
    depthwise_listed: DepthwiseFn<T>,
    /// Whether the first ones share values between pixels, of the shapes of [`generic::SHARED`].
    shares: bool,
    /// Whether, if so, they share them between two lines of pixels too: see [`Run::below`].
    two_lines: bool,
    /// By [`Products`], vectors of a column panel (1, 2), rows (from 1).
    product: [[ByRows<T::Sum>; 2]; 4],
    /// Whether that of fused products takes the steps of [`Block::finish`]; the others must have none.
    finishes: bool,
    /// By fused or separate products, vectors of a column panel, rows: of tiles that have a row for each product. None where
    /// a call may have to begin again (see `neon`), as it must find the sums that it goes on with.
    product_across: [[ByRows<T::Sum>; 2]; 2],
    /// Where the processor has instructions for pairs of this element type.
    dots: Option<Dots<T>>,
    /// By vectors of a column panel (1, 2).
    pack: [PackFn<T>; 2],
    widen: WidenFn<T>,
    narrow: NarrowFn<T>,
    transpose: WidenFn<T>,
    finish: FinishFn<T>,
    /// By fused or separate products.
    correlate: [CorrelateFn<T>; 2],
}

/// Loops that take [products in pairs](Products::Paired), a pair in the place of a product: of two numbers of the storage
/// type, the first in the lower half of a sum's bits. They flush subnormal numbers, whatever state the thread is in.
#[derive(Clone, Copy)]
struct Dots<T: Element> {
    /// Taps in rows, the sum rounded once, of a filter whose weights have +0 as partners.
    depthwise: Depthwises<T>,
    /// Makes pairs of numbers and +0.
    widen: WidenFn<T>,
    /// By vectors of a column panel (1, 2), rows (from 1).
    product: [ByRows<T::Sum>; 2],
    /// Makes pairs of neighbours in a row of such numbers, widened; may write over what it read. The last one's partner, if it
    /// has none, is +0.
    pair_columns: PairFn<T::Sum>,
    /// Makes pairs of neighbours in a column, the same in all else, of columns that are whole vectors.
    pair_rows: PairFn<T::Sum>,
    narrow: NarrowFn<T>,
}

type DepthwiseFn<T> = unsafe fn(&Run<T>);
/// By how many pixels share values (see [`generic::sharing`]), spread.
type Depthwises<T> = [[DepthwiseFn<T>; 2]; 3];
/// Multiplies so many successive blocks, and gives what is to be asked for next.
type ProductFn<T> = unsafe fn(&Block<T>, usize) -> *const u8;
type ByRows<T> = &'static [ProductFn<T>];
type PackFn<T> = unsafe fn(&Pack<T>);
type WidenFn<T> = unsafe fn(&Rows<T, <T as Element>::Sum>);
type NarrowFn<T> = unsafe fn(&Rows<<T as Element>::Sum, T>);
/// Of so many rows and columns before.
type PairFn<T> = unsafe fn(&Rows<T, T>);
type FinishFn<T> = unsafe fn(&Finish<<T as Element>::Sum>);
type CorrelateFn<T> = unsafe fn(&Correlation<T>);

impl<T: Element> Kernel<T> {
    /// The most rows of a register tile of two vectors.
    pub fn rows(&self) -> usize {
        self.product[0][1].len()
    }

    /// Makes sums of numbers as they are stored.
    ///
    /// # Safety
    /// They are there, and there is room for the results elsewhere, of whole vectors.
    pub unsafe fn widen(&self, stored: &Rows<T, T::Sum>) {
        // SAFETY: the caller's promise; the kernel's existence proves its instruction set.
        unsafe { (self.widen)(stored) }
    }

    /// Makes columns of sums of rows of numbers as they are stored: the result has a row for each column.
    ///
    /// # Safety
    /// They are there, and there is room for the results elsewhere, of whole vectors, behind whose last numbers come zeros.
    pub unsafe fn transpose(&self, stored: &Rows<T, T::Sum>) {
        // SAFETY: the caller's promise; the kernel's existence proves its instruction set.
        unsafe { (self.transpose)(stored) }
    }

    /// Rounds sums to the storage type.
    ///
    /// # Safety
    /// They are there, and there is room for the results elsewhere.
    pub unsafe fn narrow(&self, sums: &Rows<T::Sum, T>) {
        // SAFETY: the caller's promise; the kernel's existence proves its instruction set.
        unsafe { (self.narrow)(sums) }
    }

    /// Adds to sums of the depthwise filter's gradient; products are fused or separate.
    ///
    /// # Safety
    /// What [`Correlation`] says of its pointers holds.
    pub unsafe fn correlate(&self, products: Products, pixels: &Correlation<T>) {
        // SAFETY: the caller's promise; the kernel's existence proves its instruction set.
        unsafe { (self.correlate[usize::from(products == Products::Separate)])(pixels) }
    }
}

/// Successive output pixels, for the depthwise loop. They share values or have the same taps inside the image.
pub struct Run<'a, T: Element> {
    /// For each pixel, or where they share values for the first alone, where tap (0, 0) reads channel 0. A tap inside the image can
    /// be read at its place from there; other places are never formed into a reference or read.
    pub pixels: &'a [*const T],
    /// How many pixels there are.
    pub count: usize,
    /// Taps down and across.
    pub kernel: [usize; 2],
    /// Those of them that lie inside the image; across, of pixels that do not share values.
    pub inside: [Range<usize>; 2],
    /// Those that are added up, in row-major order; all that lie inside, and others as if there were zeros. Across, of
    /// pixels that do not share values.
    pub counted: [Range<usize>; 2],
    /// How many taps further on than the pixel's before each pixel's taps lie, if they share values; otherwise 0.
    pub shared: usize,
    /// For pixels that do: which columns of taps lie inside the image, counted from the first pixel's first on, and whether
    /// others are added up.
    pub across: Range<isize>,
    pub padding: bool,
    /// Elements from a pixel's results to those of the pixel one row of taps below, at stride 2 two, with which it shares values too,
    /// if not 0. Only for pixels that share values in a loop over many (see [`generic::sharing_of`]), of 3x3 taps with equal strides,
    /// sums rounded once and channels that serve one result each, where [`Kernel::two_lines`]. Each pixel lacks one column of
    /// taps at most at either side; of rows that are not counted the upper may lack the first, and the lower the last. Rows
    /// of taps, inside and counted alike, are numbered from the upper pixel's first to the lower one's last.
    pub below: isize,
    /// In another order, this one, for products that are separate or paired, and rounded each or not.
    pub entries: &'a [Entry],
    pub separate: bool,
    pub paired: bool,
    pub each: bool,
    /// Elements from one tap to the next, down and across.
    pub steps: [isize; 2],
    /// Packed: [taps down][taps across][`filter_stride`], whole vectors of it readable.
    pub filter: *const T::Sum,
    pub filter_stride: usize,
    /// Depthwise results of a pixel.
    pub k: usize,
    /// Of a pixel; each enters `k / channels` results.
    pub channels: usize,
    /// For a channel multiplier above 1: where each vector of results has its pixel values. Otherwise not used.
    pub spread: &'a [Spread],
    /// Of the first pixel.
    pub target: Target<T::Sum>,
    /// Whether sums are stored as pairs of the storage type, by a vector that does that; then there are no steps.
    pub narrow: bool,
    /// What is to be done with the sums, and the first channel's numbers for that, as in [`Finish`].
    pub finish: &'a [epilogue::Step<T::Sum>],
    pub numbers: *const T::Sum,
}

impl<T: Element> Run<'_, T> {
    /// Where tap (0, 0) of a pixel reads channel 0.
    #[inline(always)]
    fn origin(&self, pixel: usize) -> *const T {
        match self.shared {
            0 => self.pixels[pixel],
            shared => self.pixels[0].wrapping_offset(self.place(0, pixel * shared)),
        }
    }

    /// Elements from where tap (0, 0) reads to where another one does.
    #[inline(always)]
    fn place(&self, row: usize, column: usize) -> isize {
        (row as isize).wrapping_mul(self.steps[0]).wrapping_add((column as isize).wrapping_mul(self.steps[1]))
    }
}

/// Where the depthwise sums of pixels go: each one's are in panels, as in a [tile](tile::Tile), and writable in whole vectors.
#[derive(Clone, Copy)]
pub struct Target<T> {
    pub start: *mut T,
    /// Elements from one pixel to the next.
    pub next: isize,
    /// Elements from one panel to the next.
    pub panel_stride: usize,
}

impl<T> Target<T> {
    /// From a later pixel on.
    pub fn skip(self, pixels: usize) -> Self {
        Self { start: self.start.wrapping_offset(pixels as isize * self.next), ..self }
    }
}

/// One step of a depthwise sum.
#[derive(Clone, Copy)]
pub enum Entry {
    /// Adds a tap's product to the chain.
    Tap {
        /// From where tap (0, 0) reads to where this one does; it reads zeros if it is not inside the image.
        place: isize,
        inside: bool,
        /// From the filter's first weight to the tap's.
        weights: usize,
    },
    /// Adds the product of zeros and the next channels of a tap, which lies inside the image; behind the last channel, the
    /// first of another place, if that is inside.
    Channel { place: isize, behind: Option<isize> },
    /// Makes the chain the sum so far, or adds it to that; the next chain starts at +0.
    End { starts: bool },
}

/// Where one vector of depthwise results has its pixel values if each channel serves several.
#[derive(Clone)]
pub struct Spread {
    /// The first channel read, of whole vectors where there are as many.
    pub channel: usize,
    /// Each lane's channel, counted from the first.
    pub lanes: [i32; 16],
}

/// Rows of a tile and one column panel of the pointwise filter, for the product.
#[derive(Clone, Copy)]
pub struct Block<'a, T> {
    /// The first row in a [tile](tile::Tile).
    pub pixels: *const T,
    /// Elements from one panel of the tile to the next.
    pub panel_stride: usize,
    /// The column panel, [k][columns].
    pub filter: *const T,
    /// Elements from one row of it to the next.
    pub filter_stride: usize,
    /// What is wanted next, and the bytes from one place to the next, which are asked for meanwhile.
    pub ahead: (*const u8, isize),
    /// In which order the products are added up; each level is written before it is read.
    pub steps: &'a [Step],
    /// Whether [products in pairs](crate::numerics::Products) overrun.
    pub overrun: bool,
    /// Where the first row's sums of level 0 go, and those of level 1: rows of whole vectors, so many bytes apart.
    pub targets: [(*mut T, usize); 2],
    /// Whether level 0 is stored rounded to the storage type, by a vector that does that: then a single step makes it.
    pub narrow: bool,
    /// What is to be done with a sum where the last of the steps makes it: none where sums are rounded to be stored. And
    /// the first column's numbers for that, as in [`Finish`].
    pub finish: &'a [epilogue::Step<T>],
    pub numbers: *const T,
    /// Elements from level 1 to level 2, and so on.
    pub level_stride: usize,
    /// Products of a whole sum.
    pub k: usize,
}

impl<T> Block<'_, T> {
    /// Without the first rows.
    fn skip_rows(self, rows: usize) -> Self {
        let targets = self.targets.map(|(start, stride)| (start.wrapping_byte_add(rows * stride), stride));
        Self { pixels: self.pixels.wrapping_add(rows * tile::row_stride::<T>()), targets, ..self }
    }

    /// Where the first row's sums of a level are, and how far the next row's.
    #[inline(always)]
    fn target(&self, level: usize) -> (*mut T, usize) {
        let (start, stride) = self.targets[level.min(1)];
        (start.wrapping_add(level.saturating_sub(1) * self.level_stride), stride)
    }
}

/// One step of a sum over k. Level 0 is the result; a nested sum is built on the next level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A chain over every `stride`-th of these products.
    Chain { products: Range<usize>, stride: usize, level: usize, then: Then },
    /// Adds this level's value to the one below.
    Fold { level: usize },
}

/// What a chain has to do with its level's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The chain starts at +0 and becomes the value.
    Store,
    /// The chain starts at +0 and is added to the value.
    Add,
    /// The chain starts at the value.
    Continue,
}

/// Rows of a full column panel of a pointwise filter whose columns are adjacent, to be copied.
pub struct Pack<T: Element> {
    pub from: *const T,
    pub row_stride: isize,
    pub k: usize,
    /// [k][columns].
    pub to: *mut T::Sum,
}

/// Rows to be converted.
pub struct Rows<From, To> {
    pub from: *const From,
    pub from_stride: usize,
    pub to: *mut To,
    pub to_stride: isize,
    pub rows: usize,
    pub columns: usize,
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

/// Rows of output pixels, equally far apart in the image and in the gradient, for the sums of the depthwise filter's gradient
/// over them: of some taps and some channels.
pub struct Correlation<'a, T: Element> {
    /// Where tap (0, 0) of the first pixel would read channel 0, perhaps outside the image, and the elements to where that of
    /// the next row's first and the next pixel would. Only the listed taps are there, with all channels.
    pub image: (*const T, [isize; 2]),
    /// The same of the gradient.
    pub gradient: (*const T, [isize; 2]),
    /// Rows, and pixels of each.
    pub pixels: [usize; 2],
    /// For each tap, the elements from where tap (0, 0) would read to where it does, and from the first sum to its own.
    pub taps: &'a [(isize, usize)],
    pub channels: Range<usize>,
    /// Writable in whole vectors for each tap.
    pub sums: *mut T::Sum,
}

/// The functions that give an instruction set's [`Kernel`]s, over the wrappers in scope; vectors of f32 and f64, and the
/// numbers of rows of register tiles that are one vector wide and two, and of these where products are separate; the same
/// again for tiles that have a row for each product, if they are others there.
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
use kernels;

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
                shares: $crate::kernels::generic::sharing::<$element, $vector>()[1] > 0,
                two_lines: $crate::kernels::generic::two_lines::<$vector>(),
                product: [
                    $crate::kernels::products!($vector, FUSED, false, $ones, $twos),
                    $crate::kernels::products!($vector, SEPARATE, false, $ones, $separates),
                    $crate::kernels::products!($vector, PAIRED, false, $ones, $twos),
                    $crate::kernels::products!($vector, PAIRED, false, $ones, $twos),
                ],
                finishes: $crate::kernels::generic::finishes::<$vector, { $crate::kernels::vector::FUSED }, false>(),
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
use kernel;

/// An element of [`Kernel::depthwise`].
macro_rules! depthwises {
    ($element:ident, $vector:ty, $each:expr, $products:ident) => {
        [
            $crate::kernels::depthwises!($element, $vector, $each, $products, 0),
            $crate::kernels::depthwises!($element, $vector, $each, $products, 1),
            $crate::kernels::depthwises!($element, $vector, $each, $products, 2),
        ]
    };
    ($element:ident, $vector:ty, $each:expr, $products:ident, $sharing:literal) => {{
        use $crate::kernels::{generic::sharing, vector::$products};
        const SHARING: usize = sharing::<$element, $vector>()[$sharing];
        [
            depthwise::<$element, $vector, SHARING, $each, $products, false>,
            depthwise::<$element, $vector, SHARING, $each, $products, true>,
        ]
    }};
}
use depthwises;

/// An element of [`Kernel::product`] or [`Kernel::product_across`].
macro_rules! products {
    ($vector:ty, $products:ident, $across:literal, $ones:tt, $twos:tt) => {
        [
            $crate::kernels::by_rows!($vector, 1, $products, $across, $ones),
            $crate::kernels::by_rows!($vector, 2, $products, $across, $twos),
        ]
    };
}
use products;

macro_rules! by_rows {
    ($vector:ty, $vectors:literal, $products:ident, $across:literal, [$($rows:literal)*]) => {
        &[$(product::<$vector, $rows, $vectors, { $crate::kernels::vector::$products }, $across>),*]
    };
}
use by_rows;

/// What enables an instruction set's features for the generic algorithms.
macro_rules! wrappers {
    ($($features:literal)?) => {
        $(#[target_feature(enable = $features)])?
        unsafe fn depthwise<
            S: $crate::element::Element<Sum = V::Element>,
            V: $crate::kernels::vector::Widen<S>,
            const SHARING: usize,
            const EACH: bool,
            const PRODUCTS: usize,
            const SPREAD: bool,
        >(
            run: &$crate::kernels::Run<S>,
        ) {
            // SAFETY: the caller's promise.
            unsafe { $crate::kernels::generic::depthwise::<S, V, SHARING, EACH, PRODUCTS, SPREAD>(run) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn listed<S: $crate::element::Element<Sum = V::Element>, V: $crate::kernels::vector::Widen<S>>(
            run: &$crate::kernels::Run<S>,
        ) {
            // SAFETY: the caller's promise.
            unsafe { $crate::kernels::generic::listed::<S, V>(run) }
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
            unsafe { $crate::kernels::generic::product::<V, ROWS, VECTORS, PRODUCTS, ACROSS>(block, count) }
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
            unsafe { $crate::kernels::generic::pack::<S, V, VECTORS>(pack) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn widen_rows<S: $crate::element::Element<Sum = V::Element>, V: $crate::kernels::vector::Widen<S>>(
            stored: &$crate::kernels::Rows<S, S::Sum>,
        ) {
            // SAFETY: the caller's promise.
            unsafe { $crate::kernels::generic::widen_rows::<S, V>(stored) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn narrow_rows<S: $crate::element::Element<Sum = V::Element>, V: $crate::kernels::vector::Widen<S>>(
            sums: &$crate::kernels::Rows<S::Sum, S>,
        ) {
            // SAFETY: the caller's promise.
            unsafe { $crate::kernels::generic::narrow_rows::<S, V>(sums) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn transpose<S: $crate::element::Element<Sum = V::Element>, V: $crate::kernels::vector::Widen<S>>(
            stored: &$crate::kernels::Rows<S, S::Sum>,
        ) {
            // SAFETY: the caller's promise.
            unsafe { $crate::kernels::generic::transpose::<S, V>(stored) }
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
use wrappers;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_that_is_not_there_falls_back_to_the_best() {
        for set in InstructionSet::available() {
            assert_eq!(InstructionSet::named(set.name()), set);
        }
        assert_eq!(InstructionSet::named("avx1024"), InstructionSet::available()[0]);
        assert_eq!(InstructionSet::named("portable").name(), "portable");
    }

    #[test]
    fn kernels_have_names() {
        for set in InstructionSet::available() {
            assert_eq!(f32::kernel(set).name, format!("{}-f32", set.name()));
            assert_eq!(f64::kernel(set).name, format!("{}-f64", set.name()));
            assert_eq!(f16::kernel(set).name, format!("{}-f16", set.name()));
            assert_eq!(bf16::kernel(set).name, format!("{}-bf16", set.name()));
        }
    }
}
