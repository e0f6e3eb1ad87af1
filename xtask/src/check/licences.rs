//! Licences, bans and sources of the dependencies, by cargo-deny and `deny.toml`.

use std::process::Command;

use super::CheckError;
use crate::{
    process::{self, Purpose},
    setup::cargo_tool::CargoTool,
    workspace::Workspace,
};

/// Of the version that `deny.toml` is written for. Its own features are for advisories over the
/// network.
const CARGO_DENY: CargoTool =
    CargoTool { name: "cargo-deny", version: "0.20.2", features: &["--no-default-features"] };

/// Runs cargo-deny, after building it if it is not there. Advisories are left out: their database
/// comes from a git host, and a check must not depend on what is published there today.
pub(super) fn check(workspace: &Workspace) -> Result<(), CheckError> {
    let program = CARGO_DENY.ensure(workspace)?;
    Ok(process::run(
        Command::new(program)
            .current_dir(workspace.root())
            .args(["--log-level", "error", "--workspace", "check", "--hide-inclusion-graph"])
            .args(["bans", "licenses", "sources"]),
        &Purpose::new("cargo deny", "see the findings above and deny.toml"),
    )?)
}
