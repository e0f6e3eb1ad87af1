//! The command line of `cargo xtask`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use enforcer_tests::Bpffs;

use crate::{
    bench::{self, BenchError, Which},
    chart::{self, ChartError},
    check::{self, CheckError},
    cluster::{self, ClusterCommand, ClusterTaskError},
    console,
    coverage::{self, CoverageError},
    daemon::{self, DaemonError, Profile},
    demo::{self, DemoError},
    ebpf::{self, EbpfError},
    fuzz::{self, FuzzError},
    image::{self, Arch, ImageTaskError},
    mutants::{self, MutantsError},
    setup::{self, SetupError},
    test::{self, TestError},
    workspace::Workspace,
};

/// The project's own tasks.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Find or install what building the kernel half needs; instant the second time.
    Setup,
    /// Build the kernel half into target/bpf, from where the daemon's build embeds it.
    BuildEbpf,
    /// Show the product at work in network namespaces of this machine, as root.
    Demo {
        /// Leave everything running at the end, to play with.
        #[arg(long)]
        keep: bool,
    },
    /// Run every test, as root; those that need a cluster only if asked for.
    Test {
        /// Also the tests in a real cluster, which is started for them.
        #[arg(long)]
        cluster: bool,
        /// The long runs: thousands of connections, ten updates, hundreds of starts.
        #[arg(long)]
        release: bool,
        /// A million random probes in the kernel and long streams of updates, instead of few.
        #[arg(long)]
        exhaustive: bool,
        /// Also those that depend on the kernel, on Debian's kernels of these versions (`6.1,6.12`),
        /// each in an emulated machine.
        #[arg(long, value_delimiter = ',', value_name = "VERSIONS")]
        kernels: Vec<String>,
        /// None but those on other kernels.
        #[arg(long, requires = "kernels", conflicts_with = "cluster")]
        kernels_only: bool,
    },
    /// Measure what a packet and a change cost, next to baselines in the same run; as root.
    Bench {
        /// One benchmark only; all of them in turn if not given.
        #[arg(value_enum)]
        which: Option<Which>,
        /// Folder for the plots of those that draw some.
        #[arg(long, value_name = "DIR")]
        plots: Option<PathBuf>,
    },
    /// Give one reader of outside input changed inputs for a while; what fails is kept as a test.
    Fuzz {
        /// Which one.
        #[arg(value_enum)]
        target: fuzz::Target,
        /// For how long, seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        time: u64,
        /// Begin as a run before did, which has printed this.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Start, use and remove a real Kubernetes in namespaces of this machine, as root.
    Cluster {
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Make the daemon's image, an OCI archive, in target/image; needs no container engine.
    Image {
        /// The processors that it is for.
        #[arg(long, value_enum, default_value_t)]
        arch: Arch,
    },
    /// Render the plain manifests in deploy/manifests from the Helm chart.
    Manifests,
    /// Tell which lines of policy, index and shared code their own tests run; fails below 90 %.
    Coverage,
    /// Change policy and shared code in one place at a time: every change must fail a test, or be
    /// explained in docs/mutants.md.
    Mutants {
        /// Only in files that match, as `enforcer/src/cluster/**`; repeatable.
        #[arg(long, value_name = "PATTERN")]
        file: Vec<String>,
    },
    /// Check formatting, lints, licences, the sources' layout, the documents and the chart.
    Check,
}

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
enum TaskError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Ebpf(#[from] EbpfError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error(transparent)]
    Test(#[from] TestError),
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error(transparent)]
    Fuzz(#[from] FuzzError),
    #[error(transparent)]
    Chart(#[from] ChartError),
    #[error(transparent)]
    Cluster(#[from] ClusterTaskError),
    #[error(transparent)]
    Image(#[from] ImageTaskError),
    #[error(transparent)]
    Coverage(#[from] CoverageError),
    #[error(transparent)]
    Mutants(#[from] MutantsError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error("the demo makes network namespaces and loads eBPF programs, so run it as root")]
    DemoNotRoot,
}

impl Cli {
    /// Does what the command line says.
    pub(crate) fn run(self) -> ExitCode {
        match self.command.run(&Workspace::find()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                let mut cause = std::error::Error::source(&error);
                while let Some(inner) = cause {
                    eprintln!("  because: {inner}");
                    cause = inner.source();
                }
                ExitCode::FAILURE
            }
        }
    }
}

impl Task {
    fn run(self, workspace: &Workspace) -> Result<(), TaskError> {
        match self {
            Self::Setup => {
                setup::ensure(workspace)?;
                console::step("set up; next: cargo xtask demo");
            }
            Self::BuildEbpf => ebpf::build(workspace)?,
            Self::Demo { keep } => {
                // First of all: nobody should wait for builds to learn this.
                if !setup::is_root() {
                    return Err(TaskError::DemoNotRoot);
                }
                ebpf::build(workspace)?;
                let daemon = daemon::build(workspace, Profile::Release)?;
                let _pins = Bpffs::ensure().map_err(DemoError::Lab)?;
                demo::run(demo::Options { keep }, &daemon)?;
            }
            Self::Test { cluster, release, exhaustive, kernels, kernels_only } => {
                let options = test::Options { cluster, release, exhaustive, kernels, kernels_only };
                test::run(workspace, &options)?;
            }
            Self::Bench { which, plots } => bench::run(workspace, which, plots.as_deref())?,
            Self::Fuzz { target, time, seed } => fuzz::run(workspace, target, time, seed)?,
            Self::Manifests => chart::write_manifests(workspace)?,
            Self::Cluster { command } => cluster::run(workspace, command)?,
            Self::Image { arch } => image::run(workspace, arch)?,
            Self::Coverage => coverage::run(workspace)?,
            Self::Mutants { file } => mutants::run(workspace, &file)?,
            Self::Check => check::run(workspace)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn unknown_flags_are_refused() {
        for line in [
            ["xtask", "test", "--clusters"],
            ["xtask", "demo", "--fast"],
            ["xtask", "test", "--kernels-only"],
        ] {
            assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
        }
        assert!(Cli::try_parse_from(["xtask", "demo", "--keep"]).is_ok());
    }
}
