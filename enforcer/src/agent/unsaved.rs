//! What of the source's news the next agent of this boot would take back if it had only what was
//! saved before.

use std::{collections::BTreeSet, sync::Arc};

use super::core::Core;
use crate::{
    cluster::{
        Index,
        event::{Event, ObjectKey, Pod},
    },
    source::{Source, unsaved::Unsaved},
};

impl Core {
    /// Writes down what is about to come into force and is not saved.
    pub(super) fn note_unsaved(&mut self, events: &[Event]) {
        let (Source::Kubernetes(source), Some(journal)) = (&self.source, &mut self.unsaved) else {
            return;
        };
        // What comes from the saved state is in it.
        if !source.is_live() {
            return;
        }
        let mut unsaved = Unsaved::Nothing;
        for event in events {
            unsaved.add(change(&self.index, source.node(), event));
        }
        journal.note(unsaved);
    }
}

/// What saved state says wrongly after an event.
fn change(index: &Index, node: &str, event: &Event) -> Unsaved {
    match event {
        Event::Relist { .. }
        | Event::NamespaceApplied(_)
        | Event::NamespaceDeleted(_)
        | Event::PolicyApplied(_)
        | Event::PolicyDeleted(_) => Unsaved::Everything,
        Event::PodApplied(pod) => {
            let known = index.pod(&pod.key);
            let others = |address| index.pod_at(address).is_some_and(|other| other.key != pod.key);
            if known.is_some_and(|known| is_same_to_policy(known, pod)) {
                Unsaved::Nothing
            } else if pod.node.as_deref() == Some(node)
                || pod.addresses.iter().any(|address| others(*address))
            {
                Unsaved::Everything
            } else if known.is_some() {
                one(&pod.key)
            } else {
                // It is not saved, and so matches nothing.
                Unsaved::Nothing
            }
        }
        Event::PodDeleted(key) => one(key),
        Event::NodeApplied(_)
        | Event::NodeDeleted(_)
        | Event::ServiceApplied(_)
        | Event::ServiceDeleted(_)
        | Event::SliceApplied(_)
        | Event::SliceDeleted(_)
        | Event::ServicesFound(_)
        | Event::ProxiesHadTime
        | Event::NodeAddressesFound(_)
        | Event::InterfaceFound(_)
        | Event::InterfaceAppeared(_)
        | Event::InterfaceAdopted(_)
        | Event::InterfaceLost(_)
        | Event::SandboxFound(_)
        | Event::SandboxLost(_)
        | Event::StartPolicyChanged(_) => Unsaved::Nothing,
    }
}

fn one(key: &ObjectKey) -> Unsaved {
    Unsaved::Pods(BTreeSet::from([key.clone()]))
}

/// Whether a pod is to policy what it was; most of its changes are of its status.
fn is_same_to_policy(known: &Arc<Pod>, pod: &Pod) -> bool {
    let Pod { key: _, uid, labels, addresses, host_network, finished, .. } = pod;
    // What it is part of is for flows only, and never changes.
    let Pod { terminating, started, containers_started: _, ports, node, workload: _, .. } = pod;
    *uid == known.uid
        && *labels == known.labels
        && (*host_network, *finished) == (known.host_network, known.finished)
        && (*terminating, *started) == (known.terminating, known.started)
        && is_same_set(addresses, &known.addresses)
        && is_same_set(ports, &known.ports)
        && *node == known.node
}

fn is_same_set<T: PartialEq>(some: &[T], others: &[T]) -> bool {
    some.iter().all(|one| others.contains(one)) && others.iter().all(|one| some.contains(one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{
        IndexConfig,
        event::{Labels, Namespace},
    };

    fn pod(name: &str, node: &str, last: u8) -> Pod {
        Pod {
            key: ObjectKey { namespace: "n".into(), name: name.into() },
            uid: "u".into(),
            labels: Labels::new(),
            addresses: vec![[10, 0, 0, last].into()],
            host_network: false,
            finished: false,
            terminating: false,
            started: 1,
            containers_started: None,
            ports: Vec::new(),
            node: Some(node.into()),
            workload: None,
        }
    }

    #[test]
    fn only_what_policy_looks_at_is_noted() {
        let mut index = Index::new(IndexConfig::default());
        let (here, there) = (pod("here", "w1", 1), pod("there", "w2", 2));
        index.apply(Event::PodApplied(here.clone()));
        index.apply(Event::PodApplied(there.clone()));
        let of = |event: Event| change(&index, "w1", &event);
        let labels = Labels::from([("a", "b")]);
        for pod in [&here, &there] {
            let ready = Pod { containers_started: Some(7), ..pod.clone() };
            assert_eq!(of(Event::PodApplied(ready)), Unsaved::Nothing);
            assert_eq!(of(Event::PodDeleted(pod.key.clone())), one(&pod.key));
        }
        let relabelled = |pod: &Pod| Pod { labels: labels.clone(), ..pod.clone() };
        assert_eq!(of(Event::PodApplied(relabelled(&here))), Unsaved::Everything);
        assert_eq!(of(Event::PodApplied(relabelled(&there))), one(&there.key));
        let finished = Pod { finished: true, ..there.clone() };
        assert_eq!(of(Event::PodApplied(finished)), one(&there.key));
        // New ones: of this node, of another, and one that has a known one's address.
        assert_eq!(of(Event::PodApplied(pod("new", "w1", 3))), Unsaved::Everything);
        assert_eq!(of(Event::PodApplied(pod("new", "w2", 3))), Unsaved::Nothing);
        assert_eq!(of(Event::PodApplied(pod("new", "w2", 2))), Unsaved::Everything);
        let namespace = Namespace { name: "n".into(), labels };
        assert_eq!(of(Event::NamespaceApplied(namespace)), Unsaved::Everything);
        assert_eq!(of(Event::PolicyDeleted(there.key.clone())), Unsaved::Everything);
        assert_eq!(of(Event::NodeDeleted("w2".into())), Unsaved::Nothing);
    }
}
