//! Running other programs, with errors that say which one failed and what it said.

use std::{
    ffi::OsStr,
    fs::File,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{ClusterError, interrupt};

/// Longest part of a program's output in an error, in bytes.
const TAIL: usize = 2000;
/// Between two questions.
const POLL: Duration = Duration::from_millis(50);

/// Runs `command` and returns its standard output; `what` is the subject of "... failed".
pub(crate) fn capture(command: &mut Command, what: &str) -> Result<String, ClusterError> {
    capture_with(command.stdin(Stdio::null()), what)
}

/// Like [`capture`], with the standard input that the command has.
pub(crate) fn capture_with(command: &mut Command, what: &str) -> Result<String, ClusterError> {
    let output = command.output().map_err(start_error(command))?;
    checked(&output, what)
}

/// Like [`capture`], with `input` on the program's standard input.
pub(crate) fn feed(command: &mut Command, input: &str, what: &str) -> Result<String, ClusterError> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start_error(command))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read to the end has failed and says why below.
        stdin.write_all(input.as_bytes()).ok();
    }
    let output = child.wait_with_output().map_err(ClusterError::io(format!("wait for {what}")))?;
    checked(&output, what)
}

/// Starts a program that outlives this one, with its output appended to the file `log`.
///
/// It gets a session of its own, so that no Ctrl-C reaches it, and is nobody's child here, so that
/// nothing is left of it when it ends.
pub(crate) fn detach(
    command: &[&OsStr],
    environment: &[(&str, String)],
    log: &Path,
) -> Result<(), ClusterError> {
    let output = File::options()
        .create(true)
        .append(true)
        .open(log)
        .map_err(ClusterError::file("open", log))?;
    let errors = output.try_clone().map_err(ClusterError::file("open", log))?;
    let mut setsid = Command::new("setsid");
    setsid
        .arg("--fork")
        .args(command)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        // The contributor's own configuration is not the cluster's.
        .env_remove("KUBECONFIG")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors);
    let status = setsid.status().map_err(start_error(&setsid))?;
    if status.success() {
        return Ok(());
    }
    Err(ClusterError::Failed {
        what: format!("starting {}", command.join(OsStr::new(" ")).display()),
        status,
        output: format!("see {}", log.display()),
    })
}

/// Asks again and again until there is an answer; `hint` is asked when there is none in time.
pub(crate) fn poll<T>(
    what: &str,
    limit: Duration,
    hint: impl FnOnce() -> String,
    mut ask: impl FnMut() -> Result<Option<T>, ClusterError>,
) -> Result<T, ClusterError> {
    poll_uninterrupted(what, limit, hint, || {
        interrupt::check()?;
        ask()
    })
}

/// Like [`poll`], also after a signal that asks to end: for removing what was made.
pub(crate) fn poll_uninterrupted<T>(
    what: &str,
    limit: Duration,
    hint: impl FnOnce() -> String,
    mut ask: impl FnMut() -> Result<Option<T>, ClusterError>,
) -> Result<T, ClusterError> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            let seconds = limit.as_secs();
            return Err(ClusterError::Late { what: what.to_owned(), seconds, hint: hint() });
        }
        thread::sleep(POLL);
    }
}

fn checked(output: &Output, what: &str) -> Result<String, ClusterError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    Err(ClusterError::Failed {
        what: what.to_owned(),
        status: output.status,
        output: tail(&String::from_utf8_lossy(&said)).to_owned(),
    })
}

/// The end of a long text.
pub(crate) fn tail(text: &str) -> &str {
    let text = text.trim();
    let from = text.len().saturating_sub(TAIL);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(from..).unwrap_or_default()
}

fn start_error(command: &Command) -> impl FnOnce(std::io::Error) -> ClusterError {
    let program = command.get_program().to_string_lossy().into_owned();
    move |reason| ClusterError::Start { program, reason }
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
    fn a_failure_says_what_the_program_said() {
        let error = capture(&mut shell("echo no >&2; exit 3"), "asking").unwrap_err();
        assert_eq!(error.to_string(), "asking failed (exit status: 3): no");
        let error = capture(&mut Command::new("/nonexistent/x"), "asking").unwrap_err();
        assert!(error.to_string().starts_with("cannot start /nonexistent/x"), "{error}");
    }

    #[test]
    fn input_reaches_the_program() {
        assert_eq!(feed(&mut shell("cat"), "a\nb", "reading").unwrap(), "a\nb");
        // One that does not read is not an error of this side.
        assert_eq!(feed(&mut shell("exit 0"), &"x".repeat(1 << 20), "reading").unwrap(), "");
    }

    #[test]
    fn long_output_is_cut_between_characters() {
        let text = "ä".repeat(TAIL);
        assert_eq!(tail(&text).len(), TAIL);
        assert!(tail(&("x".to_owned() + &text)).len() <= TAIL);
        assert_eq!(tail(" short \n"), "short");
    }
}
