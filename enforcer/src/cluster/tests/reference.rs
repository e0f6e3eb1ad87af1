//! A cluster of these tests as the reference evaluator's objects.

use std::net::IpAddr;

use enforcer_common::abi;
use enforcer_reference::{Cluster, Direction, Packet};
use k8s_openapi::api::networking::v1::NetworkPolicy;

use crate::cluster::event::{Namespace, Pod};

/// A cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) pods: Vec<Pod>,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) policies: Vec<NetworkPolicy>,
}

impl World {
    /// The same for the reference.
    pub(super) fn reference(&self) -> Cluster {
        let namespace = |namespace: &Namespace| enforcer_reference::Namespace {
            name: namespace.name.to_string(),
            labels: namespace.labels.to_map(),
        };
        Cluster {
            namespaces: self.namespaces.iter().map(namespace).collect(),
            pods: self.pods.iter().map(pod).collect(),
            policies: self.policies.clone(),
            ..Cluster::default()
        }
    }
}

pub(super) use crate::check::convert::pod;

/// Whether policy lets a pod and an address talk, in a direction as seen from the pod.
pub(super) fn allows(
    cluster: &Cluster,
    subject: &enforcer_reference::Pod,
    direction: abi::Direction,
    other: IpAddr,
    (protocol, port): (u8, u16),
) -> bool {
    // Policy looks at the other side only.
    let (source, destination) = (other, other);
    let direction = match direction {
        abi::Direction::Ingress => Direction::Ingress,
        abi::Direction::Egress => Direction::Egress,
    };
    let packet = Packet { direction, source, destination, protocol, port, by_node: false };
    cluster.by_policy(subject, &packet).allows()
}
