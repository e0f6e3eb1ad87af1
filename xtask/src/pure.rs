//! The pure parts of the product as a workspace of their own, below `target/`: policy, index and the
//! shared code, with their tests and few dependencies. So they are built in seconds with flags that
//! others should not have, and may be changed there without a change here.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::workspace::Workspace;

/// What is taken as it is.
const TAKEN: [&str; 6] = [
    "Cargo.lock",
    "enforcer-common",
    "reference",
    "enforcer/proptest-regressions",
    "enforcer/src/cluster",
    "enforcer/src/policy",
];
/// The only thing elsewhere that their tests use.
const CONVERT: &str = "enforcer/src/check/convert.rs";
/// The crates that policy and index may depend on. One more is a decision: add it here, too.
const DEPENDENCIES: [&str; 10] = [
    "clap",
    "enforcer-common",
    "enforcer-reference",
    "ipnet",
    "k8s-openapi",
    "proptest",
    "serde",
    "serde_norway",
    "siphasher",
    "thiserror",
];
/// The library around them.
const LIBRARY: &str = "//! Policy and index, without the rest.\npub mod cluster;\npub mod policy;\n\
                       #[cfg(test)]\nmod check {\n    pub(crate) mod convert;\n}\n";
/// The library around policy, which knows the index's objects and nothing else of it.
const POLICY: &str = "//! Policy, without the rest.\npub mod policy;\n/// Its objects.\npub mod \
                      cluster {\n    pub mod event;\n    mod labels;\n}\n";
/// What the workspace has beside what it takes over. No lints: a change that is tried is no style.
const WORKSPACE: &str = "[workspace]\nresolver = \"3\"\nmembers = [\"enforcer\", \
                         \"enforcer-common\", \"reference\"]\n\n[workspace.dependencies]\n\
                         enforcer-common = { path = \"enforcer-common\", default-features = false \
                         }\nenforcer-reference = { path = \"reference\" }\n\n\
                         [workspace.lints.rust]\n\n[profile.dev]\ndebug = false\nopt-level = 1\n\n";

/// Why there is no such workspace.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PureError {
    /// A file could not be read.
    #[error("cannot read {path}; check that this user may")]
    Read { path: String, source: io::Error },
    /// A file could not be written.
    #[error("cannot write {path}; check that this user may write there and that there is room")]
    Write { path: String, source: io::Error },
}

/// How much of it there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Policy and the shared code: the quickest to build.
    Policy,
    /// The index, too.
    All,
}

/// Lays the workspace out in `folder`. What is the same already is left alone, so that it is not
/// built again.
pub(crate) fn lay_out(
    workspace: &Workspace,
    folder: &Path,
    extent: Extent,
) -> Result<(), PureError> {
    let library = match extent {
        Extent::Policy => POLICY,
        Extent::All => LIBRARY,
    };
    let read = |path: &str| {
        fs::read_to_string(workspace.root().join(path))
            .map_err(|source| PureError::Read { path: path.to_owned(), source })
    };
    let mut files = BTreeMap::from([
        (PathBuf::from("Cargo.toml"), root_manifest(&read("Cargo.toml")?).into_bytes()),
        ("enforcer/Cargo.toml".into(), manifest(&read("enforcer/Cargo.toml")?).into_bytes()),
        ("enforcer/src/lib.rs".into(), library.into()),
        (CONVERT.into(), read(CONVERT)?.into_bytes()),
    ]);
    for path in TAKEN {
        collect(workspace.root(), Path::new(path), &mut files)
            .map_err(|source| PureError::Read { path: path.to_owned(), source })?;
    }
    write(folder, &files)
        .map_err(|source| PureError::Write { path: workspace.show(folder), source })
}

fn collect(root: &Path, path: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> io::Result<()> {
    let place = root.join(path);
    if !place.is_dir() {
        files.insert(path.to_owned(), fs::read(place)?);
        return Ok(());
    }
    for entry in fs::read_dir(place)? {
        collect(root, &path.join(entry?.file_name()), files)?;
    }
    Ok(())
}

fn write(folder: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> io::Result<()> {
    for part in ["enforcer", "enforcer-common", "reference"] {
        remove_others(folder, Path::new(part), files)?;
    }
    for (path, bytes) in files {
        let place = folder.join(path);
        if fs::read(&place).is_ok_and(|there| there == *bytes) {
            continue;
        }
        fs::create_dir_all(place.parent().unwrap_or(folder))?;
        fs::write(place, bytes)?;
    }
    Ok(())
}

/// Removes what an earlier state of the sources has left.
fn remove_others(folder: &Path, part: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> io::Result<()> {
    let mut there = BTreeMap::new();
    match collect(folder, part, &mut there) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        collected => collected?,
    }
    for path in there.keys().filter(|path| !files.contains_key(*path)) {
        fs::remove_file(folder.join(path))?;
    }
    Ok(())
}

/// The workspace's manifest: of ours it has the packages' common fields.
fn root_manifest(ours: &str) -> String {
    let common = section(ours, "[workspace.package]").unwrap_or_default();
    format!("{WORKSPACE}{common}")
}

/// A section of a manifest, with its heading.
fn section<'a>(manifest: &'a str, heading: &str) -> Option<&'a str> {
    let start = manifest.find(heading)?;
    let text = manifest.get(start..)?;
    let end = text.find("\n[").map_or(text.len(), |end| end + 1);
    text.get(..end)
}

/// The daemon's manifest without its program and without all other dependencies.
fn manifest(ours: &str) -> String {
    let mut kept = String::new();
    let mut heading = "";
    for line in ours.lines() {
        if line.starts_with('[') {
            heading = line;
        }
        let keep = match heading {
            "[[bin]]" => false,
            "[dependencies]" | "[dev-dependencies]" => {
                let end = line.find([' ', '.', '=']).unwrap_or(line.len());
                line == heading || line.get(..end).is_some_and(|name| DEPENDENCIES.contains(&name))
            }
            _ => true,
        };
        if keep {
            kept += line;
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_keeps_what_the_pure_parts_need() {
        let ours = "[package]\nname = \"enforcer\"\n\n[[bin]]\nname = \"x\"\n\n[dependencies]\n\
                    enforcer-common.workspace = true\ntokio = \"1\"\nserde = { version = \"1\" }\n\
                    serde_json = \"1\"\n\n[dev-dependencies]\nproptest = \"1\"\ntempfile = \"3\"\n\n\
                    [lints]\nworkspace = true\n";
        assert_eq!(
            manifest(ours),
            "[package]\nname = \"enforcer\"\n\n[dependencies]\nenforcer-common.workspace = true\n\
             serde = { version = \"1\" }\n[dev-dependencies]\nproptest = \"1\"\n[lints]\n\
             workspace = true\n"
        );
        let root = root_manifest("[workspace]\na = 1\n\n[workspace.package]\nedition = 2\n\n[x]\n");
        assert!(root.ends_with("[workspace.package]\nedition = 2\n\n"), "{root}");
    }

    #[test]
    fn every_dependency_that_is_named_is_one_of_the_daemon() {
        let path = Workspace::find().root().join("enforcer/Cargo.toml");
        let kept = manifest(&fs::read_to_string(path).unwrap());
        for name in DEPENDENCIES {
            let is_there = kept.lines().any(|line| {
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '.']))
            });
            assert!(is_there, "{name}: {kept}");
        }
    }

    #[test]
    fn it_has_our_sources_and_nothing_that_has_gone() {
        let folder = std::env::temp_dir().join(format!("enforcer-pure-{}", std::process::id()));
        let old = folder.join("enforcer/src/policy/gone.rs");
        fs::create_dir_all(old.parent().unwrap()).unwrap();
        fs::write(&old, "what was there before").unwrap();
        let built = folder.join("target/kept");
        fs::create_dir_all(&built).unwrap();
        let workspace = Workspace::find();
        lay_out(&workspace, &folder, Extent::All).unwrap();
        let row = Path::new("enforcer/src/policy/row.rs");
        let same =
            fs::read(folder.join(row)).unwrap() == fs::read(workspace.root().join(row)).unwrap();
        let (gone, kept) = (!old.exists(), built.exists());
        fs::remove_dir_all(&folder).unwrap();
        assert!(same && gone && kept);
    }
}
