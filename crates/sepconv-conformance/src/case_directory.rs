//! One case as a directory of files, for programs of any language: `PROTOCOL.md` says what is in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sepconv::{Numerics, Padding};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cases::{BadCase, Case, Operands};
use crate::composite::shapes;
use crate::files;
use crate::npy;

/// What `case.json` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Description {
    case: String,
    dtype: String,
    strides: [i64; 2],
    padding: Value,
    rate: [i64; 2],
    output_shape: [usize; 4],
    numerics: Option<String>,
    /// Why there are no numerics.
    reason: Option<String>,
}

impl Description {
    fn of(case: &Case, order: &Order) -> Result<Self, sepconv::Error> {
        Ok(Self {
            case: case.to_string(),
            dtype: case.element.to_string(),
            strides: case.attributes.strides,
            padding: match case.attributes.padding {
                Padding::Same => json!("SAME"),
                Padding::Valid => json!("VALID"),
                Padding::Explicit(paddings) => json!(paddings),
            },
            rate: case.attributes.rate,
            output_shape: case.geometry()?.output_shape(),
            numerics: order.as_ref().ok().map(Numerics::to_string),
            reason: order.as_ref().err().filter(|reason| !reason.is_empty()).cloned(),
        })
    }
}

/// Why a directory could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("{path}: {error}")]
    Json { path: PathBuf, error: serde_json::Error },
    #[error("{path}: {error}")]
    Case { path: PathBuf, error: BadCase },
    #[error("{path}: {field} must be {expected}, as the other fields say, got {got}")]
    Contradiction { path: PathBuf, field: &'static str, expected: Value, got: Value },
    #[error("{path}: numerics: {error}")]
    Numerics { path: PathBuf, error: sepconv::Error },
    #[error(transparent)]
    Npy(#[from] npy::Error),
    #[error(transparent)]
    Geometry(#[from] sepconv::Error),
}

/// The order that the case's output has, or why none is known; `Err("")` where nobody asked.
pub type Order = Result<Numerics, String>;

/// Writes the case with its operands into an existing directory; no output.
pub fn write<T: sepconv::Element>(
    directory: &Path,
    case: &Case,
    order: &Order,
    operands: &Operands<T>,
) -> Result<(), Error> {
    let path = directory.join("case.json");
    let text = serde_json::to_string_pretty(&Description::of(case, order)?);
    let text = text.map_err(|error| Error::Json { path: path.clone(), error })?;
    fs::write(&path, text + "\n").map_err(|error| Error::File { path, error })?;
    let arrays = [&operands.input, &operands.depthwise_filter, &operands.pointwise_filter];
    for ((name, shape), array) in NAMES.iter().zip(shapes(&case.geometry()?)).zip(arrays) {
        npy::write(&directory.join(name), case.element, &shape, array)?;
    }
    Ok(())
}

const NAMES: [&str; 3] = ["input.npy", "depthwise_filter.npy", "pointwise_filter.npy"];
const OUTPUT: &str = "output.npy";

pub fn write_output<T: sepconv::Element>(directory: &Path, case: &Case, output: &[T]) -> Result<(), Error> {
    Ok(npy::write(&directory.join(OUTPUT), case.element, &case.geometry()?.output_shape(), output)?)
}

/// The case and its order.
pub fn read(directory: &Path) -> Result<(Case, Order), Error> {
    let path = directory.join("case.json");
    let text = files::open(&path).and_then(io::read_to_string);
    let text = text.map_err(|error| Error::File { path: path.clone(), error })?;
    let description: Description =
        serde_json::from_str(&text).map_err(|error| Error::Json { path: path.clone(), error })?;
    let case = Case::given(&description.case).map_err(|error| Error::Case { path: path.clone(), error })?;
    let numerics = |text: &str| {
        let numerics: Numerics = text.parse().map_err(sepconv::Error::from)?;
        numerics.check(case.k()).map(|()| numerics)
    };
    let order = match &description.numerics {
        None => Err(description.reason.clone().unwrap_or_default()),
        Some(text) => Ok(numerics(text).map_err(|error| Error::Numerics { path: path.clone(), error })?),
    };
    // What programs read instead must say the same. (One case and one order have several texts.)
    let (expected, got) = (json!(Description::of(&case, &order)?), json!(description));
    for field in ["dtype", "strides", "padding", "rate", "output_shape", "reason"] {
        if got[field] != expected[field] {
            let (expected, got) = (expected[field].clone(), got[field].clone());
            return Err(Error::Contradiction { path, field, expected, got });
        }
    }
    Ok((case, order))
}

pub fn read_operands<T: sepconv::Element>(directory: &Path, case: &Case) -> Result<Operands<T>, Error> {
    let shapes = shapes(&case.geometry()?);
    let array = |i: usize| npy::read(&directory.join(NAMES[i]), case.element, &shapes[i]);
    Ok(Operands { input: array(0)?, depthwise_filter: array(1)?, pointwise_filter: array(2)? })
}

pub fn read_output<T: sepconv::Element>(directory: &Path, case: &Case) -> Result<Vec<T>, Error> {
    Ok(npy::read(&directory.join(OUTPUT), case.element, &case.geometry()?.output_shape())?)
}
