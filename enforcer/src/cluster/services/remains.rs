//! What is left of virtual addresses that no Service has any more: the node's proxy may translate
//! them for a while, and whatever it sends there is to be judged behind the translation.

use std::collections::BTreeSet;

use enforcer_common::abi::{self, NODE_BACKENDS, SVC_GONE, SVC_NODE_MANY, ServiceKey};

/// What remains of an entry. The classes behind it may be others by now; that there are processes
/// of this node, which meet no other hook, is not forgotten.
pub(super) fn of(service: abi::Service) -> abi::Service {
    let flags = service.flags | SVC_GONE;
    abi::Service { pairs: Default::default(), pair_count: 0, flags, ..service }
}

/// Whether an entry names processes of this node.
pub(super) fn names_processes(service: &abi::Service) -> bool {
    service.node_count > 0 || service.flags & SVC_NODE_MANY != 0
}

/// Adds what another entry says to one.
pub(super) fn unite(into: &mut abi::Service, other: &abi::Service) {
    into.flags |= other.flags & !SVC_GONE;
    let node = |one: &abi::Service| {
        let listed = one.node.iter().take(usize::from(one.node_count));
        listed.copied().collect::<BTreeSet<_>>()
    };
    let all = &node(into) | &node(other);
    if all.len() > NODE_BACKENDS {
        into.flags |= SVC_NODE_MANY;
    }
    into.node = Default::default();
    into.node_count = 0;
    for (slot, backend) in into.node.iter_mut().zip(all) {
        *slot = backend;
        into.node_count += 1;
    }
}

/// Entries that are left over, by how long.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    /// Since the last look.
    young: BTreeSet<ServiceKey>,
    /// Since before that.
    old: BTreeSet<ServiceKey>,
    /// They have been for long enough.
    over: BTreeSet<ServiceKey>,
}

impl Lingering {
    pub(super) fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    pub(super) fn insert(&mut self, key: ServiceKey) {
        self.remove(&key);
        self.young.insert(key);
    }

    pub(super) fn remove(&mut self, key: &ServiceKey) {
        for set in [&mut self.young, &mut self.old, &mut self.over] {
            set.remove(key);
        }
    }

    /// A while has passed: those that are to go now.
    pub(super) fn age(&mut self) -> BTreeSet<ServiceKey> {
        let over = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        self.over.extend(&over);
        over
    }

    pub(super) fn is_over(&self, key: &ServiceKey) -> bool {
        self.over.contains(key)
    }

    /// What follows of an entry's end is in the plan.
    pub(super) fn settled(&mut self, key: &ServiceKey) {
        self.over.remove(key);
    }

    /// All of them, the oldest first.
    pub(super) fn keys(&self) -> impl Iterator<Item = ServiceKey> {
        self.old.iter().chain(&self.young).copied()
    }
}
