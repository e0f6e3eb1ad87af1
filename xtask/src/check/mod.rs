//! `cargo xtask check`: formatting, lints of both halves, licences, the layout of the sources and
//! whether the documents still say what is there. Every step runs, whatever another one found.

mod alerts;
mod docs;
mod layout;
mod lexer;
mod licences;
mod modules;
mod sources;

use std::{io, time::Instant};

use crate::{
    chart::{self, ChartError},
    console,
    ebpf::{self, EbpfError},
    process::{self, ProcessError, Purpose},
    setup::SetupError,
    workspace::Workspace,
};

/// Why a check did not pass.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    /// A program found something or could not run.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The kernel half could not be built or linted.
    #[error(transparent)]
    Ebpf(#[from] EbpfError),
    /// The chart breaks a rule.
    #[error(transparent)]
    Chart(#[from] ChartError),
    /// Something that the checks need is missing.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A source file could not be read.
    #[error("cannot read {path}: {reason}; check the file's rights")]
    Read { path: String, reason: io::Error },
    /// A rule was broken.
    #[error("{0}; see above")]
    Findings(String),
    /// At least one step did not pass.
    #[error("these checks did not pass: {0}; see their messages above")]
    Steps(String),
}

/// One place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Path below the repository.
    path: String,
    /// Line, from 1; 0 for the whole file.
    line: usize,
    /// What is wrong and what to do.
    text: String,
}

impl Finding {
    fn new(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, text: text.into() }
    }
}

/// A step: its name, and the function that does it.
type Step = (&'static str, fn(&Workspace) -> Result<(), CheckError>);

/// The quick ones first.
const STEPS: [Step; 10] = [
    ("layout of the sources", check_layout),
    ("documents", check_docs),
    ("formatting", formatting),
    ("chart and manifests", chart_and_manifests),
    ("alerts and dashboard", alerts::check),
    ("kernel object", kernel_object),
    ("kernel object for arm64", kernel_object_for_arm64),
    ("lints of the host half", host_lints),
    ("lints of the kernel half", kernel_lints),
    ("licences, bans and sources of dependencies", licences::check),
];

/// Runs all checks.
pub(crate) fn run(workspace: &Workspace) -> Result<(), CheckError> {
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        console::step(&format!("checking {name}"));
        let started = Instant::now();
        if let Err(error) = step(workspace) {
            eprintln!("error: {error}");
            failed.push(name);
        } else {
            console::detail(&format!("passed in {}", console::seconds(started.elapsed())));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(CheckError::Steps(failed.join("; "))) }
}

fn check_layout(workspace: &Workspace) -> Result<(), CheckError> {
    report(layout::check(&sources::read(workspace)?), "the layout of the sources breaks its rules")
}

fn check_docs(workspace: &Workspace) -> Result<(), CheckError> {
    report(
        docs::check(workspace.root(), &sources::read(workspace)?, &docs::commands()),
        "documents and repository differ",
    )
}

fn report(findings: Vec<Finding>, summary: &str) -> Result<(), CheckError> {
    if findings.is_empty() {
        return Ok(());
    }
    for Finding { path, line, text } in &findings {
        match line {
            0 => eprintln!("{path}: {text}"),
            line => eprintln!("{path}:{line}: {text}"),
        }
    }
    Err(CheckError::Findings(format!("{summary} ({} found)", findings.len())))
}

fn formatting(workspace: &Workspace) -> Result<(), CheckError> {
    Ok(process::run(
        workspace.cargo().args(["fmt", "--all", "--check"]),
        &Purpose::new("checking the formatting", "run `cargo fmt --all`"),
    )?)
}

fn chart_and_manifests(workspace: &Workspace) -> Result<(), CheckError> {
    Ok(chart::check(workspace)?)
}

fn kernel_object(workspace: &Workspace) -> Result<(), CheckError> {
    Ok(ebpf::build(workspace)?)
}

fn kernel_object_for_arm64(workspace: &Workspace) -> Result<(), CheckError> {
    Ok(ebpf::check_arm64(workspace)?)
}

fn host_lints(workspace: &Workspace) -> Result<(), CheckError> {
    Ok(process::run(
        workspace
            .cargo()
            // The kernel half has its own target and features; see `kernel_lints`.
            .args(["clippy", "--quiet", "--workspace", "--exclude", "enforcer-ebpf"])
            // The cluster's tests are behind a feature, and are to be clean as well.
            .args(["--features", "enforcer-cluster/cluster-tests,enforcer-tests/kernel-tests"])
            .args(["--all-targets", "--", "--deny", "warnings"]),
        &Purpose::new("clippy for the host half", "see the findings above"),
    )?)
}

fn kernel_lints(workspace: &Workspace) -> Result<(), CheckError> {
    Ok(ebpf::clippy(workspace)?)
}
