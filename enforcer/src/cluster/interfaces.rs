//! Which pod an interface belongs to: decided once, when interface and pod are both known, and
//! for the interface's life.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use enforcer_common::abi::TableId;

use super::{
    event::{AdoptedInterface, Interface, ObjectKey, Pod},
    objects::Objects,
};

/// The only kind that can be enforced on.
const ENFORCEABLE: &str = "veth";

/// What is known of whose an interface is.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Binding {
    /// No pod has any of its addresses (yet).
    Waiting,
    /// A pod's.
    Bound {
        /// The pod as it was last heard of.
        pod: Arc<Pod>,
        /// Its addresses when it was bound.
        addresses: Vec<IpAddr>,
    },
    /// It cannot be told whose it is: nothing passes but what the node sends.
    Closed {
        /// What the user reads.
        reason: String,
        /// Addresses it may use: those it was armed with.
        addresses: Vec<IpAddr>,
    },
    /// A pod's, of a kind on which nothing can be enforced.
    Unenforceable {
        /// What the user reads.
        reason: String,
    },
}

/// What the last plan says of an interface.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Installed {
    pub(super) name: Arc<str>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) table: TableId,
    pub(super) audit: bool,
}

/// Who an interface's pod is and what isolates it, as flows name it.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Named {
    pub(super) pod: Arc<Pod>,
    pub(super) isolating: [Arc<[ObjectKey]>; 2],
}

/// An interface.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) interface: Interface,
    /// Whether an earlier agent had bound it.
    adopted: bool,
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
    pub(super) fn found(&mut self, interface: Interface) -> BTreeSet<u32> {
        let deciding = canonical(&interface.peer_addresses);
        self.insert(interface, deciding, false)
    }

    /// An interface was found that an earlier agent armed.
    pub(super) fn adopted(&mut self, adopted: AdoptedInterface) -> BTreeSet<u32> {
        let AdoptedInterface { interface, bound_addresses } = adopted;
        self.insert(interface, canonical(&bound_addresses), true)
    }

    fn insert(
        &mut self,
        interface: Interface,
        deciding: Vec<IpAddr>,
        adopted: bool,
    ) -> BTreeSet<u32> {
        let ifindex = interface.ifindex;
        let mut concerned = BTreeSet::from([ifindex]);
        if let Some(entry) = self.entries.get_mut(&ifindex) {
            entry.interface = interface;
            if matches!(entry.binding, Binding::Bound { .. }) || (entry.adopted && !adopted) {
                return concerned;
            }
            entry.adopted = adopted;
            let before = std::mem::replace(&mut entry.deciding, deciding.clone());
            concerned.extend(self.sharing(&before));
            self.unlink(ifindex, &before);
        } else {
            let entry = Entry {
                interface,
                adopted,
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
        if let Binding::Bound { pod, .. } = &entry.binding
            && let Some(set) = self.by_pod.get_mut(&pod.key)
        {
            set.remove(&ifindex);
            if set.is_empty() {
                self.by_pod.remove(&pod.key);
            }
        }
        let concerned = self.sharing(&entry.deciding).collect();
        Some((entry, concerned))
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
            if let Some(Entry { binding: Binding::Bound { pod: bound, addresses }, .. }) =
                self.entries.get_mut(ifindex)
                && is_same_pod(bound, addresses, pod)
            {
                *bound = Arc::clone(pod);
                updated.push(*ifindex);
            }
        }
        updated
    }

    /// Decides whose an interface is, unless that is decided. Returns whether something changed.
    pub(super) fn decide(&mut self, ifindex: u32, objects: &Objects) -> bool {
        let Some(entry) = self.entries.get(&ifindex) else { return false };
        if matches!(entry.binding, Binding::Bound { .. }) {
            return false;
        }
        let binding = self.judge(ifindex, entry, objects);
        if binding == entry.binding {
            return false;
        }
        if let Binding::Bound { pod, .. } = &binding {
            self.by_pod.entry(pod.key.clone()).or_default().insert(ifindex);
        }
        if let Some(entry) = self.entries.get_mut(&ifindex) {
            entry.binding = binding;
        }
        true
    }

    fn judge(&self, ifindex: u32, entry: &Entry, objects: &Objects) -> Binding {
        let mut pods: Vec<&Arc<Pod>> = Vec::new();
        for pod in entry.deciding.iter().filter_map(|address| objects.owner(address)) {
            if !pods.iter().any(|other| other.key == pod.key) {
                pods.push(pod);
            }
        }
        pods.sort_by(|a, b| a.key.cmp(&b.key));
        let armed = || if entry.adopted { entry.deciding.clone() } else { Vec::new() };
        if &*entry.interface.kind != ENFORCEABLE {
            return match pods.first() {
                None => Binding::Waiting,
                Some(pod) => Binding::Unenforceable {
                    reason: format!(
                        "belongs to pod {}/{} but is of kind {}: policy can be enforced on {} only",
                        pod.key.namespace, pod.key.name, entry.interface.kind, ENFORCEABLE
                    ),
                },
            };
        }
        let pod = match &pods[..] {
            [] if entry.adopted => {
                return Binding::Closed {
                    reason: "no pod object has the addresses that it was armed with".to_owned(),
                    addresses: armed(),
                };
            }
            [] => {
                // What was closed opens for its pod only.
                return match &entry.binding {
                    Binding::Closed { .. } => Binding::Closed {
                        reason: "its addresses are no pod's any more".to_owned(),
                        addresses: Vec::new(),
                    },
                    _ => Binding::Waiting,
                };
            }
            [pod] => *pod,
            [first, second, ..] => {
                return Binding::Closed {
                    reason: format!(
                        "has addresses of two pods, {}/{} and {}/{}",
                        first.key.namespace, first.key.name, second.key.namespace, second.key.name
                    ),
                    addresses: Vec::new(),
                };
            }
        };
        if let Some((address, other)) = self.rival(ifindex, entry) {
            let holds = match &other.binding {
                Binding::Bound { pod, .. } => {
                    format!(", which belongs to pod {}/{}", pod.key.namespace, pod.key.name)
                }
                Binding::Waiting | Binding::Closed { .. } | Binding::Unenforceable { .. } => {
                    " and neither was bound before".to_owned()
                }
            };
            let reason = format!(
                "address {address} is behind interface {} too{holds}",
                other.interface.name
            );
            return Binding::Closed { reason, addresses: Vec::new() };
        }
        Binding::Bound { pod: Arc::clone(pod), addresses: pod.addresses.clone() }
    }

    /// An interface that has an address of this one and a claim to it that is not weaker.
    fn rival(&self, ifindex: u32, entry: &Entry) -> Option<(IpAddr, &Entry)> {
        for address in &entry.deciding {
            for other in self.by_address.get(address).into_iter().flatten() {
                let Some(rival) = self.entries.get(other).filter(|_| *other != ifindex) else {
                    continue;
                };
                let bound = matches!(rival.binding, Binding::Bound { .. });
                if &*rival.interface.kind == ENFORCEABLE
                    && (bound || rival.adopted || !entry.adopted)
                {
                    return Some((*address, rival));
                }
            }
        }
        None
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
