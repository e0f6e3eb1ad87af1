//! Running other programs, with errors that say which one failed and what to do.

use std::{
    io,
    process::{Command, ExitStatus, Output, Stdio},
};

/// Why another program did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    /// It could not be started.
    #[error("cannot start {program}: {reason}; {hint}")]
    Start { program: String, reason: io::Error, hint: String },
    /// It ran and said no.
    #[error("{what} failed ({status}); {hint}")]
    Failed { what: String, status: ExitStatus, hint: String },
    /// It ran and said no, and its output was not shown yet.
    #[error("{what} failed ({status}): {output}; {hint}")]
    FailedQuietly { what: String, status: ExitStatus, output: String, hint: String },
}

/// What a program is run for, for messages.
#[derive(Clone, Debug)]
pub(crate) struct Purpose {
    what: String,
    hint: String,
}

impl Purpose {
    /// `what` is the subject of "... failed"; `hint` says what to do then.
    pub(crate) fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }

    fn start_error(&self, command: &Command, reason: io::Error) -> ProcessError {
        let program = command.get_program().to_string_lossy().into_owned();
        let hint = if reason.kind() == io::ErrorKind::NotFound {
            format!("install it or put it into PATH ({} needs it)", self.what)
        } else {
            self.hint.clone()
        };
        ProcessError::Start { program, reason, hint }
    }

    /// The error for a program that ran, showed its output and ended with `status`.
    pub(crate) fn failed(&self, status: ExitStatus) -> ProcessError {
        ProcessError::Failed { what: self.what.clone(), status, hint: self.hint.clone() }
    }
}

/// Runs `command` with this program's own streams.
pub(crate) fn run(command: &mut Command, purpose: &Purpose) -> Result<(), ProcessError> {
    let status = command.status().map_err(|error| purpose.start_error(command, error))?;
    if status.success() { Ok(()) } else { Err(purpose.failed(status)) }
}

/// Runs `command` silently and returns all it said, whatever its exit status.
pub(crate) fn output(command: &mut Command, purpose: &Purpose) -> Result<Output, ProcessError> {
    command.stdin(Stdio::null()).output().map_err(|error| purpose.start_error(command, error))
}

/// Runs `command` silently and returns its standard output; its failure shows the error stream.
pub(crate) fn capture(command: &mut Command, purpose: &Purpose) -> Result<String, ProcessError> {
    let output = output(command, purpose)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(quiet_failure(&output, purpose))
    }
}

/// The error for a program whose output was kept back.
pub(crate) fn quiet_failure(output: &Output, purpose: &Purpose) -> ProcessError {
    ProcessError::FailedQuietly {
        what: purpose.what.clone(),
        status: output.status,
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        hint: purpose.hint.clone(),
    }
}

/// Runs `command`, gives every line of its standard output to `line`, and returns how it ended.
/// The error stream is this program's own.
pub(crate) fn each_line(
    command: &mut Command,
    purpose: &Purpose,
    mut line: impl FnMut(&str),
) -> Result<ExitStatus, ProcessError> {
    use std::io::{BufRead as _, BufReader};

    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| purpose.start_error(command, error))?;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut bytes = Vec::new();
        // Bytes, not `lines()`: a test may print what is not UTF-8, and must not end the reading.
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
            line(String::from_utf8_lossy(&bytes).trim_end_matches('\n'));
            bytes.clear();
        }
    }
    child.wait().map_err(|error| purpose.start_error(command, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_says_what_where_and_what_to_do() {
        let purpose = Purpose::new("building the moon", "get more cheese");
        let error = capture(&mut shell("echo no cheese >&2; exit 3"), &purpose).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("building the moon failed (exit status: 3)"), "{text}");
        assert!(text.contains("no cheese") && text.ends_with("get more cheese"), "{text}");
        let error = run(&mut Command::new("/nonexistent/rocket"), &purpose).unwrap_err();
        assert!(error.to_string().starts_with("cannot start /nonexistent/rocket"), "{error}");
    }

    #[test]
    fn every_line_arrives_even_when_it_is_no_text() {
        let mut lines = Vec::new();
        let purpose = Purpose::new("printing", "read on");
        let status = each_line(&mut shell("printf 'a\\n\\377\\nb'; exit 1"), &purpose, |line| {
            lines.push(line.to_owned());
        })
        .unwrap();
        assert_eq!(lines, ["a", "\u{fffd}", "b"]);
        assert_eq!(status.code(), Some(1));
    }
}
