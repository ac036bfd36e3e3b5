//! The op, the same with steps behind its parts, and their kernels: TensorFlow's tensors in, [`sepconv::SeparableConv2d`] on
//! the calling thread and ours, TensorFlow's tensor out.

use std::ffi::CStr;
use std::sync::{Arc, Mutex, PoisonError};

use half::{bf16, f16};
use ndarray::{ArrayView4, ArrayViewMut4};
use sepconv::epilogue::Epilogues;
use sepconv::{Element, Geometry, Orders, Plan, SeparableConv2d};

use crate::carrier;
use crate::keeper::{Call, Keeper};
use crate::shape_function::OutputShape;
use crate::statistics::{self, Counter};
use crate::steps::{self, Word};
use crate::tensorflow::kernel::{self, Construction, Context, Kernel};
use crate::tensorflow::op::Op;
use crate::tensorflow::status::Failure;
use crate::tensorflow::tensor::{Tensor, TensorElement};
use crate::threads;

/// Saved graphs hold these names.
const OP: Op = Op {
    name: c"Sepconv>SeparableConv2D",
    attrs: &[c"T: {half, bfloat16, float, double}", c"numerics: string", c"constant_filters: bool = false"],
    inputs: &[c"input: T", c"depthwise_filter: T", c"pointwise_filter: T", c"geometry: int32"],
    outputs: &[c"output: T"],
};

/// The same with [steps] behind the depthwise and the pointwise part, in words, and the numbers of those that have some, one
/// after the other: vectors, which may have ones in front of their channels.
const FUSED_OP: Op = Op {
    name: c"Sepconv>FusedSeparableConv2D",
    attrs: &[
        c"T: {half, bfloat16, float, double}",
        c"N: int >= 0",
        c"numerics: string",
        c"constant_filters: bool = false",
        c"depthwise_steps: string = ''",
        c"pointwise_steps: string = ''",
    ],
    inputs: &[c"input: T", c"depthwise_filter: T", c"pointwise_filter: T", c"geometry: int32", c"numbers: N * T"],
    outputs: &[c"output: T"],
};

/// The ops' definitions and shape function. TensorFlow may end the process if they are there already.
pub fn register_ops() -> Result<(), Failure> {
    OP.register::<OutputShape>()?;
    FUSED_OP.register::<OutputShape>()
}

/// The kernels of every element type that is served.
pub fn register_kernels() -> Result<(), Failure> {
    register::<f16>()?;
    register::<bf16>()?;
    register::<f32>()?;
    register::<f64>()
}

/// An element type that the op serves.
trait Served: Element + TensorElement {
    const KERNEL_NAMES: [&'static CStr; 2];
    const CALLS: &'static Counter;
}

macro_rules! served {
    ($type:ty, $name:literal, $fused:literal, $calls:ident) => {
        impl Served for $type {
            const KERNEL_NAMES: [&'static CStr; 2] = [$name, $fused];
            const CALLS: &'static Counter = &statistics::$calls;
        }
    };
}

served!(f16, c"SepconvSeparableConv2DFloat16", c"SepconvFusedSeparableConv2DFloat16", FLOAT16_CALLS);
served!(bf16, c"SepconvSeparableConv2DBfloat16", c"SepconvFusedSeparableConv2DBfloat16", BFLOAT16_CALLS);
served!(f32, c"SepconvSeparableConv2DFloat32", c"SepconvFusedSeparableConv2DFloat32", FLOAT32_CALLS);
served!(f64, c"SepconvSeparableConv2DFloat64", c"SepconvFusedSeparableConv2DFloat64", FLOAT64_CALLS);

fn register<T: Served>() -> Result<(), Failure> {
    let [name, fused] = T::KERNEL_NAMES;
    kernel::register::<Node<T, false>>(OP.name, name, c"T", T::DATA_TYPE)?;
    kernel::register::<Node<T, true>>(FUSED_OP.name, fused, c"T", T::DATA_TYPE)
}

/// The kernel of one node.
struct Node<T: Served, const FUSED: bool> {
    orders: Orders,
    /// Whether nobody changes the pointwise filter in its place while it is held: a constant, or what is read from a variable.
    constant_filters: bool,
    /// Behind the depthwise and the pointwise part.
    steps: [Vec<Word>; 2],
    keeper: Mutex<Keeper<T>>,
}

impl<T: Served, const FUSED: bool> Kernel for Node<T, FUSED> {
    fn new(construction: &Construction) -> Result<Self, Failure> {
        let orders = construction.string(c"numerics")?.parse::<Orders>().map_err(sepconv::Error::from)?;
        let constant_filters = construction.boolean(c"constant_filters")?;
        let mut words = [Vec::new(), Vec::new()];
        for (words, attribute) in words.iter_mut().zip([c"depthwise_steps", c"pointwise_steps"]).filter(|_| FUSED) {
            *words = steps::of_attribute(construction, attribute)?;
        }
        Ok(Self { orders, constant_filters, steps: words, keeper: Mutex::new(Keeper::new()) })
    }

    fn compute(&self, context: &Context) -> Result<(), Failure> {
        let input = context.input(0)?;
        let filters = [context.input(1)?, context.input(2)?];
        let dims: Vec<_> = context.input(3)?.shape().iter().map(|&extent| extent as i64).collect();
        let attributes = carrier::decode(&dims).map_err(Failure::invalid_argument)?;
        let geometry = Geometry::new(input.shape(), filters[0].shape(), filters[1].shape(), &attributes)?;
        let numerics = self.orders.pick(geometry.batch, geometry.rows());
        // What can be refused by shapes and orders is refused before memory is taken.
        numerics.check(geometry.k())?;
        let numbers = steps::numbers(context, OP.inputs.len(), self.steps.iter().flatten())?;
        let mut output = context.allocate_output::<T>(0, &geometry.output_shape())?;
        let input = view::<T>(&input, geometry.input_shape())?;
        let output =
            ArrayViewMut4::from_shape(geometry.output_shape(), output.elements_mut::<T>()?).map_err(too_large)?;
        let call = Call { geometry, team: threads::team()? };
        let convolution = || {
            let convolution = SeparableConv2d::new(attributes.strides, attributes.padding, attributes.rate);
            call.team.on(convolution.numerics(numerics.as_ref().clone()))
        };
        match self.plan(context, convolution, &call, &filters, &numbers)? {
            Some(plan) => plan.run_into(input, output)?,
            None => {
                let [depthwise_filter, pointwise_filter] = views::<T>(&filters, &geometry)?;
                let epilogues = self.epilogues(&numbers)?;
                convolution().with_steps(&epilogues).run_into(input, depthwise_filter, pointwise_filter, output)?;
            }
        }
        statistics::KERNEL_CALLS.add();
        T::CALLS.add();
        if FUSED {
            statistics::FUSED_CALLS.add();
        }
        Ok(())
    }
}

impl<T: Served, const FUSED: bool> Node<T, FUSED> {
    fn epilogues<'a>(&self, numbers: &'a [Tensor]) -> Result<Epilogues<'a, T>, Failure> {
        let [depthwise, pointwise] = &self.steps;
        let mut numbers = numbers.iter();
        Ok(Epilogues {
            depthwise: steps::with_numbers(depthwise, &mut numbers)?,
            pointwise: steps::with_numbers(pointwise, &mut numbers)?,
        })
    }

    /// For this call, if its pointwise filter is kept.
    fn plan(
        &self,
        context: &Context,
        convolution: impl FnOnce() -> SeparableConv2d,
        call: &Call,
        filters: &[Tensor; 2],
        numbers: &[Tensor],
    ) -> Result<Option<Arc<Plan<T>>>, Failure> {
        if !self.constant_filters {
            return Ok(None);
        }
        let small = filters[..1].iter().chain(numbers).map(Tensor::elements).collect::<Result<Vec<&[T]>, _>>()?;
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = keeper.last(call, &filters[1], &small)? {
            return Ok(Some(plan));
        }
        let [depthwise_filter, pointwise_filter] = views::<T>(filters, &call.geometry)?;
        let convolution = convolution();
        let pack = || Ok(convolution.pack(pointwise_filter)?);
        let Some(packed) = keeper.packed(&convolution, &filters[1], || context.input(2), pack)? else {
            return Ok(None);
        };
        let epilogues = self.epilogues(numbers)?;
        let convolution = convolution.with_steps(&epilogues);
        let plan = convolution.plan_packed(call.geometry.input_shape(), depthwise_filter, &packed)?;
        Ok(Some(keeper.keep(call.clone(), &small, plan)))
    }
}

/// The depthwise and the pointwise filter.
fn views<'a, T: Served>(filters: &'a [Tensor; 2], geometry: &Geometry) -> Result<[ArrayView4<'a, T>; 2], Failure> {
    let [depthwise_filter, pointwise_filter] = filters;
    Ok([
        view(depthwise_filter, geometry.depthwise_filter_shape())?,
        view(pointwise_filter, geometry.pointwise_filter_shape())?,
    ])
}

fn view<T: Served>(tensor: &Tensor, shape: [usize; 4]) -> Result<ArrayView4<'_, T>, Failure> {
    ArrayView4::from_shape(shape, tensor.elements::<T>()?).map_err(too_large)
}

/// As many elements as the shape has are there; what may be wrong is an array of none with enormous extents.
pub fn too_large(_: ndarray::ShapeError) -> Failure {
    sepconv::Error::TooLarge.into()
}
