//! Builds the daemon and finds out where cargo put it.

use std::path::PathBuf;

use crate::{
    console,
    process::{self, ProcessError, Purpose},
    workspace::Workspace,
};

/// How to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build.
    Dev,
    /// What is shipped.
    Release,
}

impl Profile {
    /// The arguments of cargo that select it.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Release => &["--release"],
        }
    }
}

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    /// cargo failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// cargo was content but named no program.
    #[error(
        "cargo built the daemon but named no program; check that enforcer/Cargo.toml has [[bin]] enforcer"
    )]
    NoProgram,
}

/// Builds the daemon; the kernel object must be there already. Returns the program's path.
pub(crate) fn build(workspace: &Workspace, profile: Profile) -> Result<PathBuf, DaemonError> {
    console::step("building the daemon");
    let purpose = Purpose::new("building the daemon", "see the errors above");
    let mut command = workspace.cargo();
    command
        .args(["build", "--quiet", "--package", "enforcer", "--bin", "enforcer"])
        // cargo's own account of what it built: the target folder has many ways to be elsewhere.
        .arg("--message-format=json-render-diagnostics")
        .args(profile.arguments());
    let mut program = None;
    let status = process::each_line(&mut command, &purpose, |line| {
        program = executable(line, "enforcer").or(program.take());
    })?;
    if !status.success() {
        return Err(purpose.failed(status).into());
    }
    program.ok_or(DaemonError::NoProgram)
}

/// The path of the program `name` in one of cargo's messages, if it is the one about that program.
pub(crate) fn executable(message: &str, name: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let target = message.get("target")?;
    let is_it = message.get("reason")? == "compiler-artifact"
        && target.get("name")? == name
        && target.get("kind")?.as_array()?.iter().any(|kind| kind == "bin");
    is_it.then(|| message.get("executable")?.as_str().map(PathBuf::from))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_is_found_among_cargos_messages() {
        let daemon = r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"enforcer"},
            "executable":"/t/debug/enforcer"}"#;
        assert_eq!(executable(daemon, "enforcer"), Some(PathBuf::from("/t/debug/enforcer")));
        let library = daemon.replace("[\"bin\"]", "[\"lib\"]");
        assert_eq!(executable(&library, "enforcer"), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#, "enforcer"), None);
        assert_eq!(executable("no message", "enforcer"), None);
    }
}
