//! libcni's result cache: who a sandbox's interface belongs to, under every runtime that uses
//! libcni, from the moment at which the network plugins have returned.
//!
//! The folder is looked through when inotify tells of a change, and every second in any case: it
//! may not be there yet, and a few hundred names are read in no time.

mod result;

use std::{
    collections::HashMap,
    fs,
    io::{self, Read as _},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use inotify::{Inotify, WatchMask};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{debug, info, warn};

use crate::cluster::event::Event;

/// How often the folder is looked through where nothing tells of a change.
const LOOK: Duration = Duration::from_secs(1);
/// The largest file that is read, in bytes. Real ones have about two thousand.
const LARGEST: u64 = 1 << 20;

/// A file from further ahead than this was written by a clock that has been set back since. In
/// nanoseconds.
const SKEW: i64 = 60_000_000_000;
/// Such files count as told before all others, in the order in which they were. In nanoseconds:
/// more than clocks have counted since 1970.
const BEFORE_ALL: i64 = i64::MAX / 2;

/// What tells one state of a file from another.
type Stamp = (u64, i64, u64);

/// The cache folder.
#[derive(Debug)]
pub struct CniCache {
    dir: PathBuf,
    inotify: Option<Inotify>,
    watched: bool,
    known: HashMap<Arc<str>, (Stamp, bool)>,
    readable: Option<bool>,
    /// When to look though nothing was told. A moment and no length of time: whoever waits does so
    /// in short pieces.
    next_look: Instant,
}

impl CniCache {
    /// Watches a folder, which may come later. Nothing is read until [`Self::refresh`].
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        let inotify = Inotify::init()
            .inspect_err(|error| {
                warn!(%error, "inotify cannot be had; the network plugins' results are polled");
            })
            .ok();
        let dir = dir.to_owned();
        Self {
            dir,
            inotify,
            watched: false,
            known: HashMap::new(),
            readable: None,
            next_look: Instant::now() + LOOK,
        }
    }

    /// Waits until something may have changed: then call [`Self::refresh`]. Safe to be dropped at
    /// any await.
    pub async fn changed(&mut self) {
        let Some(inotify) = self.inotify.as_ref().filter(|_| self.watched) else {
            sleep_until(self.next_look).await;
            return;
        };
        // SAFETY: the descriptor is borrowed from `inotify`, which stays open and the same for as
        // long as `self` is borrowed, that is until the registration is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(inotify.as_fd(), Interest::READABLE) };
        match fd {
            // A time-out is a look as well.
            Ok(fd) => drop(timeout_at(self.next_look, fd.readable()).await),
            Err(error) => {
                debug!(%error, "inotify cannot be waited for");
                sleep_until(self.next_look).await;
            }
        }
    }

    /// Looks through the folder. What was not there, or changed, is told; so is what is gone.
    pub fn refresh(&mut self) -> Vec<Event> {
        self.next_look = Instant::now() + LOOK;
        self.watch();
        let files = match self.list() {
            Ok(files) => files,
            Err(error) => {
                // Sandboxes outlive the folder's absence: an interface that is bound stays bound.
                self.tell_readable(Err(&error));
                return Vec::new();
            }
        };
        self.tell_readable(Ok(()));
        let mut events = Vec::new();
        let gone: Vec<Arc<str>> =
            self.known.keys().filter(|name| !files.contains_key(*name)).cloned().collect();
        for name in gone {
            if self.known.remove(&name).is_some_and(|(_, told)| told) {
                events.push(Event::SandboxLost(name));
            }
        }
        for (name, stamp) in files {
            let before = self.known.get(&name).copied();
            if before.is_some_and(|(known, _)| known == stamp) {
                continue;
            }
            let event = self.read(&name, told(stamp.1, now()));
            let told = event.is_some();
            match event {
                Some(event) => events.push(event),
                None if before.is_some_and(|(_, told)| told) => {
                    events.push(Event::SandboxLost(Arc::clone(&name)));
                }
                None => {}
            }
            self.known.insert(name, (stamp, told));
        }
        events
    }

    /// Takes what inotify has, and watches the folder if that is not done (any more).
    fn watch(&mut self) {
        let Some(inotify) = &mut self.inotify else { return };
        let mut buffer = [0; 4096];
        while let Ok(events) = inotify.read_events(&mut buffer) {
            let mut any = false;
            for event in events {
                any = true;
                if event.mask.contains(inotify::EventMask::IGNORED) {
                    self.watched = false;
                }
            }
            if !any {
                break;
            }
        }
        if !self.watched {
            // Only whole files: libcni writes them in place.
            let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVE | WatchMask::DELETE;
            self.watched = inotify.watches().add(&self.dir, mask | WatchMask::ONLYDIR).is_ok();
        }
    }

    fn list(&self) -> io::Result<HashMap<Arc<str>, Stamp>> {
        let mut files = HashMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            // One that goes meanwhile is told of by the next look.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_file() && meta.len() <= LARGEST {
                let told = meta.mtime().saturating_mul(1_000_000_000) + meta.mtime_nsec();
                files.insert(Arc::from(name), (meta.ino(), told, meta.len()));
            }
        }
        Ok(files)
    }

    fn read(&self, name: &Arc<str>, told: i64) -> Option<Event> {
        let mut bytes = Vec::new();
        let file = fs::File::open(self.dir.join(&**name)).ok()?;
        file.take(LARGEST).read_to_end(&mut bytes).ok()?;
        match result::parse(name, &bytes, told) {
            Ok(sandbox) => sandbox.map(Event::SandboxFound),
            Err(error) => {
                // Half a file is looked at again when its writer has closed it.
                debug!(%error, file = %name, "a file of the network plugins says nothing");
                None
            }
        }
    }

    fn tell_readable(&mut self, now: Result<(), &io::Error>) {
        if self.readable == Some(now.is_ok()) {
            return;
        }
        let before = self.readable.replace(now.is_ok());
        match now {
            // Who has read the warning is told that it is over.
            Ok(()) if before == Some(false) => {
                info!(dir = %self.dir.display(), "the network plugins' results can be read now");
            }
            Ok(()) => debug!(dir = %self.dir.display(), "reading the network plugins' results"),
            Err(error) => warn!(
                dir = %self.dir.display(), %error,
                "the network plugins' results cannot be read: pods are known by their addresses \
                 only; name the folder with --cni-cache-dir"
            ),
        }
    }

    /// Whether the folder could be read at the last look.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.readable == Some(true)
    }
}

/// When a file was written, as far as that compares with others.
fn told(written: i64, now: i64) -> i64 {
    if written.saturating_sub(now) > SKEW { written.saturating_sub(BEFORE_ALL) } else { written }
}

/// Nanoseconds since the epoch.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn write(dir: &Path, name: &str, pod: &str, address: &str) {
        let text = format!(
            r#"{{"kind":"cniCacheV1","cniArgs":[["K8S_POD_NAMESPACE","a"],["K8S_POD_NAME","{pod}"],
                ["K8S_POD_UID","u"]],"result":{{"ips":[{{"address":"{address}/24"}}]}}}}"#
        );
        fs::write(dir.join(name), text).unwrap();
    }

    fn found(events: &[Event]) -> Vec<String> {
        let name = |event: &Event| match event {
            Event::SandboxFound(sandbox) => format!("+{}", sandbox.pod.name),
            Event::SandboxLost(id) => format!("-{id}"),
            other => panic!("{other:?}"),
        };
        let mut names: Vec<_> = events.iter().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn files_that_come_change_and_go_are_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("results");
        let mut cache = CniCache::new(&sub);
        assert!(cache.refresh().is_empty() && !cache.is_readable());
        fs::create_dir(&sub).unwrap();
        write(&sub, "one", "p", "10.0.0.1");
        fs::write(sub.join("half"), "{\"kind\":\"cniCa").unwrap();
        assert_eq!(found(&cache.refresh()), ["+p"]);
        assert!(cache.refresh().is_empty() && cache.is_readable());
        write(&sub, "one", "q", "10.0.0.22");
        write(&sub, "half", "h", "10.0.0.3");
        assert_eq!(found(&cache.refresh()), ["+h", "+q"]);
        fs::remove_file(sub.join("one")).unwrap();
        fs::write(sub.join("half"), "{}").unwrap();
        assert_eq!(found(&cache.refresh()), ["-half", "-one"]);
        // What the folder said stays while it cannot be read, and goes when it says so.
        write(&sub, "one", "p", "10.0.0.1");
        assert_eq!(found(&cache.refresh()), ["+p"]);
        fs::remove_dir_all(&sub).unwrap();
        assert!(cache.refresh().is_empty());
        fs::create_dir(&sub).unwrap();
        assert_eq!(found(&cache.refresh()), ["-one"]);
    }

    #[test]
    fn a_file_from_the_future_counts_least() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = CniCache::new(dir.path());
        for (name, minutes) in [("left-over", 60), ("older", 30), ("now", 0)] {
            write(dir.path(), name, "p", "10.0.0.1");
            let file = fs::File::options().write(true).open(dir.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(60 * minutes)).unwrap();
        }
        let told = |event: &Event| match event {
            Event::SandboxFound(sandbox) => (sandbox.told, sandbox.id.to_string()),
            other => panic!("{other:?}"),
        };
        let mut order: Vec<_> = cache.refresh().iter().map(told).collect();
        order.sort();
        let order: Vec<_> = order.into_iter().map(|(_, name)| name).collect();
        assert_eq!(order, ["older", "left-over", "now"]);
    }

    #[tokio::test]
    async fn a_folder_that_comes_late_is_found_also_by_who_waits_in_short_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("results");
        let mut cache = CniCache::new(&sub);
        assert!(cache.refresh().is_empty() && !cache.is_readable());
        fs::create_dir(&sub).unwrap();
        write(&sub, "one", "p", "10.0.0.1");
        let piece = Duration::from_millis(5);
        let deadline = Instant::now() + 20 * LOOK;
        while tokio::time::timeout(piece, cache.changed()).await.is_err() {
            assert!(Instant::now() < deadline, "nobody ever looks");
        }
        assert_eq!(found(&cache.refresh()), ["+p"]);
    }

    #[tokio::test]
    async fn a_file_is_told_of_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = CniCache::new(dir.path());
        cache.refresh();
        let path = dir.path().to_owned();
        let began = Instant::now();
        let write = tokio::task::spawn_blocking(move || write(&path, "one", "p", "10.0.0.1"));
        cache.changed().await;
        assert_eq!(found(&cache.refresh()), ["+p"]);
        assert!(began.elapsed() < LOOK, "by inotify, not by looking");
        write.await.unwrap();
    }
}
