//! The op of the depthwise part alone, with steps behind it, which models are rewritten to where no 1x1 convolution follows.

use std::ffi::CStr;
use std::marker::PhantomData;

use half::{bf16, f16};
use ndarray::{ArrayView4, ArrayViewMut4};
use sepconv::epilogue::Epilogues;
use sepconv::{Element, Geometry, Orders, SeparableConv2d};

use crate::carrier;
use crate::kernel::too_large;
use crate::shape_function::DepthwiseShape;
use crate::statistics;
use crate::steps::{self, Word};
use crate::tensorflow::kernel::{self, Construction, Context, Kernel};
use crate::tensorflow::op::Op;
use crate::tensorflow::status::Failure;
use crate::tensorflow::tensor::TensorElement;
use crate::threads;

/// Saved graphs hold these names. Of the numerics only the depthwise half counts.
const OP: Op = Op {
    name: c"Sepconv>FusedDepthwiseConv2D",
    attrs: &[
        c"T: {half, bfloat16, float, double}",
        c"N: int >= 0",
        c"numerics: string",
        c"depthwise_steps: string = ''",
    ],
    inputs: &[c"input: T", c"depthwise_filter: T", c"geometry: int32", c"numbers: N * T"],
    outputs: &[c"output: T"],
};

/// The op's definition and shape function. TensorFlow may end the process if it is there already.
pub fn register_op() -> Result<(), Failure> {
    OP.register::<DepthwiseShape>()
}

/// The kernel of every element type that is served.
pub fn register_kernels() -> Result<(), Failure> {
    register::<f16>(c"SepconvFusedDepthwiseConv2DFloat16")?;
    register::<bf16>(c"SepconvFusedDepthwiseConv2DBfloat16")?;
    register::<f32>(c"SepconvFusedDepthwiseConv2DFloat32")?;
    register::<f64>(c"SepconvFusedDepthwiseConv2DFloat64")
}

fn register<T: Element + TensorElement>(name: &CStr) -> Result<(), Failure> {
    kernel::register::<Node<T>>(OP.name, name, c"T", T::DATA_TYPE)
}

/// The kernel of one node.
struct Node<T> {
    orders: Orders,
    steps: Vec<Word>,
    _element: PhantomData<fn() -> T>,
}

impl<T: Element + TensorElement> Kernel for Node<T> {
    fn new(construction: &Construction) -> Result<Self, Failure> {
        let orders = construction.string(c"numerics")?.parse::<Orders>().map_err(sepconv::Error::from)?;
        Ok(Self { orders, steps: steps::of_attribute(construction, c"depthwise_steps")?, _element: PhantomData })
    }

    fn compute(&self, context: &Context) -> Result<(), Failure> {
        let (input, filter) = (context.input(0)?, context.input(1)?);
        let dims: Vec<_> = context.input(2)?.shape().iter().map(|&extent| extent as i64).collect();
        let attributes = carrier::decode(&dims).map_err(Failure::invalid_argument)?;
        let geometry = Geometry::depthwise(input.shape(), filter.shape(), &attributes)?;
        let numerics = self.orders.pick(geometry.batch, geometry.rows()).into_owned();
        let numbers = steps::numbers(context, OP.inputs.len() - 1, self.steps.iter())?;
        let depthwise = steps::with_numbers(&self.steps, &mut numbers.iter())?;
        let epilogues = Epilogues { depthwise, pointwise: Vec::new() };
        let mut output = context.allocate_output::<T>(0, &geometry.output_shape())?;
        let view = |shape, tensor| ArrayView4::from_shape(shape, tensor).map_err(too_large);
        let output =
            ArrayViewMut4::from_shape(geometry.output_shape(), output.elements_mut::<T>()?).map_err(too_large)?;
        let convolution = SeparableConv2d::new(attributes.strides, attributes.padding, attributes.rate);
        threads::team()?.on(convolution.numerics(numerics)).with_steps(&epilogues).depthwise_into(
            view(geometry.input_shape(), input.elements::<T>()?)?,
            view(geometry.depthwise_filter_shape(), filter.elements::<T>()?)?,
            output,
        )?;
        statistics::DEPTHWISE_CALLS.add();
        Ok(())
    }
}
