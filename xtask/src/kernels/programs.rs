//! The test programs that machines run, built by the very commands that the other tests use, so that
//! nothing is built twice.

use std::path::PathBuf;

use super::KernelsError;
use crate::{
    console,
    process::{self, Purpose},
    workspace::Workspace,
};

/// Where cargo put them.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    /// The real object under test runs.
    pub(super) program: PathBuf,
    /// The agent, end to end.
    pub(super) kernels: PathBuf,
}

/// Builds them.
pub(super) fn build(workspace: &Workspace) -> Result<Programs, KernelsError> {
    console::step("building the tests of kernels");
    let units = ["--workspace", "--exclude", "enforcer-ebpf", "--exclude", "enforcer-tests"];
    let lab = ["--package", "enforcer-tests", "--features", "kernel-tests"];
    Ok(Programs {
        program: one(workspace, &units, "program")?,
        kernels: one(workspace, &lab, "kernels")?,
    })
}

fn one(
    workspace: &Workspace,
    packages: &[&str],
    name: &'static str,
) -> Result<PathBuf, KernelsError> {
    let purpose = Purpose::new("building the tests of kernels", "see the errors above");
    let mut command = workspace.cargo();
    command
        .args(["test", "--no-run", "--quiet", "--test", name])
        .arg("--message-format=json-render-diagnostics")
        .args(packages);
    let mut program = None;
    let status = process::each_line(&mut command, &purpose, |line| {
        program = executable(line, name).or(program.take());
    })?;
    if !status.success() {
        return Err(purpose.failed(status).into());
    }
    program.ok_or(KernelsError::NoProgram(name))
}

/// The path of a test program in one of cargo's messages, if it is the one about it.
fn executable(message: &str, name: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let target = message.get("target")?;
    let is_it = message.get("reason")? == "compiler-artifact"
        && target.get("name")? == name
        && target.get("kind")?.as_array()?.iter().any(|kind| kind == "test");
    is_it.then(|| message.get("executable")?.as_str().map(PathBuf::from))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_program_is_found_among_cargos_messages() {
        let test = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"kernels"},
            "executable":"/t/debug/deps/kernels-1"}"#;
        assert_eq!(executable(test, "kernels"), Some(PathBuf::from("/t/debug/deps/kernels-1")));
        assert_eq!(executable(test, "program"), None);
        assert_eq!(executable(&test.replace("[\"test\"]", "[\"bin\"]"), "kernels"), None);
    }
}
