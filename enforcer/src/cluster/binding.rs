//! The decision whose an interface is: by what the runtime says of its sandbox, else by the
//! addresses of its peer.

use std::{net::IpAddr, sync::Arc};

use super::{
    event::{Pod, Sandbox},
    interfaces::{Arrival, Entry, Interfaces},
    objects::{Objects, is_on_pod_network},
    sandboxes::Sandboxes,
    start::Start,
};

/// The only kind that can be enforced on.
const ENFORCEABLE: &str = "veth";

/// What said whose an interface is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BoundBy {
    /// The runtime, then: its word counts for the pod's addresses too, before the API has them.
    Sandbox {
        /// See [`Sandbox::told`].
        told: i64,
    },
    /// The addresses of its peer.
    Addresses,
}

/// What is known of whose an interface is.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Binding {
    /// No pod has any of its addresses (yet).
    Waiting,
    /// It is younger than the agent and it is not known whose it is, or the pod's object has not
    /// come: only what is allowed at the start passes.
    Starting {
        /// What the user reads.
        reason: String,
        /// Addresses that its peer has.
        addresses: Vec<IpAddr>,
        /// Whose it will be.
        sandbox: Option<Arc<Sandbox>>,
    },
    /// A pod's.
    Bound {
        /// The pod as it was last heard of.
        pod: Arc<Pod>,
        /// Its addresses when it was bound.
        addresses: Vec<IpAddr>,
        /// What said so.
        by: BoundBy,
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

impl Binding {
    fn is_named(&self, sandbox: &Sandbox) -> bool {
        matches!(self, Self::Bound { pod, .. } if pod.key == sandbox.pod)
    }

    fn unenforceable(pod: &str, kind: &str) -> Self {
        Self::Unenforceable {
            reason: format!(
                "belongs to pod {pod} but is of kind {kind}: policy can be enforced on \
                 {ENFORCEABLE} only"
            ),
        }
    }
}

/// What a decision is made by, beside the interfaces themselves.
#[derive(Debug)]
pub(super) struct Knowledge<'a> {
    pub(super) objects: &'a Objects,
    pub(super) sandboxes: &'a Sandboxes,
    pub(super) start: &'a Start,
    /// This node's name, where pods' objects name the node that they are on.
    pub(super) node: Option<&'a str>,
}

impl Knowledge<'_> {
    /// Whether a pod can have an interface here.
    fn is_here(&self, pod: &Pod) -> bool {
        match (self.node, pod.node.as_deref()) {
            (Some(here), Some(there)) => here == there,
            _ => true,
        }
    }
}

/// What the runtime says of an interface.
enum Claim<'a> {
    /// It says nothing.
    None,
    /// It is this pod's.
    Pod(&'a Arc<Pod>, &'a Arc<Sandbox>),
    /// It will be this sandbox's pod's, whose object has not come.
    Expected(&'a Arc<Sandbox>),
    /// It says two things.
    Ambiguous(String),
}

impl Entry {
    /// Whose it is by the runtime's word.
    pub(super) fn by_sandbox(&self, known: &Knowledge<'_>) -> Option<Binding> {
        let Claim::Pod(pod, sandbox) = claim(self, known) else { return None };
        let kind = &*self.interface.kind;
        if kind != ENFORCEABLE {
            return Some(Binding::unenforceable(&name(pod), kind));
        }
        // What an earlier agent armed it with stays.
        let armed = self.arrival == Arrival::Adopted || sandbox.addresses.is_empty();
        let addresses = if armed { &self.deciding } else { &sandbox.addresses };
        let (pod, addresses) = (Arc::clone(pod), addresses.clone());
        Some(Binding::Bound { pod, addresses, by: BoundBy::Sandbox { told: sandbox.told } })
    }
}

impl Interfaces {
    pub(super) fn judge(&self, ifindex: u32, entry: &Entry, known: &Knowledge<'_>) -> Binding {
        if let Some(binding) = entry.by_sandbox(known) {
            return binding;
        }
        match claim(entry, known) {
            Claim::Expected(sandbox) => {
                let binding = self.judge_by_addresses(ifindex, entry, known);
                match (&binding, entry.arrival) {
                    // A static pod's object has another UID than the kubelet gave its sandbox.
                    (Binding::Bound { .. }, _) if binding.is_named(sandbox) => binding,
                    (_, Arrival::Younger) => self.starting(entry, known, Some(sandbox)),
                    (Binding::Bound { .. }, Arrival::Older) => Binding::Waiting,
                    (Binding::Bound { pod, .. }, Arrival::Adopted) => Binding::Closed {
                        reason: format!(
                            "the runtime says that it belongs to pod {}/{}, which no object \
                             speaks for, and its addresses are now those of pod {}",
                            sandbox.pod.namespace,
                            sandbox.pod.name,
                            name(pod)
                        ),
                        addresses: armed(entry),
                    },
                    _ => binding,
                }
            }
            Claim::Ambiguous(reason) => Binding::Closed { reason, addresses: armed(entry) },
            Claim::Pod(..) | Claim::None => self.judge_by_addresses(ifindex, entry, known),
        }
    }

    fn starting(
        &self,
        entry: &Entry,
        known: &Knowledge<'_>,
        sandbox: Option<&Arc<Sandbox>>,
    ) -> Binding {
        if !known.start.closes() || &*entry.interface.kind != ENFORCEABLE {
            return Binding::Waiting;
        }
        let reason = match sandbox {
            Some(sandbox) => format!(
                "it is the interface of pod {}/{}, whose object has not come yet",
                sandbox.pod.namespace, sandbox.pod.name
            ),
            None if entry.deciding.is_empty() => "its pod has no address yet".to_owned(),
            None => "no pod object has any of its addresses yet".to_owned(),
        };
        Binding::Starting {
            reason,
            addresses: entry.deciding.clone(),
            sandbox: sandbox.map(Arc::clone),
        }
    }

    pub(super) fn judge_by_addresses(
        &self,
        ifindex: u32,
        entry: &Entry,
        known: &Knowledge<'_>,
    ) -> Binding {
        let mut pods: Vec<&Arc<Pod>> = Vec::new();
        let owners = entry.deciding.iter().filter_map(|address| known.objects.owner(address));
        for pod in owners.filter(|pod| known.is_here(pod)) {
            if !pods.iter().any(|other| other.key == pod.key) {
                pods.push(pod);
            }
        }
        pods.sort_by(|a, b| a.key.cmp(&b.key));
        let kind = &*entry.interface.kind;
        if kind != ENFORCEABLE {
            return pods
                .first()
                .map_or(Binding::Waiting, |pod| Binding::unenforceable(&name(pod), kind));
        }
        let pod = match &pods[..] {
            [] if entry.arrival == Arrival::Adopted => {
                return Binding::Closed {
                    reason: "no pod object has the addresses that it was armed with".to_owned(),
                    addresses: armed(entry),
                };
            }
            [] => {
                // What was closed opens for its pod only.
                return match &entry.binding {
                    Binding::Closed { .. } => Binding::Closed {
                        reason: "its addresses are no pod's any more".to_owned(),
                        addresses: Vec::new(),
                    },
                    _ if entry.arrival == Arrival::Younger => self.starting(entry, known, None),
                    _ => Binding::Waiting,
                };
            }
            [pod] => *pod,
            [first, second, ..] => {
                return Binding::Closed {
                    reason: format!(
                        "has addresses of two pods, {} and {}",
                        name(first),
                        name(second)
                    ),
                    addresses: Vec::new(),
                };
            }
        };
        if let Some((address, other)) = self.rival(ifindex, entry) {
            let holds = match &other.binding {
                Binding::Bound { pod, .. } => format!(", which belongs to pod {}", name(pod)),
                Binding::Waiting
                | Binding::Starting { .. }
                | Binding::Closed { .. }
                | Binding::Unenforceable { .. } => " and neither was bound before".to_owned(),
            };
            let reason = format!(
                "address {address} is behind interface {} too{holds}",
                other.interface.name
            );
            return Binding::Closed { reason, addresses: Vec::new() };
        }
        Binding::Bound {
            pod: Arc::clone(pod),
            addresses: pod.addresses.clone(),
            by: BoundBy::Addresses,
        }
    }

    /// An interface that has an address of this one and a claim to it that is not weaker.
    fn rival(&self, ifindex: u32, entry: &Entry) -> Option<(IpAddr, &Entry)> {
        let adopted = entry.arrival == Arrival::Adopted;
        for address in &entry.deciding {
            for other in self.having(address) {
                let Some(rival) = self.entries.get(&other).filter(|_| other != ifindex) else {
                    continue;
                };
                let is_claim = match &rival.binding {
                    // What it had beside its pod's addresses when it was bound it may not use.
                    Binding::Bound { addresses, .. } => addresses.contains(address),
                    Binding::Waiting
                    | Binding::Starting { .. }
                    | Binding::Closed { .. }
                    | Binding::Unenforceable { .. } => {
                        rival.arrival == Arrival::Adopted || !adopted
                    }
                };
                if is_claim && &*rival.interface.kind == ENFORCEABLE {
                    return Some((*address, rival));
                }
            }
        }
        None
    }
}

/// What the runtime says. Of several sandboxes those count whose pod is there with that UID, and
/// of these the one that was told last: files of sandboxes that died may be left. Of one name the
/// last UID counts, also while its object has not come.
fn claim<'a>(entry: &Entry, known: &Knowledge<'a>) -> Claim<'a> {
    let mut claims = known.sandboxes.claims(entry);
    // One whose addresses the interface has not is what a predecessor left, whenever it was told:
    // the clock may have been set back since.
    let fits = |sandbox: &Sandbox| {
        sandbox.addresses.iter().any(|address| entry.deciding.contains(address))
    };
    if claims.iter().any(|sandbox| fits(sandbox)) {
        claims.retain(|sandbox| fits(sandbox));
    }
    claims.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.told));
    let Some(last) = claims.first().copied() else { return Claim::None };
    let is_succeeded = |sandbox: &Sandbox| {
        let last = claims.iter().find(|other| other.pod == sandbox.pod);
        last.is_some_and(|last| last.uid != sandbox.uid && last.told > sandbox.told)
    };
    let mut live = claims.iter().filter(|sandbox| !is_succeeded(sandbox)).filter_map(|sandbox| {
        let pod = known.objects.pod(&sandbox.pod)?;
        (pod.uid == sandbox.uid && is_on_pod_network(pod) && known.is_here(pod))
            .then_some((pod, *sandbox))
    });
    match (live.next(), live.next()) {
        (None, _) => Claim::Expected(last),
        (Some((first, a)), Some((second, b))) if a.told == b.told && first.uid != second.uid => {
            Claim::Ambiguous(format!(
                "the runtime says that it belongs to two pods, {} and {}",
                name(first),
                name(second)
            ))
        }
        (Some((pod, sandbox)), _) => Claim::Pod(pod, sandbox),
    }
}

/// The addresses that an earlier agent armed it with.
fn armed(entry: &Entry) -> Vec<IpAddr> {
    if entry.arrival == Arrival::Adopted { entry.deciding.clone() } else { Vec::new() }
}

fn name(pod: &Pod) -> String {
    format!("{}/{}", pod.key.namespace, pod.key.name)
}
