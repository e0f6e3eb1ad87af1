//! Licences, bans and sources of the dependencies, by cargo-deny and `deny.toml`.

use std::{fs, process::Command};

use super::CheckError;
use crate::{
    console,
    process::{self, Purpose},
    workspace::Workspace,
};

/// The version that `deny.toml` is written for.
const VERSION: &str = "0.20.2";

/// Built to be built quickly: it looks at a few hundred crates, for a second.
const PROFILE: [(&str, &str); 4] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
];

/// Runs cargo-deny, after building it if it is not there. Advisories are left out: their database
/// comes from a git host, and a check must not depend on what is published there today.
pub(super) fn check(workspace: &Workspace) -> Result<(), CheckError> {
    let folder = workspace.tools().join(format!("cargo-deny-{VERSION}"));
    let program = folder.join("bin/cargo-deny");
    if !program.is_file() {
        console::step(&format!("building cargo-deny {VERSION} (a minute or two, once)"));
        let build = workspace.tools().join("build");
        process::run(
            workspace
                .cargo()
                .args(["install", "cargo-deny", "--locked", "--version", VERSION])
                // Its own features are for advisories over the network.
                .args(["--no-default-features", "--root"])
                .arg(&folder)
                .arg("--target-dir")
                .arg(&build)
                .envs(PROFILE),
            &Purpose::new(
                format!("building cargo-deny {VERSION}"),
                "if the crate registry cannot be reached, repeat when it can",
            ),
        )?;
        // What could not be removed is only in the way.
        drop(fs::remove_dir_all(&build));
    }
    Ok(process::run(
        Command::new(program)
            .current_dir(workspace.root())
            .args(["--log-level", "error", "--workspace", "check", "--hide-inclusion-graph"])
            .args(["bans", "licenses", "sources"]),
        &Purpose::new("cargo deny", "see the findings above and deny.toml"),
    )?)
}
