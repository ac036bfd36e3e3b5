//! The gradients of a separable convolution, each sum in an order that is said, as in the forward pass.
//!
//! With `upstream` the gradient of what is minimised with respect to the convolution's result, that with respect to the
//! depthwise result is its product with the transposed pointwise filter; from it follow those of the input and of the
//! depthwise filter. That of the pointwise filter is the transposed depthwise result times `upstream`; the depthwise result
//! is computed again, in tiles, and never stored.
//!
//! ```
//! use ndarray::Array4;
//! use sepconv::{Padding, SeparableConv2d};
//!
//! let input = Array4::<f32>::ones((1, 4, 4, 2));
//! let (depthwise_filter, pointwise_filter) = (Array4::ones((3, 3, 2, 1)), Array4::ones((1, 1, 2, 5)));
//! let convolution = SeparableConv2d::new([1, 1], Padding::Valid, [1, 1]);
//! let upstream = Array4::ones((1, 2, 2, 5));
//!
//! let gradients =
//!     convolution.gradients(input.view(), depthwise_filter.view(), pointwise_filter.view(), upstream.view())?;
//! assert_eq!(gradients.input[(0, 1, 1, 0)], 20.0); // four results take it up, in five channels
//! assert_eq!(gradients.depthwise_filter, Array4::from_elem((3, 3, 2, 1), 20.0));
//! assert_eq!(gradients.pointwise_filter, Array4::from_elem((1, 1, 2, 5), 36.0));
//! # Ok::<(), sepconv::Error>(())
//! ```

pub(crate) mod depthwise_filter;
pub(crate) mod input;
mod orders;
mod pointwise_filter;
mod reached;
pub mod reference;

use std::mem::MaybeUninit;

use ndarray::{Array4, ArrayView4, s};

use crate::convolution::SeparableConv2d;
use crate::element::Element;
use crate::error::Error;
use crate::geometry::Geometry;
use crate::plan::{self, Product};
pub use orders::{DepthwiseFilterOrder, Direction, InputOrder, Pixels, reproducible_product};

/// Of one separable convolution, in the shapes of what they are gradients of.
#[derive(Clone, Debug)]
pub struct Gradients<T> {
    pub input: Array4<T>,
    pub depthwise_filter: Array4<T>,
    pub pointwise_filter: Array4<T>,
}

impl SeparableConv2d {
    /// All three gradients, in the orders that give the same bits on every machine, for every thread count, and for the
    /// input in every batch. `upstream` has the result's shape.
    ///
    /// # Errors
    /// Shapes that do not fit together, strides, rates or paddings out of range; the message names the argument, its value
    /// and the limit.
    pub fn gradients<T: Element>(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: ArrayView4<T>,
        pointwise_filter: ArrayView4<T>,
        upstream: ArrayView4<T>,
    ) -> Result<Gradients<T>, Error> {
        let [of_input, of_filter, of_pointwise]: [[usize; 4]; 3] =
            [input.dim().into(), depthwise_filter.dim().into(), pointwise_filter.dim().into()];
        let g = Geometry::new(&of_input, &of_filter, &of_pointwise, &self.attributes)?;
        check("upstream", g.output_shape(), upstream.shape())?;
        let [of_rows, of_channels] =
            [g.rows(), g.out_channels].map(|length| self.clone().numerics(reproducible_product(length)));
        let pixels = of_channels.backprop_pixels(pointwise_filter, upstream)?;
        let pixels = pixels.view();
        let (input_order, filter_order) = (InputOrder::REPRODUCIBLE, DepthwiseFilterOrder::REPRODUCIBLE);
        Ok(Gradients {
            input: self.backprop_input(of_input, depthwise_filter, pixels, &input_order)?,
            depthwise_filter: self.backprop_depthwise_filter(input, of_filter, pixels, &filter_order)?,
            pointwise_filter: of_rows.backprop_pointwise_filter(input, depthwise_filter, of_pointwise, upstream)?,
        })
    }

    /// The gradient with respect to the depthwise result, (batch, height, width, k): the product of `upstream` and the
    /// transposed `pointwise_filter`, in the order of the numerics' pointwise sum, which is over out_channels.
    ///
    /// # Errors
    /// As for [`gradients`](Self::gradients), and a sum of another length.
    pub fn backprop_pixels<T: Element>(
        &self,
        pointwise_filter: ArrayView4<T>,
        upstream: ArrayView4<T>,
    ) -> Result<Array4<T>, Error> {
        let (batch, height, width, _) = upstream.dim();
        let k = pointwise_filter.dim().2;
        array([batch, height, width, k], |output| self.backprop_pixels_into(pointwise_filter, upstream, output))
    }

    /// The same into as many elements.
    ///
    /// # Errors
    /// The same, and another number of elements.
    pub fn backprop_pixels_into<T: Element>(
        &self,
        pointwise_filter: ArrayView4<T>,
        upstream: ArrayView4<T>,
        output: &mut [MaybeUninit<T>],
    ) -> Result<(), Error> {
        let (batch, height, width, channels) = upstream.dim();
        let (one, other, k, out_channels) = pointwise_filter.dim();
        check("upstream", [batch, height, width, out_channels], upstream.shape())?;
        check("pointwise_filter", [1, 1, k, out_channels], &[one, other, k, out_channels])?;
        self.numerics.check(channels)?;
        check_length([batch, height, width, k], output)?;
        let upstream = plan::standard(upstream)?;
        let values = upstream.as_slice().expect("standard layout");
        let filter = pointwise_filter.slice_move(s![0, 0, .., ..]).reversed_axes();
        let rows = batch * height * width;
        let product = Product { rows, filter, numerics: &self.numerics, scratch: |_| 0 };
        let workers = self.workers(rows.saturating_mul(k).saturating_mul(channels));
        product.run(&workers, output, |first, _| Ok(plan::rows_of(workers.set, values, channels, first)))
    }

    /// The gradient of `pointwise_filter`, whose shape is given: in the order of the numerics' pointwise sum, which is over
    /// the output pixels, of depthwise results in the order of the numerics' depthwise sums.
    ///
    /// # Errors
    /// As for [`gradients`](Self::gradients), and a sum of another length.
    pub fn backprop_pointwise_filter<T: Element>(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: ArrayView4<T>,
        pointwise_filter: [usize; 4],
        upstream: ArrayView4<T>,
    ) -> Result<Array4<T>, Error> {
        array(pointwise_filter, |output| {
            self.backprop_pointwise_filter_into(input, depthwise_filter, pointwise_filter, upstream, output)
        })
    }

    /// The same into as many elements.
    ///
    /// # Errors
    /// The same, and another number of elements.
    pub fn backprop_pointwise_filter_into<T: Element>(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: ArrayView4<T>,
        pointwise_filter: [usize; 4],
        upstream: ArrayView4<T>,
        output: &mut [MaybeUninit<T>],
    ) -> Result<(), Error> {
        let g = Geometry::new(input.shape(), depthwise_filter.shape(), &pointwise_filter, &self.attributes)?;
        check("upstream", g.output_shape(), upstream.shape())?;
        self.numerics.check(g.rows())?;
        let workers = self.workers(g.rows().saturating_mul(g.k()).saturating_mul(g.out_channels));
        pointwise_filter::gradient(&workers, &g, input, depthwise_filter, upstream, &self.numerics, output)
    }

    /// The gradient of the input, whose shape is given, from that of the depthwise result, (batch, height, width, k).
    ///
    /// # Errors
    /// As for [`gradients`](Self::gradients).
    pub fn backprop_input<T: Element>(
        &self,
        input: [usize; 4],
        depthwise_filter: ArrayView4<T>,
        pixels: ArrayView4<T>,
        order: &InputOrder,
    ) -> Result<Array4<T>, Error> {
        array(input, |output| self.backprop_input_into(input, depthwise_filter, pixels, order, output))
    }

    /// The same into as many elements.
    ///
    /// # Errors
    /// The same, and another number of elements.
    pub fn backprop_input_into<T: Element>(
        &self,
        input: [usize; 4],
        depthwise_filter: ArrayView4<T>,
        pixels: ArrayView4<T>,
        order: &InputOrder,
        output: &mut [MaybeUninit<T>],
    ) -> Result<(), Error> {
        let g = self.depthwise_geometry(&input, depthwise_filter.shape(), &pixels)?;
        // It takes about twice as long as as many products of a matrix.
        let workers = self.workers(taps(&g).saturating_mul(2));
        input::gradient(&workers, &g, depthwise_filter, pixels, order, output)
    }

    /// The gradient of the depthwise filter, whose shape is given, from that of the depthwise result, (batch, height, width,
    /// k). With a channel_multiplier above 1 the input is copied, each channel as often.
    ///
    /// # Errors
    /// As for [`gradients`](Self::gradients).
    pub fn backprop_depthwise_filter<T: Element>(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: [usize; 4],
        pixels: ArrayView4<T>,
        order: &DepthwiseFilterOrder,
    ) -> Result<Array4<T>, Error> {
        array(depthwise_filter, |output| {
            self.backprop_depthwise_filter_into(input, depthwise_filter, pixels, order, output)
        })
    }

    /// The same into as many elements.
    ///
    /// # Errors
    /// The same, and another number of elements.
    pub fn backprop_depthwise_filter_into<T: Element>(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: [usize; 4],
        pixels: ArrayView4<T>,
        order: &DepthwiseFilterOrder,
        output: &mut [MaybeUninit<T>],
    ) -> Result<(), Error> {
        let g = self.depthwise_geometry(input.shape(), &depthwise_filter, &pixels)?;
        depthwise_filter::gradient(&self.workers(taps(&g)), &g, input, pixels, order, output)
    }

    fn depthwise_geometry<T>(
        &self,
        input: &[usize],
        depthwise_filter: &[usize],
        pixels: &ArrayView4<T>,
    ) -> Result<Geometry, Error> {
        let g = Geometry::depthwise(input, depthwise_filter, &self.attributes)?;
        check("the depthwise result's gradient", g.output_shape(), pixels.shape())?;
        Ok(g)
    }
}

/// Those of all results.
fn taps(g: &Geometry) -> usize {
    (g.rows() * g.k()).saturating_mul(g.height.kernel).saturating_mul(g.width.kernel)
}

fn check(argument: &'static str, expected: [usize; 4], got: &[usize]) -> Result<(), Error> {
    if expected == got { Ok(()) } else { Err(Error::Gradient { argument, expected, got: got.to_vec() }) }
}

/// That so many elements are those of an array of that shape.
fn check_length<T>(shape: [usize; 4], elements: &[MaybeUninit<T>]) -> Result<(), Error> {
    let (expected, got) = (plan::elements(shape)?, elements.len());
    if expected == got { Ok(()) } else { Err(Error::Length { shape, expected, got }) }
}

fn array<T: Element>(
    shape: [usize; 4],
    fill: impl FnOnce(&mut [MaybeUninit<T>]) -> Result<(), Error>,
) -> Result<Array4<T>, Error> {
    let elements = plan::allocate(plan::elements(shape)?, fill)?;
    Array4::from_shape_vec(shape, elements).map_err(|_| Error::TooLarge)
}
