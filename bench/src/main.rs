//! `cargo xtask bench` runs this: benchmarks whose every figure stands beside its baseline, taken
//! in the same run.

mod program;
mod table;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Why a benchmark has no result.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub(crate) struct BenchError {
    what: &'static str,
    source: Box<dyn std::error::Error>,
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
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
        /// Packets of each variant in a round
        #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u16).range(1..=2000))]
        packets: u16,
    },
}

fn main() -> ExitCode {
    let Cli { out, bench } = Cli::parse();
    let (name, result) = match bench {
        Bench::Program { rounds, packets } => {
            ("program", program::run(program::Size { rounds, packets }))
        }
    };
    match result {
        Ok(rows) => {
            print(name, &rows);
            match keep(&out, name, &rows) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => complain(&error),
            }
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
    println!("{:<34} {:>9} {:>15}   ratio", "", "median", "quartiles");
    for row in rows {
        let [low, high] = row.quartiles;
        let ratio = row
            .ratio
            .as_ref()
            .map_or_else(String::new, |(against, ratio)| format!("{ratio:.2} x {against}"));
        let quartiles = format!("{low:.0} to {high:.0}");
        println!("{:<34} {:>9.0} {quartiles:>15}   {ratio}", row.name, row.median);
    }
    if let Some(row) = rows.first() {
        println!("\n{}", row.unit);
    }
}

fn keep(out: &PathBuf, name: &str, rows: &[table::Row]) -> Result<(), BenchError> {
    let failed =
        |source: Box<dyn std::error::Error>| BenchError { what: "keep the result", source };
    fs::create_dir_all(out).map_err(|e| failed(e.into()))?;
    let json = serde_json::json!({ "bench": name, "machine": machine(), "rows": rows });
    let text = serde_json::to_string_pretty(&json).map_err(|e| failed(e.into()))?;
    fs::write(out.join(format!("{name}.json")), text).map_err(|e| failed(e.into()))
}
