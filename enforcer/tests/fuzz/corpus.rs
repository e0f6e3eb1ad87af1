//! The inputs that a target starts from: those kept in its folder, a failure of once each.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folder of a target's inputs.
pub(crate) fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}

/// All inputs of a target, by name.
pub(crate) fn read(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let inputs: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!inputs.is_empty(), "no input of {target} to start from");
    inputs
}
