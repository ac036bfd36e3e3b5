//! What TensorFlow, in this process, answers to a [`Call`]: the composite is built as `tf.nn.separable_conv2d` builds it,
//! whatever the arguments are, and fed with ones. TensorFlow may kill the process over it, so ask in a child.
//!
//! Eager calls are Python's to observe (`tests/test_deviations.py`). A graph that knows no shapes comes near: it too has
//! TensorFlow's kernels check what a graph that knows them would have refused.

use std::fmt;

use sepconv::{Attributes, Geometry};
use tensorflow::{Code, Output, Status};

use crate::composite;
use crate::deviations::Deviation;
use crate::semantics::{Answer, Call, Padding};
use crate::session::{self, Element, Mode, Nodes, tensor};

/// What the graph knows while it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    Graph,
    UnknownShapes,
}

impl Context {
    /// The name that the mode has among [`Row`](crate::semantics::Row)'s answers.
    pub fn in_mode(self, onednn: bool) -> String {
        format!("{self}, oneDNN {}", if onednn { "on" } else { "off" })
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Graph => "graph",
            Self::UnknownShapes => "unknown shapes",
        })
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Session(#[from] session::Error),
    #[error("the zeros of a dilated image follow from a geometry, and there is none: {0}")]
    Geometry(#[from] sepconv::Error),
    #[error("a case that is run from Rust must have dtype float32 or float64, got {0}")]
    Type(String),
}

/// Everything that can be observed here of the register's rows. Where a rate is given, TensorFlow's function computes
/// paddings in Python: from the shapes that it knows, and in NCHW in a way of its own.
pub fn observable(register: &[Deviation]) -> Vec<(&Deviation, Context)> {
    let observable = |call: &Call| match (&call.rate, &call.data_format) {
        (None, _) => &[Context::Graph, Context::UnknownShapes][..],
        (Some(_), None) => &[Context::Graph],
        (Some(_), Some(_)) => &[],
    };
    register.iter().flat_map(|row| observable(&row.case.call).iter().map(move |context| (row, *context))).collect()
}

pub fn observe(call: &Call, context: Context) -> Result<Answer, Error> {
    match call.dtype.as_str() {
        "float32" => observe_type::<f32>(call, context),
        "float64" => observe_type::<f64>(call, context),
        other => Err(Error::Type(other.to_string())),
    }
}

fn observe_type<T: Element>(call: &Call, context: Context) -> Result<Answer, Error> {
    let mut nodes = Nodes::new()?;
    let output = match build::<T>(&mut nodes, call, context) {
        // Python makes a ValueError of it.
        Err(Error::Session(session::Error::Node { status, .. })) if status.code() == Code::InvalidArgument => {
            return Ok(Answer::Refuses { error: "ValueError".to_string() });
        }
        output => output?,
    };
    let run = nodes.open(Mode::of_this_process(), vec![output])?;
    let ones = shapes(call).map(|shape| tensor(shape, &vec![T::from_f64(1.0); shape.iter().product()]));
    match run.run::<T>(&ones.into_iter().collect::<Result<Vec<_>, _>>()?) {
        Ok(outputs) => {
            let mut values: Vec<f64> = outputs[0].iter().map(|value| value.to_f64()).collect();
            values.sort_by(f64::total_cmp);
            values.dedup();
            let shape = outputs[0].shape().to_vec();
            Ok(Answer::Computes { shape, values: Some(values) })
        }
        Err(session::Error::TensorFlow(status)) => Ok(Answer::Refuses { error: pythons_name(&status) }),
        Err(error) => Err(error.into()),
    }
}

fn pythons_name(status: &Status) -> String {
    format!("{:?}Error", status.code())
}

fn shapes(call: &Call) -> [&Vec<usize>; 3] {
    [&call.input, &call.depthwise_filter, &call.pointwise_filter]
}

fn build<T: Element>(nodes: &mut Nodes, call: &Call, context: Context) -> Result<Output, Error> {
    let mut placeholder = |name, shape: &Vec<usize>| match context {
        Context::Graph => nodes.placeholder::<T>(name, &shape.iter().copied().map(Some).collect::<Vec<_>>()),
        Context::UnknownShapes => nodes.placeholder_of_any_rank::<T>(name),
    };
    let input = placeholder("input", &call.input)?;
    let depthwise_filter = placeholder("depthwise_filter", &call.depthwise_filter)?;
    let pointwise_filter = placeholder("pointwise_filter", &call.pointwise_filter)?;
    let format = call.data_format.as_deref().unwrap_or("NHWC");
    let pixels = match &call.rate {
        None => {
            let inputs = [input, depthwise_filter];
            convolution(nodes, "DepthwiseConv2dNative", inputs, &call.strides, &call.padding, format)?
        }
        Some(rate) => {
            let attributes = attributes(call, rate);
            let [input_shape, depthwise_shape, pointwise_shape] = shapes(call);
            let geometry = Geometry::new(input_shape, depthwise_shape, pointwise_shape, &attributes)?;
            composite::depthwise(nodes, &geometry, &attributes, input, depthwise_filter)?
        }
    };
    let valid = Padding::Word("VALID".to_string());
    convolution(nodes, "Conv2D", [pixels, pointwise_filter], &[1; 4], &valid, format)
}

/// Height's and width's part: TensorFlow's function looks at no more where it deals the image out itself.
fn attributes(call: &Call, rate: &[i64]) -> Attributes {
    let padding = match &call.padding {
        Padding::Word(word) if word == "SAME" => sepconv::Padding::Same,
        Padding::Word(_) => sepconv::Padding::Valid,
        Padding::Pairs(pairs) => sepconv::Padding::Explicit([pairs[1], pairs[2]]),
    };
    Attributes { strides: [call.strides[1], call.strides[2]], padding, rate: [rate[0], rate[1]] }
}

fn convolution(
    nodes: &mut Nodes,
    op: &'static str,
    inputs: [Output; 2],
    strides: &[i64],
    padding: &Padding,
    format: &str,
) -> Result<Output, Error> {
    let node = nodes.add(op, op, &inputs, |node| {
        node.set_attr_int_list("strides", strides)?;
        node.set_attr_string("data_format", format)?;
        match padding {
            Padding::Word(word) => node.set_attr_string("padding", word)?,
            Padding::Pairs(pairs) => {
                node.set_attr_string("padding", "EXPLICIT")?;
                node.set_attr_int_list("explicit_paddings", pairs.as_flattened())?;
            }
        }
        Ok(())
    })?;
    Ok(node)
}
