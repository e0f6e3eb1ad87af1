//! `cargo xtask bench`: builds what is measured as it is shipped, and runs the benchmarks.

use std::path::Path;

use clap::ValueEnum;
use enforcer_tests::{Bpffs, LabError};

use crate::{
    console,
    daemon::{self, DaemonError, Profile},
    ebpf::{self, EbpfError},
    process::{self, ProcessError, Purpose},
    setup,
    workspace::Workspace,
};

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// What one packet costs in the programs
    Program,
    /// What one flow costs from the kernel's record to the ring of flows
    Flows,
    /// What the second judge costs that `--self-check` sets over the kernel's verdicts
    SelfCheck,
    /// From a change in the manifests to the first packet judged by it
    Latency,
    /// How the first plan, single events and memory grow with the cluster
    Scale,
    /// What enforcement costs the traffic between two pods, next to nothing and to nftables
    Traffic,
    /// The same with each pod on a processor of its own
    TrafficApart,
    /// What it costs with more rules and more peers
    Rules,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error("the benchmarks load eBPF programs and make network namespaces, so run them as root")]
    NotRoot,
    #[error(transparent)]
    Ebpf(#[from] EbpfError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error(transparent)]
    Bpffs(#[from] LabError),
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// Runs one benchmark, or all in turn. Results as JSON go to target/bench, plots to a folder where
/// one is named.
pub(crate) fn run(
    workspace: &Workspace,
    which: Option<Which>,
    plots: Option<&Path>,
) -> Result<(), BenchError> {
    if !setup::is_root() {
        return Err(BenchError::NotRoot);
    }
    ebpf::build(workspace)?;
    let daemon = daemon::build(workspace, Profile::Release)?;
    console::step("building the benchmarks");
    let build = ["build", "--quiet", "--release", "--package", "enforcer-bench"];
    process::run(
        workspace.cargo().args(build),
        &Purpose::new("building the benchmarks", "see the errors above"),
    )?;
    let _pins = Bpffs::ensure()?;
    let all = which.map_or_else(|| Which::value_variants().to_vec(), |one| vec![one]);
    for one in all {
        let mut command = workspace.cargo();
        command.args(["run", "--quiet", "--release", "--package", "enforcer-bench", "--"]);
        match one {
            Which::Program => command.arg("program"),
            Which::Flows => command.arg("flows"),
            Which::SelfCheck => command.arg("self-check"),
            Which::Latency => command.args(["latency", "--binary"]).arg(&daemon),
            Which::Scale => {
                command.args(["scale", "--binary"]).arg(&daemon);
                // An agent that reads a hundred thousand pods takes its time.
                command.env("ENFORCER_PATIENCE", "20");
                if let Some(plots) = plots {
                    command.arg("--plots").arg(plots);
                }
                &mut command
            }
            Which::Traffic => command.args(["traffic", "--binary"]).arg(&daemon),
            Which::TrafficApart => command.args(["traffic", "--apart", "--binary"]).arg(&daemon),
            Which::Rules => command.args(["rules", "--binary"]).arg(&daemon),
        };
        process::run(&mut command, &Purpose::new("the benchmark", "see the message above"))?;
    }
    Ok(())
}
