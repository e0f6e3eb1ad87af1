//! The common change, which costs what it touches and not what the directory holds: some files have
//! others' place, and neither they nor anything else has or had a problem. Then what is in force is
//! what the files say, each object in one, and only the objects of those files can differ.

use std::{
    collections::{BTreeMap, hash_map::Entry as Slot},
    path::Path,
    sync::Arc,
};

use super::{InForce, ManifestSource, Objects, file::File, resolve::difference};
use crate::cluster::event::Event;

/// Files that are not any more as they were when the state in force was made: as they were then;
/// `None` for one that is new.
pub(super) type Replaced = BTreeMap<Arc<Path>, Option<File>>;

/// The objects of a file, if it says nothing else.
fn sound(path: &Arc<Path>, file: Option<&File>, into: &mut Objects) -> Option<()> {
    let Some(file) = file else { return Some(()) };
    for (place, (_, document)) in (1..).zip(file.documents.as_ref().ok()?) {
        if !document.ignored.is_empty() {
            return None;
        }
        for entry in &document.entries {
            let (id, object) = (entry.id.as_ref()?, entry.object.as_ref().ok()?);
            let Slot::Vacant(slot) = into.entry(id.clone()) else { return None };
            let (object, file) = (Arc::clone(object), Arc::clone(path));
            slot.insert(InForce { object, file, document: place });
        }
    }
    Some(())
}

impl ManifestSource {
    /// Brings the state in force in line with the files that have been replaced, and says what
    /// leads there; `None`, and nothing is changed, where all files must be looked at together.
    pub(super) fn step(&mut self, replaced: &Replaced) -> Option<Vec<Event>> {
        let is_sound = self.problems.is_empty() && self.unreadable.is_empty();
        // Where nothing was in force there is no small part of it.
        if !is_sound || self.in_force.is_empty() {
            return None;
        }
        let (mut before, mut after) = (Objects::new(), Objects::new());
        for (path, old) in replaced {
            sound(path, old.as_ref(), &mut before)?;
            sound(path, self.files.get(path), &mut after)?;
        }
        // Some other file has the object as well: which of the two counts goes by their order.
        if after.keys().any(|id| self.in_force.contains_key(id) && !before.contains_key(id)) {
            return None;
        }
        let events = difference(&before, &after);
        for id in before.keys() {
            self.in_force.remove(id);
        }
        self.in_force.extend(after);
        Some(events)
    }
}
