//! The ops of the convolution and of its pointwise part alone, and their kernels: TensorFlow's tensors in,
//! [`sepconv::SeparableConv2d`] on the calling thread and ours, TensorFlow's tensor out.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use half::{bf16, f16};
use ndarray::{ArrayView4, ArrayViewMut4};
use sepconv::epilogue::Epilogues;
use sepconv::{Attributes, Element, Geometry, Orders, Plan, SeparableConv2d};

use crate::carrier;
use crate::form::{Form, Fused, Plain, PointwiseAlone};
use crate::keeper::{Call, Keeper};
use crate::shape_function::{OutputShape, PointwiseShape};
use crate::statistics::{self, Counter};
use crate::steps::{self, Word};
use crate::tensorflow::kernel::{self, Construction, Context, Kernel};
use crate::tensorflow::status::Failure;
use crate::tensorflow::tensor::{Tensor, TensorElement};
use crate::threads;

/// The ops' definitions and shape functions. TensorFlow may end the process if they are there already.
pub fn register_ops() -> Result<(), Failure> {
    Plain::OP.register::<OutputShape>()?;
    Fused::OP.register::<OutputShape>()?;
    PointwiseAlone::OP.register::<PointwiseShape>()
}

/// The kernels of every element type that is served.
pub fn register_kernels() -> Result<(), Failure> {
    register::<f16>()?;
    register::<bf16>()?;
    register::<f32>()?;
    register::<f64>()
}

/// An element type that the ops serve.
trait Served: Element + TensorElement {
    const KERNEL_NAMES: [&'static CStr; 3];
    const CALLS: &'static Counter;
}

macro_rules! served {
    ($type:ty, [$($name:literal),*], $calls:ident) => {
        impl Served for $type {
            const KERNEL_NAMES: [&'static CStr; 3] = [$($name),*];
            const CALLS: &'static Counter = &statistics::$calls;
        }
    };
}

served!(
    f16,
    [c"SepconvSeparableConv2DFloat16", c"SepconvFusedSeparableConv2DFloat16", c"SepconvFusedPointwiseConv2DFloat16"],
    FLOAT16_CALLS
);
served!(
    bf16,
    [c"SepconvSeparableConv2DBfloat16", c"SepconvFusedSeparableConv2DBfloat16", c"SepconvFusedPointwiseConv2DBfloat16"],
    BFLOAT16_CALLS
);
served!(
    f32,
    [c"SepconvSeparableConv2DFloat32", c"SepconvFusedSeparableConv2DFloat32", c"SepconvFusedPointwiseConv2DFloat32"],
    FLOAT32_CALLS
);
served!(
    f64,
    [c"SepconvSeparableConv2DFloat64", c"SepconvFusedSeparableConv2DFloat64", c"SepconvFusedPointwiseConv2DFloat64"],
    FLOAT64_CALLS
);

fn register<T: Served>() -> Result<(), Failure> {
    let [plain, fused, pointwise] = T::KERNEL_NAMES;
    register_form::<T, Plain>(plain)?;
    register_form::<T, Fused>(fused)?;
    register_form::<T, PointwiseAlone>(pointwise)
}

fn register_form<T: Served, F: Form>(name: &CStr) -> Result<(), Failure> {
    kernel::register::<Node<T, F>>(F::OP.name, name, c"T", T::DATA_TYPE)
}

/// The kernel of one node.
struct Node<T: Served, F> {
    orders: Orders,
    /// Whether nobody changes the pointwise filter in its place while it is held: a constant, or what is read from a variable.
    constant_filters: bool,
    /// Behind the depthwise and the pointwise part.
    steps: [Vec<Word>; 2],
    keeper: Mutex<Keeper<T>>,
    _form: PhantomData<fn() -> F>,
}

/// The filters of a call.
struct Filters {
    /// None of the pointwise part alone.
    depthwise: Option<Tensor>,
    pointwise: Tensor,
}

impl<T: Served, F: Form> Kernel for Node<T, F> {
    fn new(construction: &Construction) -> Result<Self, Failure> {
        let orders = construction.string(c"numerics")?.parse::<Orders>().map_err(sepconv::Error::from)?;
        let constant_filters = construction.boolean(c"constant_filters")?;
        let mut words = [Vec::new(), Vec::new()];
        for (words, attribute) in words.iter_mut().zip(F::STEPS) {
            if let Some(attribute) = attribute {
                *words = steps::of_attribute(construction, attribute)?;
            }
        }
        let keeper = Mutex::new(Keeper::new());
        Ok(Self { orders, constant_filters, steps: words, keeper, _form: PhantomData })
    }

    fn compute(&self, context: &Context) -> Result<(), Failure> {
        let input = context.input(0)?;
        let depthwise = if F::DEPTHWISE { Some(context.input(1)?) } else { None };
        let filters = Filters { depthwise, pointwise: context.input(F::POINTWISE_FILTER)? };
        let dims: Vec<_> =
            context.input(F::POINTWISE_FILTER + 1)?.shape().iter().map(|&extent| extent as i64).collect();
        let attributes = carrier::decode(&dims).map_err(Failure::invalid_argument)?;
        let geometry = filters.geometry(&input, &attributes)?;
        let numerics = self.orders.pick(geometry.batch, geometry.rows());
        // What can be refused by shapes and orders is refused before memory is taken.
        numerics.check(geometry.k())?;
        let numbers = steps::numbers(context, F::POINTWISE_FILTER as usize + 2, self.steps.iter().flatten())?;
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
                let (depthwise_filter, pointwise_filter) = filters.views::<T>(&geometry)?;
                let (convolution, epilogues) = (convolution(), self.epilogues(&numbers)?);
                let convolution = convolution.with_steps(&epilogues);
                match depthwise_filter {
                    Some(filter) => convolution.run_into(input, filter, pointwise_filter, output)?,
                    None => convolution.pointwise_into(input, pointwise_filter, output)?,
                }
            }
        }
        F::count(T::CALLS);
        Ok(())
    }
}

impl<T: Served, F: Form> Node<T, F> {
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
        filters: &Filters,
        numbers: &[Tensor],
    ) -> Result<Option<Arc<Plan<T>>>, Failure> {
        if !self.constant_filters {
            return Ok(None);
        }
        let small = filters.depthwise.iter().chain(numbers).map(Tensor::elements).collect::<Result<Vec<&[T]>, _>>()?;
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = keeper.last(call, &filters.pointwise, &small)? {
            return Ok(Some(plan));
        }
        let (depthwise_filter, pointwise_filter) = filters.views::<T>(&call.geometry)?;
        let convolution = convolution();
        let hold = || context.input(F::POINTWISE_FILTER);
        let pack = || Ok(convolution.pack(pointwise_filter)?);
        let Some(packed) = keeper.packed(&convolution, &filters.pointwise, hold, pack)? else {
            return Ok(None);
        };
        let epilogues = self.epilogues(numbers)?;
        let (convolution, input) = (convolution.with_steps(&epilogues), call.geometry.input_shape());
        let plan = match depthwise_filter {
            Some(filter) => convolution.plan_packed(input, filter, &packed)?,
            None => convolution.plan_pointwise(input, &packed)?,
        };
        Ok(Some(keeper.keep(call.clone(), &small, plan)))
    }
}

impl Filters {
    fn geometry(&self, input: &Tensor, attributes: &Attributes) -> Result<Geometry, sepconv::Error> {
        let (input, pointwise) = (input.shape(), self.pointwise.shape());
        match &self.depthwise {
            Some(depthwise) => Geometry::new(input, depthwise.shape(), pointwise, attributes),
            None => Geometry::pointwise(input, pointwise, attributes),
        }
    }

    /// The depthwise and the pointwise filter.
    fn views<T: Served>(&self, g: &Geometry) -> Result<(Option<ArrayView4<'_, T>>, ArrayView4<'_, T>), Failure> {
        let depthwise = self.depthwise.as_ref().map(|filter| view(filter, g.depthwise_filter_shape())).transpose()?;
        Ok((depthwise, view(&self.pointwise, g.pointwise_filter_shape())?))
    }
}

fn view<T: Served>(tensor: &Tensor, shape: [usize; 4]) -> Result<ArrayView4<'_, T>, Failure> {
    ArrayView4::from_shape(shape, tensor.elements::<T>()?).map_err(too_large)
}

/// As many elements as the shape has are there; what may be wrong is an array of none with enormous extents.
pub fn too_large(_: ndarray::ShapeError) -> Failure {
    sepconv::Error::TooLarge.into()
}
