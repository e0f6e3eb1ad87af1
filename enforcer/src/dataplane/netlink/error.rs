//! How a question to the kernel can fail.

use std::io;

/// A netlink request or system call that did not work.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket of this family.
    #[error("cannot open a {family} netlink socket: the kernel must be built with it")]
    Open {
        /// Which family.
        family: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A socket option or membership was refused.
    #[error("cannot {operation} on a netlink socket")]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel answered with an error.
    #[error("cannot {operation}; CAP_NET_ADMIN is needed, and what is asked about must exist")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel sent no answer, or not all of it.
    #[error("cannot {operation}: the kernel's answer was cut short; try again")]
    Incomplete {
        /// What was asked.
        operation: &'static str,
    },
    /// A list changed under every attempt to read it.
    #[error("cannot {operation}: it changed during every one of {attempts} readings; try again")]
    Restless {
        /// What was asked.
        operation: &'static str,
        /// How often it was read.
        attempts: u32,
    },
    /// A deletion that names no single filter, which the kernel would take for all of them.
    #[error("a filter to delete needs a priority and a handle: 0 would mean every filter")]
    Unspecific,
}

impl NetlinkError {
    /// The kernel's error number, if it gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Open { source, .. }
            | Self::Socket { source, .. }
            | Self::Refused { source, .. } => source.raw_os_error(),
            Self::Incomplete { .. } | Self::Restless { .. } | Self::Unspecific => None,
        }
    }
}
