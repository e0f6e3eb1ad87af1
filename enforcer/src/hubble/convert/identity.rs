//! Who an end of a flow is: a pod, or one of the few things that Hubble has numbers for.

use siphasher::sip::SipHasher13;
use std::hash::Hasher;

use crate::{
    cluster::{event::ObjectKey, plan::PodIdentity},
    flow::{directory::Place, event::Flow},
};

/// An end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who sent the packet.
    Source,
    /// Whom it is for.
    Destination,
}

/// Identities below 256: what is no pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// A Service's own address: whose it is, is decided behind it.
    Unknown,
    /// This node.
    Host,
    /// Anything outside of the cluster.
    World,
    /// Another node of the cluster.
    RemoteNode,
    /// The API server.
    KubeApiserver,
}

impl Reserved {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Unknown => 0,
            Self::Host => 1,
            Self::World => 2,
            Self::RemoteNode => 6,
            Self::KubeApiserver => 7,
        }
    }

    /// Its label's key; there is no value.
    #[must_use]
    pub const fn label(self) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::Host => Some("host"),
            Self::World => Some("world"),
            Self::RemoteNode => Some("remote-node"),
            Self::KubeApiserver => Some("kube-apiserver"),
        }
    }
}

/// Who an end of a flow is.
#[derive(Clone, Copy, Debug)]
pub enum Who<'a> {
    /// The packet has no addresses.
    Nobody,
    /// No pod.
    Reserved(Reserved),
    /// A pod.
    Pod(&'a PodIdentity),
}

impl Who<'_> {
    /// Hubble's number for it; `None` where there is nobody.
    #[must_use]
    pub fn identity(self) -> Option<u32> {
        match self {
            Self::Nobody => None,
            Self::Reserved(reserved) => Some(reserved.number()),
            Self::Pod(pod) => Some(of_pod(pod)),
        }
    }
}

/// Who is at one end of the flow, as seen from node `node`.
#[must_use]
pub fn who<'a>(flow: &'a Flow, side: Side, node: &str) -> Who<'a> {
    let (pod, place, address) = match side {
        Side::Source => (&flow.source, &flow.source_place, flow.raw.src),
        Side::Destination => (&flow.destination, &flow.destination_place, flow.raw.dst),
    };
    if let Some(pod) = pod {
        return Who::Pod(pod);
    }
    let through = flow.service.as_deref().filter(|_| side == Side::Destination);
    Who::Reserved(match place {
        _ if through.is_some_and(is_api_server) => Reserved::KubeApiserver,
        Some(Place::Service(key)) if is_api_server(key) => Reserved::KubeApiserver,
        Some(Place::Service(_)) => Reserved::Unknown,
        Some(Place::Node(name)) if **name == *node => Reserved::Host,
        Some(Place::Node(_)) => Reserved::RemoteNode,
        None if address.is_some() => Reserved::World,
        None => return Who::Nobody,
    })
}

/// The Service of the API server has the same name in every cluster.
fn is_api_server(key: &ObjectKey) -> bool {
    &*key.namespace == "default" && &*key.name == "kubernetes"
}

/// Labels that tell pods of one workload, or versions of it, apart: a pod that is replaced keeps its
/// number.
const OF_AN_INSTANCE: [&str; 8] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "controller-revision-hash",
    "controller-uid",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];
/// The first number that is no reserved one.
const FIRST: u64 = 256;
/// The first number that Hubble takes for an address range's.
const END: u64 = 1 << 24;

/// A number for the pod's namespace and labels: the same on every node and after a restart.
#[must_use]
pub fn of_pod(pod: &PodIdentity) -> u32 {
    // No key: nobody gains from two label sets of one number, and nodes must agree.
    let mut hasher = SipHasher13::new();
    let mut part = |texts: &[&str]| {
        texts.iter().for_each(|text| hasher.write(text.as_bytes()));
        // No text has it, so that parts do not run together.
        hasher.write(&[0xff]);
    };
    part(&[&pod.key.namespace]);
    for (key, value) in pod.labels.iter() {
        if !OF_AN_INSTANCE.contains(&key) {
            part(&[key, "=", value]);
        }
    }
    let number = FIRST + hasher.finish() % (END - FIRST);
    u32::try_from(number).expect("below 2^24")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::flow::event::tests::{allowed, flow, key};

    fn labelled(namespace: &str, labels: &[&str]) -> PodIdentity {
        let mut pod = PodIdentity::clone(&crate::flow::event::tests::pod(namespace, "x"));
        pod.labels = labels.iter().filter_map(|label| label.split_once('=')).collect();
        pod
    }

    #[test]
    fn a_number_stands_for_namespace_and_labels() {
        let web = of_pod(&labelled("shop", &["app=web", "pod-template-hash=1"]));
        assert_eq!(web, of_pod(&labelled("shop", &["app=web", "pod-template-hash=2"])));
        for other in [
            labelled("bank", &["app=web"]),
            labelled("shop", &["app=db"]),
            labelled("shop", &[]),
            labelled("shop", &["app=we", "b"]),
        ] {
            assert_ne!(web, of_pod(&other), "{other:?}");
        }
        // It must never change: it is in dashboards and in people's filters.
        assert_eq!(web, 5_420_362);
        assert!((256..1 << 24).contains(&web));
    }

    #[test]
    fn what_is_no_pod_has_a_reserved_number() {
        let place = |place: Option<Place>| {
            let mut flow = flow(&allowed());
            (flow.destination, flow.destination_place) = (None, place);
            who(&flow, Side::Destination, "w1").identity()
        };
        let service = |namespace, name| Some(Place::Service(Arc::new(key(namespace, name))));
        assert_eq!(place(None), Some(2));
        assert_eq!(place(Some(Place::Node("w1".into()))), Some(1));
        assert_eq!(place(Some(Place::Node("w2".into()))), Some(6));
        assert_eq!(place(service("default", "kubernetes")), Some(7));
        assert_eq!(place(service("shop", "front")), Some(0));
        let mut flow = flow(&allowed());
        flow.destination = None;
        flow.service = Some(Arc::new(key("default", "kubernetes")));
        assert_eq!(who(&flow, Side::Destination, "w1").identity(), Some(7));
        assert!(matches!(who(&flow, Side::Source, "w1"), Who::Pod(_)));
        (flow.source, flow.raw.src) = (None, None);
        assert_eq!(who(&flow, Side::Source, "w1").identity(), None);
    }
}
