//! promtool, which checks Prometheus' rules: the one of this machine, or Debian's, unpacked below
//! `target/`. Installing the package would start a server.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use super::{SetupError, apt, missing_programs};
use crate::{
    console,
    process::{self, Purpose},
    workspace::Workspace,
};

/// The package that has it.
const PACKAGE: &str = "prometheus";

/// The program, found or fetched.
pub(crate) fn ensure(workspace: &Workspace) -> Result<PathBuf, SetupError> {
    if missing_programs(&[("promtool", PACKAGE)]).is_empty() {
        return Ok(PathBuf::from("promtool"));
    }
    let folder = workspace.tools().join(PACKAGE);
    let program = folder.join("usr/bin/promtool");
    if !program.is_file() {
        fetch(workspace, &folder)?;
    }
    Ok(program)
}

fn fetch(workspace: &Workspace, folder: &Path) -> Result<(), SetupError> {
    apt::ensure_offered(&[PACKAGE], "checking the alerts needs promtool")?;
    console::step("fetching promtool");
    let denied = |reason: io::Error| SetupError::Write { path: workspace.show(folder), reason };
    fs::create_dir_all(folder).map_err(denied)?;
    let purpose = Purpose::new(
        "apt-get download prometheus",
        "connect the machine, or put promtool on PATH, then repeat",
    );
    process::capture(
        Command::new("apt-get").args(["download", PACKAGE]).current_dir(folder),
        &purpose,
    )?;
    let entries = fs::read_dir(folder).map_err(denied)?;
    let package = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let Some(package) = package else {
        return Err(denied(io::Error::other("apt-get has left no package")));
    };
    let purpose = Purpose::new("unpacking prometheus", "remove the folder and repeat");
    process::capture(Command::new("dpkg-deb").arg("-x").args([&*package, folder]), &purpose)?;
    fs::remove_file(package).map_err(denied)
}
