//! Saves what must survive a reboot: not at once, not too often, and never in the owning task's way.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::task::{JoinError, JoinHandle};

use super::core::Core;
use crate::source::{Source, saved};

/// This long after a change it is saved, together with those that follow.
const SETTLE: Duration = Duration::from_secs(1);
/// Between two writes.
const SELDOM: Duration = Duration::from_secs(10);
/// While the API server is there, what was saved is confirmed this often.
const CONFIRM: Duration = Duration::from_secs(30);

/// What was done to the file.
#[derive(Debug)]
enum Done {
    Written(Arc<[u8]>),
    Confirmed,
}

/// The saving of one agent.
#[derive(Debug)]
pub(super) struct Saving {
    dir: PathBuf,
    node: String,
    /// State that was looked at last, and since when there is a newer one.
    seen: u64,
    changed: Option<Instant>,
    tried: Option<Instant>,
    confirmed: Option<Instant>,
    /// What is in the file.
    content: Option<Arc<[u8]>>,
    work: Option<JoinHandle<io::Result<Done>>>,
    failing: bool,
}

impl Saving {
    pub(super) fn new(dir: PathBuf, node: String) -> Self {
        Self {
            dir,
            node,
            seen: 0,
            changed: None,
            tried: None,
            confirmed: None,
            content: None,
            work: None,
            failing: false,
        }
    }

    /// Looks at what is to be done. To be called about once a second.
    pub(super) async fn look(&mut self, core: &Core, now: Instant) {
        if let Some(work) = self.work.take_if(|work| work.is_finished()) {
            self.finish(work.await, now);
        }
        let Source::Kubernetes(source) = &core.source else { return };
        // What came from the disk, or from a part of the server's lists, is not to replace it.
        if !source.is_live() || self.work.is_some() {
            return;
        }
        if core.changes() != self.seen {
            self.seen = core.changes();
            self.changed.get_or_insert(now);
        }
        let past = |at: Option<Instant>, wait| {
            at.is_none_or(|at| now.saturating_duration_since(at) >= wait)
        };
        let due = self.changed.is_some() && past(self.changed, SETTLE);
        if due && past(self.tried, SELDOM) {
            let remembered = core.index.remembered(&self.node);
            let content = saved::encode(source.identity(), source.policies(), &remembered);
            self.changed = None;
            self.tried = Some(now);
            match content {
                Ok(content) if self.content.as_deref() != Some(&content) => {
                    let (dir, content) = (self.dir.clone(), Arc::<[u8]>::from(content));
                    self.work = Some(tokio::task::spawn_blocking(move || {
                        saved::write(&dir, &content).map(|()| Done::Written(content))
                    }));
                    return;
                }
                Ok(_) => {}
                Err(error) => self.fail(&error.to_string()),
            }
        }
        if self.content.is_some() && source.is_in_contact() && past(self.confirmed, CONFIRM) {
            self.confirmed = Some(now);
            let dir = self.dir.clone();
            self.work = Some(tokio::task::spawn_blocking(move || {
                saved::confirm(&dir, SystemTime::now()).map(|()| Done::Confirmed)
            }));
        }
    }

    /// Waits for what is being written.
    pub(super) async fn end(&mut self) {
        if let Some(work) = self.work.take() {
            self.finish(work.await, Instant::now());
        }
    }

    fn finish(&mut self, done: Result<io::Result<Done>, JoinError>, now: Instant) {
        match done {
            Ok(Ok(done)) => {
                if let Done::Written(content) = done {
                    self.content = Some(content);
                    self.confirmed = Some(now);
                }
                if std::mem::take(&mut self.failing) {
                    tracing::info!("what must survive a reboot is saved again");
                }
            }
            Ok(Err(error)) => self.fail(&error.to_string()),
            Err(error) => self.fail(&error.to_string()),
        }
    }

    /// Told once; tried again after a while.
    fn fail(&mut self, reason: &str) {
        self.content = None;
        self.changed.get_or_insert_with(Instant::now);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                "what must survive a reboot cannot be saved in {}: {reason}; make room or correct \
                 its permissions, it is tried again",
                self.dir.display()
            );
        }
    }
}
