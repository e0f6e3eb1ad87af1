//! What is in force and not yet in the saved state: written down before it comes into force, so
//! that the next agent of this boot does not take it back by what was saved before.
//!
//! The file is a line that names the boot and a line for each change, appended without waiting for
//! the disk: it matters only for as long as the kernel that enforces lives. What cannot be read in
//! it counts as a change of everything.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::saved;
use crate::cluster::event::ObjectKey;

/// Name of the file in the run directory.
pub const FILE: &str = "unsaved";
/// More pods than this are everything.
const MOST: usize = 4096;

/// What saved state does not say, or says wrongly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Unsaved {
    /// Nothing.
    #[default]
    Nothing,
    /// These pods.
    Pods(BTreeSet<ObjectKey>),
    /// Anything: policies, namespaces, or pods of this node.
    Everything,
}

impl Unsaved {
    /// Adds a change. Returns whether it is news.
    pub fn add(&mut self, change: Self) -> bool {
        match (&mut *self, change) {
            (Self::Everything, _) | (_, Self::Nothing) => false,
            (Self::Pods(some), Self::Pods(more)) => {
                let before = some.len();
                some.extend(more);
                let is_news = some.len() > before;
                if some.len() > MOST {
                    *self = Self::Everything;
                }
                is_news
            }
            (_, change) => {
                *self = change;
                true
            }
        }
    }

    fn lines(&self) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Everything => "everything\n".to_owned(),
            Self::Pods(pods) => {
                let line = |pod: &ObjectKey| format!("pod {}/{}\n", pod.namespace, pod.name);
                pods.iter().map(line).collect()
            }
        }
    }

    fn of_line(line: &str) -> Self {
        match line.strip_prefix("pod ").and_then(|pod| pod.split_once('/')) {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                let pod = ObjectKey { namespace: namespace.into(), name: name.into() };
                Self::Pods(BTreeSet::from([pod]))
            }
            _ => Self::Everything,
        }
    }
}

/// What an agent of this boot left unsaved.
#[must_use]
pub fn read(run_dir: &Path, boot: &str) -> Unsaved {
    let text = match fs::read_to_string(run_dir.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Unsaved::Nothing,
        Err(_) => return Unsaved::Everything,
    };
    let mut lines = text.split_inclusive('\n');
    let head = lines.next().and_then(|line| line.strip_prefix("boot ")?.strip_suffix('\n'));
    match head {
        Some(noted) if noted == boot && !boot.is_empty() => {}
        // The kernel that enforced it is gone.
        Some(_) => return Unsaved::Nothing,
        None => return Unsaved::Everything,
    }
    let mut unsaved = Unsaved::Nothing;
    for line in lines {
        // Half a line is a change that nobody knows.
        unsaved.add(line.strip_suffix('\n').map_or(Unsaved::Everything, Unsaved::of_line));
    }
    unsaved
}

/// The file of the agent that has the node.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    state: PathBuf,
    boot: String,
    /// What the file says.
    noted: Unsaved,
    /// What has been noted since the state was taken that is being saved.
    since: Unsaved,
    failing: bool,
    /// What was saved had to go.
    lost: bool,
}

impl Journal {
    /// Goes on with what an earlier agent left in `run_dir`, of the state saved in `state_dir`.
    #[must_use]
    pub fn open(run_dir: &Path, state_dir: &Path, boot: &str) -> Self {
        let noted = read(run_dir, boot);
        let path = run_dir.join(FILE);
        if noted == Unsaved::Nothing {
            // Of an earlier boot, if it is there.
            let _absent = fs::remove_file(&path);
        }
        Self {
            path,
            state: state_dir.to_owned(),
            boot: boot.to_owned(),
            noted,
            since: Unsaved::Nothing,
            failing: false,
            lost: false,
        }
    }

    /// A change is about to come into force. If it cannot be written down, what was saved goes: it
    /// would say something else.
    pub fn note(&mut self, change: Unsaved) {
        self.since.add(change.clone());
        if self.noted.add(change.clone())
            && let Err(error) = self.append(&change)
        {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &io::Error) {
        // It may not be there.
        let _absent = fs::remove_file(self.state.join(saved::FILE));
        self.lost = true;
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                "{} cannot be written: {error}; what was saved is removed instead, so that it does \
                 not take back what is in force; make room or correct its permissions",
                self.path.display()
            );
        }
    }

    /// Whether what was saved had to go since the last call.
    pub fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// Whether policies, namespaces or pods of this node are among what is not saved.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.noted == Unsaved::Everything
    }

    /// The state as it is now is about to be saved.
    pub fn saving(&mut self) {
        self.since = Unsaved::Nothing;
    }

    /// The state is saved that was taken at the last [`Self::saving`].
    pub fn saved(&mut self) {
        self.noted = std::mem::take(&mut self.since);
        self.since = self.noted.clone();
        let written = match self.noted {
            Unsaved::Nothing => match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            _ => self.rewrite(),
        };
        match written {
            Ok(()) => self.failing = false,
            // It says more than there is, which is safe.
            Err(_) if self.noted == Unsaved::Nothing => {}
            Err(error) => self.fail(&error),
        }
    }

    fn append(&self, change: &Unsaved) -> io::Result<()> {
        let mut file = File::options().append(true).create(true).mode(0o600).open(&self.path)?;
        let mut text = change.lines();
        if file.metadata()?.len() == 0 {
            text = format!("boot {}\n{text}", self.boot);
        }
        // One call: a reader has it, or half of its last line.
        file.write_all(text.as_bytes())
    }

    fn rewrite(&self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut options = File::options();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(format!("boot {}\n{}", self.boot, self.noted.lines()).as_bytes())?;
        fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(names: &[&str]) -> Unsaved {
        let key = |name: &&str| ObjectKey { namespace: "n".into(), name: (*name).into() };
        Unsaved::Pods(names.iter().map(key).collect())
    }

    fn journal(dir: &Path) -> Journal {
        Journal::open(dir, dir, "b1")
    }

    #[test]
    fn what_is_noted_is_there_until_it_is_saved() {
        let dir = tempfile::tempdir().unwrap();
        let unsaved = || read(dir.path(), "b1");
        assert_eq!(unsaved(), Unsaved::Nothing);
        let mut first = journal(dir.path());
        first.note(pods(&["a"]));
        first.note(pods(&["b", "a"]));
        assert_eq!(unsaved(), pods(&["a", "b"]));
        assert!(!first.is_urgent());
        // The next agent goes on with it.
        let mut next = journal(dir.path());
        next.note(Unsaved::Everything);
        assert_eq!(unsaved(), Unsaved::Everything);
        assert!(next.is_urgent());
        next.saving();
        next.note(pods(&["c"]));
        assert_eq!(unsaved(), Unsaved::Everything, "it is not written yet");
        next.saved();
        assert_eq!(unsaved(), pods(&["c"]), "it came after what was written");
        next.saving();
        next.saved();
        assert_eq!(unsaved(), Unsaved::Nothing);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_save_that_failed_has_saved_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path());
        journal.note(pods(&["a"]));
        journal.saving();
        // It fails; the next one takes in what both leave.
        journal.note(pods(&["b"]));
        assert_eq!(read(dir.path(), "b1"), pods(&["a", "b"]));
    }

    #[test]
    fn what_cannot_be_read_is_everything_and_another_boot_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let mut journal = journal(dir.path());
        journal.note(pods(&["a", "b"]));
        let whole = fs::read_to_string(&file).unwrap();
        for (text, unsaved) in [
            (&*whole, pods(&["a", "b"])),
            (&whole[..whole.len() - 1], Unsaved::Everything),
            (&whole[..whole.len() - 6], Unsaved::Everything),
            ("boot b1", Unsaved::Everything),
            ("", Unsaved::Everything),
            ("boot b1\nsomething\n", Unsaved::Everything),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(read(dir.path(), "b1"), unsaved, "{text:?}");
        }
        fs::write(&file, &whole).unwrap();
        assert_eq!(read(dir.path(), "b2"), Unsaved::Nothing);
        assert_eq!(read(dir.path(), ""), Unsaved::Nothing);
        // The first note of the next boot is under its own.
        let mut later = Journal::open(dir.path(), dir.path(), "b2");
        later.note(pods(&["c"]));
        assert_eq!(read(dir.path(), "b2"), pods(&["c"]));
    }

    #[test]
    fn many_pods_are_everything() {
        let names: Vec<_> = (0..=MOST).map(|number| format!("p{number}")).collect();
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path());
        for name in &names {
            journal.note(pods(&[name]));
        }
        assert_eq!(read(dir.path(), "b1"), Unsaved::Everything);
    }

    #[test]
    fn without_room_for_a_note_what_was_saved_goes() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        saved::write(&state, b"old").unwrap();
        let mut journal = Journal::open(&dir.path().join("nowhere"), &state, "b1");
        journal.note(Unsaved::Everything);
        assert!(!state.join(saved::FILE).exists());
        assert!(journal.take_lost() && !journal.take_lost());
        // Nor is it left with what came while it was written anew.
        journal.saving();
        journal.note(Unsaved::Everything);
        saved::write(&state, b"new").unwrap();
        journal.saved();
        assert!(!state.join(saved::FILE).exists());
    }
}
