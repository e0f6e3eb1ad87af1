//! Programs from the crate registry that only tasks use: built once, into `target/tools`.

use std::{fs, path::PathBuf};

use crate::{
    console,
    process::{self, ProcessError, Purpose},
    workspace::Workspace,
};

/// Built to be built quickly: none of them works for long itself.
const PROFILE: [(&str, &str); 4] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
];

/// A cargo subcommand of a crate of its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CargoTool {
    /// The crate and its program.
    pub(crate) name: &'static str,
    /// The version that the task was verified with.
    pub(crate) version: &'static str,
    /// Further arguments of `cargo install`.
    pub(crate) features: &'static [&'static str],
}

impl CargoTool {
    /// The program, built if it is not there.
    pub(crate) fn ensure(&self, workspace: &Workspace) -> Result<PathBuf, ProcessError> {
        let Self { name, version, features } = self;
        let folder = workspace.tools().join(format!("{name}-{version}"));
        let program = folder.join("bin").join(name);
        if program.is_file() {
            return Ok(program);
        }
        console::step(&format!("building {name} {version} (a minute or two, once)"));
        let build = workspace.tools().join("build");
        process::run(
            workspace
                .cargo()
                .args(["install", name, "--locked", "--version", version])
                .args(*features)
                .arg("--root")
                .arg(&folder)
                .arg("--target-dir")
                .arg(&build)
                .envs(PROFILE),
            &Purpose::new(
                format!("building {name} {version}"),
                "if the crate registry cannot be reached, repeat when it can",
            ),
        )?;
        // What could not be removed is only in the way.
        drop(fs::remove_dir_all(&build));
        Ok(program)
    }
}
