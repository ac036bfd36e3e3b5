//! Arrays in numpy's file format, version 1.0, bits as they are: what `numpy.load` and `numpy.save` need nothing else for.
//!
//! numpy knows no bfloat16, so these are stored as the 16-bit integers that have their bits; what numpy writes for the
//! bfloat16 of `ml_dtypes` is read as well.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytemuck::Pod;

use crate::cases::ElementType;
use crate::files;

const MAGIC: &[u8; 8] = b"\x93NUMPY\x01\x00";

/// Why a file was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("{path} is not a file that numpy.save writes (format 1.0)")]
    Format { path: PathBuf },
    #[error("{path} must hold {expected}, got {got}")]
    Array { path: PathBuf, expected: String, got: String },
    #[error("{path} must have {expected} bytes, as its header says, got {got}")]
    Length { path: PathBuf, expected: usize, got: u64 },
}

impl ElementType {
    /// numpy's words for it: the one to write first.
    fn descriptions(self) -> &'static [&'static str] {
        match self {
            Self::F32 => &["<f4"],
            Self::F64 => &["<f8"],
            Self::F16 => &["<f2"],
            Self::Bf16 => &["<u2", "<V2", "|V2"],
        }
    }
}

fn shape_text(shape: &[usize]) -> String {
    let extents: Vec<_> = shape.iter().map(usize::to_string).collect();
    format!("({}{})", extents.join(", "), if shape.len() == 1 { "," } else { "" })
}

/// Writes elements of that type, row-major.
pub fn write<T: Pod>(path: &Path, element: ElementType, shape: &[usize], values: &[T]) -> Result<(), Error> {
    let (description, shape) = (element.descriptions()[0], shape_text(shape));
    let mut header = format!("{{'descr': '{description}', 'fortran_order': False, 'shape': {shape}, }}");
    // The values start at a multiple of 64, as numpy has it.
    header.push_str(&" ".repeat((64 - (MAGIC.len() + 2 + header.len() + 1) % 64) % 64));
    header.push('\n');
    let length = u16::try_from(header.len()).expect("four extents take some hundred characters").to_le_bytes();
    let bytes = [MAGIC, &length[..], header.as_bytes(), &little_endian(values)].concat();
    let written = File::create(path).and_then(|mut file| file.write_all(&bytes));
    written.map_err(|error| Error::File { path: path.into(), error })
}

/// Reads an array that must have that type and shape.
pub fn read<T: Pod>(path: &Path, element: ElementType, shape: &[usize]) -> Result<Vec<T>, Error> {
    let failed = |error| Error::File { path: path.into(), error };
    let not_npy = || Error::Format { path: path.into() };
    let mut file = files::open(path).map_err(failed)?;
    let mut start = [0; MAGIC.len() + 2];
    file.read_exact(&mut start).map_err(|_| not_npy())?;
    if !start.starts_with(MAGIC) {
        return Err(not_npy());
    }
    let mut header = vec![0; usize::from(u16::from_le_bytes([start[8], start[9]]))];
    file.read_exact(&mut header).map_err(|_| not_npy())?;
    let header = String::from_utf8(header).map_err(|_| not_npy())?;
    let field = |name: &str, end: char| {
        let rest = header.split_once(&format!("'{name}': "))?.1.trim_start_matches('\'');
        Some(rest.split_once(end)?.0.to_owned())
    };
    let description = field("descr", '\'').ok_or_else(not_npy)?;
    let fortran = field("fortran_order", ',').ok_or_else(not_npy)? == "True";
    let got_shape = field("shape", ')').ok_or_else(not_npy)? + ")";
    let order = if fortran { ", column by column" } else { "" };
    if !element.descriptions().contains(&description.as_str()) || got_shape != shape_text(shape) || fortran {
        return Err(Error::Array {
            path: path.into(),
            expected: format!("{} of shape {}", element.descriptions()[0], shape_text(shape)),
            got: format!("{description} of shape {got_shape}{order}"),
        });
    }
    let bytes = shape.iter().product::<usize>() * size_of::<T>();
    let expected = start.len() + header.len() + bytes;
    let got = file.metadata().map_err(failed)?.len();
    if got != expected as u64 {
        return Err(Error::Length { path: path.into(), expected, got });
    }
    let mut values = vec![T::zeroed(); bytes / size_of::<T>()];
    file.read_exact(bytemuck::cast_slice_mut(&mut values)).map_err(failed)?;
    Ok(turned(values))
}

fn little_endian<T: Pod>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(&turned(values.to_vec())).to_vec()
}

/// From this machine's order of bytes to that of the file, or back.
fn turned<T: Pod>(mut values: Vec<T>) -> Vec<T> {
    if cfg!(target_endian = "big") {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
        bytes.chunks_exact_mut(size_of::<T>()).for_each(<[u8]>::reverse);
    }
    values
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    fn there_and_back<T: Pod + PartialEq + std::fmt::Debug>(element: ElementType, values: &[T]) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("array.npy");
        write(&path, element, &[1, values.len()], values).unwrap();
        assert_eq!(read::<T>(&path, element, &[1, values.len()]).unwrap(), values);
        assert_eq!(std::fs::metadata(&path).unwrap().len() as usize, 128 + size_of_val(values));
        let error = read::<T>(&path, element, &[values.len()]).unwrap_err().to_string();
        assert!(error.contains("of shape (2,), got"), "{error}");
    }

    #[test]
    fn bits_survive() {
        there_and_back(ElementType::F32, &[1.5f32, -0.0]);
        there_and_back(ElementType::F64, &[1.5f64, f64::MIN_POSITIVE / 4.0]);
        there_and_back(ElementType::F16, &[f16::ONE, f16::INFINITY]);
        there_and_back(ElementType::Bf16, &[bf16::ONE, bf16::MIN]);
    }

    #[test]
    fn other_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("array.npy");
        let error = || read::<f32>(&path, ElementType::F32, &[2]).unwrap_err();
        assert!(matches!(error(), Error::File { .. }));
        for text in ["", "PK", "\u{93}NUMPY", "no array at all, but long enough"] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(error(), Error::Format { .. }), "{text}");
        }
        write(&path, ElementType::F32, &[2], &[1f32; 3]).unwrap();
        assert!(matches!(error(), Error::Length { .. }));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert_eq!(error().to_string(), format!("{}: not a regular file", path.display()));
    }
}
