//! Golden vectors: cases as directories of files, with TensorFlow's output and the order that it has, so that other
//! implementations can be compared with TensorFlow where there is none. `PROTOCOL.md` describes the files.

pub mod check;
pub mod export;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files;
use crate::reference::Reference;

const FORMAT: &str = "sepconv vectors";
/// Raised when a reader of the last version would misunderstand; a reader reads every version that ever was.
const VERSION: u64 = 1;
const FILE: &str = "vectors.json";

/// What `vectors.json` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Index {
    format: String,
    version: u64,
    /// Of TensorFlow.
    pub tensorflow: String,
    pub reference: Reference,
    pub seed: u64,
    /// The directories of the cases.
    pub cases: Vec<String>,
}

/// Why a directory is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {error}")]
    Directory { path: PathBuf, error: io::Error },
    #[error("{path} is not a directory of vectors: {why}")]
    NotVectors { path: PathBuf, why: String },
    #[error("{path} has version {got} of the format, this program reads versions 1 to {VERSION}")]
    Version { path: PathBuf, got: u64 },
    #[error(transparent)]
    Case(#[from] crate::case_directory::Error),
    /// What came of a case could not be told.
    #[error("{0}")]
    Untold(#[from] io::Error),
}

impl Index {
    pub fn read(directory: &Path) -> Result<Self, Error> {
        let not_vectors = |why: String| Error::NotVectors { path: directory.into(), why };
        fs::read_dir(directory).map_err(|error| Error::Directory { path: directory.into(), error })?;
        let text = files::open(&directory.join(FILE)).and_then(io::read_to_string);
        let text = text.map_err(|error| not_vectors(format!("{FILE}: {error}")))?;
        let index: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| not_vectors(format!("{FILE}: {error}")))?;
        if index["format"] != FORMAT {
            return Err(not_vectors(format!("the format in {FILE} must be \"{FORMAT}\", got {}", index["format"])));
        }
        match index["version"].as_u64() {
            Some(VERSION) => {}
            Some(got) => return Err(Error::Version { path: directory.into(), got }),
            None => {
                return Err(not_vectors(format!("the version in {FILE} must be a number, got {}", index["version"])));
            }
        }
        let index: Self = serde_json::from_value(index).map_err(|error| not_vectors(format!("{FILE}: {error}")))?;
        if index.cases.is_empty() {
            return Err(not_vectors(format!("{FILE} must name at least 1 case, got 0")));
        }
        Ok(index)
    }
}
