//! What can go wrong in the laboratory, and what to do about it.

use std::{io, path::PathBuf};

use thiserror::Error;

/// A failure of the laboratory itself, or of a program that it runs.
#[derive(Debug, Error)]
pub enum LabError {
    /// Namespaces and programs in the kernel need root.
    #[error("the laboratory makes network namespaces and must run as root: run the same as root")]
    NotRoot,
    /// A system call or file operation failed.
    #[error("cannot {operation}")]
    Io {
        /// What was tried.
        operation: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}: is it installed and in PATH?")]
    Start {
        /// Which.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A program ended with a failure.
    #[error("`{command}` failed: {message}")]
    Failed {
        /// With its arguments.
        command: String,
        /// What it wrote.
        message: String,
    },
    /// No such pod, or the pod has no address of the family.
    #[error("the laboratory has no {0}")]
    NoSuchPlace(String),
    /// A pod's address does not lie in the laboratory's pod network.
    #[error("address {0} is not in the laboratory's pod networks 10.244.0.0/16 and fd10:244::/64")]
    NotInPodNetwork(std::net::IpAddr),
    /// The agent's binary is not there.
    #[error("no agent at {0}: build it (`cargo build -p enforcer`) or name it in ENFORCER_BIN")]
    NoAgent(PathBuf),
    /// The agent did not do what was asked of it.
    #[error("the agent {what}; its log ends with:\n{log}")]
    Agent {
        /// What happened.
        what: String,
        /// The end of its log.
        log: String,
    },
    /// A file of a scenario is not what it should be.
    #[error("cannot read {path}: {reason}")]
    Scenario {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl LabError {
    /// For `map_err`: names the operation.
    pub(crate) fn io(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let operation = operation.into();
        move |source| Self::Io { operation, source }
    }

    /// The whole chain of causes in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
