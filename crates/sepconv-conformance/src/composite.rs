//! TensorFlow's own separable convolution, node by node as `tf.nn.separable_conv2d` makes it: SpaceToBatchND and
//! BatchToSpaceND around DepthwiseConv2dNative where any rate is above 1, then Conv2D.
//!
//! The whole of it is the reference ([`Composite`]); its two halves, in the same kind of session and with the same
//! shapes, are what orders are revealed from ([`Halves`]). Filters are fed unless constants are asked for: what the
//! two kinds give may differ, and what ran before decides which, so a process should stay with one of them.

use sepconv::geometry::Axis;
use sepconv::reveal::Probe;
use sepconv::{Attributes, Geometry, Padding};
use tensorflow::{Output, Tensor};

use crate::cases::Operands;
use crate::session::{Element, Error, Mode, Nodes, Run, tensor};

/// The composite for one geometry.
pub struct Composite<T> {
    run: Run,
    geometry: Geometry,
    constant: bool,
    element: std::marker::PhantomData<T>,
}

impl<T: Element> Composite<T> {
    /// All three arrays are fed.
    pub fn new(geometry: &Geometry, attributes: &Attributes, mode: Mode) -> Result<Self, Error> {
        let mut nodes = Nodes::new()?;
        let inputs = placeholders::<T>(&mut nodes, shapes(geometry).map(known))?;
        let output = separable(&mut nodes, geometry, attributes, inputs)?;
        let run = nodes.open(mode, vec![output])?;
        Ok(Self { run, geometry: *geometry, constant: false, element: Default::default() })
    }

    /// The filters of `operands` are constants of the graph; [`run`](Self::run) feeds the input only.
    pub fn with_constant_filters(
        geometry: &Geometry,
        attributes: &Attributes,
        mode: Mode,
        operands: &Operands<T>,
    ) -> Result<Self, Error> {
        let mut nodes = Nodes::new()?;
        let [input, depthwise_filter, pointwise_filter] = shapes(geometry);
        let inputs = [
            nodes.placeholder::<T>("input", &known(input))?,
            nodes.constant("depthwise_filter", &depthwise_filter, &operands.depthwise_filter)?,
            nodes.constant("pointwise_filter", &pointwise_filter, &operands.pointwise_filter)?,
        ];
        let output = separable(&mut nodes, geometry, attributes, inputs)?;
        let run = nodes.open(mode, vec![output])?;
        Ok(Self { run, geometry: *geometry, constant: true, element: Default::default() })
    }

    /// The output, row-major.
    pub fn run(&self, operands: &Operands<T>) -> Result<Vec<T>, Error> {
        let mut fed = feeds(&self.geometry, operands)?;
        if self.constant {
            fed.truncate(1);
        }
        Ok(self.run.run(&fed)?.swap_remove(0).into_raw_vec_and_offset().0)
    }
}

/// The shapes of input, depthwise filter and pointwise filter.
pub fn shapes(geometry: &Geometry) -> [[usize; 4]; 3] {
    [geometry.input_shape(), geometry.depthwise_filter_shape(), geometry.pointwise_filter_shape()]
}

/// The operands as tensors, in the order of [`placeholders`].
pub fn feeds<T: Element>(geometry: &Geometry, operands: &Operands<T>) -> Result<Vec<Tensor<T::Tensor>>, Error> {
    let Operands { input, depthwise_filter, pointwise_filter } = operands;
    let arrays = [input, depthwise_filter, pointwise_filter];
    shapes(geometry).iter().zip(arrays).map(|(shape, array)| tensor(shape, array)).collect()
}

/// The composite's halves for one geometry, each a session of its own.
pub struct Halves<T> {
    depthwise: Run,
    pointwise: Run,
    geometry: Geometry,
    element: std::marker::PhantomData<T>,
}

impl<T: Element> Halves<T> {
    pub fn new(geometry: &Geometry, attributes: &Attributes, mode: Mode) -> Result<Self, Error> {
        let depthwise = open_depthwise::<T>(geometry, attributes, mode, None)?;
        let pointwise = open_pointwise::<T>(geometry, mode, None)?;
        Ok(Self { depthwise, pointwise, geometry: *geometry, element: Default::default() })
    }

    /// Input and filter to depthwise results: rows of K.
    pub fn depthwise(&self, input: &[T], filter: &[T]) -> Result<Vec<T>, Error> {
        let g = &self.geometry;
        let fed = [tensor(&g.input_shape(), input)?, tensor(&g.depthwise_filter_shape(), filter)?];
        Ok(self.depthwise.run(&fed)?.swap_remove(0).into_raw_vec_and_offset().0)
    }

    /// Rows of K and the filter to rows of out_channels.
    pub fn pointwise(&self, pixels: &[T], filter: &[T]) -> Result<Vec<T>, Error> {
        let g = &self.geometry;
        let fed = [tensor(&pixels_shape(g), pixels)?, tensor(&g.pointwise_filter_shape(), filter)?];
        Ok(self.pointwise.run(&fed)?.swap_remove(0).into_raw_vec_and_offset().0)
    }
}

/// The depthwise half in a session of its own; its filter is fed, or that constant.
fn open_depthwise<T: Element>(
    geometry: &Geometry,
    attributes: &Attributes,
    mode: Mode,
    constant: Option<&[T]>,
) -> Result<Run, Error> {
    let mut nodes = Nodes::new()?;
    let input = nodes.placeholder::<T>("input", &known(geometry.input_shape()))?;
    let filter = filter(&mut nodes, "depthwise_filter", geometry.depthwise_filter_shape(), constant)?;
    let output = depthwise(&mut nodes, geometry, attributes, input, filter)?;
    nodes.open(mode, vec![output])
}

/// As [`open_depthwise`].
fn open_pointwise<T: Element>(geometry: &Geometry, mode: Mode, constant: Option<&[T]>) -> Result<Run, Error> {
    let mut nodes = Nodes::new()?;
    let input = nodes.placeholder::<T>("pixels", &known(pixels_shape(geometry)))?;
    let filter = filter(&mut nodes, "pointwise_filter", geometry.pointwise_filter_shape(), constant)?;
    let output = pointwise(&mut nodes, input, filter)?;
    nodes.open(mode, vec![output])
}

fn filter<T: Element>(
    nodes: &mut Nodes,
    name: &str,
    shape: [usize; 4],
    constant: Option<&[T]>,
) -> Result<Output, Error> {
    match constant {
        None => nodes.placeholder::<T>(name, &known(shape)),
        Some(values) => nodes.constant(name, &shape, values),
    }
}

/// The composite's halves with filters that are constants: every probe is a graph and a session of its own.
pub struct ConstantHalves {
    pub geometry: Geometry,
    pub attributes: Attributes,
    pub mode: Mode,
}

impl<T: Element> Probe<T> for ConstantHalves {
    type Error = Error;

    fn depthwise(&mut self, input: &[T], filter: &[T]) -> Result<Vec<T>, Error> {
        let run = open_depthwise(&self.geometry, &self.attributes, self.mode, Some(filter))?;
        Ok(run.run::<T>(&[tensor(&self.geometry.input_shape(), input)?])?.swap_remove(0).into_raw_vec_and_offset().0)
    }

    fn pointwise(&mut self, pixels: &[T], filter: &[T]) -> Result<Vec<T>, Error> {
        let run = open_pointwise(&self.geometry, self.mode, Some(filter))?;
        Ok(run.run::<T>(&[tensor(&pixels_shape(&self.geometry), pixels)?])?.swap_remove(0).into_raw_vec_and_offset().0)
    }
}

/// Placeholders for the three arrays; `None` is an extent that the graph does not know.
pub fn placeholders<T: Element>(nodes: &mut Nodes, shapes: [[Option<usize>; 4]; 3]) -> Result<[Output; 3], Error> {
    Ok([
        nodes.placeholder::<T>("input", &shapes[0])?,
        nodes.placeholder::<T>("depthwise_filter", &shapes[1])?,
        nodes.placeholder::<T>("pointwise_filter", &shapes[2])?,
    ])
}

/// Adds the whole composite to input, depthwise filter and pointwise filter.
pub fn separable(
    nodes: &mut Nodes,
    geometry: &Geometry,
    attributes: &Attributes,
    [input, depthwise_filter, pointwise_filter]: [Output; 3],
) -> Result<Output, Error> {
    let pixels = depthwise(nodes, geometry, attributes, input, depthwise_filter)?;
    pointwise(nodes, pixels, pointwise_filter)
}

/// Adds the depthwise half to input and depthwise filter.
pub fn depthwise(
    nodes: &mut Nodes,
    geometry: &Geometry,
    attributes: &Attributes,
    input: Output,
    filter: Output,
) -> Result<Output, Error> {
    if !attributes.space_to_batch() {
        return native(nodes, attributes.strides, attributes.padding, input, filter);
    }
    let axes = [geometry.height, geometry.width];
    let pairs = |of: fn(&Axis) -> [usize; 2]| axes.iter().flat_map(of).map(|n| n as i32).collect::<Vec<_>>();
    let rates = attributes.rate.map(|rate| rate as i32);
    let paddings = pairs(|axis| [axis.pad_before, axis.padded - axis.input - axis.pad_before]);
    let crops = pairs(|axis| [0, axis.crop]);

    let rates = nodes.constant("rate", &[2], &rates)?;
    let paddings = nodes.constant("paddings", &[2, 2], &paddings)?;
    let crops = nodes.constant("crops", &[2, 2], &crops)?;
    let blocks = nodes.add("SpaceToBatchND", "space_to_batch", &[input, rates.clone(), paddings], |_| Ok(()))?;
    let blocks = native(nodes, attributes.strides, Padding::Valid, blocks, filter)?;
    nodes.add("BatchToSpaceND", "batch_to_space", &[blocks, rates, crops], |_| Ok(()))
}

fn native(
    nodes: &mut Nodes,
    [height, width]: [i64; 2],
    padding: Padding,
    input: Output,
    filter: Output,
) -> Result<Output, Error> {
    nodes.add("DepthwiseConv2dNative", "depthwise", &[input, filter], |node| {
        node.set_attr_int_list("strides", &[1, height, width, 1])?;
        match padding {
            Padding::Same => node.set_attr_string("padding", "SAME")?,
            Padding::Valid => node.set_attr_string("padding", "VALID")?,
            Padding::Explicit([[top, bottom], [left, right]]) => {
                node.set_attr_string("padding", "EXPLICIT")?;
                node.set_attr_int_list("explicit_paddings", &[0, 0, top, bottom, left, right, 0, 0])?;
            }
        }
        Ok(())
    })
}

fn pointwise(nodes: &mut Nodes, pixels: Output, filter: Output) -> Result<Output, Error> {
    nodes.add("Conv2D", "pointwise", &[pixels, filter], |node| {
        node.set_attr_int_list("strides", &[1, 1, 1, 1])?;
        Ok(node.set_attr_string("padding", "VALID")?)
    })
}

/// What passes from one half to the other.
fn pixels_shape(geometry: &Geometry) -> [usize; 4] {
    [geometry.batch, geometry.height.output, geometry.width.output, geometry.k()]
}

fn known(shape: [usize; 4]) -> [Option<usize>; 4] {
    shape.map(Some)
}

impl<T: Element> Probe<T> for Halves<T> {
    type Error = Error;

    fn depthwise(&mut self, input: &[T], filter: &[T]) -> Result<Vec<T>, Error> {
        Self::depthwise(self, input, filter)
    }

    fn pointwise(&mut self, pixels: &[T], filter: &[T]) -> Result<Vec<T>, Error> {
        Self::pointwise(self, pixels, filter)
    }
}
