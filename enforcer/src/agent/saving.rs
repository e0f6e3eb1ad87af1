//! Saves what must survive a reboot: soon where an agent of this boot would miss it, not too often,
//! and never in the owning task's way.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use tokio::task::{JoinError, JoinHandle};

use super::core::Core;
use crate::source::{Source, problem::Problem, saved};

/// This long after a change of policies, namespaces or this node's pods it is saved, together with
/// those that follow: until then the next agent would have to leave things as they are.
const SOON: Duration = Duration::from_millis(100);
/// Between two writes there is so many times what one takes, within limits.
const SHARE: u32 = 20;
/// This long after another change it is saved.
const SETTLE: Duration = Duration::from_secs(1);
/// Between two writes that nobody waits for.
const SELDOM: Duration = Duration::from_secs(10);
/// While the API server is there, what was saved is confirmed this often.
const CONFIRM: Duration = Duration::from_secs(30);

/// What was done to the file.
#[derive(Debug)]
enum Done {
    Written(u64, Duration),
    Confirmed,
}

/// When to write.
#[derive(Debug, Default)]
struct Pace {
    /// Since when there is something to write.
    changed: Option<Instant>,
    tried: Option<Instant>,
    /// What the last write took.
    cost: Duration,
}

impl Pace {
    fn is_due(&self, urgent: bool, now: Instant) -> bool {
        let (settle, apart) = if urgent {
            (SOON, self.cost.saturating_mul(SHARE).clamp(SOON, SELDOM))
        } else {
            (SETTLE, SELDOM)
        };
        self.changed.is_some_and(|at| now.saturating_duration_since(at) >= settle)
            && past(self.tried, apart, now)
    }
}

fn past(at: Option<Instant>, wait: Duration, now: Instant) -> bool {
    at.is_none_or(|at| now.saturating_duration_since(at) >= wait)
}

/// The saving of one agent.
#[derive(Debug)]
pub(super) struct Saving {
    dir: PathBuf,
    node: String,
    /// State that was looked at last.
    seen: u64,
    pace: Pace,
    confirmed: Option<Instant>,
    /// A hash of what is in the file, which can be megabytes. By a key of this process, so that
    /// nobody can write objects of which two contents are the same to it.
    content: Option<u64>,
    key: RandomState,
    work: Option<JoinHandle<io::Result<Done>>>,
    failing: bool,
}

impl Saving {
    pub(super) fn new(dir: PathBuf, node: String) -> Self {
        Self {
            dir,
            node,
            seen: 0,
            pace: Pace::default(),
            confirmed: None,
            content: None,
            key: RandomState::new(),
            work: None,
            failing: false,
        }
    }

    /// Looks at what is to be done. To be called many times a second: it costs nothing.
    pub(super) async fn look(&mut self, core: &mut Core, now: Instant) {
        if let Some(work) = self.work.take_if(|work| work.is_finished()) {
            self.finish(work.await, core, now);
        }
        let changes = core.changes();
        let (Source::Kubernetes(source), Some(unsaved)) = (&core.source, &mut core.unsaved) else {
            return;
        };
        // What came from the disk, or from a part of the server's lists, is not to replace it.
        if !source.is_live() || self.work.is_some() {
            return;
        }
        if changes != self.seen {
            self.seen = changes;
            self.pace.changed.get_or_insert(now);
        }
        if unsaved.take_lost() {
            self.content = None;
            self.pace.changed.get_or_insert(now);
        }
        if self.pace.is_due(unsaved.is_urgent() && !self.failing, now) {
            unsaved.saving();
            let remembered = core.index.remembered(&self.node);
            let content = saved::encode(source.identity(), source.policies(), &remembered);
            let took = now.elapsed();
            (self.pace.changed, self.pace.tried) = (None, Some(now));
            match content {
                Ok(content) if self.content != Some(self.key.hash_one(&content)) => {
                    let (dir, hash) = (self.dir.clone(), self.key.hash_one(&content));
                    self.work = Some(tokio::task::spawn_blocking(move || {
                        let began = Instant::now();
                        saved::write(&dir, &content)?;
                        Ok(Done::Written(hash, took + began.elapsed()))
                    }));
                    return;
                }
                Ok(_) => unsaved.saved(),
                Err(error) => self.fail(&error.to_string(), &mut core.not_saved),
            }
        }
        if self.content.is_some() && source.is_in_contact() && past(self.confirmed, CONFIRM, now) {
            self.confirmed = Some(now);
            let dir = self.dir.clone();
            self.work = Some(tokio::task::spawn_blocking(move || {
                saved::confirm(&dir, SystemTime::now()).map(|()| Done::Confirmed)
            }));
        }
    }

    /// Whether nothing is being written. What is not saved by then is in the journal.
    pub(super) async fn is_done(&mut self, core: &mut Core) -> bool {
        if let Some(work) = self.work.take_if(|work| work.is_finished()) {
            self.finish(work.await, core, Instant::now());
        }
        self.work.is_none()
    }

    /// Waits for what is being written.
    pub(super) async fn end(&mut self, core: &mut Core) {
        if let Some(work) = self.work.take() {
            self.finish(work.await, core, Instant::now());
        }
    }

    fn finish(&mut self, done: Result<io::Result<Done>, JoinError>, core: &mut Core, now: Instant) {
        match done {
            Ok(Ok(done)) => {
                if let Done::Written(hash, took) = done {
                    self.content = Some(hash);
                    self.confirmed = Some(now);
                    self.pace.cost = took;
                    if let Some(unsaved) = &mut core.unsaved {
                        unsaved.saved();
                    }
                }
                core.not_saved = None;
                if std::mem::take(&mut self.failing) {
                    tracing::info!("what must survive a reboot is saved again");
                }
            }
            Ok(Err(error)) => self.fail(&error.to_string(), &mut core.not_saved),
            Err(error) => self.fail(&error.to_string(), &mut core.not_saved),
        }
    }

    /// Logged once, and in status until it is over; tried again after a while.
    fn fail(&mut self, reason: &str, shown: &mut Option<String>) {
        self.content = None;
        *shown = Some(format!("{}: {reason}", self.dir.display()));
        self.pace.changed.get_or_insert_with(Instant::now);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                "what must survive a reboot cannot be saved in {}: {reason}; make room or correct \
                 its permissions, it is tried again",
                self.dir.display()
            );
        }
    }
}

/// That what must survive a reboot cannot be saved.
pub(super) fn problem(core: &Core) -> Option<Problem> {
    core.not_saved.as_ref().map(|why| Problem {
        object: Some("Node".to_owned()),
        reason: format!(
            "what must survive a reboot cannot be saved in {why}: policy is in force, and if the node \
             starts again before the API server can be reached, it has what was saved last; make \
             room or correct the permissions"
        ),
        ..Problem::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_urgent_is_written_soon_and_the_rest_seldom() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut pace = Pace::default();
        assert!(!pace.is_due(true, at(0)), "nothing to write");
        pace.changed = Some(at(0));
        assert!(!pace.is_due(true, at(99)) && pace.is_due(true, at(100)));
        assert!(!pace.is_due(false, at(999)) && pace.is_due(false, at(1000)));
        // Nor all the time, the less the more a write takes.
        pace.tried = Some(at(50));
        assert!(!pace.is_due(true, at(149)) && pace.is_due(true, at(150)));
        assert!(!pace.is_due(false, at(10_049)) && pace.is_due(false, at(10_050)));
        pace.cost = Duration::from_millis(50);
        assert!(!pace.is_due(true, at(1049)) && pace.is_due(true, at(1050)));
        pace.cost = Duration::from_secs(60);
        assert!(!pace.is_due(true, at(10_049)) && pace.is_due(true, at(10_050)));
    }
}
