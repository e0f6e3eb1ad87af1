//! A directory of Kubernetes manifests as the source of objects.
//!
//! What is invalid changes nothing: an object that cannot be accepted leaves its last good state in
//! force, a file that cannot be read leaves all its objects. What is absent is gone. The directory
//! is read whole at the start and when asked; in between only what inotify names.

mod file;
mod parse;
mod resolve;
mod services;
mod step;
mod text;
mod tree;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use self::{
    file::{File, Reading},
    parse::{Object, ObjectId},
    resolve::{Resolved, difference},
    step::Replaced,
    watch::{Touched, Watch},
};
use crate::{
    cluster::event::Event,
    source::{problem::Problem, shared::Shared},
};

/// Directories within directories that are followed.
const DEEPEST: usize = 16;

/// Why the source cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The directory cannot be listed.
    #[error(
        "cannot read the manifests directory {}: {error}; create it or name another with --manifests",
        dir.display()
    )]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// A kind in a file that has no meaning here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ignored {
    /// File, relative to the directory.
    pub file: String,
    /// Kind, with its API group if it has one: `CiliumNetworkPolicy.cilium.io`.
    pub kind: String,
}

/// What a look at the directory brought.
#[derive(Debug, Default)]
pub struct SourceUpdate {
    /// What leads from the state before to the state now.
    pub events: Vec<Event>,
    /// All problems that there are now.
    pub problems: Vec<Problem>,
    /// All kinds that are ignored now.
    pub ignored: Vec<Ignored>,
    /// Whether any of the three differs from the look before.
    pub changed: bool,
    /// Whether no file is being written at this moment. If not, the update shows the state before
    /// that, and [`ManifestSource::changed`] will tell when it is done.
    pub settled: bool,
}

/// An object in force, and the file that it comes from.
#[derive(Clone, Debug)]
struct InForce {
    object: Arc<Object>,
    file: Arc<Path>,
    /// Document in the file; 0 for a last good state whose document cannot be told.
    document: usize,
}

/// Objects in force.
type Objects = HashMap<ObjectId, InForce>;

/// The source. It reads files and does nothing else.
#[derive(Debug)]
pub struct ManifestSource {
    dir: PathBuf,
    /// By path relative to the directory, in the order in which they count.
    files: BTreeMap<Arc<Path>, File>,
    in_force: Objects,
    /// Problems with directories, of the last whole scan.
    unreadable: Vec<Problem>,
    problems: Vec<Problem>,
    ignored: BTreeSet<Ignored>,
    logged: HashSet<Ignored>,
    watch: Watch,
    /// Directories that the last whole scan read.
    walked: HashSet<PathBuf>,
    /// Some file is a link: what changes may be elsewhere.
    links: bool,
    /// Some file or directory is not as it was at the last [`Self::update`].
    stale: bool,
    /// The files of those.
    replaced: Replaced,
    lost: bool,
    settled: bool,
    /// Texts that many objects have in common.
    shared: Shared,
}

impl ManifestSource {
    /// Opens the directory; nothing is read until [`Self::rescan`].
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub fn new(dir: impl Into<PathBuf>) -> Result<Self, SourceError> {
        let dir = dir.into();
        if let Err(error) = std::fs::read_dir(&dir) {
            return Err(SourceError::Directory { dir, error });
        }
        Ok(Self {
            watch: Watch::new(&dir),
            dir,
            files: BTreeMap::new(),
            in_force: Objects::new(),
            stale: true,
            replaced: Replaced::new(),
            unreadable: Vec::new(),
            problems: Vec::new(),
            ignored: BTreeSet::new(),
            logged: HashSet::new(),
            walked: HashSet::new(),
            links: false,
            lost: false,
            settled: true,
            shared: Shared::default(),
        })
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Looks at every file (reading those that changed) and tells what is different. The barrier of
    /// `status --wait`: everything written before the call is in the update.
    pub fn rescan(&mut self) -> SourceUpdate {
        // What was noticed is looked at now, so it is not to be noticed again.
        self.watch.take();
        self.scan();
        self.update()
    }

    /// The same after [`Self::changed`], looking only at what inotify named where that is enough.
    pub fn refresh(&mut self) -> SourceUpdate {
        match self.watch.take() {
            Touched::Paths(paths) if !self.links && !self.lost => {
                self.settled = true;
                let mut whole = false;
                for path in paths {
                    match self.relative(&path) {
                        Some(relative) => self.look(&relative),
                        None => whole = true,
                    }
                }
                if whole {
                    self.scan();
                }
            }
            _ => self.scan(),
        }
        self.update()
    }

    /// Waits until something may have changed: then call [`Self::refresh`]. Within a few
    /// milliseconds where there is inotify, else within 50. Safe to be dropped at any await.
    pub async fn changed(&mut self) {
        self.watch.changed(self.lost).await;
    }

    /// `path` as a manifest in a directory that is known; else the whole tree must be looked at.
    fn relative(&self, path: &Path) -> Option<PathBuf> {
        let relative = path.strip_prefix(&self.dir).ok()?;
        let known = self.walked.contains(relative.parent()?) && file::is_manifest(relative);
        // A link that has come since the last scan must be followed like those that it found.
        let link = path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
        (known && !link).then(|| relative.to_owned())
    }

    /// Walks the tree.
    fn scan(&mut self) {
        self.stale |= !self.unreadable.is_empty();
        self.unreadable.clear();
        self.walked.clear();
        self.links = false;
        self.settled = true;
        self.watch.begin();
        let mut seen = BTreeSet::new();
        self.walk(Path::new(""), 0, &mut HashSet::new(), &mut seen);
        self.watch.end();
        let gone: Vec<_> =
            self.files.keys().filter(|path| !seen.contains(&***path)).cloned().collect();
        for path in gone {
            self.replace(path, None);
        }
    }

    fn walk(
        &mut self,
        relative: &Path,
        depth: usize,
        visited: &mut HashSet<(u64, u64)>,
        seen: &mut BTreeSet<PathBuf>,
    ) {
        let dir = self.dir.join(relative);
        // Links can make a circle.
        let id = std::fs::metadata(&dir).map(|meta| (meta.dev(), meta.ino()));
        if depth > DEEPEST || id.is_ok_and(|id| !visited.insert(id)) {
            return;
        }
        self.watch.add(&dir);
        let listed =
            std::fs::read_dir(&dir).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        if depth == 0 {
            self.lost = listed.is_err();
        }
        let entries = match listed {
            Ok(entries) => entries,
            Err(e) if depth > 0 && e.kind() == io::ErrorKind::NotFound => return,
            Err(e) => {
                let name = relative.to_string_lossy();
                let reason = format!("the directory {} cannot be read: {e}", dir.display());
                self.unreadable.push(Problem::file(name, reason).keeping(true));
                self.stale = true;
                let beneath = self.files.keys().filter(|f| f.starts_with(relative));
                seen.extend(beneath.map(|f| f.to_path_buf()));
                return;
            }
        };
        self.walked.insert(relative.to_owned());
        let mut paths: Vec<_> = entries.iter().map(|e| relative.join(e.file_name())).collect();
        paths.sort();
        for path in paths.into_iter().filter(|p| !file::is_hidden(p)) {
            let full = self.dir.join(&path);
            if full.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
                self.links = true;
                if let Some(parent) = full.canonicalize().ok().as_deref().and_then(Path::parent) {
                    self.watch.add(parent);
                }
            }
            if full.is_dir() {
                self.walk(&path, depth + 1, visited, seen);
            } else if file::is_manifest(&path) {
                self.look(&path);
                seen.insert(path);
            }
        }
    }

    /// Looks at one file.
    fn look(&mut self, relative: &Path) {
        let path = self.dir.join(relative);
        let known = self.files.get(relative);
        let documents = match file::read(&path, known.and_then(|f| f.stamp)) {
            Reading::Same => return,
            Reading::Absent => {
                return self.replace(relative.into(), None);
            }
            Reading::Unsettled => return self.unsettled(relative),
            Reading::Failed(reason) => (None, Err(reason)),
            Reading::Read(stamp, bytes) => {
                let target = if self.links { path.canonicalize().ok() } else { None };
                if self.watch.being_written(target.as_deref().unwrap_or(&path), &bytes) {
                    return self.unsettled(relative);
                }
                if self.watch.polls() && stamp.is_none() && known.is_some() {
                    // Nobody tells when the writer has closed it: wait until it is a little old.
                    return self.unsettled(relative);
                }
                let before = known.and_then(|f| f.documents.as_deref().ok()).unwrap_or_default();
                (stamp, file::parse(relative, &bytes, before, &mut self.shared))
            }
        };
        let (stamp, documents) = documents;
        self.replace(relative.into(), Some(File { stamp, documents }));
    }

    /// Puts a file, or nothing, in a file's place.
    fn replace(&mut self, path: Arc<Path>, new: Option<File>) {
        let is_there = new.is_some();
        let old = match new {
            Some(new) => self.files.insert(Arc::clone(&path), new),
            None => self.files.remove(&path),
        };
        if is_there || old.is_some() {
            self.stale = true;
            // Of several the first is the one that is in force.
            self.replaced.entry(path).or_insert(old);
        }
    }

    /// The file stays as it was and will be read again.
    fn unsettled(&mut self, relative: &Path) {
        self.settled = false;
        if let Some(file) = self.files.get_mut(relative) {
            file.stamp = None;
        }
    }

    /// Brings the state in force in line with the files.
    fn update(&mut self) -> SourceUpdate {
        let mut update = SourceUpdate { settled: self.settled, ..SourceUpdate::default() };
        if std::mem::take(&mut self.stale) {
            let replaced = std::mem::take(&mut self.replaced);
            if let Some(events) = self.step(&replaced) {
                update.changed = !events.is_empty();
                update.events = events;
                self.shared.tidy_if_grown();
                update.ignored = self.ignored.iter().cloned().collect();
                return update;
            }
            let Resolved { next, problems, ignored } = self.resolve();
            update.events = difference(&self.in_force, &next);
            update.changed =
                !update.events.is_empty() || problems != self.problems || ignored != self.ignored;
            for kind in ignored.difference(&self.ignored) {
                if self.logged.insert(kind.clone()) {
                    tracing::info!(file = %kind.file, kind = %kind.kind, "ignored: no such kind");
                }
            }
            (self.in_force, self.problems, self.ignored) = (next, problems, ignored);
            self.shared.tidy_if_grown();
        }
        update.problems.clone_from(&self.problems);
        update.ignored = self.ignored.iter().cloned().collect();
        update
    }
}

#[cfg(test)]
mod step_tests;
#[cfg(test)]
mod tests;
