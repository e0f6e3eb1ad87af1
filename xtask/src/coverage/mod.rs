//! `cargo xtask coverage`: which lines of the pure parts their own tests run.
//!
//! Only their own: what the laboratory or a cluster runs by the way is not tested by that. Code that
//! is only there for tests does not count.

mod lines;
mod report;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use self::report::Coverage;
use crate::{
    console,
    process::{self, ProcessError, Purpose},
    pure::{self, Extent, PureError},
    setup::{SetupError, coverage_tools},
    workspace::Workspace,
};

/// What must be covered, percent of lines.
const LEAST: u32 = 90;
/// The folders for which that holds, each with what is below it.
const FOLDERS: [&str; 3] = ["enforcer-common/src", "enforcer/src/cluster", "enforcer/src/policy"];

/// Why coverage is not known, or not enough.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CoverageError {
    /// The tools could not be found or installed.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The sources could not be laid out.
    #[error(transparent)]
    Pure(#[from] PureError),
    /// A program failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file could not be read or removed.
    #[error("cannot use {path}; check that this user may read and write there")]
    File { path: String, source: io::Error },
    /// Cargo built no tests, or no profile has a line of the sources.
    #[error("the tests have left nothing of {0}; see above what cargo has built")]
    Nothing(&'static str),
    /// Too little.
    #[error(
        "less than {LEAST} % of the lines are covered in {0}; test what is listed above, or remove it"
    )]
    TooLittle(String),
}

/// Runs the tests of the pure parts, instrumented, and prints what they leave out.
pub(crate) fn run(workspace: &Workspace) -> Result<(), CoverageError> {
    let tools = coverage_tools::ensure()?;
    let folder = workspace.root().join("target/coverage");
    let sources = folder.join("workspace");
    pure::lay_out(workspace, &sources, Extent::All)?;
    let profiles = folder.join("profiles");
    let used = |source| CoverageError::File { path: workspace.show(&profiles), source };
    match fs::remove_dir_all(&profiles) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(used(error)),
        _ => {}
    }

    console::step("testing the pure parts, instrumented");
    let test = |arguments: &[&str]| {
        let mut command = workspace.cargo();
        command
            .current_dir(&sources)
            // With a target given, the flags are not for what runs while building.
            .args(["test", "--workspace", "--lib", "--target", &tools.host])
            .args(arguments)
            .env_remove("CARGO_TARGET_DIR")
            .env("RUSTFLAGS", "-C instrument-coverage")
            .env("LLVM_PROFILE_FILE", profiles.join("%p-%m.profraw"));
        command
    };
    let purpose = Purpose::new("testing the pure parts", "see above");
    process::run(&mut test(&["--quiet"]), &purpose)?;
    let built = test(&["--no-run", "--message-format=json", "--quiet"]);
    let programs = programs(built, &purpose)?;
    if programs.is_empty() {
        return Err(CoverageError::Nothing("the tests' programs"));
    }

    let merged = folder.join("merged.profdata");
    let purpose = Purpose::new("merging the profiles", "remove target/coverage and repeat");
    let written = fs::read_dir(&profiles).map_err(used)?.flatten().map(|entry| entry.path());
    process::capture(
        Command::new(&tools.profdata).args(["merge", "-sparse", "-o"]).arg(&merged).args(written),
        &purpose,
    )?;
    let mut export = Command::new(&tools.cov);
    export.args(["export", "-format=lcov", "-instr-profile"]).arg(&merged);
    for (number, program) in programs.iter().enumerate() {
        if number > 0 {
            export.arg("-object");
        }
        export.arg(program);
    }
    let purpose = Purpose::new("reading the profile", "remove target/coverage and repeat");
    let coverage = counted(&process::capture(&mut export, &purpose)?, &sources)?;
    judge(&coverage)
}

/// The programs of the tests, as cargo names them.
fn programs(mut command: Command, purpose: &Purpose) -> Result<Vec<PathBuf>, ProcessError> {
    let text = process::capture(&mut command, purpose)?;
    let messages = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    Ok(messages
        .filter_map(|message: serde_json::Value| message["executable"].as_str().map(PathBuf::from))
        .collect())
}

/// The lines that count, of all sources in the folders.
fn counted(lcov: &str, sources: &Path) -> Result<Coverage, CoverageError> {
    let mut coverage = Coverage::default();
    for (path, lines) in report::lcov(lcov) {
        let Ok(path) = Path::new(path).strip_prefix(sources) else { continue };
        let name = path.to_string_lossy();
        if !FOLDERS.iter().any(|folder| path.starts_with(folder)) || lines::is_tests(&name) {
            continue;
        }
        let text = fs::read_to_string(sources.join(path))
            .map_err(|source| CoverageError::File { path: name.clone().into_owned(), source })?;
        coverage.add(&name, lines, &lines::of_tests(&text));
    }
    Ok(coverage)
}

/// Prints it, and says whether it is enough.
fn judge(coverage: &Coverage) -> Result<(), CoverageError> {
    print!("{coverage}");
    let mut short = Vec::new();
    for folder in FOLDERS {
        let (covered, all) = coverage.below(folder);
        if all == 0 {
            return Err(CoverageError::Nothing(folder));
        }
        if u64::from(covered) * 100 < u64::from(all) * u64::from(LEAST) {
            short.push(folder);
        }
    }
    if short.is_empty() { Ok(()) } else { Err(CoverageError::TooLittle(short.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A profile in which so many of ten lines of each folder were run.
    fn of(runs: [u32; 3]) -> Coverage {
        let mut coverage = Coverage::default();
        for (folder, runs) in FOLDERS.into_iter().zip(runs) {
            let lines = (1..=10).map(|line| (line, line <= runs)).collect();
            coverage.add(&format!("{folder}/a.rs"), lines, &Default::default());
        }
        coverage
    }

    #[test]
    fn each_folder_has_to_be_covered() {
        assert!(judge(&of([9, 10, 9])).is_ok());
        let error = judge(&of([10, 8, 10])).unwrap_err().to_string();
        assert!(error.contains("in enforcer/src/cluster;"), "{error}");
        let nothing = judge(&Coverage::default()).unwrap_err().to_string();
        assert!(nothing.contains("nothing of enforcer-common/src"), "{nothing}");
    }
}
