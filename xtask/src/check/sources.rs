//! Reads the repository's text files, for checks that are functions of their content.

use std::{fs, io, path::Path};

use super::CheckError;
use crate::workspace::Workspace;

/// A text file of the repository.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Path below the repository, with `/`.
    pub(super) path: String,
    /// Its text.
    pub(super) text: String,
}

/// Endings of the names of files that people write here.
const ENDINGS: [&str; 8] = [".rs", ".toml", ".md", ".yaml", ".yml", ".sh", ".json", ".tpl"];

/// Every file with such a name, and `.ci/run`, in the order of their paths.
pub(super) fn read(workspace: &Workspace) -> Result<Vec<Source>, CheckError> {
    let mut sources = Vec::new();
    walk(workspace, workspace.root(), &mut sources)?;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn walk(workspace: &Workspace, folder: &Path, sources: &mut Vec<Source>) -> Result<(), CheckError> {
    let error =
        |path: &Path, reason: io::Error| CheckError::Read { path: workspace.show(path), reason };
    for entry in fs::read_dir(folder).map_err(|reason| error(folder, reason))? {
        let entry = entry.map_err(|reason| error(folder, reason))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|reason| error(&path, reason))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if kind.is_dir() {
            if name != "target" && name != ".git" && name != "node_modules" {
                walk(workspace, &path, sources)?;
            }
        } else if kind.is_file() {
            let shown = workspace.show(&path);
            if ENDINGS.iter().any(|ending| name.ends_with(ending)) || shown == ".ci/run" {
                let text = fs::read_to_string(&path).map_err(|reason| error(&path, reason))?;
                sources.push(Source { path: shown, text });
            }
        }
    }
    Ok(())
}
