//! The project's own tasks: set-up, the kernel object, demo, tests, checks.

mod bench;
mod chart;
mod check;
mod cli;
mod cluster;
mod console;
mod coverage;
mod daemon;
mod demo;
mod ebpf;
mod elf;
mod fuzz;
mod image;
mod kernels;
mod mutants;
mod process;
mod pure;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    cli::Cli::parse().run()
}
