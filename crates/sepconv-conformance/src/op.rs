//! Our own op in TensorFlow's graphs: the library that `sepconv-tensorflow` builds, loaded into this process.

use std::env;
use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};

use sepconv::{Attributes, Numerics, Padding};
use tensorflow::{Library, Output};

use crate::cases::{Case, Operands};
use crate::composite::{feeds, placeholders, shapes};
use crate::implementation::{self, Implementation};
use crate::session::{Element, Error, Mode, Nodes, load};

const FILE: &str = "libsepconv_tensorflow.so";

/// The op library; its op stays registered for as long as the process lives.
#[derive(Debug)]
pub struct OpLibrary {
    stats_json: Json,
    free: Free,
}

type Json = unsafe extern "C" fn() -> *mut c_char;
type Free = unsafe extern "C" fn(*mut c_char);

impl OpLibrary {
    pub fn load(path: &Path) -> Result<Self, Error> {
        load()?;
        drop(Library::load(&path.to_string_lossy())?);
        let failed = |error: libloading::Error| Error::OpLibrary { path: path.into(), why: error.to_string() };
        // SAFETY: TensorFlow has just loaded this file and keeps it, so nothing of it runs now, its functions stay, and
        // their types are those of the library's `exports`.
        unsafe {
            let functions = libloading::Library::new(path).map_err(failed)?;
            let stats_json = *functions.get::<Json>(c"sepconv_stats_json").map_err(failed)?;
            let free = *functions.get::<Free>(c"sepconv_free").map_err(failed)?;
            Ok(Self { stats_json, free })
        }
    }

    /// `given`, or what `SEPCONV_LIBRARY` names, or the file beside the executable.
    pub fn find(given: Option<PathBuf>) -> Result<PathBuf, Error> {
        let beside = || env::current_exe().ok().map(|executable| executable.with_file_name(FILE));
        let named = given.or_else(|| env::var_os("SEPCONV_LIBRARY").map(PathBuf::from));
        let path = named.or_else(beside).unwrap_or(FILE.into());
        let why = "build it with `cargo build -p sepconv-tensorflow` (with --release for a released one), or name it with \
                   --library or SEPCONV_LIBRARY";
        if path.is_file() { Ok(path) } else { Err(Error::OpLibrary { path, why: format!("no such file; {why}") }) }
    }

    /// Adds a node that computes with `numerics`.
    pub fn separable(
        &self,
        nodes: &mut Nodes,
        attributes: &Attributes,
        numerics: &str,
        [input, depthwise_filter, pointwise_filter]: [Output; 3],
    ) -> Result<Output, Error> {
        // The attributes are the shape of a tensor that holds nothing: see the binding crate's `carrier`.
        let geometry = nodes.constant::<i32>("geometry", &carrier(attributes), &[])?;
        let inputs = [input, depthwise_filter, pointwise_filter, geometry];
        nodes.add("Sepconv>SeparableConv2D", "sepconv", &inputs, |node| Ok(node.set_attr_string("numerics", numerics)?))
    }

    /// Results that the library's kernels have computed in this process, as they count them.
    pub fn kernel_calls(&self) -> u64 {
        // SAFETY: the functions are as `load` found them; the text is read before it is given back, once.
        let text = unsafe {
            let text = (self.stats_json)();
            let copied = CStr::from_ptr(text).to_string_lossy().into_owned();
            (self.free)(text);
            copied
        };
        let statistics: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        statistics["kernel_calls"].as_u64().unwrap_or_else(|| panic!("no kernel_calls in {text}"))
    }
}

fn carrier(attributes: &Attributes) -> Vec<usize> {
    let Attributes { strides, padding, rate } = attributes;
    let mut shape = vec![0, strides[0], strides[1], rate[0], rate[1]];
    match padding {
        Padding::Same => shape.push(0),
        Padding::Valid => shape.push(1),
        Padding::Explicit(paddings) => {
            shape.push(2);
            shape.extend(paddings.as_flattened());
        }
    }
    shape.into_iter().map(|n| n as usize).collect()
}

/// The op as an implementation: a session for every case, and the kernels' count as the proof that they ran.
pub struct Op {
    library: OpLibrary,
    mode: Mode,
}

impl Op {
    /// `library`: see [`OpLibrary::find`].
    pub fn load(library: Option<PathBuf>, mode: Mode) -> Result<Self, Error> {
        Ok(Self { library: OpLibrary::load(&OpLibrary::find(library)?)?, mode })
    }

    pub fn kernel_calls(&self) -> u64 {
        self.library.kernel_calls()
    }
}

impl Implementation for Op {
    fn follows_numerics(&self) -> bool {
        true
    }

    fn compute<T: Element>(
        &mut self,
        case: &Case,
        numerics: Option<&Numerics>,
        operands: &Operands<T>,
    ) -> Result<Vec<T>, implementation::Error> {
        let geometry = case.geometry()?;
        let numerics = numerics.unwrap_or(&Numerics::REPRODUCIBLE).to_string();
        let mut nodes = Nodes::new()?;
        let inputs = placeholders::<T>(&mut nodes, shapes(&geometry).map(|shape| shape.map(Some)))?;
        let output = self.library.separable(&mut nodes, &case.attributes, &numerics, inputs)?;
        let run = nodes.open(self.mode, vec![output])?;
        let before = self.kernel_calls();
        let output = run.run::<T>(&feeds(&geometry, operands)?)?.swap_remove(0);
        let expected = geometry.output_shape();
        match self.kernel_calls() - before {
            1 if output.shape() == expected => Ok(output.into_raw_vec_and_offset().0),
            1 => Err(implementation::Error::Shape { expected, got: output.shape().into() }),
            counted => Err(implementation::Error::NotCounted { counted }),
        }
    }
}
