//! A change of some files leads where looking at all of them leads.

use std::{collections::BTreeMap, fs};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::cluster::event::ObjectKey;

/// What a file may say: objects that others may have as well, and what is wrong.
const DOCUMENTS: [&str; 8] = [
    "{apiVersion: v1, kind: Namespace, metadata: {name: a}}",
    "{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {x: y}}}",
    "{apiVersion: v1, kind: Namespace, metadata: {name: b}}",
    "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: a}, status: {podIP: 10.0.0.1}}",
    "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: a}, status: {podIP: 10.0.0.2}}",
    "{apiVersion: v1, kind: Pod, metadata: {name: q, namespace: a}, status: {podIP: wrong}}",
    "{apiVersion: example.org/v1, kind: Unknown, metadata: {name: x}}",
    "{apiVersion: v1, kind: Pod, metadata: {}}",
];

const FILES: [&str; 3] = ["a.yaml", "b.yaml", "c.yaml"];

/// A file's documents by number, or that it goes.
fn change() -> impl Strategy<Value = (usize, Option<Vec<usize>>)> {
    // Mostly what is right, each object in one file or two.
    let document = prop_oneof![12 => 0usize..5, 1 => 5..DOCUMENTS.len()];
    let documents = proptest::collection::vec(document, 0..3);
    (0..FILES.len(), prop_oneof![5 => documents.prop_map(Some), 1 => Just(None)])
}

/// The objects that somebody has who was told these events.
fn follow(known: &mut BTreeMap<ObjectKey, String>, events: &[Event]) {
    for event in events {
        let text = format!("{event:?}");
        match event {
            Event::NamespaceApplied(of) => known.insert(namespace(&of.name), text),
            Event::NamespaceDeleted(name) => known.remove(&namespace(name)),
            Event::PodApplied(pod) => known.insert(pod.key.clone(), text),
            Event::PodDeleted(key) => known.remove(key),
            other => panic!("{other:?}"),
        };
    }
}

fn namespace(name: &Arc<str>) -> ObjectKey {
    ObjectKey { namespace: "".into(), name: Arc::clone(name) }
}

fn objects(of: &Objects) -> BTreeMap<String, (String, Arc<Path>, usize)> {
    let text = |of: &InForce| (format!("{:?}", of.object), Arc::clone(&of.file), of.document);
    of.iter().map(|(id, of)| (id.title(), text(of))).collect()
}

proptest! {
    #[test]
    fn what_is_in_force_is_what_all_files_say(
        looks in proptest::collection::vec(proptest::collection::vec(change(), 1..3), 1..12),
    ) {
        let dir = TempDir::new().unwrap();
        let mut source = ManifestSource::new(dir.path()).unwrap();
        let mut known = BTreeMap::new();
        for changes in looks {
            for (file, documents) in changes {
                let path = dir.path().join(FILES[file]);
                match documents {
                    Some(documents) => {
                        let texts: Vec<_> = documents.iter().map(|at| DOCUMENTS[*at]).collect();
                        fs::write(path, texts.join("\n---\n") + "\n").unwrap();
                    }
                    None => drop(fs::remove_file(path)),
                }
            }
            let update = source.rescan();
            follow(&mut known, &update.events);
            let Resolved { next, problems, ignored } = source.resolve();
            prop_assert_eq!(objects(&next), objects(&source.in_force));
            prop_assert_eq!(&problems, &source.problems);
            prop_assert_eq!(&ignored, &source.ignored);
            prop_assert_eq!(known.len(), source.in_force.len());
            for of in source.in_force.values() {
                let applied = match &*of.object {
                    Object::Namespace(of) => Event::NamespaceApplied(of.clone()),
                    Object::Pod(of) => Event::PodApplied(of.clone()),
                    other => panic!("{other:?}"),
                };
                let text = format!("{applied:?}");
                prop_assert!(known.values().any(|told| *told == text), "{text} was not told");
            }
        }
    }
}

#[test]
fn a_sound_change_does_without_the_other_files() {
    let dir = TempDir::new().unwrap();
    let mut source = ManifestSource::new(dir.path()).unwrap();
    let write = |file: &str, of: &[usize]| {
        let texts: Vec<_> = of.iter().map(|at| DOCUMENTS[*at]).collect();
        fs::write(dir.path().join(file), texts.join("\n---\n")).unwrap();
    };
    let steps = |source: &mut ManifestSource| {
        source.scan();
        let replaced = std::mem::take(&mut source.replaced);
        let stepped = source.step(&replaced).map(|events| events.len());
        source.replaced = replaced;
        if stepped.is_none() {
            source.update();
        }
        source.stale = false;
        source.replaced.clear();
        stepped
    };
    write("a.yaml", &[0, 3]);
    write("b.yaml", &[2]);
    assert_eq!(steps(&mut source), None, "the first look is at everything");
    write("a.yaml", &[0, 4]);
    assert_eq!(steps(&mut source), Some(1));
    // An object moves from one file to another, and one goes.
    write("a.yaml", &[4]);
    write("b.yaml", &[0]);
    assert_eq!(steps(&mut source), Some(1));
    // Two files have it.
    write("b.yaml", &[0, 4]);
    assert_eq!(steps(&mut source), None);
    write("b.yaml", &[0]);
    assert_eq!(steps(&mut source), None, "there was a problem");
    write("c.yaml", &[6]);
    assert_eq!(steps(&mut source), None, "a kind that means nothing is told of");
}
