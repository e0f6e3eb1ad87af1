//! The cluster's objects as they were last heard of, and who owns an address.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    ops::RangeInclusive,
    sync::Arc,
};

use enforcer_common::abi::ClassId;
use ipnet::IpNet;

use super::event::{Labels, ObjectKey, Pod};
use crate::policy::{
    peer::{NamespacePeer, Peer},
    rule::Policy,
};

use super::atom::{Atom, selects};

/// The label that every namespace has with its name.
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace, or what refers to one that is not known yet.
#[derive(Debug)]
pub(super) struct Namespace {
    /// Of the object; while it is not known only its name's label.
    pub(super) labels: Arc<Labels>,
    pub(super) known: bool,
    pub(super) pods: HashMap<Arc<str>, Arc<Pod>>,
    pub(super) policies: BTreeMap<Arc<str>, Arc<Policy>>,
}

/// One address that some pod has, or had when the last plan was made.
#[derive(Debug, Default)]
pub(super) struct Address {
    /// Unfinished pods of the pod network that claim it.
    pub(super) claims: Vec<Claim>,
    /// Whose it was in the last plan.
    pub(super) owner: Option<Arc<Pod>>,
    /// Labels of that pod's namespace as the last plan named them.
    pub(super) owner_namespace: Option<Arc<Labels>>,
    /// Its class in the last plan, if it had an entry of its own.
    pub(super) class: Option<ClassId>,
}

/// A pod's claim to an address.
#[derive(Debug)]
pub(super) struct Claim {
    pod: Arc<Pod>,
    /// The runtime gave it to the pod, on this node; an object may still say what was before.
    given: bool,
}

impl Address {
    /// Of two unfinished pods that claim one address, the later-started counts; one that is on its
    /// way out only where no other is, and before those that only objects speak for, the one that
    /// has it here.
    pub(super) fn winner(&self) -> Option<&Arc<Pod>> {
        fn rank(Claim { pod, given }: &Claim) -> (bool, bool, i64, &str, &ObjectKey) {
            (*given, !pod.terminating, pod.started, &pod.uid, &pod.key)
        }
        let best = self.claims.iter().max_by(|a, b| rank(a).cmp(&rank(b)));
        best.map(|claim| &claim.pod)
    }
}

/// A pod object before and after an event.
#[derive(Debug)]
pub(super) struct PodChange {
    pub(super) old: Option<Arc<Pod>>,
    pub(super) new: Option<Arc<Pod>>,
}

/// Whether selectors can match the pod and addresses can be its own.
pub(super) fn is_on_pod_network(pod: &Pod) -> bool {
    !pod.finished && !pod.host_network
}

/// Namespaces, pods, policies, addresses.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) namespaces: HashMap<Arc<str>, Namespace>,
    pub(super) addresses: BTreeMap<IpAddr, Address>,
    pub(super) pods: usize,
    pub(super) policies: usize,
    /// Addresses that the runtime gave to pods of this node.
    given: HashMap<ObjectKey, Vec<IpAddr>>,
}

impl Objects {
    fn namespace(&mut self, name: &Arc<str>) -> &mut Namespace {
        self.namespaces.entry(Arc::clone(name)).or_insert_with(|| Namespace {
            labels: name_label(name),
            known: false,
            pods: HashMap::new(),
            policies: BTreeMap::new(),
        })
    }

    fn forget_empty(&mut self, name: &str) {
        if self
            .namespaces
            .get(name)
            .is_some_and(|n| !n.known && n.pods.is_empty() && n.policies.is_empty())
        {
            self.namespaces.remove(name);
        }
    }

    /// Stores a namespace's labels (`None`: it is gone). Returns whether they changed.
    pub(super) fn set_namespace(&mut self, name: &Arc<str>, labels: Option<Labels>) -> bool {
        if labels.is_none() && !self.namespaces.contains_key(name) {
            return false;
        }
        let entry = self.namespace(name);
        entry.known = labels.is_some();
        let labels = labels.map_or_else(|| name_label(name), Arc::new);
        let changed = *entry.labels != *labels;
        entry.labels = labels;
        self.forget_empty(name);
        changed
    }

    /// Stores a pod (`None`: it is gone) and its claims; `given` are those of its addresses that it
    /// has from the runtime. Returns nothing if nothing changed.
    pub(super) fn set_pod(
        &mut self,
        key: &ObjectKey,
        pod: Option<Pod>,
        given: Vec<IpAddr>,
    ) -> Option<PodChange> {
        let same_given = self.given.get(key).map_or(&[][..], Vec::as_slice) == given;
        if pod.is_none() && !self.namespaces.contains_key(&key.namespace) {
            return None;
        }
        let entry = self.namespace(&key.namespace);
        if same_given && entry.pods.get(&key.name).map(|old| &**old) == pod.as_ref() {
            return None;
        }
        let new = pod.map(Arc::new);
        let old = match &new {
            Some(new) => entry.pods.insert(Arc::clone(&key.name), Arc::clone(new)),
            None => entry.pods.remove(&key.name),
        };
        self.pods = self.pods + usize::from(new.is_some()) - usize::from(old.is_some());
        self.forget_empty(&key.namespace);
        for pod in old.iter().filter(|pod| is_on_pod_network(pod)) {
            for address in &pod.addresses {
                if let Some(entry) = self.addresses.get_mut(address) {
                    entry.claims.retain(|claim| claim.pod.key != pod.key);
                }
            }
        }
        for pod in new.iter().filter(|pod| is_on_pod_network(pod)) {
            for address in &pod.addresses {
                let claim = Claim { pod: Arc::clone(pod), given: given.contains(address) };
                let claims = &mut self.addresses.entry(*address).or_default().claims;
                // Nearly all addresses have one claim, and there are very many.
                claims.reserve_exact(1);
                claims.push(claim);
            }
        }
        if given.is_empty() {
            self.given.remove(key);
        } else {
            self.given.insert(key.clone(), given);
        }
        Some(PodChange { old, new })
    }

    /// Stores a policy (`None`: it is gone). Returns the one before; nothing if nothing changed.
    pub(super) fn set_policy(
        &mut self,
        key: &ObjectKey,
        policy: Option<Policy>,
    ) -> Option<Option<Arc<Policy>>> {
        if policy.is_none() && !self.namespaces.contains_key(&key.namespace) {
            return None;
        }
        let entry = self.namespace(&key.namespace);
        if entry.policies.get(&key.name).map(|old| &**old) == policy.as_ref() {
            return None;
        }
        let is_there = policy.is_some();
        let old = match policy {
            Some(policy) => entry.policies.insert(Arc::clone(&key.name), Arc::new(policy)),
            None => entry.policies.remove(&key.name),
        };
        self.policies = self.policies + usize::from(is_there) - usize::from(old.is_some());
        self.forget_empty(&key.namespace);
        Some(old)
    }

    /// Labels of a namespace, known or not.
    pub(super) fn namespace_labels(&self, name: &Arc<str>) -> Arc<Labels> {
        self.namespaces.get(name).map_or_else(|| name_label(name), |n| Arc::clone(&n.labels))
    }

    /// The pod that an address is of.
    pub(super) fn owner(&self, address: &IpAddr) -> Option<&Arc<Pod>> {
        self.addresses.get(address)?.winner()
    }

    /// Whether a pod claims an address and no other does.
    pub(super) fn is_only_of(&self, address: &IpAddr, pod: &ObjectKey) -> bool {
        let claims = self.addresses.get(address).map(|entry| &entry.claims[..]);
        claims.is_some_and(|all| !all.is_empty() && all.iter().all(|one| one.pod.key == *pod))
    }

    /// The pod of this name.
    pub(super) fn pod(&self, key: &ObjectKey) -> Option<&Arc<Pod>> {
        self.namespaces.get(&key.namespace)?.pods.get(&key.name)
    }

    /// Visits the addresses of the pods that an atom is about.
    pub(super) fn addresses_of(&self, atom: &Atom, mut visit: impl FnMut(IpAddr)) {
        let mut pods = |namespace: &Namespace, is_meant: &dyn Fn(&Pod) -> bool| {
            for pod in namespace.pods.values().filter(|pod| is_on_pod_network(pod)) {
                if is_meant(pod) {
                    pod.addresses.iter().copied().for_each(&mut visit);
                }
            }
        };
        match atom {
            Atom::PortName(protocol, name) => {
                let has = |pod: &Pod| {
                    pod.ports.iter().any(|port| port.name == *name && port.protocol == *protocol)
                };
                self.namespaces.values().for_each(|namespace| pods(namespace, &has));
            }
            Atom::Peer(peer) => match &**peer {
                Peer::Pods(selector) => match &selector.namespace {
                    NamespacePeer::Same(name) => {
                        if let Some(namespace) = self.namespaces.get(name) {
                            pods(namespace, &|pod| selects(selector, pod, &namespace.labels));
                        }
                    }
                    NamespacePeer::Selected(namespaces) => {
                        for namespace in self.namespaces.values() {
                            if namespaces.matches(&namespace.labels) {
                                pods(namespace, &|pod| selector.pod.matches(&pod.labels));
                            }
                        }
                    }
                },
                Peer::Block(block) => {
                    // Without an entry of its own an address follows the prefixes.
                    for (address, entry) in self.addresses.range(range(&block.cidr())) {
                        if entry.class.is_some() {
                            visit(*address);
                        }
                    }
                }
            },
        }
    }
}

fn name_label(name: &str) -> Arc<Labels> {
    Arc::new(Labels::from([(NAMESPACE_NAME_LABEL, name)]))
}

fn range(net: &IpNet) -> RangeInclusive<IpAddr> {
    net.network()..=net.broadcast()
}
