//! NetworkPolicy by the words of the API, one packet at a time; shares nothing with the compiler.

use std::net::IpAddr;

use enforcer_common::{abi::Direction, verdict::proto};
use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use crate::cluster::event::{Labels, Namespace, Pod, Protocol};

/// A cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) pods: Vec<Pod>,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) policies: Vec<NetworkPolicy>,
}

impl World {
    /// The pod that has an address.
    pub(super) fn owner(&self, address: IpAddr) -> Option<&Pod> {
        let mut best: Option<&Pod> = None;
        for pod in &self.pods {
            if pod.finished || pod.host_network || !pod.addresses.contains(&address) {
                continue;
            }
            let stays = |one: &Pod| !one.terminating;
            let later = |other: &Pod| {
                (stays(pod), pod.started, &pod.uid, &pod.key)
                    > (stays(other), other.started, &other.uid, &other.key)
            };
            if best.is_none_or(later) {
                best = Some(pod);
            }
        }
        best
    }

    fn namespace_labels(&self, name: &str) -> Labels {
        let known = self.namespaces.iter().find(|namespace| &*namespace.name == name);
        known.map_or_else(
            || Labels::from([("kubernetes.io/metadata.name".to_owned(), name.to_owned())]),
            |namespace| namespace.labels.clone(),
        )
    }

    /// Whether policy lets `subject` and `other` talk in a direction as seen from `subject`.
    pub(super) fn allows(
        &self,
        subject: &Pod,
        direction: Direction,
        other: IpAddr,
        protocol: u8,
        port: u16,
    ) -> bool {
        let mut isolated = false;
        for policy in &self.policies {
            let spec = policy.spec.as_ref().unwrap();
            if policy.metadata.namespace.as_deref() != Some(&*subject.key.namespace)
                || !selects(spec.pod_selector.as_ref().unwrap(), &subject.labels)
            {
                continue;
            }
            let egress_rules = spec.egress.as_deref().unwrap_or_default();
            let has_type = |name: &str| {
                spec.policy_types.as_ref().is_some_and(|types| types.iter().any(|t| t == name))
            };
            let derived = spec.policy_types.as_ref().is_none_or(Vec::is_empty);
            let destination = self.owner(other);
            let (applies, rules): (bool, Vec<(_, _)>) = match direction {
                Direction::Ingress => (
                    derived || has_type("Ingress"),
                    spec.ingress.iter().flatten().map(|rule| (&rule.from, &rule.ports)).collect(),
                ),
                Direction::Egress => (
                    (derived && !egress_rules.is_empty()) || has_type("Egress"),
                    egress_rules.iter().map(|rule| (&rule.to, &rule.ports)).collect(),
                ),
            };
            if !applies {
                continue;
            }
            isolated = true;
            let named = match direction {
                Direction::Ingress => Some(subject),
                Direction::Egress => destination,
            };
            for (peers, ports) in rules {
                let peer_fits = peers.as_ref().is_none_or(Vec::is_empty)
                    || peers.iter().flatten().any(|peer| {
                        self.peer_fits(peer, &subject.key.namespace, other, destination)
                    });
                let port_fits = ports.as_ref().is_none_or(Vec::is_empty)
                    || ports.iter().flatten().any(|p| port_fits(p, protocol, port, named));
                if peer_fits && port_fits {
                    return true;
                }
            }
        }
        !isolated
    }

    fn peer_fits(
        &self,
        peer: &NetworkPolicyPeer,
        home: &str,
        address: IpAddr,
        pod: Option<&Pod>,
    ) -> bool {
        if let Some(block) = &peer.ip_block {
            return in_cidr(&block.cidr, address)
                && !block.except.iter().flatten().any(|except| in_cidr(except, address));
        }
        let Some(pod) = pod else { return false };
        let namespace_fits = match &peer.namespace_selector {
            None => *pod.key.namespace == *home,
            Some(selector) => selects(selector, &self.namespace_labels(&pod.key.namespace)),
        };
        namespace_fits && peer.pod_selector.as_ref().is_none_or(|s| selects(s, &pod.labels))
    }
}

fn port_fits(rule: &NetworkPolicyPort, protocol: u8, port: u16, named: Option<&Pod>) -> bool {
    let (number, kind) = match rule.protocol.as_deref().unwrap_or("TCP") {
        "TCP" => (proto::TCP, Protocol::Tcp),
        "UDP" => (proto::UDP, Protocol::Udp),
        _ => (proto::SCTP, Protocol::Sctp),
    };
    if number != protocol {
        return false;
    }
    match (&rule.port, rule.end_port) {
        (None, _) => true,
        (Some(IntOrString::Int(first)), None) => *first == i32::from(port),
        (Some(IntOrString::Int(first)), Some(last)) => (*first..=last).contains(&i32::from(port)),
        (Some(IntOrString::String(name)), _) => named.is_some_and(|pod| {
            pod.ports
                .iter()
                .any(|own| *own.name == **name && own.protocol == kind && own.number == port)
        }),
    }
}

fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let all_labels =
        selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    all_labels
        && selector.match_expressions.iter().flatten().all(|expression| {
            let value = labels.get(&expression.key);
            let listed = value.is_some_and(|v| expression.values.iter().flatten().any(|x| x == v));
            match expression.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                _ => value.is_none(),
            }
        })
}

fn in_cidr(cidr: &str, address: IpAddr) -> bool {
    let (base, length) = cidr.split_once('/').unwrap();
    let length: u32 = length.parse().unwrap();
    match (base.parse().unwrap(), address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            length == 0 || (u32::from(base) ^ u32::from(address)) >> (32 - length) == 0
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            length == 0 || (u128::from(base) ^ u128::from(address)) >> (128 - length) == 0
        }
        _ => false,
    }
}
