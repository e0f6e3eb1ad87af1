//! `cargo xtask mutants`: changes policy and shared code in one place at a time, and sees whether a
//! test notices. What no test notices is explained in a document, or is a gap.

mod survivors;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use self::survivors::Survivors;
use crate::{
    console,
    process::{self, ProcessError, Purpose},
    pure::{self, Extent, PureError},
    setup::cargo_tool::CargoTool,
    workspace::Workspace,
};

const CARGO_MUTANTS: CargoTool =
    CargoTool { name: "cargo-mutants", version: "27.1.0", features: &[] };
/// What is changed if nothing else is asked for.
const FILES: [&str; 2] = ["enforcer-common/**", "enforcer/src/policy/**"];
/// Which survivors are known, and why they are.
const DOCUMENT: &str = "docs/mutants.md";
/// Longest run of the tests of one crate, seconds; they take less than three. A change that makes
/// them go on for ever is noticed, too.
const TESTS: &str = "60";
/// Longest build, seconds: a first one beside other work.
const BUILD: &str = "600";

/// Why the tests' strength is not known, or not enough.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MutantsError {
    /// The sources could not be laid out.
    #[error(transparent)]
    Pure(#[from] PureError),
    /// A program failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// What cargo-mutants has written, or the document, could not be read.
    #[error("cannot read {path}; run the task again, and see what cargo-mutants says")]
    Read { path: String, source: io::Error },
    /// Nothing was changed.
    #[error("no change was tried: check the patterns of --file")]
    Nothing,
    /// Changes that no test notices and nobody has explained.
    #[error(
        "{0} change(s) above were noticed by no test: test what they break, or explain them in docs/mutants.md"
    )]
    Unknown(usize),
}

/// Tries the changes in files that match, one after the other: first with the tests of policy and
/// shared code, and what those do not notice with the index's as well, which take longer to build.
pub(crate) fn run(workspace: &Workspace, files: &[String]) -> Result<(), MutantsError> {
    let folder = workspace.root().join("target/mutants");
    let trial = Trial {
        program: CARGO_MUTANTS.ensure(workspace)?,
        sources: folder.join("workspace"),
        folder,
        files: if files.is_empty() { FILES.map(str::to_owned).to_vec() } else { files.to_vec() },
    };
    let first = trial.run(workspace, Extent::Policy)?;
    let results = first.then(trial.run(workspace, Extent::All)?);
    if results.tried() == 0 {
        return Err(MutantsError::Nothing);
    }
    println!("\n{}", results.table());
    let document = workspace.root().join(DOCUMENT);
    judge(&results, &Survivors::explained(&read(&document)?))
}

/// What is tried, and where.
#[derive(Debug)]
struct Trial {
    program: PathBuf,
    folder: PathBuf,
    sources: PathBuf,
    files: Vec<String>,
}

impl Trial {
    /// Tries all changes that no test has noticed yet.
    fn run(&self, workspace: &Workspace, extent: Extent) -> Result<Results, MutantsError> {
        pure::lay_out(workspace, &self.sources, extent)?;
        // A build that was interrupted may have left parts that do not link, and what does not build
        // would count as a change that cannot be tried. It may not be there.
        let _absent = fs::remove_dir_all(self.sources.join("target/debug/incremental"));
        let (what, further): (_, &[&str]) = match extent {
            Extent::Policy => ("policy and shared code", &[]),
            Extent::All => ("the index as well", &["--iterate", "--test-workspace", "true"]),
        };
        console::step(&format!(
            "changing the code in one place at a time, with the tests of {what}"
        ));
        let mut command = Command::new(&self.program);
        command
            .current_dir(&self.sources)
            .env_remove("CARGO_TARGET_DIR")
            .env("CARGO_INCREMENTAL", "1")
            .args(["mutants", "--in-place", "--no-config", "--cargo-arg=--lib"])
            .args(["--timeout", TESTS, "--build-timeout", BUILD])
            .args(further)
            .arg("--output")
            .arg(&self.folder)
            .args(self.files.iter().flat_map(|file| ["--file", file]));
        let purpose = Purpose::new("cargo mutants", "see above");
        let status = process::each_line(&mut command, &purpose, |line| println!("{line}"))?;
        // It ends with one of these if a change was not noticed, or was by a test that went on for
        // ever.
        if !status.success() && !matches!(status.code(), Some(2 | 3)) {
            return Err(purpose.failed(status).into());
        }
        Results::read(&self.folder.join("mutants.out"))
    }
}

/// Names survivors that nobody has explained, and explanations of what does not survive.
fn judge(results: &Results, explained: &Survivors) -> Result<(), MutantsError> {
    let survived = Survivors::found(&results.missed);
    let unknown = survived.without(explained);
    for (change, times) in unknown.iter() {
        println!("not noticed and not explained: {change} ({times} of them)");
    }
    let tried = results.files();
    for (change, _) in explained.without(&survived).iter() {
        if tried.iter().any(|file| change.starts_with(&format!("{file}: "))) {
            println!("explained in {DOCUMENT}, and noticed now: {change}");
        }
    }
    match unknown.len() {
        0 => Ok(()),
        many => Err(MutantsError::Unknown(many)),
    }
}

fn read(path: &Path) -> Result<String, MutantsError> {
    fs::read_to_string(path)
        .map_err(|source| MutantsError::Read { path: path.display().to_string(), source })
}

/// What became of the changes, as lines `path:line:column: change`.
#[derive(Debug, Default)]
struct Results {
    caught: Vec<String>,
    missed: Vec<String>,
    timeout: Vec<String>,
    unviable: Vec<String>,
}

impl Results {
    fn read(folder: &Path) -> Result<Self, MutantsError> {
        let lines = |name: &str| -> Result<Vec<String>, MutantsError> {
            let path: PathBuf = folder.join(name);
            Ok(read(&path)?.lines().map(str::to_owned).collect())
        };
        Ok(Self {
            caught: lines("caught.txt")?,
            missed: lines("missed.txt")?,
            timeout: lines("timeout.txt")?,
            unviable: lines("unviable.txt")?,
        })
    }

    /// With the results for what these had missed.
    fn then(self, later: Self) -> Self {
        let Self { missed, timeout, .. } = later;
        let both = |mut one: Vec<String>, other: Vec<String>| {
            one.extend(other);
            one
        };
        Self {
            caught: both(self.caught, later.caught),
            unviable: both(self.unviable, later.unviable),
            missed,
            timeout,
        }
    }

    fn tried(&self) -> usize {
        let Self { caught, missed, timeout, unviable } = self;
        [caught, missed, timeout, unviable].into_iter().map(Vec::len).sum()
    }

    fn files(&self) -> Vec<&str> {
        let Self { caught, missed, timeout, unviable } = self;
        let all = [caught, missed, timeout, unviable].into_iter().flatten();
        let mut files: Vec<&str> = all.filter_map(|line| line.split(':').next()).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    /// By file, as a document has it.
    fn table(&self) -> String {
        let Self { caught, missed, timeout, unviable } = self;
        let mut rows: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
        // A test that goes on for ever has noticed; what does not build is nobody's fault.
        let columns = [(caught, 0), (timeout, 0), (missed, 1), (unviable, 2)];
        for (lines, column) in columns {
            for file in lines.iter().filter_map(|line| line.split(':').next()) {
                rows.entry(file).or_default()[column] += 1;
            }
        }
        let mut text =
            "| File | Noticed | Survived | Did not build |\n|---|---|---|---|\n".to_owned();
        let mut sum = [0; 3];
        for (file, row) in &rows {
            let [noticed, survived, unbuilt] = row;
            text += &format!("| `{file}` | {noticed} | {survived} | {unbuilt} |\n");
            sum.iter_mut().zip(row).for_each(|(sum, one)| *sum += one);
        }
        let [noticed, survived, unbuilt] = sum;
        text + &format!("| all | {noticed} | {survived} | {unbuilt} |\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let lines = |text: &str| text.lines().map(str::to_owned).collect();
        Results {
            caught: lines("a/x.rs:1:2: replace f with 0\na/y.rs:9:9: delete !"),
            missed: lines("a/x.rs:3:4: replace | with ^ in g\na/x.rs:5:6: replace | with ^ in g"),
            timeout: lines("a/y.rs:7:7: replace -= with += in h"),
            unviable: lines("a/y.rs:8:8: replace k with Default::default()"),
        }
    }

    #[test]
    fn a_survivor_is_explained_as_often_as_it_survives() {
        let text = |times: &str| format!("# X\n- `a/x.rs`: `replace | with ^ in g`{times}\n");
        assert!(judge(&results(), &Survivors::explained(&text(" (2 times)"))).is_ok());
        let error = judge(&results(), &Survivors::explained(&text(""))).unwrap_err();
        assert!(matches!(error, MutantsError::Unknown(1)), "{error}");
        let error = judge(&results(), &Survivors::default()).unwrap_err();
        assert!(matches!(error, MutantsError::Unknown(2)), "{error}");
    }

    #[test]
    fn what_is_noticed_later_has_not_survived() {
        let line = |text: &str| vec![text.to_owned()];
        let later = Results {
            caught: line("a/x.rs:3:4: replace | with ^ in g"),
            missed: line("a/x.rs:5:6: replace | with ^ in g"),
            ..Results::default()
        };
        let both = results().then(later);
        assert_eq!((both.caught.len(), both.missed.len(), both.timeout.len()), (3, 1, 0));
        assert_eq!(both.unviable.len(), 1);
    }

    #[test]
    fn what_goes_on_for_ever_is_noticed() {
        let results = results();
        assert_eq!(results.tried(), 6);
        assert_eq!(results.files(), ["a/x.rs", "a/y.rs"]);
        let table = results.table();
        assert!(table.contains("| `a/x.rs` | 1 | 2 | 0 |\n| `a/y.rs` | 2 | 0 | 1 |\n"), "{table}");
        assert!(table.ends_with("| all | 3 | 2 | 1 |\n"), "{table}");
    }
}
