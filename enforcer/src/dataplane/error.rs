//! What can go wrong with the kernel, in words that say what to do.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, pin::PinError, programs::ProgramError};
use thiserror::Error;

use super::{
    netlink::NetlinkError,
    release::{self, OLDEST},
};

/// A failure at the kernel's door.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataplaneError {
    /// No privilege to load programs.
    #[error(
        "loading eBPF programs is refused: the agent needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN \
         (run it as root, or grant these three)"
    )]
    Privilege,
    /// bpffs is not there.
    #[error(
        "{path} is not on a BPF filesystem: mount it with `mount -t bpf bpf /sys/fs/bpf` (after \
         `ip netns exec` a fresh /sys hides it: enter namespaces with `nsenter --net=…` instead)"
    )]
    Bpffs {
        /// Where pins should go.
        path: PathBuf,
    },
    /// The kernel has no BPF or refuses the object.
    #[error(
        "Linux {} does not take the enforcer's programs: it needs Linux {OLDEST} or newer with BPF, BTF and TC",
        release::text()
    )]
    Load(#[source] Box<EbpfError>),
    /// A program was refused.
    #[error(
        "Linux {} refuses the program {program}: the enforcer needs Linux {OLDEST} or newer with BPF, BTF and TC",
        release::text()
    )]
    Program {
        /// Name of the program.
        program: &'static str,
        /// The kernel's answer, with the verifier's log where there is one.
        #[source]
        source: Box<ProgramError>,
    },
    /// A pinned map is not what this version would make.
    #[error(
        "the pinned map {path} is not this version's ({found}): run `enforcer uninstall`, then start the agent again"
    )]
    ForeignPin {
        /// The pin.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// Another version of the product is in force, and this one cannot take over from it.
    #[error(
        "version {version} of the maps is in force ({path}) and this agent cannot take it over: \
         start the enforcer of that version again, or remove it with its `enforcer uninstall`; \
         nothing was changed, and its policy stays in force"
    )]
    OtherVersion {
        /// Its pins.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The object lacks something: it is not the one this agent was built with.
    #[error(
        "the kernel object has no {what} named {name}: it is not the one this agent was built with; rebuild both"
    )]
    Missing {
        /// `map` or `program`.
        what: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// A map operation failed.
    #[error("cannot {operation} the map {map}")]
    Map {
        /// What was tried.
        operation: &'static str,
        /// Which map.
        map: &'static str,
        /// The kernel's answer.
        #[source]
        source: Box<MapError>,
    },
    /// Pinning failed.
    #[error("cannot pin {path}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<PinError>,
    },
    /// Attaching failed.
    #[error("cannot attach to {interface}: its pod is not enforced")]
    Attach {
        /// Host-side interface.
        interface: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// All slots for endpoints are taken.
    #[error(
        "no endpoint slot is free for {interface}: this node has more pod interfaces than the agent has room for"
    )]
    Slots {
        /// Host-side interface.
        interface: String,
    },
    /// A file operation failed.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Interfaces, filters or conntrack cannot be read or changed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A system call failed.
    #[error("{operation} failed")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An error with all its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
