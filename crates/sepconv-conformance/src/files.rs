//! Nothing half-written stays: files and directories are made under another name beside their own, and moved when done;
//! signals wait until then.
//! Nothing is waited for: only regular files are read.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::signals::Deferred;

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {error}")]
    Write { path: PathBuf, error: io::Error },
    #[error("{path} exists already: name a directory that does not")]
    Exists { path: PathBuf },
    #[error("{path} is not a regular file")]
    NotRegular { path: PathBuf },
}

/// The directory that holds `path`.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What `make` makes, beside `path`. An error says nothing of its name, as those of `tempfile_in` do.
fn beside<T>(path: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<NamedTempFile<T>> {
    tempfile::Builder::new().prefix(".sepconv-").make_in(parent(path), make)
}

/// Fails now if `path` could not be written later.
pub fn check(path: &Path) -> Result<(), Error> {
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Error::NotRegular { path: path.into() });
    }
    let _deferred = Deferred::begin();
    beside(path, |path| File::create_new(path)).map(drop).map_err(|error| Error::Write { path: path.into(), error })
}

/// Opens a file to be read. What is not a regular file is refused: a named pipe would be waited for, a device may not end.
pub fn open(path: &Path) -> io::Result<File> {
    match path.metadata()?.is_file() {
        true => File::open(path),
        false => Err(io::Error::other("not a regular file")),
    }
}

/// Writes a whole file.
pub fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |error| Error::Write { path: path.into(), error };
    let _deferred = Deferred::begin();
    let file = beside(path, |path| File::create_new(path)).map_err(failed)?;
    fs::write(file.path(), text).map_err(failed)?;
    readable(file.path()).map_err(failed)?;
    file.persist(path).map(drop).map_err(|error| failed(error.error))
}

/// A directory in the making: gone when dropped, unless [`finish`](Self::finish)ed.
pub struct Unfinished {
    path: PathBuf,
    destination: PathBuf,
    _deferred: Deferred,
}

impl Unfinished {
    /// `path` must not exist.
    pub fn begin(path: &Path) -> Result<Self, Error> {
        if path.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: path.into() });
        }
        let deferred = Deferred::begin();
        let made = beside(path, |path| fs::create_dir(path)).and_then(|made| Ok(made.keep()?));
        let ((), unfinished) = made.map_err(|error| Error::Write { path: path.into(), error })?;
        Ok(Self { path: unfinished, destination: path.into(), _deferred: deferred })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of all files so far.
    pub fn size(&self) -> Result<u64, Error> {
        size(&self.path).map_err(|error| Error::Write { path: self.destination.clone(), error })
    }

    pub fn finish(self) -> Result<(), Error> {
        let Self { path, destination, .. } = &self;
        // Should it have been made meanwhile: only an empty one is replaced.
        let moved = readable(path).and_then(|()| fs::rename(path, destination));
        moved.map_err(|error| Error::Write { path: destination.clone(), error })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Once moved it is not there.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn size(path: &Path) -> io::Result<u64> {
    let metadata = path.metadata()?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    fs::read_dir(path)?.map(|entry| size(&entry?.path())).sum()
}

/// Temporary files and directories are for their owner only; results are for those who may read others.
fn readable(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    let _ = path;
    Ok(())
}
