//! Files in the manifests' folder: each is read or named with a reason, and a broken one takes nothing
//! from the others.

use std::fs;

use enforcer::{cluster::event::Event, source::manifests::ManifestSource};

/// A file that is whole, beside the one that changes.
const WHOLE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: whole}\n";

#[test]
fn manifests() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("whole.yaml"), WHOLE).unwrap();
    let mut source = ManifestSource::new(folder.path()).unwrap();
    let first = format!("{:?}", source.rescan());
    assert!(first.contains("whole"), "{first}");
    let mut turn = 0_usize;
    crate::run::run("manifests", |bytes| {
        turn += 1;
        let name = if turn.is_multiple_of(2) { "fuzzed.yaml" } else { "fuzzed.json" };
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let update = format!("{:?}", source.rescan());
        fs::remove_file(&path).unwrap();
        let gone = source
            .rescan()
            .events
            .into_iter()
            .any(|event| matches!(event, Event::NamespaceDeleted(name) if &*name == "whole"));
        assert!(!gone, "what another file says is taken away");
        // Numbers and names alone do not make another outcome.
        update.len() as u64 / 16
    });
}
