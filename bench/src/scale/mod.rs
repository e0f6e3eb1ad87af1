//! How the agent's work grows with the cluster: the first plan, single events, memory. A generated
//! cluster is told to the index as the agent does it, and its plans are written to the real maps;
//! beside that a real agent starts with the same cluster from an API server, and from manifests.

mod agent;
mod cluster;
pub(crate) mod counting;
mod draw;
mod events;
mod node;
mod one;
mod policies;
mod random;
pub(crate) mod server;
mod tell;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    BenchError,
    table::{Row, Samples},
};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// What is measured, and where the plots go.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Pods of each cluster.
    pub(crate) pods: Vec<u32>,
    /// The agent; without it only the index and the maps are measured.
    pub(crate) binary: Option<PathBuf>,
    /// Only agents are measured.
    pub(crate) agents_only: bool,
    /// Folder for the plots.
    pub(crate) plots: Option<PathBuf>,
}

fn failed(what: &'static str) -> impl Fn(AnyError) -> BenchError {
    move |source| BenchError { what, source }
}

/// Runs the benchmark.
pub(crate) fn run(plan: &Plan) -> Result<Vec<Row>, BenchError> {
    let mut sizes = Vec::new();
    let mut agents = Vec::new();
    for pods in &plan.pods {
        if !plan.agents_only {
            sizes.push(apart(*pods).map_err(failed("measure a size in a process of its own"))?);
        }
        for (binary, from) in
            plan.binary.iter().flat_map(|one| agent::From::ALL.map(|of| (one, of)))
        {
            let start = agent::start(binary, *pods, from);
            agents.push(start.map_err(failed("measure an agent's start"))?);
        }
    }
    if let Some(dir) = &plan.plots {
        write(dir, &draw::plots(&sizes, &agents)).map_err(failed("write the plots"))?;
    }
    let mut rows: Vec<Row> = sizes.iter().flat_map(of_size).collect();
    rows.extend(agents.iter().flat_map(agent::Start::rows));
    Ok(rows)
}

/// Measures one size in this process, and prints it for the one that asked.
pub(crate) fn one(pods: u32) -> Result<String, BenchError> {
    let size = one::measure(pods).map_err(failed("measure a size"))?;
    serde_json::to_string(&size).map_err(|error| failed("print a size")(error.into()))
}

/// Has another process measure a size.
fn apart(pods: u32) -> Result<one::Size, AnyError> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["scale-one", &pods.to_string()]).stderr(Stdio::inherit());
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("the process for {pods} pods ended with {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn write(dir: &Path, plots: &[(&str, String)]) -> Result<(), AnyError> {
    fs::create_dir_all(dir)?;
    for (name, text) in plots {
        fs::write(dir.join(format!("{name}.svg")), text)?;
    }
    Ok(())
}

fn of_size(size: &one::Size) -> Vec<Row> {
    let single = |name: String, unit, value| {
        Row::new(&format!("{name}, {unit}"), unit, &Samples::of(value), None)
    };
    let about = format!("{} policies, {} Services", size.policies, size.services);
    let mut rows = vec![
        single(format!("a cluster with {about}"), "pods", f64::from(size.pods)),
        single("  first plan, time".into(), "ms", size.plan.wall),
        single("  first plan, processor time".into(), "ms", size.plan.cpu),
        single("  first plan".into(), "allocations", size.plan.allocations as f64),
        single("  first plan, names for flows".into(), "ms", size.name.wall),
        single(format!("  first plan, {} operations on maps", size.entries), "ms", size.write.wall),
        single("  held by index and names".into(), "MiB", size.held),
        single("  resident at most".into(), "MiB", size.peak),
    ];
    for event in &size.events {
        let samples: Samples = event.samples.iter().copied().collect();
        rows.push(Row::new(&format!("  {}, µs", event.name), "µs", &samples, None));
        rows.push(single("    p99".into(), "µs", event.plan.p99));
        rows.push(single("    worst".into(), "µs", event.plan.worst));
        rows.push(single("    written".into(), "µs", event.write.median));
        rows.push(single("    memory".into(), "allocations", event.allocations.median));
        rows.push(single("    maps".into(), "operations", event.entries.median));
    }
    rows
}
