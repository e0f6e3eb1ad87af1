//! Other enforcers of network policy on the same node: found by what they leave in its network, and
//! named, because a packet that two enforcers judge is only let through if both allow it, and
//! nobody who reads one of them can say why it was not.
//!
//! Only signs that `CAP_NET_ADMIN` and the BPF file system show are looked for, without any change
//! to the node: chains, interfaces, pins, names of CNI configurations. What they mean is decided by
//! [`classify`], a pure function; a network plugin that is there is told from one that enforces.

mod classify;
mod legacy;
#[cfg(test)]
mod tests;

use std::{fs, path::Path};

pub use self::classify::classify;
use crate::{
    dataplane::netlink::{
        links::Links,
        nftables::{self, Chain, Table},
    },
    error_chain,
};

/// Another enforcer, or a network plugin that could be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Its name, of a closed list.
    pub name: &'static str,
    /// Whether it enforces policy, as far as the signs tell; if not, it is a network plugin that
    /// does not at present.
    pub enforces: bool,
    /// What was found, each a sentence's part for people.
    pub evidence: Vec<String>,
}

/// What was seen on the node, before anybody asks what it means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// Tables of nftables.
    pub tables: Vec<Table>,
    /// Chains of nftables, and of iptables in both variants.
    pub chains: Vec<Chain>,
    /// Names of interfaces.
    pub interfaces: Vec<String>,
    /// Pins, below the BPF file system.
    pub pins: Vec<String>,
    /// Names of CNI configuration files.
    pub cni_files: Vec<String>,
}

/// Where to look beside the network.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// The BPF file system: `/sys/fs/bpf`.
    pub bpf: &'a Path,
    /// Configurations of CNI plugins, usually `/etc/cni/net.d`, where they can be read.
    pub cni: Option<&'a Path>,
}

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The rivals, those that enforce first.
    pub rivals: Vec<Rival>,
    /// What could not be looked at, and why: there the node may hold more.
    pub unseen: Vec<String>,
}

/// Folders of the BPF file system in which others pin.
const PIN_FOLDERS: [&str; 4] = ["", "tc/globals", "globals/aws/programs", "globals/aws/maps"];
/// Names read of a folder: more say nothing new.
const MOST_NAMES: usize = 4096;

/// Looks in the calling thread's network namespace, and in `places`.
#[must_use]
pub fn look(places: Places<'_>) -> Look {
    let mut unseen = Vec::new();
    let signs = gather(places, &mut unseen);
    Look { rivals: classify(&signs), unseen }
}

fn gather(places: Places<'_>, unseen: &mut Vec<String>) -> Signs {
    let mut signs = Signs::default();
    match nftables::tables_and_chains() {
        Ok((tables, chains)) => (signs.tables, signs.chains) = (tables, chains),
        Err(error) => unseen.push(error_chain(&error)),
    }
    match legacy::chains() {
        Ok(chains) => signs.chains.extend(chains),
        Err(error) => unseen.push(error_chain(&error)),
    }
    match Links::open().and_then(|mut links| links.dump()) {
        Ok(links) => signs.interfaces = links.iter().map(|link| link.name.to_string()).collect(),
        Err(error) => unseen.push(error_chain(&error)),
    }
    for folder in PIN_FOLDERS {
        let names = names(&places.bpf.join(folder)).into_iter();
        signs.pins.extend(names.map(|name| match folder {
            "" => name,
            folder => format!("{folder}/{name}"),
        }));
    }
    signs.cni_files = places.cni.map(names).unwrap_or_default();
    signs
}

/// Names in a folder, in order; none if it is not there.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(MOST_NAMES);
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}
