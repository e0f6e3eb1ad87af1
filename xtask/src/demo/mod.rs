//! The place of the demo: its signature, until its story is merged here.

use std::path::Path;

/// How to show it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Leave everything running at the end.
    pub(crate) keep: bool,
}

/// Why the demo did not go as told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// There is no story yet.
    #[error("this checkout has no demo for {binary} (keep: {keep}); merge the branch that has it")]
    Absent { binary: String, keep: bool },
}

/// Shows the product at work.
pub(crate) fn run(options: Options, binary: &Path) -> Result<(), DemoError> {
    Err(DemoError::Absent { binary: binary.display().to_string(), keep: options.keep })
}
