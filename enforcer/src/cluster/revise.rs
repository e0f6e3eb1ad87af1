//! What may still change about a binding: it holds for the interface's life, and yet it must not
//! keep a pod under its predecessor's policy or without one of its addresses.
//!
//! Nothing of this follows from what the pod does to its own addresses. The runtime may correct
//! what rested on addresses, or on its own earlier word. The API may correct what rested on
//! addresses only, where its objects contradict: they say that all that the interface was bound by
//! is now another pod's. And a pod's object may add an address family that the interface was bound
//! without.

use std::{net::IpAddr, sync::Arc};

use super::{
    binding::{Binding, BoundBy, Knowledge},
    interfaces::{Entry, Interfaces},
};

impl Interfaces {
    /// What a binding becomes; `None` if it stays as it is.
    pub(super) fn revise(
        &self,
        ifindex: u32,
        entry: &Entry,
        knowledge: &Knowledge<'_>,
    ) -> Option<Binding> {
        let Binding::Bound { by, .. } = &entry.binding else { return None };
        entry
            .by_sandbox(knowledge)
            .filter(|word| is_later(word, *by))
            .or_else(|| self.contradicted(ifindex, entry, knowledge))
            .or_else(|| self.completed(ifindex, entry, knowledge))
    }

    /// The API says that the interface is another pod's than its addresses said when it came:
    /// objects may tell of an address's last pod until they tell of its next.
    ///
    /// An interface that is the other pod's for sure, or may be, leaves this one as it is: then it
    /// is the former pod's, on its way out.
    fn contradicted(
        &self,
        ifindex: u32,
        entry: &Entry,
        knowledge: &Knowledge<'_>,
    ) -> Option<Binding> {
        let Binding::Bound { pod: before, by: BoundBy::Addresses, .. } = &entry.binding else {
            return None;
        };
        let judged = self.judge_by_addresses(ifindex, entry, knowledge);
        let Binding::Bound { pod, .. } = &judged else { return None };
        // Without a UID a pod of another name may be what manifests call it now.
        let is_all_its_own = entry.deciding.iter().all(|address| {
            let owner = knowledge.objects.owner(address);
            owner.is_some_and(|owner| owner.key == pod.key)
                && self.having(address).all(|other| other == ifindex)
        });
        let is_another = !before.uid.is_empty() && !pod.uid.is_empty() && before.uid != pod.uid;
        let has_its_own = self.of_pod(&pod.key).any(|(other, entry)| {
            other != ifindex
                && matches!(&entry.binding, Binding::Bound { pod: bound, .. } if bound.uid == pod.uid)
        });
        (is_another && is_all_its_own && !has_its_own).then_some(judged)
    }

    /// An address family that the binding is without, the pod's object has, the peer really has,
    /// and nobody else claims.
    fn completed(&self, ifindex: u32, entry: &Entry, knowledge: &Knowledge<'_>) -> Option<Binding> {
        let Binding::Bound { pod: bound, addresses, by } = &entry.binding else { return None };
        let pod = knowledge.objects.pod(&bound.key)?;
        if pod.uid != bound.uid || bound.uid.is_empty() {
            return None;
        }
        let missing = |address: &IpAddr| {
            !addresses.iter().any(|known| known.is_ipv4() == address.is_ipv4())
                && entry.interface.peer_addresses.iter().any(|at| at.to_canonical() == *address)
                && knowledge.objects.is_only_of(address, &pod.key)
                && self.entries.iter().all(|(other, entry)| {
                    *other == ifindex || !entry.interface.peer_addresses.contains(address)
                })
                && self.having(address).all(|other| other == ifindex)
        };
        let more: Vec<IpAddr> = pod.addresses.iter().copied().filter(missing).collect();
        if more.is_empty() {
            return None;
        }
        let addresses = addresses.iter().copied().chain(more).collect();
        Some(Binding::Bound { pod: Arc::clone(bound), addresses, by: *by })
    }
}

/// Whether the runtime's word is later than what a binding rests on.
fn is_later(word: &Binding, by: BoundBy) -> bool {
    match (word, by) {
        (
            Binding::Bound { by: BoundBy::Sandbox { told }, .. },
            BoundBy::Sandbox { told: before },
        ) => *told > before,
        (_, by) => by == BoundBy::Addresses,
    }
}
