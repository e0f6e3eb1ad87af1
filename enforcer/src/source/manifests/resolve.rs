//! From the files' documents to the objects in force, and from one state to the next.

use std::{
    cell::OnceCell,
    cmp::Reverse,
    collections::{BTreeSet, HashMap, hash_map::Entry as Slot},
    path::Path,
    sync::Arc,
};

use super::{
    Ignored, InForce, ManifestSource, Objects,
    parse::{self, Object, ObjectId},
};
use crate::{
    cluster::event::Event,
    source::problem::{FieldError, Problem},
};

impl ManifestSource {
    /// Which objects are in force by the files as they are, given those in force so far.
    pub(super) fn resolve(&self) -> Resolved {
        let mut out = Resolved {
            problems: self.unreadable.clone(),
            next: HashMap::with_capacity(self.in_force.len()),
            ..Resolved::default()
        };
        // Most of the time nothing is broken and nobody asks for it.
        let by_file = OnceCell::new();
        let held = |path: &Path| {
            by_file
                .get_or_init(|| {
                    let mut by_file: HashMap<&Path, Vec<_>> = HashMap::new();
                    for (id, of) in &self.in_force {
                        by_file.entry(&of.file).or_default().push((id, of));
                    }
                    by_file
                })
                .get(path)
                .map_or(&[][..], Vec::as_slice)
        };
        for (path, file) in &self.files {
            let keep_others = match &file.documents {
                Err(reason) => {
                    let problem = Problem::file(path.to_string_lossy(), reason.clone());
                    out.problems.push(problem.keeping(!held(path).is_empty()));
                    true
                }
                Ok(documents) => {
                    let mut unnamed = false;
                    for (i, (_, document)) in documents.iter().enumerate() {
                        out.ignored.extend(document.ignored.iter().map(|kind| Ignored {
                            file: path.to_string_lossy().into_owned(),
                            kind: kind.clone(),
                        }));
                        for entry in &document.entries {
                            unnamed |= entry.id.is_none();
                            self.claim(path, i + 1, entry, &mut out);
                        }
                    }
                    unnamed
                }
            };
            if keep_others {
                // What a broken file, or an object without a name, once was cannot be told.
                for (id, last) in held(path) {
                    let last = InForce { document: 0, ..(*last).clone() };
                    out.next.entry((*id).clone()).or_insert(last);
                }
            }
        }
        out
    }

    fn claim(&self, path: &Arc<Path>, document: usize, entry: &parse::Entry, out: &mut Resolved) {
        let problem = |error: &FieldError| {
            let title = entry.id.as_ref().map(ObjectId::title);
            Problem::field(&path.to_string_lossy(), document, title.as_deref(), error)
        };
        let Some(id) = &entry.id else {
            let errors = entry.object.as_ref().err();
            out.problems.extend(errors.into_iter().flatten().map(problem));
            return;
        };
        match (out.next.entry(id.clone()), &entry.object) {
            (Slot::Occupied(first), _) => {
                let InForce { file, document, .. } = first.get();
                let place = if *document == 0 {
                    format!("{} (its last good state)", file.display())
                } else {
                    format!("{}, document {document}", file.display())
                };
                let reason = format!("is also in {place}, which counts; remove one of the two");
                out.problems.push(problem(&FieldError::new("", reason)));
            }
            (Slot::Vacant(slot), Ok(object)) => {
                let (object, file) = (Arc::clone(object), Arc::clone(path));
                slot.insert(InForce { object, file, document });
            }
            (Slot::Vacant(slot), Err(errors)) => {
                let last = self.in_force.get(id).filter(|of| of.file == *path);
                let kept = last.is_some();
                out.problems.extend(errors.iter().map(|e| problem(e).keeping(kept)));
                if let Some(last) = last {
                    slot.insert(InForce { document, ..last.clone() });
                }
            }
        }
    }
}

/// What is in force, and what is wrong.
#[derive(Default)]
pub(super) struct Resolved {
    pub(super) next: Objects,
    pub(super) problems: Vec<Problem>,
    pub(super) ignored: BTreeSet<Ignored>,
}

/// What leads from `before` to `after`. New objects come first: a policy that replaces another is
/// there before the other goes.
pub(super) fn difference(before: &Objects, after: &Objects) -> Vec<Event> {
    let is_new = |(id, now): &(&ObjectId, &InForce)| {
        before
            .get(id)
            .is_none_or(|was| !Arc::ptr_eq(&was.object, &now.object) && was.object != now.object)
    };
    let mut new: Vec<_> = after.iter().filter(is_new).collect();
    new.sort_by_key(|(id, _)| *id);
    let mut gone: Vec<_> = before.keys().filter(|id| !after.contains_key(id)).collect();
    gone.sort_by_key(|id| Reverse(*id));
    let applied = new.into_iter().map(|(_, now)| match &*now.object {
        Object::Namespace(namespace) => Event::NamespaceApplied(namespace.clone()),
        Object::Node(node) => Event::NodeApplied(node.clone()),
        Object::Pod(pod) => Event::PodApplied(pod.clone()),
        Object::EndpointSlice(slice) => Event::SliceApplied(slice.clone()),
        Object::Service(service) => Event::ServiceApplied(service.clone()),
        Object::NetworkPolicy(policy) => Event::PolicyApplied(policy.clone()),
    });
    let deleted = gone.into_iter().map(|id| match id.kind {
        parse::Kind::Namespace => Event::NamespaceDeleted(Arc::clone(&id.key.name)),
        parse::Kind::Node => Event::NodeDeleted(Arc::clone(&id.key.name)),
        parse::Kind::Pod => Event::PodDeleted(id.key.clone()),
        parse::Kind::EndpointSlice => Event::SliceDeleted(id.key.clone()),
        parse::Kind::Service => Event::ServiceDeleted(id.key.clone()),
        parse::Kind::NetworkPolicy => Event::PolicyDeleted(id.key.clone()),
    });
    applied.chain(deleted).collect()
}
