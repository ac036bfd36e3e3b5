//! The op and its kernels: TensorFlow's tensors in, [`sepconv::SeparableConv2d`] on the calling thread and ours,
//! TensorFlow's tensor out.

use std::ffi::CStr;
use std::sync::{Arc, Mutex, PoisonError};

use half::{bf16, f16};
use ndarray::{ArrayView4, ArrayViewMut4};
use rayon::ThreadPool;
use sepconv::{Element, Geometry, Orders, Plan, SeparableConv2d};

use crate::carrier;
use crate::shape_function::OutputShape;
use crate::statistics::{self, Counter};
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

/// The op's definition and shape function. TensorFlow may end the process if it is there already.
pub fn register_op() -> Result<(), Failure> {
    OP.register::<OutputShape>()
}

/// The kernel of every element type that is served.
pub fn register_kernels() -> Result<(), Failure> {
    register::<f16>()?;
    register::<bf16>()?;
    register::<f32>()?;
    register::<f64>()
}

/// An element type that the op serves.
trait Served: Element + TensorElement {
    const KERNEL_NAME: &'static CStr;
    const CALLS: &'static Counter;
}

macro_rules! served {
    ($type:ty, $name:literal, $calls:ident) => {
        impl Served for $type {
            const KERNEL_NAME: &'static CStr = $name;
            const CALLS: &'static Counter = &statistics::$calls;
        }
    };
}

served!(f16, c"SepconvSeparableConv2DFloat16", FLOAT16_CALLS);
served!(bf16, c"SepconvSeparableConv2DBfloat16", BFLOAT16_CALLS);
served!(f32, c"SepconvSeparableConv2DFloat32", FLOAT32_CALLS);
served!(f64, c"SepconvSeparableConv2DFloat64", FLOAT64_CALLS);

fn register<T: Served>() -> Result<(), Failure> {
    kernel::register::<Node<T>>(OP.name, T::KERNEL_NAME, c"T", T::DATA_TYPE)
}

/// The kernel of one node.
struct Node<T: Served> {
    orders: Orders,
    /// Whether the filters never change while somebody holds them: then they are packed once.
    constant_filters: bool,
    packed: Mutex<Option<Arc<Packed<T>>>>,
}

impl<T: Served> Kernel for Node<T> {
    fn new(construction: &Construction) -> Result<Self, Failure> {
        let orders = construction.string(c"numerics")?.parse::<Orders>().map_err(sepconv::Error::from)?;
        let constant_filters = construction.boolean(c"constant_filters")?;
        Ok(Self { orders, constant_filters, packed: Mutex::new(None) })
    }

    fn compute(&self, context: &Context) -> Result<(), Failure> {
        let input = context.input(0)?;
        let filters = [context.input(1)?, context.input(2)?];
        let dims: Vec<_> = context.input(3)?.shape().iter().map(|&extent| extent as i64).collect();
        let attributes = carrier::decode(&dims).map_err(Failure::invalid_argument)?;
        let geometry = Geometry::new(input.shape(), filters[0].shape(), filters[1].shape(), &attributes)?;
        let numerics = self.orders.pick(geometry.batch, geometry.rows());
        // Whatever can be refused is refused before memory is taken.
        numerics.check(geometry.k())?;
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
            self.packed(convolution, filters, &geometry, &pool)?.plan.run_into(input, output)?;
        } else {
            let [depthwise_filter, pointwise_filter] = views::<T>(&filters, &geometry)?;
            convolution().run_into(input, depthwise_filter, pointwise_filter, output)?;
        }
        statistics::KERNEL_CALLS.add();
        T::CALLS.add();
        Ok(())
    }
}

/// What the calls of one geometry share.
struct Packed<T: Served> {
    plan: Plan<T>,
    geometry: Geometry,
    pool: Arc<ThreadPool>,
    /// Nobody can put others in their places while these are held.
    filters: [Tensor; 2],
}

impl<T: Served> Node<T> {
    /// What the last call packed, if it was the same, or packed anew.
    fn packed(
        &self,
        convolution: impl FnOnce() -> SeparableConv2d,
        filters: [Tensor; 2],
        geometry: &Geometry,
        pool: &Arc<ThreadPool>,
    ) -> Result<Arc<Packed<T>>, Failure> {
        let views = views::<T>(&filters, geometry)?;
        let mut last = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(packed) =
            last.as_ref().filter(|packed| packed.geometry == *geometry && Arc::ptr_eq(&packed.pool, pool))
        {
            let before = self::views::<T>(&packed.filters, geometry)?;
            if before.map(|filter| filter.as_ptr()) == views.map(|filter| filter.as_ptr()) {
                return Ok(packed.clone());
            }
        }
        let plan = convolution().plan(geometry.input_shape(), views[0], views[1])?;
        let packed = Arc::new(Packed { plan, geometry: *geometry, pool: pool.clone(), filters });
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
fn too_large(_: ndarray::ShapeError) -> Failure {
    sepconv::Error::TooLarge.into()
}
