//! `cargo xtask test`: every test, those in a real cluster if asked for, and one line that sums
//! them up.

mod summary;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use enforcer_tests::{Bpffs, LabError};

use crate::{
    cluster::{self, ClusterTaskError},
    console,
    daemon::{self, DaemonError, Profile},
    ebpf::{self, EbpfError},
    image::{self, Arch, ImageTaskError},
    kernels::{self, KernelsError},
    process::{self, ProcessError, Purpose},
    setup,
    workspace::Workspace,
};
pub(crate) use summary::Counts;

/// Why the tests did not pass.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TestError {
    /// Network namespaces and eBPF programs need root.
    #[error(
        "the end-to-end tests make network namespaces and load eBPF programs, so run `cargo xtask \
         test` as root"
    )]
    NotRoot,
    /// The kernel half could not be built.
    #[error(transparent)]
    Ebpf(#[from] EbpfError),
    /// The daemon could not be built.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// What a cluster is made of could not be had.
    #[error(transparent)]
    Cluster(#[from] ClusterTaskError),
    /// The daemon's image could not be made.
    #[error(transparent)]
    Image(#[from] ImageTaskError),
    /// Other kernels could not be tested.
    #[error(transparent)]
    Kernels(#[from] KernelsError),
    /// There is nowhere to pin eBPF objects.
    #[error(transparent)]
    Bpffs(#[from] LabError),
    /// cargo could not be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Some failed.
    #[error("{0} failed; their names and output are above")]
    Failed(u64),
    /// Tests that never run would be taken for tests that pass.
    #[error("{0} tests were ignored, and a test that does not run must not exist; see above")]
    Ignored(u64),
    /// Something is wrong with the way that tests are found.
    #[error("no test ran; check that the workspace's crates still have theirs")]
    NoneRan,
}

/// Which tests to run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Also those in a real cluster.
    pub(crate) cluster: bool,
    /// The long runs.
    pub(crate) release: bool,
    /// Random tests of the kernel at length.
    pub(crate) exhaustive: bool,
    /// Versions of other kernels to test on.
    pub(crate) kernels: Vec<String>,
    /// Nothing but that.
    pub(crate) kernels_only: bool,
}

/// Builds what the tests need and runs them all.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<(), TestError> {
    // First of all: nobody should wait for builds to learn this.
    if !setup::is_root() {
        return Err(TestError::NotRoot);
    }
    let started = Instant::now();
    ebpf::build(workspace)?;
    let daemon = daemon::build(workspace, Profile::Dev)?;
    let mut counts = Counts::default();
    if !options.kernels_only {
        counts.add(on_this_kernel(workspace, options, &daemon)?);
    }
    if !options.kernels.is_empty() {
        counts.add(kernels::run(workspace, &options.kernels, &daemon, options.release)?);
    }
    if options.cluster {
        counts.add(in_cluster(workspace, options)?);
    }
    if options.exhaustive {
        show_runs(workspace);
    }
    report(&counts, started.elapsed());
    if counts.failed > 0 {
        Err(TestError::Failed(counts.failed))
    } else if counts.ignored > 0 {
        Err(TestError::Ignored(counts.ignored))
    } else if counts.passed == 0 {
        Err(TestError::NoneRan)
    } else {
        Ok(())
    }
}

/// The tests that need neither another kernel nor a cluster.
fn on_this_kernel(
    workspace: &Workspace,
    options: &Options,
    daemon: &Path,
) -> Result<Counts, TestError> {
    let _pins = Bpffs::ensure()?;
    let mut counts = Counts::default();
    console::step("testing the crates one by one");
    // All but the kernel half, so that no crate's tests are forgotten.
    let units = ["--workspace", "--exclude", "enforcer-ebpf", "--exclude", "enforcer-tests"];
    counts.add(cargo_test(workspace, options, daemon, &units)?);
    console::step("testing end to end, in network namespaces");
    counts.add(cargo_test(workspace, options, daemon, &["--package", "enforcer-tests"])?);
    Ok(counts)
}

/// The tests in a real cluster, one after the other: there is one cluster at a time.
fn in_cluster(workspace: &Workspace, options: &Options) -> Result<Counts, TestError> {
    let assets = cluster::prepare(workspace)?;
    cluster::prepare_upstream(workspace)?;
    cluster::prepare_hubble(workspace)?;
    let image = image::daemon(workspace, Arch::default())?;
    console::step("testing in a real cluster");
    let mut command = workspace.cargo();
    command
        .args(["test", "--no-fail-fast", "--package", "enforcer-cluster"])
        .args(["--features", "cluster-tests", "--test", "*", "--", "--test-threads=1"])
        .env("ENFORCER_IMAGE", image)
        .env("ENFORCER_CLUSTER", assets.layout().root());
    if options.release {
        command.env("ENFORCER_LONG", "1");
    }
    Ok(count(&mut command)?)
}

/// Most lines of an earlier and this run's that are shown.
const RUNS: usize = 2;

/// Shows what the random tests of the kernel have written down of their last runs.
fn show_runs(workspace: &Workspace) {
    let path = workspace.root().join("target/tmp/proof/runs.txt");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    console::step(&format!("the random tests' last runs, from {}", workspace.show(&path)));
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(RUNS)..] {
        println!("    {line}");
    }
}

fn report(counts: &Counts, elapsed: Duration) {
    println!("\n{} passed, {} failed", counts.passed, counts.failed);
    println!("total time: {}", console::seconds(elapsed));
}

fn cargo_test(
    workspace: &Workspace,
    options: &Options,
    daemon: &Path,
    packages: &[&str],
) -> Result<Counts, TestError> {
    Ok(count(&mut cargo_test_command(workspace, options, daemon, packages))?)
}

fn cargo_test_command(
    workspace: &Workspace,
    options: &Options,
    daemon: &Path,
    packages: &[&str],
) -> Command {
    let mut command = workspace.cargo();
    command.args(["test", "--no-fail-fast"]).args(packages).env("ENFORCER_BIN", daemon);
    if options.release {
        command.env("ENFORCER_LONG", "1");
    }
    if options.exhaustive {
        command.env("ENFORCER_EXHAUSTIVE", "1");
    }
    command
}

/// Runs a test command, passes its output on, and counts.
fn count(command: &mut Command) -> Result<Counts, ProcessError> {
    let mut counts = Counts::default();
    let purpose = Purpose::new("cargo test", "see above");
    let status = process::each_line(command, &purpose, |line| {
        println!("{line}");
        counts.read(line);
    })?;
    // A test that takes its whole program down, or one that does not compile, has no summary.
    if !status.success() && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_told_what_is_asked_for_by_the_variables_that_they_read() {
        let told = |release, exhaustive| {
            let options = Options { release, exhaustive, ..Options::default() };
            let workspace = Workspace::find();
            let command = cargo_test_command(&workspace, &options, Path::new("/daemon"), &[]);
            let set = command.get_envs().filter(|(_, value)| value.is_some());
            let ours =
                set.filter_map(|(name, _)| name.to_str()).filter(|n| n.starts_with("ENFORCER_"));
            ours.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(told(false, false), ["ENFORCER_BIN"]);
        assert_eq!(told(true, false), ["ENFORCER_BIN", "ENFORCER_LONG"]);
        assert_eq!(told(false, true), ["ENFORCER_BIN", "ENFORCER_EXHAUSTIVE"]);
    }

    #[test]
    fn a_crash_without_a_summary_counts_as_a_failure() {
        let run = |script: &str| count(Command::new("sh").args(["-c", script])).unwrap();
        let summary = "echo 'test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured'";
        assert_eq!(run(summary), Counts { passed: 3, failed: 0, ignored: 0 });
        let crashed = format!("{summary}; exit 101");
        assert_eq!(run(&crashed), Counts { passed: 3, failed: 1, ignored: 0 });
    }
}
