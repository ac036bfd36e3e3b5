//! The op, the same with steps behind its parts, and their kernels: TensorFlow's tensors in, [`sepconv::SeparableConv2d`] on
//! the calling thread and ours, TensorFlow's tensor out.

use std::ffi::CStr;
use std::sync::{Arc, Mutex, PoisonError};

use half::{bf16, f16};
use ndarray::{ArrayView4, ArrayViewMut4};
use rayon::ThreadPool;
use sepconv::epilogue::Epilogues;
use sepconv::{Element, Geometry, Orders, Plan, SeparableConv2d};

use crate::carrier;
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
/// after the other: vectors, which may have ones in front of their channels. Constant are then filters and numbers.
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
    /// Whether the filters never change while somebody holds them: then they are packed once.
    constant_filters: bool,
    /// Behind the depthwise and the pointwise part.
    steps: [Vec<Word>; 2],
    packed: Mutex<Option<Arc<Packed<T>>>>,
}

impl<T: Served, const FUSED: bool> Kernel for Node<T, FUSED> {
    fn new(construction: &Construction) -> Result<Self, Failure> {
        let orders = construction.string(c"numerics")?.parse::<Orders>().map_err(sepconv::Error::from)?;
        let constant_filters = construction.boolean(c"constant_filters")?;
        let mut words = [Vec::new(), Vec::new()];
        for (words, attribute) in words.iter_mut().zip([c"depthwise_steps", c"pointwise_steps"]).filter(|_| FUSED) {
            *words = steps::of_attribute(construction, attribute)?;
        }
        Ok(Self { orders, constant_filters, steps: words, packed: Mutex::new(None) })
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
        let constants =
            Constants { filters, numbers: steps::numbers(context, OP.inputs.len(), self.steps.iter().flatten())? };
        let mut output = context.allocate_output::<T>(0, &geometry.output_shape())?;
        let input = view::<T>(&input, geometry.input_shape())?;
        let output =
            ArrayViewMut4::from_shape(geometry.output_shape(), output.elements_mut::<T>()?).map_err(too_large)?;
        let pool = threads::pool()?;
        let convolution = || {
            SeparableConv2d::new(attributes.strides, attributes.padding, attributes.rate)
                .numerics(numerics.into_owned())
                .pool(pool.clone())
        };
        if self.constant_filters {
            self.packed(convolution, constants, &geometry, &pool)?.plan.run_into(input, output)?;
        } else {
            let [depthwise_filter, pointwise_filter] = views::<T>(&constants.filters, &geometry)?;
            let epilogues = self.epilogues(&constants.numbers)?;
            convolution().with_steps(&epilogues).run_into(input, depthwise_filter, pointwise_filter, output)?;
        }
        statistics::KERNEL_CALLS.add();
        T::CALLS.add();
        if FUSED {
            statistics::FUSED_CALLS.add();
        }
        Ok(())
    }
}

/// The filters, and the numbers of the steps that have some.
struct Constants {
    filters: [Tensor; 2],
    numbers: Vec<Tensor>,
}

impl Constants {
    fn all(&self) -> impl Iterator<Item = &Tensor> {
        self.filters.iter().chain(&self.numbers)
    }
}

/// What the calls of one geometry share.
struct Packed<T: Served> {
    plan: Plan<T>,
    geometry: Geometry,
    pool: Arc<ThreadPool>,
    /// Nobody can put others in their places while these are held.
    constants: Constants,
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

    /// What the last call packed, if it was the same, or packed anew.
    fn packed(
        &self,
        convolution: impl FnOnce() -> SeparableConv2d,
        constants: Constants,
        geometry: &Geometry,
        pool: &Arc<ThreadPool>,
    ) -> Result<Arc<Packed<T>>, Failure> {
        let mut last = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(packed) =
            last.as_ref().filter(|packed| packed.geometry == *geometry && Arc::ptr_eq(&packed.pool, pool))
        {
            let same = |(a, b): (&Tensor, &Tensor)| match (a.elements::<T>(), b.elements::<T>()) {
                (Ok(a), Ok(b)) => std::ptr::eq(a, b),
                _ => false,
            };
            if packed.constants.all().zip(constants.all()).all(same) {
                return Ok(packed.clone());
            }
        }
        let [depthwise_filter, pointwise_filter] = views::<T>(&constants.filters, geometry)?;
        let epilogues = self.epilogues(&constants.numbers)?;
        let convolution = convolution();
        let plan =
            convolution.with_steps(&epilogues).plan(geometry.input_shape(), depthwise_filter, pointwise_filter)?;
        let packed = Arc::new(Packed { plan, geometry: *geometry, pool: pool.clone(), constants });
        *last = Some(packed.clone());
        Ok(packed)
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
