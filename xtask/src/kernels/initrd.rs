//! The initial file system of a machine: what every machine has, and its kernel's modules.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
};

use super::{KernelsError, cpio::Archive, guest::Files, modules, package::Kernel};
use crate::workspace::Workspace;

/// Mount points of the first process.
const MOUNTS: [&str; 5] = ["proc", "sys", "dev", "run", "tmp"];

/// Writes it, and returns where.
pub(super) fn write(
    workspace: &Workspace,
    kernel: &Kernel,
    guest: &Files,
) -> Result<PathBuf, KernelsError> {
    let modules = modules::needed(kernel)?;
    let order: Vec<&str> = modules.iter().map(|(name, _)| name.as_str()).collect();
    let mut files: Vec<(String, &[u8])> =
        guest.iter().map(|(path, contents)| (path.clone(), contents.as_slice())).collect();
    let order = order.join("\n");
    files.push(("modules/order".to_owned(), order.as_bytes()));
    for (name, contents) in &modules {
        files.push((format!("modules/{name}.ko"), contents));
    }
    let path = workspace.kernels().join(format!("{}.cpio", kernel.version));
    let written = || {
        let mut archive = Archive::new(BufWriter::new(File::create(&path)?));
        for folder in folders(files.iter().map(|(path, _)| path.as_str())) {
            archive.folder(&folder)?;
        }
        for (path, contents) in &files {
            archive.file(path, contents)?;
        }
        archive.finish()
    };
    written().map_err(KernelsError::file("write", &path))?;
    Ok(path)
}

/// Removes it: it is big, and made anew each time.
pub(super) fn remove(path: &Path) {
    // Nothing depends on it, and the next run replaces it.
    fs::remove_file(path).ok();
}

/// All folders of these files, each after the one that it is in, and those to mount on.
fn folders<'a>(paths: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut folders: BTreeSet<String> = MOUNTS.map(str::to_owned).into();
    for path in paths {
        folders.extend(path.match_indices('/').map(|(end, _)| path[..end].to_owned()));
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_after_those_that_they_are_in() {
        let folders = folders(["bin/ip", "lib/x86/a.so", "init"].into_iter());
        let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
        assert_eq!(folders, ["bin", "dev", "lib", "lib/x86", "proc", "run", "sys", "tmp"]);
    }
}
