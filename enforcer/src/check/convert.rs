//! The index's objects as the reference's.

use enforcer_reference::Name;

use crate::cluster::event::{NamedPort, ObjectKey, Pod, Protocol};

/// A name.
pub(crate) fn name(key: &ObjectKey) -> Name {
    Name::new(&key.namespace, &key.name)
}

/// A pod.
pub(crate) fn pod(pod: &Pod) -> enforcer_reference::Pod {
    let port = |port: &NamedPort| enforcer_reference::NamedPort {
        name: port.name.to_string(),
        protocol: match port.protocol {
            Protocol::Tcp => enforcer_reference::Protocol::Tcp,
            Protocol::Udp => enforcer_reference::Protocol::Udp,
            Protocol::Sctp => enforcer_reference::Protocol::Sctp,
        },
        number: port.number,
    };
    enforcer_reference::Pod {
        name: name(&pod.key),
        uid: pod.uid.to_string(),
        labels: pod.labels.to_map(),
        addresses: pod.addresses.clone(),
        host_network: pod.host_network,
        finished: pod.finished,
        terminating: pod.terminating,
        started: pod.started,
        ports: pod.ports.iter().map(port).collect(),
    }
}

/// A direction.
pub(crate) const fn direction(
    direction: enforcer_common::abi::Direction,
) -> enforcer_reference::Direction {
    match direction {
        enforcer_common::abi::Direction::Ingress => enforcer_reference::Direction::Ingress,
        enforcer_common::abi::Direction::Egress => enforcer_reference::Direction::Egress,
    }
}
