//! `cargo xtask fuzz`: one target of `enforcer/tests/fuzz` for as long as somebody has patience.

use clap::ValueEnum;

use crate::{
    console,
    ebpf::{self, EbpfError},
    process::{self, ProcessError, Purpose},
    workspace::Workspace,
};

/// What can be given input from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// Frames to the parser.
    Packets,
    /// Files to the reader of manifests.
    Manifests,
    /// Records of the rings to their decoder.
    Records,
    /// Requests to the flow server.
    Requests,
}

/// Why it ended too soon.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FuzzError {
    /// The kernel half could not be built.
    #[error(transparent)]
    Ebpf(#[from] EbpfError),
    /// An input fails; it is kept.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// Runs the target for so many seconds.
pub(crate) fn run(
    workspace: &Workspace,
    target: Target,
    seconds: u64,
    seed: Option<u64>,
) -> Result<(), FuzzError> {
    ebpf::build(workspace)?;
    let value = target.to_possible_value();
    let name = value.as_ref().map_or("", |value| value.get_name());
    console::step(&format!("fuzzing {name} for {seconds} s"));
    // With the checks of a build for tests: an overflow is a failure, too.
    let mut command = workspace.cargo();
    command
        .args(["test", "--package", "enforcer", "--test", "fuzz", "--", "--nocapture"])
        .arg(format!("{name}::"))
        .env("ENFORCER_FUZZ_SECONDS", seconds.to_string());
    if let Some(seed) = seed {
        command.env("ENFORCER_FUZZ_SEED", seed.to_string());
    }
    let hint =
        "the input is kept in enforcer/tests/fuzz/corpus: mend what it shows and commit both";
    Ok(process::run(&mut command, &Purpose::new(format!("fuzzing {name}"), hint))?)
}
