//! The `ip` command, many lines in one process.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use crate::{LabError, cleanup, netns::Netns};

/// Runs the lines in the namespace (the process's own if there is none). Stops at the first error.
pub(crate) fn batch(namespace: Option<&Netns>, lines: &[String]) -> Result<(), LabError> {
    if lines.is_empty() {
        return Ok(());
    }
    let _guard = cleanup::making()?;
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace.name()]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| LabError::Start { program: "ip".into(), source })?;
    // `ip` writes next to nothing until it has read everything: this cannot block for good.
    if let Some(mut stdin) = child.stdin.take() {
        let written = stdin.write_all((lines.join("\n") + "\n").as_bytes());
        // A broken pipe means that `ip` gave up at an earlier line; its message says why.
        if let Err(error) = written
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            return Err(LabError::io("write to ip")(error));
        }
    }
    let output = child.wait_with_output().map_err(LabError::io("wait for ip"))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let line = message
        .rsplit_once(':')
        .and_then(|(_, number)| number.trim().parse::<usize>().ok())
        .and_then(|number| lines.get(number.checked_sub(1)?))
        .map_or_else(|| "ip -batch".to_owned(), |line| format!("ip {line}"));
    Err(LabError::Failed { command: line, message })
}
