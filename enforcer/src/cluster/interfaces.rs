//! Which pod an interface belongs to: decided once, when interface and pod are both known, and
//! for the interface's life.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use enforcer_common::abi::TableId;

use super::{
    binding::{Binding, BoundBy, Knowledge},
    event::{AdoptedInterface, Interface, Labels, ObjectKey, Pod, Sandbox},
};
use crate::policy::rule::Isolating;

/// What the last plan says of an interface.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Installed {
    pub(super) name: Arc<str>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) table: TableId,
    /// Its pod's policy is not known yet.
    pub(super) starting: bool,
    pub(super) audit: bool,
}

/// Who an interface's pod is and what isolates it, as flows name it.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Named {
    pub(super) pod: Arc<Pod>,
    /// Of its namespace.
    pub(super) namespace_labels: Arc<Labels>,
    pub(super) isolating: [Isolating; 2],
}

impl Named {
    /// What the runtime knows of a pod whose object has not come.
    pub(super) fn of_sandbox(sandbox: &Sandbox) -> Self {
        let pod = Pod {
            key: sandbox.pod.clone(),
            uid: Arc::clone(&sandbox.uid),
            labels: Labels::new(),
            addresses: sandbox.addresses.clone(),
            host_network: false,
            finished: false,
            terminating: false,
            started: 0,
            containers_started: None,
            ports: Vec::new(),
            node: None,
            workload: None,
        };
        let isolating = [Isolating::default(), Isolating::default()];
        Self { pod: Arc::new(pod), namespace_labels: Arc::default(), isolating }
    }
}

/// How an interface came to be known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// It was there before the agent, and no agent had armed it.
    Older,
    /// It came while the agent was there.
    Younger,
    /// An earlier agent had armed it.
    Adopted,
}

/// An interface.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) interface: Interface,
    /// How it came to be known.
    pub(super) arrival: Arrival,
    /// The addresses that decide: its peer's, or those that it was armed with.
    pub(super) deciding: Vec<IpAddr>,
    pub(super) binding: Binding,
    pub(super) installed: Option<Installed>,
    pub(super) named: Option<Named>,
}

/// All interfaces.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    pub(super) entries: BTreeMap<u32, Entry>,
    by_address: HashMap<IpAddr, BTreeSet<u32>>,
    by_pod: HashMap<ObjectKey, BTreeSet<u32>>,
}

impl Interfaces {
    /// An interface was found, or has changed. Returns what to decide upon: see [`Self::decide`].
    pub(super) fn found(&mut self, interface: Interface, arrival: Arrival) -> BTreeSet<u32> {
        let deciding = canonical(&interface.peer_addresses);
        self.insert(interface, deciding, arrival)
    }

    /// An interface was found that an earlier agent armed.
    pub(super) fn adopted(&mut self, adopted: AdoptedInterface) -> BTreeSet<u32> {
        let AdoptedInterface { interface, bound_addresses } = adopted;
        if bound_addresses.is_empty() {
            // It was closed before any address was known: nothing was decided yet.
            return self.found(interface, Arrival::Younger);
        }
        self.insert(interface, canonical(&bound_addresses), Arrival::Adopted)
    }

    fn insert(
        &mut self,
        interface: Interface,
        deciding: Vec<IpAddr>,
        arrival: Arrival,
    ) -> BTreeSet<u32> {
        let ifindex = interface.ifindex;
        let mut concerned = BTreeSet::from([ifindex]);
        if let Some(entry) = self.entries.get_mut(&ifindex) {
            entry.interface = interface;
            let keeps = entry.arrival == Arrival::Adopted && arrival != Arrival::Adopted;
            if matches!(entry.binding, Binding::Bound { .. }) || keeps {
                return concerned;
            }
            if arrival == Arrival::Adopted {
                entry.arrival = arrival;
            }
            if deciding.is_empty() && matches!(entry.binding, Binding::Starting { .. }) {
                // A pod without addresses may look for neighbours in any name; one that has had
                // some is not to get there.
                return concerned;
            }
            let before = std::mem::replace(&mut entry.deciding, deciding.clone());
            concerned.extend(self.sharing(&before));
            self.unlink(ifindex, &before);
        } else {
            let entry = Entry {
                interface,
                arrival,
                deciding: deciding.clone(),
                binding: Binding::Waiting,
                installed: None,
                named: None,
            };
            self.entries.insert(ifindex, entry);
        }
        concerned.extend(self.sharing(&deciding));
        for address in deciding {
            self.by_address.entry(address).or_default().insert(ifindex);
        }
        concerned
    }

    /// An interface is gone. Returns it and what to decide upon anew.
    pub(super) fn lost(&mut self, ifindex: u32) -> Option<(Entry, BTreeSet<u32>)> {
        let entry = self.entries.remove(&ifindex)?;
        self.unlink(ifindex, &entry.deciding);
        if let Binding::Bound { pod, .. } = &entry.binding {
            self.unbind(ifindex, &pod.key);
        }
        let concerned = self.sharing(&entry.deciding).collect();
        Some((entry, concerned))
    }

    fn unbind(&mut self, ifindex: u32, pod: &ObjectKey) {
        if let Some(set) = self.by_pod.get_mut(pod) {
            set.remove(&ifindex);
            if set.is_empty() {
                self.by_pod.remove(pod);
            }
        }
    }

    /// The interfaces of a pod's name.
    pub(super) fn of_pod(&self, pod: &ObjectKey) -> impl Iterator<Item = (u32, &Entry)> {
        let all = self.by_pod.get(pod).into_iter().flatten();
        all.filter_map(|ifindex| Some((*ifindex, self.entries.get(ifindex)?)))
    }

    /// The addresses that the runtime gave a pod, as far as its interfaces are there.
    pub(super) fn given(&self, pod: &ObjectKey, uid: &str) -> Vec<IpAddr> {
        let mut given = Vec::new();
        for ifindex in self.by_pod.get(pod).into_iter().flatten() {
            if let Some(Entry { binding: Binding::Bound { pod, addresses, by }, .. }) =
                self.entries.get(ifindex)
                && matches!(by, BoundBy::Sandbox { .. })
                && *pod.uid == *uid
            {
                given.extend(addresses);
            }
        }
        given
    }

    /// The pod of an interface, if the runtime told of it.
    pub(super) fn by_sandbox(&self, ifindex: u32) -> Option<ObjectKey> {
        match &self.entries.get(&ifindex)?.binding {
            Binding::Bound { pod, by: BoundBy::Sandbox { .. }, .. } => Some(pod.key.clone()),
            _ => None,
        }
    }

    /// Interfaces that have one of these addresses, by address.
    pub(super) fn having(&self, address: &IpAddr) -> impl Iterator<Item = u32> {
        self.by_address.get(address).into_iter().flatten().copied()
    }

    fn unlink(&mut self, ifindex: u32, addresses: &[IpAddr]) {
        for address in addresses {
            if let Some(set) = self.by_address.get_mut(address) {
                set.remove(&ifindex);
                if set.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
    }

    /// Interfaces that have one of these addresses.
    pub(super) fn sharing<'a>(&'a self, addresses: &'a [IpAddr]) -> impl Iterator<Item = u32> + 'a {
        addresses.iter().flat_map(|address| self.by_address.get(address)).flatten().copied()
    }

    /// A pod object has changed: interfaces bound to that very pod take it over. A pod of the
    /// same name that was made anew is another pod. Returns which did.
    pub(super) fn update_pod(&mut self, pod: &Arc<Pod>) -> Vec<u32> {
        let mut updated = Vec::new();
        for ifindex in self.by_pod.get(&pod.key).into_iter().flatten() {
            if let Some(Entry { binding: Binding::Bound { pod: bound, addresses, .. }, .. }) =
                self.entries.get_mut(ifindex)
                && is_same_pod(bound, addresses, pod)
            {
                *bound = Arc::clone(pod);
                updated.push(*ifindex);
            }
        }
        updated
    }

    /// Decides whose an interface is, unless that is decided; then it may be corrected, or an
    /// address family added. Returns whether something changed.
    pub(super) fn decide(&mut self, ifindex: u32, knowledge: &Knowledge<'_>) -> bool {
        let Some(entry) = self.entries.get(&ifindex) else { return false };
        let binding = match &entry.binding {
            Binding::Bound { pod, .. } => {
                let key = pod.key.clone();
                let Some(binding) = self.revise(ifindex, entry, knowledge) else { return false };
                self.unbind(ifindex, &key);
                binding
            }
            _ => self.judge(ifindex, entry, knowledge),
        };
        let Some(entry) = self.entries.get_mut(&ifindex) else { return false };
        if entry.binding == binding {
            return false;
        }
        if let Binding::Bound { pod, addresses, by } = &binding {
            self.by_pod.entry(pod.key.clone()).or_default().insert(ifindex);
            if let Binding::Bound { pod: same, addresses: before, by: by_before } = &entry.binding
                && (&same.key, by_before) == (&pod.key, by)
            {
                // A family that came later decides like those that were there.
                for address in addresses.iter().filter(|address| !before.contains(address)) {
                    if !entry.deciding.contains(address) {
                        entry.deciding.push(*address);
                    }
                    self.by_address.entry(*address).or_default().insert(ifindex);
                }
            }
        }
        entry.binding = binding;
        true
    }
}

/// Whether `new` is the pod that an interface was bound to. Without a UID, as in manifests, one
/// that keeps an address, or has none (any more), is taken for the same.
fn is_same_pod(bound: &Pod, addresses: &[IpAddr], new: &Pod) -> bool {
    if bound.uid.is_empty() || new.uid.is_empty() {
        let kept = new.addresses.iter().any(|address| addresses.contains(address));
        return kept || new.addresses.is_empty();
    }
    bound.uid == new.uid
}

/// IPv4 in IPv6 clothes as IPv4, each once, in the order given.
pub(super) fn canonical(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut out = Vec::with_capacity(addresses.len());
    for address in addresses.iter().map(IpAddr::to_canonical) {
        if !out.contains(&address) {
            out.push(address);
        }
    }
    out
}
