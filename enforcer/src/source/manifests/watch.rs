//! Notices changes of the directory through inotify, and by looking where there is none.
//!
//! A file that is being written is not read: half a file is often valid YAML with fewer objects,
//! and a policy that vanishes for an instant opens its pods for that instant. A change counts when
//! the writer closes the file.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ffi::OsString,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use tokio::io::{Interest, unix::AsyncFd};

/// How often to look when inotify cannot be had.
const POLL: Duration = Duration::from_millis(50);
/// How often to look all the same: network file systems and the targets of links change in silence.
const FULL: Duration = Duration::from_secs(10);
/// Changes come in groups; this long is waited for the rest of one.
const DEBOUNCE: Duration = Duration::from_millis(2);
/// A file that its writer keeps open counts as written after this long without a change.
const SETTLE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Writing {
    last: Instant,
    /// The wait for [`SETTLE`] has been reported.
    reported: bool,
}

/// What may have changed since the last look.
#[derive(Debug, PartialEq)]
pub(super) enum Touched {
    /// These paths at most.
    Paths(BTreeSet<PathBuf>),
    /// Anything.
    Everything,
}

/// The watch on a directory tree.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: Option<Inotify>,
    dirs: HashMap<WatchDescriptor, PathBuf>,
    /// Directories found by the scan that is under way.
    found: HashSet<WatchDescriptor>,
    root: PathBuf,
    /// The directory that the root stands in, watched for the root's own coming and going.
    parent: Option<(WatchDescriptor, OsString)>,
    writing: HashMap<PathBuf, Writing>,
    touched: BTreeSet<PathBuf>,
    everything: bool,
    pending: bool,
    /// Two paths lead to one directory: what inotify names may also be elsewhere.
    aliased: bool,
    last_full: Instant,
}

impl Watch {
    pub(super) fn new(root: &Path) -> Self {
        let inotify = Inotify::init()
            .inspect_err(|error| {
                tracing::warn!(%error, "inotify cannot be had; the manifests are polled");
            })
            .ok();
        Self {
            inotify,
            dirs: HashMap::new(),
            found: HashSet::new(),
            root: root.to_owned(),
            parent: None,
            writing: HashMap::new(),
            touched: BTreeSet::new(),
            everything: true,
            pending: false,
            aliased: false,
            last_full: Instant::now(),
        }
    }

    /// Whether changes are found by looking only.
    pub(super) fn polls(&self) -> bool {
        self.inotify.is_none()
    }

    /// Begins a scan of the whole tree.
    pub(super) fn begin(&mut self) {
        self.found.clear();
        self.aliased = false;
        self.last_full = Instant::now();
        // Added to what is watched there already, should the parent be followed for another reason.
        let mask = WatchMask::CREATE
            | WatchMask::MOVE
            | WatchMask::DELETE
            | WatchMask::ONLYDIR
            | WatchMask::MASK_ADD;
        let root = self.root.clone();
        let (Some(inotify), Some(parent), Some(name)) =
            (&self.inotify, root.parent(), root.file_name())
        else {
            return;
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        // Best effort: where the parent may not be read the root's return is found by polling.
        self.parent = inotify.watches().add(parent, mask).ok().map(|wd| (wd, name.to_owned()));
    }

    /// Watches `dir`. To be called before its entries are listed, so that none falls in between.
    pub(super) fn add(&mut self, dir: &Path) {
        let Some(inotify) = &self.inotify else { return };
        let mask = WatchMask::CREATE
            | WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::MOVE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::EXCL_UNLINK
            | WatchMask::ONLYDIR;
        match inotify.watches().add(dir, mask) {
            Ok(wd) => {
                if !self.found.insert(wd.clone()) && self.dirs.get(&wd).is_some_and(|d| d != dir) {
                    self.aliased = true;
                }
                self.dirs.insert(wd, dir.to_owned());
            }
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => {
                tracing::warn!(
                    %error, dir = %dir.display(),
                    "no inotify watch (see fs.inotify.max_user_watches); the manifests are polled"
                );
                self.inotify = None;
                self.dirs.clear();
            }
        }
    }

    /// Ends a scan: what it did not find is no longer watched.
    pub(super) fn end(&mut self) {
        let found = std::mem::take(&mut self.found);
        let gone: Vec<_> = self.dirs.keys().filter(|wd| !found.contains(*wd)).cloned().collect();
        for wd in gone {
            self.dirs.remove(&wd);
            if let Some(inotify) = &self.inotify
                && self.parent.as_ref().is_none_or(|(parent, _)| *parent != wd)
                && let Err(error) = inotify.watches().remove(wd)
            {
                // The kernel has removed it together with its directory.
                tracing::trace!(%error, "watch already gone");
            }
        }
    }

    /// Takes what was touched, new events included.
    pub(super) fn take(&mut self) -> Touched {
        self.drain();
        self.pending = false;
        let touched = std::mem::take(&mut self.touched);
        let due = self.polls() || self.aliased || self.last_full.elapsed() >= FULL;
        if std::mem::take(&mut self.everything) || due {
            Touched::Everything
        } else {
            Touched::Paths(touched)
        }
    }

    /// Whether `path`, whose content ends as `bytes` does, must be left alone for now.
    pub(super) fn being_written(&mut self, path: &Path, bytes: &[u8]) -> bool {
        self.drain();
        self.writing.get(path).is_some_and(|writing| {
            // Truncated, or cut off within a line: only its closing ends that.
            !bytes.ends_with(b"\n") || writing.last.elapsed() < SETTLE
        })
    }

    /// Waits until something may have changed. Safe to be dropped at any await. Where `lost`, the
    /// directory is not there and is looked for.
    pub(super) async fn changed(&mut self, lost: bool) {
        loop {
            self.drain();
            self.expire();
            if self.pending {
                break;
            }
            let look = if self.polls() || lost {
                POLL
            } else {
                FULL.saturating_sub(self.last_full.elapsed())
            };
            let settle = self
                .writing
                .values()
                .filter(|w| !w.reported)
                .map(|w| SETTLE.saturating_sub(w.last.elapsed()))
                .min();
            let wait = settle.map_or(look, |settle| settle.min(look));
            if !self.readable(wait).await && wait == look {
                self.everything = true;
                return;
            }
        }
        tokio::time::sleep(DEBOUNCE).await;
        self.drain();
    }

    /// Waits for inotify, at most for `wait`; whether it has something.
    async fn readable(&self, wait: Duration) -> bool {
        let Some(inotify) = &self.inotify else {
            tokio::time::sleep(wait).await;
            return false;
        };
        // SAFETY: the descriptor is borrowed from `inotify`, which stays open and the same for as
        // long as `self` is borrowed, that is until the registration is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(inotify.as_fd(), Interest::READABLE) };
        match fd {
            Ok(fd) => tokio::time::timeout(wait, fd.readable()).await.is_ok(),
            Err(error) => {
                tracing::debug!(%error, "inotify cannot be waited for");
                tokio::time::sleep(wait.min(POLL)).await;
                true
            }
        }
    }

    /// Reports files whose writer has paused for [`SETTLE`].
    fn expire(&mut self) {
        for (path, writing) in &mut self.writing {
            if !writing.reported && writing.last.elapsed() >= SETTLE {
                writing.reported = true;
                self.touched.insert(path.clone());
                self.pending = true;
            }
        }
    }

    /// Reads what inotify has.
    fn drain(&mut self) {
        let mut buffer = [0; 16 << 10];
        loop {
            let Some(inotify) = &mut self.inotify else { return };
            let events: Vec<_> = match inotify.read_events(&mut buffer) {
                Ok(events) => events.map(|e| (e.wd, e.mask, e.name.map(OsString::from))).collect(),
                Err(_) => return,
            };
            if events.is_empty() {
                return;
            }
            for (wd, mask, name) in events {
                self.note(&wd, mask, name);
            }
        }
    }

    fn note(&mut self, wd: &WatchDescriptor, mask: EventMask, name: Option<OsString>) {
        if mask.contains(EventMask::Q_OVERFLOW) {
            // Also what closed a file may be lost.
            self.writing.clear();
            (self.everything, self.pending) = (true, true);
            return;
        }
        if let Some((parent, root)) = &self.parent
            && parent == wd
            && name.as_ref() == Some(root)
        {
            (self.everything, self.pending) = (true, true);
        }
        let Some(dir) = self.dirs.get(wd) else { return };
        if mask.contains(EventMask::IGNORED) {
            self.dirs.remove(wd);
            return;
        }
        let (Some(name), false) = (name, mask.contains(EventMask::ISDIR)) else {
            (self.everything, self.pending) = (true, true);
            return;
        };
        let path = dir.join(name);
        if mask.contains(EventMask::MODIFY) {
            self.writing.insert(path, Writing { last: Instant::now(), reported: false });
            return;
        }
        if !mask.contains(EventMask::ATTRIB) && !mask.contains(EventMask::CREATE) {
            self.writing.remove(&path);
        }
        self.touched.insert(path);
        self.pending = true;
    }
}
