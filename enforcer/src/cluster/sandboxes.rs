//! What the runtime says of pods' sandboxes: the first to know whose an interface is, before the
//! pod object has an address. It speaks of interfaces that are there; what it says of others
//! (files of an earlier boot) means nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    event::{ObjectKey, Sandbox},
    interfaces::{Entry, Interfaces, canonical},
};

/// All sandboxes, a few hundred at most: they are looked through.
#[derive(Debug, Default)]
pub(super) struct Sandboxes {
    by_id: BTreeMap<Arc<str>, Arc<Sandbox>>,
}

impl Sandboxes {
    /// A sandbox is there. Returns what it was before, if it was another.
    pub(super) fn found(&mut self, mut sandbox: Sandbox) -> Option<Arc<Sandbox>> {
        sandbox.addresses = canonical(&sandbox.addresses);
        self.by_id.insert(Arc::clone(&sandbox.id), Arc::new(sandbox))
    }

    /// A sandbox is gone.
    pub(super) fn lost(&mut self, id: &str) -> Option<Arc<Sandbox>> {
        self.by_id.remove(id)
    }

    /// The sandbox of an id.
    pub(super) fn get(&self, id: &str) -> Option<&Arc<Sandbox>> {
        self.by_id.get(id)
    }

    /// Those that claim an interface: by its name; where none does, by exactly its addresses, as
    /// they were when it was bound.
    pub(super) fn claims(&self, entry: &Entry) -> Vec<&Arc<Sandbox>> {
        let all = || self.by_id.values();
        let by_name: Vec<_> =
            all().filter(|sandbox| sandbox.interfaces.contains(&entry.interface.name)).collect();
        if !by_name.is_empty() || entry.deciding.is_empty() {
            return by_name;
        }
        let addresses = set(&entry.deciding);
        all()
            .filter(|sandbox| sandbox.interfaces.is_empty() && set(&sandbox.addresses) == addresses)
            .collect()
    }

    /// Those of a pod.
    pub(super) fn of<'a>(&'a self, pod: &'a ObjectKey) -> impl Iterator<Item = &'a Sandbox> {
        self.by_id.values().map(|sandbox| &**sandbox).filter(|sandbox| sandbox.pod == *pod)
    }
}

/// Interfaces that a sandbox may speak of.
pub(super) fn concerned(sandbox: &Sandbox, interfaces: &Interfaces) -> BTreeSet<u32> {
    let named = interfaces
        .entries
        .iter()
        .filter(|(_, entry)| sandbox.interfaces.contains(&entry.interface.name))
        .map(|(ifindex, _)| *ifindex);
    named.chain(interfaces.sharing(&sandbox.addresses)).collect()
}

fn set(addresses: &[IpAddr]) -> BTreeSet<IpAddr> {
    addresses.iter().copied().collect()
}
