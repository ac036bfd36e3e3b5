//! The convolution as a caller sees it.

use std::mem::MaybeUninit;
use std::sync::Arc;

use ndarray::{Array4, ArrayView4, ArrayViewMut4, s};
use rayon::ThreadPool;

use crate::element::Element;
use crate::epilogue::Epilogues;
use crate::error::Error;
use crate::geometry::{Attributes, Geometry, Padding};
use crate::kernels::InstructionSet;
use crate::kernels::pointwise::Packed;
use crate::numerics::Numerics;
use crate::plan::{self, Layer, Workers};

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

/// As many as anybody has, and few enough to be counted with.
const MOST_THREADS: usize = 1024;

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
    pub(crate) attributes: Attributes,
    pub(crate) numerics: Numerics,
    pool: Option<Arc<ThreadPool>>,
    threads: Option<usize>,
    set: Option<InstructionSet>,
}

impl SeparableConv2d {
    /// With the numerics [`Numerics::REPRODUCIBLE`].
    pub fn new(strides: [i64; 2], padding: Padding, rate: [i64; 2]) -> Self {
        let attributes = Attributes { strides, padding, rate };
        Self { attributes, numerics: Numerics::REPRODUCIBLE, pool: None, threads: None, set: None }
    }

    /// The same with other numerics.
    pub fn numerics(self, numerics: Numerics) -> Self {
        Self { numerics, ..self }
    }

    /// The same with the help of that pool rather than of the current one: on at most as many threads as it has, the calling
    /// one included. Calls at the same time share them.
    pub fn pool(self, pool: Arc<ThreadPool>) -> Self {
        Self { pool: Some(pool), ..self }
    }

    /// The same on at most so many threads, the calling one included, instead of as many as the pool has. Best is a pool that has
    /// one fewer: of a larger one, rayon wakes a thread for which there is no work, and which gets in the way of the others.
    pub fn threads(self, threads: usize) -> Self {
        Self { threads: Some(threads.clamp(1, MOST_THREADS)), ..self }
    }

    /// Shapes, errors and meaning are those of [`separable_conv2d`]. Small work stays on the calling thread.
    pub fn run<T: Element>(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: ArrayView4<T>,
        pointwise_filter: ArrayView4<T>,
    ) -> Result<Array4<T>, Error> {
        self.with_steps(&Epilogues::NONE).run(input, depthwise_filter, pointwise_filter)
    }

    /// As [`run`](Self::run), into an array of the output's shape.
    pub fn run_into<T: Element>(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: ArrayView4<T>,
        pointwise_filter: ArrayView4<T>,
        output: ArrayViewMut4<T>,
    ) -> Result<(), Error> {
        self.with_steps(&Epilogues::NONE).run_into(input, depthwise_filter, pointwise_filter, output)
    }

    /// The depthwise part alone: (batch, height, width, in_channels * channel_multiplier). Of the numerics only its own half
    /// counts.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub fn depthwise<T: Element>(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: ArrayView4<T>,
    ) -> Result<Array4<T>, Error> {
        self.with_steps(&Epilogues::NONE).depthwise(input, depthwise_filter)
    }

    /// The pointwise part alone: (batch, height, width, out_channels) of an input that has k channels and a filter of shape
    /// (1, 1, k, out_channels), a 1x1 convolution. It takes up the input's own values, of as many pixels apart as the strides
    /// say (with a rate above 1, in TensorFlow's way), and zeros where it is padded. Of the numerics only its own half counts.
    ///
    /// ```
    /// use ndarray::{Array4, array};
    /// use sepconv::{Padding, SeparableConv2d};
    ///
    /// let input = Array4::from_shape_fn((1, 4, 4, 1), |(_, y, x, _)| (4 * y + x) as f32);
    /// let filter = array![[[[1.0, -1.0]]]];
    /// let output = SeparableConv2d::new([2, 2], Padding::Same, [1, 1]).pointwise(input.view(), filter.view())?;
    /// assert_eq!(output, array![[[[0.0, -0.0], [2.0, -2.0]], [[8.0, -8.0], [10.0, -10.0]]]]);
    /// # Ok::<(), sepconv::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`run`](Self::run), the input's channels being the pointwise filter's.
    pub fn pointwise<T: Element>(
        &self,
        input: ArrayView4<T>,
        pointwise_filter: ArrayView4<T>,
    ) -> Result<Array4<T>, Error> {
        self.with_steps(&Epilogues::NONE).pointwise(input, pointwise_filter)
    }

    /// Does ahead what the calls of one geometry with the same filters share, above all packing the filters.
    ///
    /// # Errors
    /// Those of [`run`](Self::run) that do not depend on the input's values.
    pub fn plan<T: Element>(
        &self,
        input_shape: [usize; 4],
        depthwise_filter: ArrayView4<T>,
        pointwise_filter: ArrayView4<T>,
    ) -> Result<Plan<T>, Error> {
        self.with_steps(&Epilogues::NONE).plan(input_shape, depthwise_filter, pointwise_filter)
    }

    /// Packs a pointwise filter ahead, for [plans](WithSteps::plan_packed) of whatever images, depthwise filters and steps, by
    /// this convolution or others that it is [for](PackedFilter::is_for).
    ///
    /// # Errors
    /// Another shape than (1, 1, k, out_channels), k being what the numerics add up; no memory.
    pub fn pack<T: Element>(&self, pointwise_filter: ArrayView4<T>) -> Result<PackedFilter<T>, Error> {
        let (height, width, k, columns) = pointwise_filter.dim();
        if (height, width) != (1, 1) {
            return Err(Error::Pointwise { got: [height, width, k], k });
        }
        self.numerics.pointwise.check(k)?;
        let Workers { set, pool, threads } = self.workers(k.saturating_mul(columns));
        let filter = pointwise_filter.slice_move(s![0, 0, .., ..]);
        Ok(PackedFilter(Arc::new(Packed::new(T::kernel(set), filter, &self.numerics, pool, threads)?)))
    }

    /// The same with steps behind the depthwise and the pointwise part.
    pub fn with_steps<'a, T: Element>(&'a self, epilogues: &'a Epilogues<'a, T>) -> WithSteps<'a, T> {
        WithSteps { convolution: self, epilogues }
    }

    fn set(&self) -> InstructionSet {
        self.set.unwrap_or_else(InstructionSet::preferred)
    }

    /// Those of so many multiplications.
    pub(crate) fn workers(&self, multiplications: usize) -> Workers<'_> {
        let threads = match (self.threads, &self.pool) {
            _ if plan::are_few(multiplications) => 1,
            (Some(threads), _) => threads,
            (None, Some(pool)) => pool.current_num_threads(),
            (None, None) => rayon::current_num_threads(),
        };
        Workers { set: self.set(), pool: self.pool.as_deref(), threads }
    }

    /// On that instruction set; the bits are the same on every one.
    #[doc(hidden)]
    pub fn on(self, set: InstructionSet) -> Self {
        Self { set: Some(set), ..self }
    }
}

/// A [`SeparableConv2d`] with [steps](crate::epilogue) behind its two parts: [`SeparableConv2d::with_steps`] makes it.
///
/// ```
/// use ndarray::Array4;
/// use sepconv::epilogue::{Epilogues, Step};
/// use sepconv::{Padding, SeparableConv2d};
///
/// // As in MobileNet: batch normalisation and ReLU6 behind each part.
/// let (scale, offset) = ([0.5f32; 8], [1.0; 8]);
/// let depthwise = vec![Step::Multiply(&scale), Step::Add(&offset), Step::Relu6];
/// let epilogues = Epilogues { depthwise, pointwise: vec![Step::Relu] };
/// let (input, depthwise_filter) = (Array4::ones((1, 6, 6, 8)), Array4::ones((3, 3, 8, 1)));
/// let pointwise_filter = Array4::ones((1, 1, 8, 4));
/// let output = SeparableConv2d::new([1, 1], Padding::Valid, [1, 1])
///     .with_steps(&epilogues)
///     .run(input.view(), depthwise_filter.view(), pointwise_filter.view())?;
/// assert_eq!(output, Array4::from_elem((1, 4, 4, 4), 44.0)); // 8 times min(9 * 0.5 + 1, 6)
/// # Ok::<(), sepconv::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct WithSteps<'a, T: Element> {
    convolution: &'a SeparableConv2d,
    epilogues: &'a Epilogues<'a, T>,
}

impl<T: Element> WithSteps<'_, T> {
    /// As [`SeparableConv2d::run`].
    ///
    /// # Errors
    /// Its own, and steps that have not a number for each channel.
    pub fn run(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: ArrayView4<T>,
        pointwise_filter: ArrayView4<T>,
    ) -> Result<Array4<T>, Error> {
        self.result(input, Some(depthwise_filter), pointwise_filter)
    }

    /// As [`SeparableConv2d::run_into`].
    ///
    /// # Errors
    /// Those of [`run`](Self::run), and an output of another shape.
    pub fn run_into(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: ArrayView4<T>,
        pointwise_filter: ArrayView4<T>,
        output: ArrayViewMut4<T>,
    ) -> Result<(), Error> {
        self.result_into(input, Some(depthwise_filter), pointwise_filter, output)
    }

    /// As [`SeparableConv2d::depthwise`], with the steps behind that part.
    ///
    /// # Errors
    /// Its own, and steps that have not a number for each channel.
    pub fn depthwise(&self, input: ArrayView4<T>, depthwise_filter: ArrayView4<T>) -> Result<Array4<T>, Error> {
        let geometry = self.depthwise_geometry(&input, &depthwise_filter)?;
        let shape = geometry.output_shape();
        let elements = plan::allocate(shape.iter().product(), |output| {
            self.compute_depthwise(input, depthwise_filter, &geometry, output)
        })?;
        Ok(Array4::from_shape_vec(shape, elements).expect("as many elements as the shape has"))
    }

    /// The same, into an array of the output's shape.
    ///
    /// # Errors
    /// Those of [`depthwise`](Self::depthwise), and an output of another shape.
    pub fn depthwise_into(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: ArrayView4<T>,
        output: ArrayViewMut4<T>,
    ) -> Result<(), Error> {
        let geometry = self.depthwise_geometry(&input, &depthwise_filter)?;
        into(output, &geometry, |elements| self.compute_depthwise(input, depthwise_filter, &geometry, elements))
    }

    /// As [`SeparableConv2d::pointwise`], with the steps behind that part.
    ///
    /// # Errors
    /// Its own, and steps that have not a number for each channel.
    pub fn pointwise(&self, input: ArrayView4<T>, pointwise_filter: ArrayView4<T>) -> Result<Array4<T>, Error> {
        self.result(input, None, pointwise_filter)
    }

    /// The same, into an array of the output's shape.
    ///
    /// # Errors
    /// Those of [`pointwise`](Self::pointwise), and an output of another shape.
    pub fn pointwise_into(
        &self,
        input: ArrayView4<T>,
        pointwise_filter: ArrayView4<T>,
        output: ArrayViewMut4<T>,
    ) -> Result<(), Error> {
        self.result_into(input, None, pointwise_filter, output)
    }

    /// As [`SeparableConv2d::plan`]; the steps' numbers are packed with the filters.
    ///
    /// # Errors
    /// Those of [`run`](Self::run) that do not depend on the input's values.
    pub fn plan(
        &self,
        input_shape: [usize; 4],
        depthwise_filter: ArrayView4<T>,
        pointwise_filter: ArrayView4<T>,
    ) -> Result<Plan<T>, Error> {
        // Before anything is packed.
        self.geometry(&input_shape, Some(&depthwise_filter), pointwise_filter.shape())?;
        self.plan_packed(input_shape, depthwise_filter, &self.convolution.pack(pointwise_filter)?)
    }

    /// The same with a pointwise filter that [`SeparableConv2d::pack`] packed, which the plan shares.
    ///
    /// # Errors
    /// Those of [`plan`](Self::plan), and a filter that is not [for](PackedFilter::is_for) this convolution.
    pub fn plan_packed(
        &self,
        input_shape: [usize; 4],
        depthwise_filter: ArrayView4<T>,
        pointwise_filter: &PackedFilter<T>,
    ) -> Result<Plan<T>, Error> {
        self.plan_of(input_shape, Some(depthwise_filter), pointwise_filter)
    }

    /// The same of the [pointwise part](Self::pointwise) alone.
    ///
    /// # Errors
    /// Those of [`pointwise`](Self::pointwise) that do not depend on the input's values, and a filter that is not
    /// [for](PackedFilter::is_for) this convolution.
    pub fn plan_pointwise(
        &self,
        input_shape: [usize; 4],
        pointwise_filter: &PackedFilter<T>,
    ) -> Result<Plan<T>, Error> {
        self.plan_of(input_shape, None, pointwise_filter)
    }

    /// Of both parts, or of the pointwise part alone.
    fn plan_of(
        &self,
        input_shape: [usize; 4],
        depthwise_filter: Option<ArrayView4<T>>,
        pointwise_filter: &PackedFilter<T>,
    ) -> Result<Plan<T>, Error> {
        let (convolution, epilogues, PackedFilter(filter)) = (self.convolution, self.epilogues, pointwise_filter);
        let [k, columns] = filter.shape();
        let geometry = self.geometry(&input_shape, depthwise_filter.as_ref(), &[1, 1, k, columns])?;
        let Workers { set, threads, .. } = convolution.workers(plan::multiplications(&geometry));
        let layer = Layer { depthwise_filter, epilogues };
        let plan = plan::Plan::packed(set, threads, &geometry, &convolution.numerics, &layer, filter.clone())?;
        Ok(Plan { plan, convolution: convolution.clone() })
    }

    /// Of the depthwise part; its steps are checked.
    fn depthwise_geometry(&self, input: &ArrayView4<T>, depthwise_filter: &ArrayView4<T>) -> Result<Geometry, Error> {
        let geometry = Geometry::depthwise(input.shape(), depthwise_filter.shape(), &self.convolution.attributes)?;
        self.convolution.numerics.depthwise.check()?;
        self.epilogues.check_depthwise(geometry.k())?;
        Ok(geometry)
    }

    fn compute_depthwise(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: ArrayView4<T>,
        geometry: &Geometry,
        output: &mut [MaybeUninit<T>],
    ) -> Result<(), Error> {
        if output.is_empty() {
            return Ok(());
        }
        let taps = geometry.height.kernel * geometry.width.kernel;
        let workers = self.convolution.workers((geometry.rows() * geometry.k()).saturating_mul(taps));
        let (numerics, steps) = (&self.convolution.numerics, &self.epilogues.depthwise);
        plan::depthwise_part(&workers, geometry, numerics, input, depthwise_filter, steps, output)
    }

    /// Of both parts, or of the pointwise part alone, whose numerics and steps are checked.
    fn geometry(
        &self,
        input_shape: &[usize],
        depthwise_filter: Option<&ArrayView4<T>>,
        pointwise_filter: &[usize],
    ) -> Result<Geometry, Error> {
        let SeparableConv2d { attributes, numerics, .. } = self.convolution;
        let Some(depthwise_filter) = depthwise_filter else {
            let geometry = Geometry::pointwise(input_shape, pointwise_filter, attributes)?;
            numerics.pointwise.check(geometry.k())?;
            self.epilogues.check_pointwise(geometry.out_channels)?;
            return Ok(geometry);
        };
        let geometry = Geometry::new(input_shape, depthwise_filter.shape(), pointwise_filter, attributes)?;
        numerics.check(geometry.k())?;
        self.epilogues.check(geometry.k(), geometry.out_channels)?;
        Ok(geometry)
    }

    /// Of both parts, or of the pointwise part alone.
    fn result(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: Option<ArrayView4<T>>,
        pointwise_filter: ArrayView4<T>,
    ) -> Result<Array4<T>, Error> {
        let geometry = self.geometry(input.shape(), depthwise_filter.as_ref(), pointwise_filter.shape())?;
        let shape = geometry.output_shape();
        let elements = plan::allocate(shape.iter().product(), |output| {
            self.compute(input, depthwise_filter, pointwise_filter, &geometry, output)
        })?;
        Ok(Array4::from_shape_vec(shape, elements).expect("as many elements as the shape has"))
    }

    fn result_into(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: Option<ArrayView4<T>>,
        pointwise_filter: ArrayView4<T>,
        output: ArrayViewMut4<T>,
    ) -> Result<(), Error> {
        let geometry = self.geometry(input.shape(), depthwise_filter.as_ref(), pointwise_filter.shape())?;
        into(output, &geometry, |elements| self.compute(input, depthwise_filter, pointwise_filter, &geometry, elements))
    }

    fn compute(
        &self,
        input: ArrayView4<T>,
        depthwise_filter: Option<ArrayView4<T>>,
        pointwise_filter: ArrayView4<T>,
        geometry: &Geometry,
        output: &mut [MaybeUninit<T>],
    ) -> Result<(), Error> {
        if output.is_empty() {
            return Ok(());
        }
        let (convolution, epilogues) = (self.convolution, self.epilogues);
        let Workers { set, pool, threads } = convolution.workers(plan::multiplications(geometry));
        let layer = Layer { depthwise_filter, epilogues };
        let plan = plan::Plan::once(set, pool, threads, geometry, &convolution.numerics, &layer, pointwise_filter)?;
        plan.run(pool, input, output)
    }
}

/// A pointwise filter as the kernels read it fastest, for many plans: [`SeparableConv2d::pack`] makes it. Copies share it.
///
/// ```
/// use ndarray::Array4;
/// use sepconv::epilogue::Epilogues;
/// use sepconv::{Padding, SeparableConv2d};
///
/// let (depthwise_filter, pointwise_filter) = (Array4::<f32>::ones((3, 3, 8, 1)), Array4::ones((1, 1, 8, 16)));
/// let convolution = SeparableConv2d::new([1, 1], Padding::Valid, [1, 1]);
/// let packed = convolution.pack(pointwise_filter.view())?;
/// for extent in [7, 14, 28] {
///     let input = Array4::ones((1, extent, extent, 8));
///     let plan = convolution
///         .with_steps(&Epilogues::NONE)
///         .plan_packed([1, extent, extent, 8], depthwise_filter.view(), &packed)?;
///     let mut output = Array4::zeros(plan.output_shape());
///     plan.run_into(input.view(), output.view_mut())?;
///     assert_eq!(output[(0, 4, 4, 0)], 72.0);
/// }
/// # Ok::<(), sepconv::Error>(())
/// ```
#[derive(Clone)]
pub struct PackedFilter<T: Element>(Arc<Packed<T>>);

impl<T: Element> PackedFilter<T> {
    /// Whether that convolution can use it: numerics may take up products one by one, or in pairs, and instruction sets differ in
    /// their vectors.
    pub fn is_for(&self, convolution: &SeparableConv2d) -> bool {
        self.0.is_for(T::kernel(convolution.set()), &convolution.numerics)
    }
}

/// A [`SeparableConv2d`] of one geometry with its filters, packed: [`SeparableConv2d::plan`] builds it once, for many
/// calls.
///
/// ```
/// use ndarray::Array4;
/// use sepconv::{Padding, SeparableConv2d};
///
/// let (depthwise_filter, pointwise_filter) = (Array4::<f32>::ones((3, 3, 8, 1)), Array4::ones((1, 1, 8, 16)));
/// let convolution = SeparableConv2d::new([1, 1], Padding::Same, [1, 1]);
/// let plan = convolution.plan([1, 14, 14, 8], depthwise_filter.view(), pointwise_filter.view())?;
///
/// let mut output = Array4::zeros(plan.output_shape());
/// for frame in 0..3 {
///     let input = Array4::from_elem((1, 14, 14, 8), frame as f32);
///     plan.run_into(input.view(), output.view_mut())?; // allocates no arrays once its threads have run it
///     assert_eq!(output[(0, 7, 7, 0)], 72.0 * frame as f32);
/// }
/// # Ok::<(), sepconv::Error>(())
/// ```
///
/// Images are read and written fastest where their memory begins with a cache line (64 bytes), as crates such as `aligned-vec`
/// reserve it, with AVX-512 and few channels most of all. The bits are the same.
pub struct Plan<T: Element> {
    plan: plan::Plan<'static, T>,
    convolution: SeparableConv2d,
}

impl<T: Element> Plan<T> {
    /// Batch, height, width, channels.
    pub fn input_shape(&self) -> [usize; 4] {
        self.plan.geometry().input_shape()
    }

    /// Batch, height, width, channels.
    pub fn output_shape(&self) -> [usize; 4] {
        self.plan.geometry().output_shape()
    }

    /// The convolution of `input` into `output`, whose shapes are the plan's. Each thread keeps the memory that it works
    /// in, at most 1 MiB for filters of usual size, for the next call; nothing else is allocated where the input's channels
    /// are adjacent, the output is contiguous and the depthwise taps are added row by row, but what rayon
    /// needs to hand tasks to a pool from a thread that is not its own.
    ///
    /// # Errors
    /// Other shapes than the plan's; no memory.
    pub fn run_into(&self, input: ArrayView4<T>, output: ArrayViewMut4<T>) -> Result<(), Error> {
        let geometry = self.plan.geometry();
        let (expected, got) = (geometry.input_shape(), input.shape());
        if expected != got {
            return Err(Error::Input { expected, got: got.try_into().unwrap_or_default() });
        }
        into(output, geometry, |elements| self.plan.run(self.convolution.pool.as_deref(), input, elements))
    }
}

/// Calls `fill`, which writes all of them, with the output's elements, or, if they are not contiguous, with others that are
/// copied.
fn into<T: Element>(
    mut output: ArrayViewMut4<T>,
    geometry: &Geometry,
    fill: impl FnOnce(&mut [MaybeUninit<T>]) -> Result<(), Error>,
) -> Result<(), Error> {
    let (expected, got) = (geometry.output_shape(), output.shape());
    if expected != got {
        return Err(Error::Output { expected, got: got.try_into().unwrap_or_default() });
    }
    let Some(elements) = output.as_slice_mut() else {
        let elements = plan::allocate(output.len(), fill)?;
        output.iter_mut().zip(elements).for_each(|(to, from)| *to = from);
        return Ok(());
    };
    // SAFETY: the plan writes elements and nothing else, so none of them becomes uninitialised.
    let elements = unsafe { std::slice::from_raw_parts_mut(elements.as_mut_ptr().cast(), elements.len()) };
    fill(elements)
}
