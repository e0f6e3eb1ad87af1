//! What can go wrong with the cluster, and what to do about it.

use std::{io, path::Path, process::ExitStatus};

use thiserror::Error;

use crate::image::ImageError;

/// A failure of the cluster itself, or of a program that it is made of.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// Namespaces, mounts and cgroups need root.
    #[error("a cluster is made of namespaces, mounts and cgroups: run the same as root")]
    NotRoot,
    /// There is one already.
    #[error("a cluster is up already; use it, or remove it with `cargo xtask cluster down`")]
    AlreadyUp,
    /// There is none.
    #[error("no cluster is up; start one with `cargo xtask cluster up`")]
    NotUp,
    /// It was asked for something that it does not have.
    #[error("the cluster has no node {name}; it has {present}")]
    NoSuchNode {
        /// What was asked for.
        name: String,
        /// What there is.
        present: String,
    },
    /// More or fewer nodes than the addresses allow.
    #[error("{0} nodes are not possible; ask for at most {max}", max = crate::plan::MAX_NODES)]
    NodeCount(u8),
    /// A node that should run does not.
    #[error("{0} does not run; start it first, and see its logs if it should")]
    NodeDown(String),
    /// A program could not be started.
    #[error("cannot start {program}; install it or put it into PATH")]
    Start {
        /// Which.
        program: String,
        /// Why not.
        #[source]
        reason: io::Error,
    },
    /// A program ended with a failure.
    #[error("{what} failed ({status}): {output}")]
    Failed {
        /// What it was run for.
        what: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote.
        output: String,
    },
    /// A file could not be read or written, or a system call failed.
    #[error("cannot {operation}")]
    Io {
        /// What was tried.
        operation: String,
        /// Why not.
        #[source]
        reason: io::Error,
    },
    /// A file holds what it should not.
    #[error("{path} is not as this program writes it ({reason}); {remedy}")]
    Content {
        /// Which file.
        path: String,
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds} s; {hint}")]
    Late {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
        /// Where to look.
        hint: String,
    },
    /// Something that clusters are made of is not there.
    #[error("{0} is not there; `cargo xtask cluster up` gets what a cluster is made of")]
    NoAsset(String),
    /// Something that should be removed is still there.
    #[error("{what} could not be removed; {hint}")]
    Left {
        /// What.
        what: String,
        /// What to do.
        hint: String,
    },
    /// An image could not be written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Ctrl-C, or a signal that asks to end.
    #[error("interrupted; what was made is removed")]
    Interrupted,
}

impl ClusterError {
    /// For `map_err`: names the operation.
    pub(crate) fn io(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let operation = operation.into();
        move |reason| Self::Io { operation, reason }
    }

    /// For `map_err`: names the operation and the file.
    pub(crate) fn file(operation: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io(format!("{operation} {}", path.display()))
    }
}
