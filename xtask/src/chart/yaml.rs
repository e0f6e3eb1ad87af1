//! Whether all YAML below `deploy` can be read, and every document of it is more than a word.

use std::{fs, io, path::Path};

use serde::Deserialize as _;
use serde_norway::{Deserializer, Value};

use super::ChartError;
use crate::workspace::Workspace;

/// What cannot be read; templates are no YAML before they are rendered.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<String>, ChartError> {
    let mut findings = Vec::new();
    walk(workspace, &workspace.root().join("deploy"), &mut findings)?;
    Ok(findings)
}

fn walk(workspace: &Workspace, folder: &Path, found: &mut Vec<String>) -> Result<(), ChartError> {
    let error = |reason: io::Error| ChartError::File {
        operation: "read",
        path: workspace.show(folder),
        reason,
    };
    for entry in fs::read_dir(folder).map_err(error)? {
        let path = entry.map_err(error)?.path();
        let has_ending = |ending: &str| path.extension().is_some_and(|have| have == ending);
        if path.is_dir() {
            if !path.ends_with("templates") {
                walk(workspace, &path, found)?;
            }
        } else if has_ending("yaml") || has_ending("yml") {
            let text = fs::read_to_string(&path).map_err(error)?;
            found.extend(findings(&text).map(|what| format!("{}: {what}", workspace.show(&path))));
        }
    }
    Ok(())
}

/// The documents of a text, up to the first that cannot be read: the reader never gets past one.
pub(super) fn documents(text: &str) -> impl Iterator<Item = Result<Value, serde_norway::Error>> {
    let mut failed = false;
    Deserializer::from_str(text).map_while(move |document| {
        let document = (!failed).then(|| Value::deserialize(document))?;
        failed = document.is_err();
        Some(document)
    })
}

fn findings(text: &str) -> impl Iterator<Item = String> {
    documents(text).enumerate().filter_map(|(index, document)| match document {
        // Nothing between two separators.
        Ok(Value::Mapping(_) | Value::Sequence(_) | Value::Null) => None,
        Ok(_) => Some(format!("document {} is neither object nor list", index + 1)),
        Err(error) => Some(format!("document {}: {error}", index + 1)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_found() {
        let found = |text: &str| findings(text).count();
        assert_eq!(found("a: 1\n---\n# nothing\n---\nb: [1]\n"), 0);
        assert_eq!(found("a: 1\n---\nb\n"), 1);
        assert_eq!(found("a: [1\n"), 1);
    }
}
