//! NetworkPolicy: may one pod and one address talk, in one direction.

use std::net::IpAddr;

use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::{
    cidr,
    cluster::{Labels, Name, Pod, protocol},
    selector::selects,
};

/// As seen from the pod whose policies are asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Direction {
    /// Towards the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        }
    }
}

/// The other side.
#[derive(Clone, Copy, Debug)]
pub struct Other<'a> {
    /// Its address.
    pub address: IpAddr,
    /// The pod that it is, with the labels of its namespace; `None` if it is no pod.
    pub pod: Option<(&'a Pod, &'a Labels)>,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The pod whose policies are asked.
    pub subject: &'a Pod,
    /// Policies; those of other namespaces say nothing.
    pub policies: &'a [NetworkPolicy],
    /// Direction.
    pub direction: Direction,
    /// Who the subject talks with.
    pub other: Other<'a>,
    /// Protocol number of the IP header.
    pub protocol: u8,
    /// Destination port; means nothing where the protocol has none.
    pub port: u16,
}

/// A rule of a policy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rule {
    /// The policy.
    pub policy: Name,
    /// Which of its two lists of rules.
    pub direction: Direction,
    /// Place in the list, from 0.
    pub index: usize,
}

/// What policy says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// No policy isolates the subject in this direction.
    NotIsolated,
    /// These rules allow it, each of them.
    Allowed(Vec<Rule>),
    /// These policies isolate the subject, and no rule allows it.
    Denied(Vec<Name>),
}

impl Answer {
    /// Whether the two may talk.
    #[must_use]
    pub const fn allows(&self) -> bool {
        !matches!(self, Self::Denied(_))
    }
}

/// One rule of either list.
type Clause<'a> = (Option<&'a [NetworkPolicyPeer]>, Option<&'a [NetworkPolicyPort]>);

/// Answers a question.
#[must_use]
pub fn judge(question: &Question<'_>) -> Answer {
    let (mut isolating, mut allowing) = (Vec::new(), Vec::new());
    for policy in question.policies {
        let Some(name) = applies(policy, question) else { continue };
        for (index, (peers, ports)) in clauses(policy, question.direction).into_iter().enumerate() {
            if any(peers, |peer| peer_fits(peer, question))
                && any(ports, |port| port_fits(port, question))
            {
                allowing.push(Rule { policy: name.clone(), direction: question.direction, index });
            }
        }
        isolating.push(name);
    }
    if isolating.is_empty() {
        Answer::NotIsolated
    } else if allowing.is_empty() {
        Answer::Denied(isolating)
    } else {
        Answer::Allowed(allowing)
    }
}

/// An empty or missing list names everything.
fn any<T>(list: Option<&[T]>, fits: impl Fn(&T) -> bool) -> bool {
    list.is_none_or(|list| list.is_empty() || list.iter().any(fits))
}

/// The name of a policy that isolates the subject in the direction.
fn applies(policy: &NetworkPolicy, question: &Question<'_>) -> Option<Name> {
    let namespace = policy.metadata.namespace.as_deref().unwrap_or("default");
    let name = Name::new(namespace, policy.metadata.name.as_deref().unwrap_or_default());
    let spec = policy.spec.as_ref();
    let selector = spec.and_then(|spec| spec.pod_selector.as_ref());
    let selected = name.namespace == question.subject.name.namespace
        && selector.is_none_or(|selector| selects(selector, &question.subject.labels));
    let types = spec.and_then(|spec| spec.policy_types.as_deref()).unwrap_or_default();
    let of_the_direction = if types.is_empty() {
        // Ingress always, egress if there are rules for it.
        match question.direction {
            Direction::Ingress => true,
            Direction::Egress => !clauses(policy, Direction::Egress).is_empty(),
        }
    } else {
        types.iter().any(|name| name == question.direction.name())
    };
    (selected && of_the_direction).then_some(name)
}

fn clauses(policy: &NetworkPolicy, direction: Direction) -> Vec<Clause<'_>> {
    let Some(spec) = &policy.spec else { return Vec::new() };
    match direction {
        Direction::Ingress => {
            let rules = spec.ingress.iter().flatten();
            rules.map(|rule| (rule.from.as_deref(), rule.ports.as_deref())).collect()
        }
        Direction::Egress => {
            let rules = spec.egress.iter().flatten();
            rules.map(|rule| (rule.to.as_deref(), rule.ports.as_deref())).collect()
        }
    }
}

fn peer_fits(peer: &NetworkPolicyPeer, question: &Question<'_>) -> bool {
    let Other { address, pod } = question.other;
    let NetworkPolicyPeer { ip_block, namespace_selector, pod_selector } = peer;
    if let Some(block) = ip_block {
        // The address counts, whoever has it.
        let excepted = block.except.iter().flatten().any(|cidr| cidr::contains(cidr, address));
        return namespace_selector.is_none()
            && pod_selector.is_none()
            && cidr::contains(&block.cidr, address)
            && !excepted;
    }
    if namespace_selector.is_none() && pod_selector.is_none() {
        return false;
    }
    let Some((pod, namespace_labels)) = pod else { return false };
    let namespace_fits = match namespace_selector {
        Some(selector) => selects(selector, namespace_labels),
        None => pod.name.namespace == question.subject.name.namespace,
    };
    namespace_fits && pod_selector.as_ref().is_none_or(|selector| selects(selector, &pod.labels))
}

fn port_fits(rule: &NetworkPolicyPort, question: &Question<'_>) -> bool {
    let Some(protocol) = protocol(question.protocol) else { return false };
    if rule.protocol.as_deref().unwrap_or("TCP") != protocol.name() {
        return false;
    }
    match &rule.port {
        None => rule.end_port.is_none(),
        Some(IntOrString::Int(first)) => {
            let last = rule.end_port.unwrap_or(*first);
            (*first..=last).contains(&i32::from(question.port))
        }
        Some(IntOrString::String(name)) => {
            // A name is a port of the pod that the packet goes to.
            let destination = match question.direction {
                Direction::Ingress => Some(question.subject),
                Direction::Egress => question.other.pod.map(|(pod, _)| pod),
            };
            let ports = destination.map_or(&[][..], |pod| &pod.ports);
            rule.end_port.is_none()
                && ports.iter().any(|port| {
                    port.name == *name && port.protocol == protocol && port.number == question.port
                })
        }
    }
}
