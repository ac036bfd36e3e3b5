//! TensorFlow in this process: loading it, building graphs, and running them in sessions.
//!
//! Two things can be chosen once per process only, because TensorFlow itself keeps them so: whether oneDNN is on
//! (`TF_ENABLE_ONEDNN_OPTS`, read when TensorFlow first asks) and the number of intra-op threads (the first session's
//! pool serves all). Another number of threads later is refused here instead of being ignored in silence.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

use half::{bf16, f16};
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};
use tensorflow::{
    BFloat16, Graph, Operation, OperationDescription, Output, Session, SessionOptions, SessionRunArgs, Shape, Status,
    Tensor, TensorType,
};

use crate::trials::variable;

/// A type that TensorFlow's tensors can hold.
pub trait Held: Copy {
    /// As the `tensorflow` crate has it.
    type Tensor: TensorType;
    fn hold(self) -> Self::Tensor;
    fn of(held: &Self::Tensor) -> Self;
}

macro_rules! held {
    ($($type:ty)*) => {$(
        impl Held for $type {
            type Tensor = Self;
            fn hold(self) -> Self {
                self
            }
            fn of(held: &Self) -> Self {
                *held
            }
        }
    )*};
}
held!(i32 f16 f32 f64);

impl Held for bf16 {
    type Tensor = BFloat16;
    fn hold(self) -> BFloat16 {
        self.to_f32().into()
    }
    fn of(held: &BFloat16) -> Self {
        Self::from_f32(f32::from(*held))
    }
}

/// An element type of both crates.
pub trait Element: sepconv::Element + Held {}
impl<T: sepconv::Element + Held> Element for T {}

/// Why TensorFlow gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "TENSORFLOW_DIR must name a directory with libtensorflow.so, libtensorflow_cc.so.2 and \
         libtensorflow_framework.so.2 (ci/setup makes target/tensorflow), got {}: {reason}",
        directory.as_deref().unwrap_or("nothing")
    )]
    Library { directory: Option<String>, reason: String },
    #[error("intra-op threads are one number per process: it is {first} already, got {asked}")]
    Threads { first: u8, asked: u8 },
    #[error("TensorFlow: {0}")]
    TensorFlow(#[from] Status),
    #[error("the op library {path}: {why}")]
    OpLibrary { path: PathBuf, why: String },
    #[error("{node}: {status}")]
    Node { node: &'static str, status: Status },
}

/// What TensorFlow's bits depend on besides shapes and attributes, and what cannot change within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mode {
    pub onednn: bool,
    /// Intra-op threads, 1 to 127.
    pub threads: u8,
}

/// What TensorFlow reads when it first asks whether oneDNN is on.
pub const ONEDNN: &str = "TF_ENABLE_ONEDNN_OPTS";

impl Mode {
    /// oneDNN as this process has it, and the threads that `SEPCONV_THREADS` names; one if it names none.
    pub fn of_this_process() -> Self {
        let threads = variable("SEPCONV_THREADS").unwrap_or(1);
        Self { onednn: Self::onednn_of_this_process(), threads }
    }

    /// oneDNN as TensorFlow has it here.
    pub fn onednn_of_this_process() -> bool {
        match env::var(ONEDNN).as_deref() {
            Ok("0") => false,
            Ok("1") => true,
            Ok(word) if word.eq_ignore_ascii_case("false") => false,
            Ok(word) if word.eq_ignore_ascii_case("true") => true,
            _ => onednn_by_default(),
        }
    }
}

/// TensorFlow has it on by default on Linux where the processor has instructions for neural networks, and only there.
fn onednn_by_default() -> bool {
    #[cfg(target_arch = "x86_64")]
    return cfg!(target_os = "linux")
        && (is_x86_feature_detected!("avx512vnni")
            || is_x86_feature_detected!("avx512bf16")
            || is_x86_feature_detected!("avxvnni"));
    #[cfg(not(target_arch = "x86_64"))]
    false
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (onednn, plural) = (if self.onednn { "on" } else { "off" }, if self.threads == 1 { "" } else { "s" });
        write!(f, "oneDNN {onednn}, {} intra-op thread{plural}", self.threads)
    }
}

/// Loads TensorFlow once; every later call repeats the first answer.
pub fn load() -> Result<(), Error> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    let directory = || env::var_os("TENSORFLOW_DIR").map(|d| d.to_string_lossy().into_owned());
    LOADED
        .get_or_init(tensorflow::library::load)
        .clone()
        .map_err(|reason| Error::Library { directory: directory(), reason })
}

/// A graph under construction.
pub struct Nodes {
    graph: Graph,
    fed: Vec<Operation>,
}

impl Nodes {
    pub fn new() -> Result<Self, Error> {
        load()?;
        Ok(Self { graph: Graph::new(), fed: Vec::new() })
    }

    /// A node with one output; `attributes` sets what does not follow from the inputs.
    pub fn add(
        &mut self,
        op: &'static str,
        name: &str,
        inputs: &[Output],
        attributes: impl FnOnce(&mut OperationDescription<'_>) -> Result<(), Status>,
    ) -> Result<Output, Error> {
        let node = |status| Error::Node { node: op, status };
        let mut description = self.graph.new_operation(op, name).map_err(|e| node(e.into()))?;
        for input in inputs {
            description.add_input(input.clone());
        }
        attributes(&mut description).map_err(node)?;
        Ok(description.finish().map_err(node)?.output(0))
    }

    /// A placeholder; [`Run::run`] feeds them in the order of their making. `None` is an unknown extent.
    pub fn placeholder<T: Element>(&mut self, name: &str, shape: &[Option<usize>]) -> Result<Output, Error> {
        self.placeholder_of_shape::<T>(name, Some(shape.iter().map(|d| d.map(|d| d as i64)).collect()).into())
    }

    /// A placeholder of which the graph does not even know the rank.
    pub fn placeholder_of_any_rank<T: Element>(&mut self, name: &str) -> Result<Output, Error> {
        self.placeholder_of_shape::<T>(name, Shape::from(None))
    }

    fn placeholder_of_shape<T: Element>(&mut self, name: &str, shape: Shape) -> Result<Output, Error> {
        let output = self.add("Placeholder", name, &[], |node| {
            node.set_attr_type("dtype", T::Tensor::data_type())?;
            Ok(node.set_attr_shape("shape", &shape)?)
        })?;
        self.fed.push(output.operation.clone());
        Ok(output)
    }

    pub fn constant<T: Held>(&mut self, name: &str, shape: &[usize], values: &[T]) -> Result<Output, Error> {
        let value = tensor(shape, values)?;
        self.add("Const", name, &[], |node| {
            node.set_attr_type("dtype", T::Tensor::data_type())?;
            node.set_attr_tensor("value", value)
        })
    }

    /// The static shape that TensorFlow inferred; `None` for what it does not know.
    pub fn shape(&self, output: &Output) -> Result<Option<Vec<Option<usize>>>, Error> {
        let shape: Option<Vec<Option<i64>>> = self.graph.tensor_shape(output.clone())?.into();
        Ok(shape.map(|dims| dims.into_iter().map(|d| d.and_then(|d| usize::try_from(d).ok())).collect()))
    }

    /// A session that computes `outputs`.
    pub fn open(self, mode: Mode, outputs: Vec<Output>) -> Result<Run, Error> {
        static THREADS: OnceLock<u8> = OnceLock::new();
        let first = *THREADS.get_or_init(|| mode.threads);
        if first != mode.threads {
            return Err(Error::Threads { first, asked: mode.threads });
        }
        let mut options = SessionOptions::new();
        options.set_config(&config(mode.threads))?;
        let session = Session::new(&options, &self.graph)?;
        Ok(Run { session, fed: self.fed, outputs })
    }
}

/// A serialised `ConfigProto`: intra_op_parallelism_threads (field 2) and one inter-op thread (field 5), so that all
/// nodes meet the same cache of oneDNN primitives, which is kept per thread.
fn config(threads: u8) -> [u8; 4] {
    assert!((1..128).contains(&threads), "{threads} threads: 1 to 127 fit the one byte that is written here");
    [2 << 3, threads, 5 << 3, 1]
}

/// A session with its graph's placeholders and outputs.
pub struct Run {
    session: Session,
    fed: Vec<Operation>,
    outputs: Vec<Output>,
}

impl Run {
    /// Feeds the placeholders and computes all outputs.
    pub fn run<T: Element>(&self, fed: &[Tensor<T::Tensor>]) -> Result<Vec<ArrayD<T>>, Error> {
        assert_eq!(fed.len(), self.fed.len(), "one tensor per placeholder");
        let mut step = SessionRunArgs::new();
        for (placeholder, tensor) in self.fed.iter().zip(fed) {
            step.add_feed(placeholder, 0, tensor);
        }
        let tokens: Vec<_> = self.outputs.iter().map(|o| step.request_fetch(&o.operation, o.index)).collect();
        self.session.run(&mut step)?;
        let fetch = |token| {
            let tensor = step.fetch::<T::Tensor>(token)?;
            let shape: Vec<usize> = tensor.dims().iter().map(|&extent| extent as usize).collect();
            Ok(ArrayD::from_shape_vec(shape, tensor.iter().map(T::of).collect()).expect("as many as the shape has"))
        };
        tokens.into_iter().map(fetch).collect()
    }
}

pub fn tensor<T: Held>(shape: &[usize], values: &[T]) -> Result<Tensor<T::Tensor>, Error> {
    let shape: Vec<u64> = shape.iter().map(|&d| d as u64).collect();
    let values: Vec<T::Tensor> = values.iter().map(|value| value.hold()).collect();
    Ok(Tensor::new(&shape).with_values(&values)?)
}
