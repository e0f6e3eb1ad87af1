//! A folder of manifests that changes file by file, each change whole.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::LabError;

/// The folder that the agent reads.
#[derive(Debug)]
pub struct Manifests {
    dir: PathBuf,
}

impl Manifests {
    /// An empty folder below `dir`; it goes with that.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(dir: &Path) -> Result<Self, LabError> {
        let dir = dir.join("manifests");
        fs::create_dir_all(&dir).map_err(LabError::io(format!("create {}", dir.display())))?;
        Ok(Self { dir })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Writes or replaces a file in one step, so that nobody reads half of it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<(), LabError> {
        let hidden = self.dir.join(format!(".{name}.new"));
        let path = self.dir.join(name);
        fs::write(&hidden, text)
            .and_then(|()| fs::rename(&hidden, &path))
            .map_err(LabError::io(format!("write {}", path.display())))
    }

    /// Removes a file; true if it was there.
    ///
    /// # Errors
    /// If it is there and cannot be removed.
    pub fn remove(&self, name: &str) -> Result<bool, LabError> {
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(LabError::io(format!("remove {}", path.display()))(error)),
        }
    }
}
