//! `enforcer observe --follow`, read line by line as a person or a collector would, with the moment
//! at which each line was there.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{Agent, LabError};

/// A line, and when it was read.
#[derive(Clone, Debug)]
pub struct Line {
    /// When.
    pub at: Instant,
    /// What it says.
    pub json: Value,
}

/// The command at work. It is killed when this is dropped.
#[derive(Debug)]
pub struct Follow {
    child: Child,
    lines: Receiver<Line>,
}

impl Follow {
    /// Follows the flows of an agent; `flags` are added to `observe --follow -o json`.
    ///
    /// # Errors
    /// If the command cannot be started.
    pub fn start(agent: &Agent, flags: &[&str]) -> Result<Self, LabError> {
        let failed = |source| LabError::Start { program: "enforcer observe".to_owned(), source };
        let mut child = Command::new(agent.binary())
            .args(["observe", "--follow", "-o", "json"])
            .args(flags)
            .args(["--run-dir".as_ref(), agent.run_dir().as_os_str()])
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (sender, lines) = mpsc::channel();
        if let Some(out) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(out).lines() {
                    let at = Instant::now();
                    let Ok(line) = line else { return };
                    let json = serde_json::from_str(&line).unwrap_or(Value::String(line));
                    if sender.send(Line { at, json }).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { child, lines })
    }

    /// The next line, if there is one in time.
    #[must_use]
    pub fn next(&self, patience: Duration) -> Option<Line> {
        self.lines.recv_timeout(patience).ok()
    }

    /// All that was read and not asked for yet.
    pub fn read(&self) -> impl Iterator<Item = Line> {
        self.lines.try_iter()
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        // An error means that it is gone.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
