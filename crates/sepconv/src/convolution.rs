//! The convolution as a caller sees it.

use std::mem::MaybeUninit;
use std::sync::Arc;

use ndarray::{Array4, ArrayView4, ArrayViewMut4};
use rayon::ThreadPool;

use crate::element::Element;
use crate::error::Error;
use crate::geometry::{Attributes, Geometry, Padding};
use crate::kernels::InstructionSet;
use crate::numerics::Numerics;
use crate::plan;

/// Depthwise separable convolution: [`SeparableConv2d::run`] with the numerics
/// [`REPRODUCIBLE`](Numerics::REPRODUCIBLE), whose bits are the same on every machine.
///
/// `input` is (batch, height, width, in_channels), `depthwise_filter` (height, width, in_channels,
/// channel_multiplier), `pointwise_filter` (1, 1, in_channels * channel_multiplier, out_channels), the result (batch,
/// height, width, out_channels). `strides` and `rate` are for height and width; with a rate above 1, strides have
/// TensorFlow's meaning (see [`geometry`](crate::geometry)).
///
/// # Errors
/// Shapes that do not fit together, strides, rates or paddings out of range; the message names the argument, its value
/// and the limit.
pub fn separable_conv2d<T: Element>(
    input: ArrayView4<T>,
    depthwise_filter: ArrayView4<T>,
    pointwise_filter: ArrayView4<T>,
    strides: [i64; 2],
    padding: Padding,
    rate: [i64; 2],
) -> Result<Array4<T>, Error> {
    SeparableConv2d::new(strides, padding, rate).run(input, depthwise_filter, pointwise_filter)
}

/// A separable convolution with its attributes and its [numerics](crate::numerics).
///
/// ```
/// use ndarray::Array4;
/// use sepconv::{Padding, SeparableConv2d};
///
/// let (input, depthwise_filter) = (Array4::<f64>::ones((2, 5, 4, 2)), Array4::ones((3, 3, 2, 1)));
/// let pointwise_filter = Array4::ones((1, 1, 2, 7));
/// let output = SeparableConv2d::new([1, 1], Padding::Valid, [1, 1])
///     .numerics("v1 depthwise(separate, all) pointwise(separate, 1+1) subnormals(flushed)".parse()?)
///     .run(input.view(), depthwise_filter.view(), pointwise_filter.view())?;
/// assert_eq!(output, Array4::from_elem((2, 3, 2, 7), 18.0));
/// # Ok::<(), sepconv::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SeparableConv2d {
    attributes: Attributes,
    numerics: Numerics,
    pool: Option<Arc<ThreadPool>>,
    set: Option<InstructionSet>,
}

impl SeparableConv2d {
    /// With the numerics [`Numerics::REPRODUCIBLE`].
    pub fn new(strides: [i64; 2], padding: Padding, rate: [i64; 2]) -> Self {
        let attributes = Attributes { strides, padding, rate };
        Self { attributes, numerics: Numerics::REPRODUCIBLE, pool: None, set: None }
    }

    /// The same with other numerics.
    pub fn numerics(self, numerics: Numerics) -> Self {
        Self { numerics, ..self }
    }

    /// The same on the threads of that pool rather than of the current one; if it has one, on the calling thread.
    pub fn pool(self, pool: Arc<ThreadPool>) -> Self {
        Self { pool: Some(pool), ..self }
    }

    /// Shapes, errors and meaning are those of [`separable_conv2d`]. Small work stays on the calling thread.
    pub fn run<T: Element>(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: ArrayView4<T>,
        pointwise_filter: ArrayView4<T>,
    ) -> Result<Array4<T>, Error> {
        let geometry =
            Geometry::new(input.shape(), depthwise_filter.shape(), pointwise_filter.shape(), &self.attributes)?;
        self.numerics.check(geometry.k())?;
        let shape = geometry.output_shape();
        let elements = plan::allocate(shape.iter().product(), |output| {
            self.compute(input, depthwise_filter, pointwise_filter, &geometry, output)
        })?;
        Ok(Array4::from_shape_vec(shape, elements).expect("as many elements as the shape has"))
    }

    /// As [`run`](Self::run), into an array of the output's shape.
    pub fn run_into<T: Element>(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: ArrayView4<T>,
        pointwise_filter: ArrayView4<T>,
        mut output: ArrayViewMut4<T>,
    ) -> Result<(), Error> {
        let geometry =
            Geometry::new(input.shape(), depthwise_filter.shape(), pointwise_filter.shape(), &self.attributes)?;
        let (expected, got) = (geometry.output_shape(), output.shape());
        if expected != got {
            return Err(Error::Output { expected, got: got.try_into().unwrap_or_default() });
        }
        let Some(elements) = output.as_slice_mut() else {
            output.assign(&self.run(input, depthwise_filter, pointwise_filter)?);
            return Ok(());
        };
        self.numerics.check(geometry.k())?;
        // SAFETY: the plan writes elements and nothing else, so none of them becomes uninitialised.
        let elements = unsafe { std::slice::from_raw_parts_mut(elements.as_mut_ptr().cast(), elements.len()) };
        self.compute(input, depthwise_filter, pointwise_filter, &geometry, elements)
    }

    fn compute<T: Element>(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: ArrayView4<T>,
        pointwise_filter: ArrayView4<T>,
        geometry: &Geometry,
        output: &mut [MaybeUninit<T>],
    ) -> Result<(), Error> {
        let set = self.set.unwrap_or_else(InstructionSet::preferred);
        let mut on = |threads| {
            let numerics = &self.numerics;
            plan::separable_conv2d(set, threads, input, depthwise_filter, pointwise_filter, geometry, numerics, output)
        };
        match &self.pool {
            _ if plan::is_small(geometry) => on(1),
            None => on(rayon::current_num_threads()),
            Some(pool) if pool.current_num_threads() == 1 => on(1),
            Some(pool) => pool.install(|| on(pool.current_num_threads())),
        }
    }

    /// On that instruction set; the bits are the same on every one.
    #[doc(hidden)]
    pub fn on(self, set: InstructionSet) -> Self {
        Self { set: Some(set), ..self }
    }
}
