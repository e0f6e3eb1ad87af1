//! What the checked-in manifests run is what the command line takes.

use std::{fs, path::Path};

use clap::Parser as _;
use serde::Deserialize as _;
use serde_norway::Value;

use super::Cli;

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_sequence).into_iter().flatten();
    list.map(|word| word.as_str().expect("a string").to_owned()).collect()
}

/// Every command line in a document: of containers and of their probes.
fn commands(value: &Value, found: &mut Vec<Vec<String>>) {
    if let Some(map) = value.as_mapping() {
        let mut line = strings(map.get("command"));
        if line.first().is_some_and(|program| program == "/enforcer") {
            line.extend(strings(map.get("args")));
            found.push(line);
        }
        map.values().for_each(|value| commands(value, found));
    }
    for value in value.as_sequence().into_iter().flatten() {
        commands(value, found);
    }
}

#[test]
fn every_command_of_the_manifests_is_understood() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests");
    let mut agents = 0;
    for entry in fs::read_dir(folder).expect("the manifests are there") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a manifest");
        let mut found = Vec::new();
        for document in serde_norway::Deserializer::from_str(&text) {
            commands(&Value::deserialize(document).expect("YAML"), &mut found);
        }
        assert!(!found.is_empty(), "{}: no command", path.display());
        for line in found {
            agents += usize::from(line.get(1).is_some_and(|command| command == "agent"));
            if let Err(error) = Cli::try_parse_from(&line) {
                panic!("{}: {line:?}: {error}", path.display());
            }
        }
    }
    assert!(agents >= 3, "one agent in each of the three variants");
}
