//! The ops of the gradients and their kernels: TensorFlow's tensors in, [`sepconv::gradient`], TensorFlow's tensor out. One
//! op for each sum, so that a graph computes only what is asked for.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::str::FromStr;

use half::{bf16, f16};
use ndarray::ArrayView4;
use sepconv::gradient::{DepthwiseFilterOrder, InputOrder, reproducible_product};
use sepconv::numerics::ParseError;
use sepconv::{Attributes, Element, Numerics, SeparableConv2d};

use crate::carrier;
use crate::statistics;
use crate::tensorflow::inference::{Extent, Inference, ShapeFunction};
use crate::tensorflow::kernel::{self, Construction, Context, Kernel};
use crate::tensorflow::op::Op;
use crate::tensorflow::status::Failure;
use crate::tensorflow::tensor::{Tensor, TensorElement};
use crate::threads;

/// Saved graphs hold these names.
const TYPES: &CStr = c"T: {half, bfloat16, float, double}";
const NUMERICS: &CStr = c"numerics: string";
const GRADIENT: &[&CStr] = &[c"gradient: T"];

/// One of the gradients.
trait Gradient: Send + Sync + 'static {
    const OP: Op;
    /// The output's extents.
    const SHAPE: [Extent; 4];
    type Order: FromStr<Err = ParseError> + Send + Sync;

    fn compute<T: Element + TensorElement>(
        convolution: SeparableConv2d,
        order: &Self::Order,
        tensors: &[Tensor],
        shape: [usize; 4],
        output: &mut [MaybeUninit<T>],
    ) -> Result<(), Failure>;
}

/// The order of a matrix product: the word `reproducible`, whatever the sums' length, or numerics.
enum ProductOrder {
    Reproducible,
    Given(Numerics),
}

impl FromStr for ProductOrder {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.trim() == "reproducible" { Ok(Self::Reproducible) } else { text.parse().map(Self::Given) }
    }
}

impl ProductOrder {
    fn of(&self, length: usize) -> Numerics {
        match self {
            Self::Reproducible => reproducible_product(length),
            Self::Given(numerics) => numerics.clone(),
        }
    }
}

/// Dimension of an input of four.
const fn of(input: i32, axis: i64) -> Extent {
    Extent::Of { input, rank: 4, axis }
}

/// The shape of an input.
const fn shape_of(input: i32) -> [Extent; 4] {
    [of(input, 0), of(input, 1), of(input, 2), of(input, 3)]
}

/// With respect to the depthwise result.
struct Pixels;

impl Gradient for Pixels {
    const OP: Op = Op {
        name: c"Sepconv>SeparableConv2DBackpropPixels",
        attrs: &[TYPES, NUMERICS],
        inputs: &[c"pointwise_filter: T", c"upstream: T"],
        outputs: GRADIENT,
    };
    const SHAPE: [Extent; 4] = [of(1, 0), of(1, 1), of(1, 2), of(0, 2)];
    type Order = ProductOrder;

    fn compute<T: Element + TensorElement>(
        convolution: SeparableConv2d,
        order: &ProductOrder,
        tensors: &[Tensor],
        _: [usize; 4],
        output: &mut [MaybeUninit<T>],
    ) -> Result<(), Failure> {
        let [pointwise_filter, upstream] = views(tensors)?;
        let numerics = order.of(pointwise_filter.dim().3);
        Ok(convolution.numerics(numerics).backprop_pixels_into(pointwise_filter, upstream, output)?)
    }
}

struct Input;

impl Gradient for Input {
    const OP: Op = Op {
        name: c"Sepconv>SeparableConv2DBackpropInput",
        attrs: &[TYPES, NUMERICS],
        inputs: &[c"input: T", c"depthwise_filter: T", c"pixels: T", c"geometry: int32"],
        outputs: GRADIENT,
    };
    const SHAPE: [Extent; 4] = shape_of(0);
    type Order = InputOrder;

    fn compute<T: Element + TensorElement>(
        convolution: SeparableConv2d,
        order: &InputOrder,
        tensors: &[Tensor],
        shape: [usize; 4],
        output: &mut [MaybeUninit<T>],
    ) -> Result<(), Failure> {
        let [_, depthwise_filter, pixels] = views(tensors)?;
        Ok(convolution.backprop_input_into(shape, depthwise_filter, pixels, order, output)?)
    }
}

struct DepthwiseFilter;

impl Gradient for DepthwiseFilter {
    const OP: Op = Op {
        name: c"Sepconv>SeparableConv2DBackpropDepthwiseFilter",
        attrs: &[TYPES, NUMERICS],
        inputs: &[c"input: T", c"depthwise_filter: T", c"pixels: T", c"geometry: int32"],
        outputs: GRADIENT,
    };
    const SHAPE: [Extent; 4] = shape_of(1);
    type Order = DepthwiseFilterOrder;

    fn compute<T: Element + TensorElement>(
        convolution: SeparableConv2d,
        order: &DepthwiseFilterOrder,
        tensors: &[Tensor],
        shape: [usize; 4],
        output: &mut [MaybeUninit<T>],
    ) -> Result<(), Failure> {
        let [input, _, pixels] = views(tensors)?;
        Ok(convolution.backprop_depthwise_filter_into(input, shape, pixels, order, output)?)
    }
}

struct PointwiseFilter;

impl Gradient for PointwiseFilter {
    const OP: Op = Op {
        name: c"Sepconv>SeparableConv2DBackpropPointwiseFilter",
        attrs: &[TYPES, NUMERICS],
        inputs: &[c"input: T", c"depthwise_filter: T", c"pointwise_filter: T", c"upstream: T", c"geometry: int32"],
        outputs: GRADIENT,
    };
    const SHAPE: [Extent; 4] = shape_of(2);
    type Order = ProductOrder;

    fn compute<T: Element + TensorElement>(
        convolution: SeparableConv2d,
        order: &ProductOrder,
        tensors: &[Tensor],
        shape: [usize; 4],
        output: &mut [MaybeUninit<T>],
    ) -> Result<(), Failure> {
        let [input, depthwise_filter, _, upstream] = views(tensors)?;
        let (batch, height, width, _) = upstream.dim();
        let convolution = convolution.numerics(order.of(batch.saturating_mul(height).saturating_mul(width)));
        Ok(convolution.backprop_pointwise_filter_into(input, depthwise_filter, shape, upstream, output)?)
    }
}

/// The definitions and shape functions of all four.
pub fn register_ops() -> Result<(), Failure> {
    Pixels::OP.register::<OutputShape<Pixels>>()?;
    Input::OP.register::<OutputShape<Input>>()?;
    DepthwiseFilter::OP.register::<OutputShape<DepthwiseFilter>>()?;
    PointwiseFilter::OP.register::<OutputShape<PointwiseFilter>>()
}

/// Their kernels, of every element type.
pub fn register_kernels() -> Result<(), Failure> {
    register::<Pixels>()?;
    register::<Input>()?;
    register::<DepthwiseFilter>()?;
    register::<PointwiseFilter>()
}

fn register<G: Gradient>() -> Result<(), Failure> {
    let name = G::OP.name;
    kernel::register::<Node<f16, G>>(name, name, c"T", f16::DATA_TYPE)?;
    kernel::register::<Node<bf16, G>>(name, name, c"T", bf16::DATA_TYPE)?;
    kernel::register::<Node<f32, G>>(name, name, c"T", f32::DATA_TYPE)?;
    kernel::register::<Node<f64, G>>(name, name, c"T", f64::DATA_TYPE)
}

struct OutputShape<G>(PhantomData<G>);

impl<G: Gradient> ShapeFunction for OutputShape<G> {
    fn infer(inference: &Inference) -> Result<(), Failure> {
        inference.set_output(0, &G::SHAPE)
    }
}

/// The kernel of one node.
struct Node<T, G: Gradient> {
    order: G::Order,
    _element: PhantomData<fn() -> T>,
}

impl<T: Element + TensorElement, G: Gradient> Kernel for Node<T, G> {
    fn new(construction: &Construction) -> Result<Self, Failure> {
        let order = construction.string(c"numerics")?.parse::<G::Order>().map_err(sepconv::Error::from)?;
        Ok(Self { order, _element: PhantomData })
    }

    fn compute(&self, context: &Context) -> Result<(), Failure> {
        let inputs = 0..G::OP.inputs.len() as i32;
        let mut tensors = inputs.map(|i| context.input(i)).collect::<Result<Vec<_>, _>>()?;
        let attributes = if G::OP.inputs.last() == Some(&c"geometry: int32") {
            let dims =
                tensors.pop().map(|tensor| tensor.shape().iter().map(|&extent| extent as i64).collect::<Vec<_>>());
            carrier::decode(&dims.unwrap_or_default()).map_err(Failure::invalid_argument)?
        } else {
            // Of a matrix product.
            Attributes { strides: [1, 1], padding: sepconv::Padding::Valid, rate: [1, 1] }
        };
        for (tensor, name) in tensors.iter().zip(G::OP.inputs) {
            if tensor.shape().len() != 4 {
                let argument = name.to_str().unwrap_or_default().trim_end_matches(": T");
                return Err(sepconv::Error::Rank { argument, shape: tensor.shape().to_vec() }.into());
            }
        }
        let extent = |extent: Extent| match extent {
            Extent::Of { input, axis, .. } => tensors[input as usize].shape()[axis as usize],
            Extent::Known(extent) => extent,
            Extent::Unknown => 0,
        };
        let shape = G::SHAPE.map(extent);
        let mut output = context.allocate_output::<T>(0, &shape)?;
        let elements = output.elements_mut::<T>()?;
        // SAFETY: the gradients write elements and nothing else, so none of them becomes uninitialised.
        let elements = unsafe { std::slice::from_raw_parts_mut(elements.as_mut_ptr().cast(), elements.len()) };
        let Attributes { strides, padding, rate } = attributes;
        let convolution = threads::team()?.on(SeparableConv2d::new(strides, padding, rate));
        G::compute::<T>(convolution, &self.order, &tensors, shape, elements)?;
        statistics::GRADIENT_CALLS.add();
        Ok(())
    }
}

fn views<T: TensorElement, const N: usize>(tensors: &[Tensor]) -> Result<[ArrayView4<'_, T>; N], Failure> {
    let view = |tensor| -> Result<_, Failure> {
        let shape: [usize; 4] = Tensor::shape(tensor).try_into().unwrap_or_default();
        ArrayView4::from_shape(shape, tensor.elements::<T>()?).map_err(|_| sepconv::Error::TooLarge.into())
    };
    let views = tensors.iter().map(view).collect::<Result<Vec<_>, _>>()?;
    views.try_into().map_err(|_| Failure::internal("another number of inputs than the op has"))
}
