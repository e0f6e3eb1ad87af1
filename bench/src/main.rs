//! `cargo xtask bench` runs this: benchmarks whose every figure stands beside its baseline, taken
//! in the same run.

mod flows;
mod latency;
mod plot;
mod program;
mod rules;
mod scale;
mod self_check;
mod table;
mod traffic;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: scale::counting::Counting = scale::counting::Counting;

/// Why a benchmark has no result.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub(crate) struct BenchError {
    what: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

#[derive(Debug, Parser)]
#[command(name = "enforcer-bench")]
struct Cli {
    /// Folder for the results as JSON
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// What one packet costs in the programs
    Program {
        /// Rounds in which all variants take turns
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=31))]
        rounds: u32,
        /// Packets of each variant in a round
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=500))]
        packets: u16,
    },
    /// What one flow costs from the kernel's record to the ring of flows
    Flows {
        /// Rounds in which all variants take turns
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        rounds: u32,
    },
    /// What the second judge costs that `--self-check` sets over the kernel's verdicts
    SelfCheck {
        /// Rounds
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        rounds: u32,
    },
    /// From a change in the manifests to the first packet judged by it
    Latency {
        /// The agent
        #[arg(long, value_name = "FILE")]
        binary: PathBuf,
        /// Pods that the changes do not concern, one measurement each; a tenth as many policies,
        /// 5,000 at most
        #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000])]
        pods: Vec<u32>,
        /// Changes in each direction
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        changes: u32,
    },
    /// How the first plan, single events and memory grow with the cluster
    Scale {
        /// The agent, to be measured as well
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
        /// Pods of each cluster
        #[arg(long, value_delimiter = ',', default_value = "100,1000,10000,100000")]
        pods: Vec<u32>,
        /// Measure only how the agent starts
        #[arg(long, requires = "binary")]
        agents_only: bool,
        /// Folder for plots
        #[arg(long, value_name = "DIR")]
        plots: Option<PathBuf>,
    },
    /// One size of it, for the process that asks
    #[command(hide = true)]
    ScaleOne {
        /// Pods of the cluster
        pods: u32,
    },
    /// The API server that its agents read, until the standard input ends
    #[command(hide = true)]
    ScaleServe {
        /// Pods of the cluster
        pods: u32,
        /// How lists are asked for
        lists: scale::server::Lists,
    },
    /// What enforcement costs the traffic between two pods, next to nothing and to nftables
    Traffic {
        /// The agent
        #[arg(long, value_name = "FILE")]
        binary: PathBuf,
        /// Each end on a processor of its own, and not both on one
        #[arg(long)]
        apart: bool,
        #[command(flatten)]
        turns: Turns,
    },
    /// What it costs with more rules and more peers
    Rules {
        /// The agent
        #[arg(long, value_name = "FILE")]
        binary: PathBuf,
        /// What grows
        #[arg(long, value_delimiter = ',', default_values = ["rules", "peers"])]
        growing: Vec<rules::Growing>,
        #[command(flatten)]
        turns: Turns,
    },
}

/// How long traffic is measured.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Turns {
    /// Rounds in which all variants take turns
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// One variant's turn under one load, ms
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    turn: u64,
}

impl From<Turns> for traffic::Size {
    fn from(Turns { rounds, turn }: Turns) -> Self {
        Self { rounds, turn: Duration::from_millis(turn), apart: false }
    }
}

fn main() -> ExitCode {
    let Cli { out, bench } = Cli::parse();
    let (name, result) = match bench {
        Bench::Program { rounds, packets } => {
            ("program", program::run(program::Size { rounds, packets }))
        }
        Bench::Flows { rounds } => ("flows", flows::run(flows::Size { rounds })),
        Bench::SelfCheck { rounds } => ("self-check", self_check::run(self_check::Size { rounds })),
        Bench::Latency { binary, pods, changes } => {
            let size = |pods: u32| latency::Size { pods, policies: (pods / 10).min(5_000) };
            let sizes: Vec<_> = pods.into_iter().map(size).collect();
            ("latency", latency::run(&binary, &sizes, changes))
        }
        Bench::Scale { binary, pods, agents_only, plots } => {
            ("scale", scale::run(&scale::Plan { pods, binary, agents_only, plots }))
        }
        Bench::ScaleOne { pods } => return one_size(pods),
        Bench::ScaleServe { pods, lists } => {
            return serve(pods, lists);
        }
        Bench::Traffic { binary, apart, turns } => {
            let size = traffic::Size { apart, ..turns.into() };
            let name = if apart { "traffic-apart" } else { "traffic" };
            return report(&out, name, traffic::run(binary, size));
        }
        Bench::Rules { binary, growing, turns } => {
            return report(&out, "rules", rules::run(&binary, &growing, turns.into()));
        }
    };
    match result {
        Ok(rows) => {
            print(name, &rows);
            match keep(&out, name, rows.as_slice()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => complain(&error),
            }
        }
        Err(error) => complain(&error),
    }
}

fn serve(pods: u32, lists: scale::server::Lists) -> ExitCode {
    match scale::server::serve(pods, lists) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&BenchError { what: "serve a cluster", source: error.into() }),
    }
}

#[expect(clippy::print_stdout, reason = "what the process that asks reads")]
fn one_size(pods: u32) -> ExitCode {
    match scale::one(pods) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => complain(&error),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a command line program")]
fn complain(error: &BenchError) -> ExitCode {
    eprintln!("bench: {error}");
    ExitCode::FAILURE
}

/// The machine, as far as it explains figures.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    format!("Linux {}, {cores} cores, load {load}", kernel.trim())
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn print(name: &str, rows: &[table::Row]) {
    println!("cargo xtask bench {name}   ({})", machine());
    println!();
    println!("{:<52} {:>8} {:>14}", rows.first().map_or("", |row| row.unit), "median", "quartiles");
    for row in rows {
        let [low, high] = row.quartiles;
        let digits = if row.median < 50.0 { 1 } else { 0 };
        let quartiles = format!("{low:.digits$} to {high:.digits$}");
        println!("{:<52} {:>8.digits$} {quartiles:>14}", row.name, row.median);
        if let Some((against, ratio)) = &row.ratio {
            println!("    {ratio:.2} times {against}");
        }
    }
}

/// Prints and keeps the tables of a benchmark of traffic.
#[expect(clippy::print_stdout, reason = "the result of the command")]
fn report(out: &PathBuf, name: &str, result: Result<traffic::Report, BenchError>) -> ExitCode {
    let result = result.and_then(|report| {
        println!("cargo xtask bench {name}   ({})\n\n{}", machine(), report.setup);
        report.sections.iter().for_each(|section| print!("\n{section}"));
        keep(out, name, &report)
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

fn keep<T: Serialize + ?Sized>(out: &PathBuf, name: &str, rows: &T) -> Result<(), BenchError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| BenchError {
        what: "keep the result",
        source,
    };
    fs::create_dir_all(out).map_err(|e| failed(e.into()))?;
    let json = serde_json::json!({ "bench": name, "machine": machine(), "rows": rows });
    let text = serde_json::to_string_pretty(&json).map_err(|e| failed(e.into()))?;
    fs::write(out.join(format!("{name}.json")), text).map_err(|e| failed(e.into()))
}
