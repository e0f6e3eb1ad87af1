//! A packet of a new flow at one pod's interface: what needs no policy, and what policy says of the
//! rest.

use std::net::IpAddr;

use crate::{
    cluster::{Cluster, Pod, Service, protocol},
    policy::{Answer, Direction, Other, Question, Rule, judge},
};

/// A packet that opens a flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Packet {
    /// Towards the pod or from it.
    pub direction: Direction,
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// Protocol number of the IP header.
    pub protocol: u8,
    /// Destination port, 0 where the protocol has none.
    pub port: u16,
    /// The pod's own node made it.
    pub by_node: bool,
}

impl Packet {
    /// The address that is not the pod's.
    #[must_use]
    pub const fn other(&self) -> IpAddr {
        match self.direction {
            Direction::Ingress => self.source,
            Direction::Egress => self.destination,
        }
    }
}

/// What must become of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Passes: nothing isolates the pod.
    NotIsolated,
    /// Passes, by one of these rules.
    Allowed(Vec<Rule>),
    /// Passes: the node may always come in.
    FromNode,
    /// Passes: the pod reaches itself.
    Hairpin,
    /// Goes on to be judged for its backend.
    Pending,
    /// Goes on or is dropped: all backends are denied, and whether that is seen before the
    /// translation or behind it makes no difference to who is reached.
    PendingOrDenied,
    /// Dropped by policy.
    Denied,
    /// Dropped: the source is not the sender's.
    Spoofed,
}

impl Cluster {
    /// What must become of a packet at the interface of a pod.
    #[must_use]
    pub fn outcome(&self, subject: &Pod, packet: &Packet) -> Outcome {
        let own = |address: &IpAddr| subject.addresses.contains(address);
        match packet.direction {
            Direction::Ingress if packet.by_node => return Outcome::FromNode,
            // The pod did not send it: it would have been seen at its interface.
            Direction::Ingress if own(&packet.source) => return Outcome::Spoofed,
            Direction::Egress if !own(&packet.source) => return Outcome::Spoofed,
            Direction::Egress if own(&packet.destination) => return Outcome::Hairpin,
            Direction::Egress => {
                if let Some(service) = self.service(packet) {
                    return self.to_service(subject, packet, service);
                }
            }
            Direction::Ingress => {}
        }
        self.by_policy(subject, packet).into()
    }

    /// What policy says of a packet, for the address that it carries.
    #[must_use]
    pub fn by_policy(&self, subject: &Pod, packet: &Packet) -> Answer {
        let address = packet.other();
        // Behind a node's address may be anybody: such a source is no pod.
        let hidden = packet.direction == Direction::Ingress && self.node.contains(&address);
        let pod = self.owner(address).filter(|_| !hidden);
        let labels = pod.map(|pod| self.namespace_labels(&pod.name.namespace));
        judge(&Question {
            subject,
            policies: &self.policies,
            direction: packet.direction,
            other: Other { address, pod: pod.zip(labels.as_ref()) },
            protocol: packet.protocol,
            port: packet.port,
        })
    }

    fn service(&self, packet: &Packet) -> Option<&Service> {
        let protocol = protocol(packet.protocol)?;
        self.services.iter().find(|service| {
            (service.address, service.port, service.protocol)
                == (packet.destination, packet.port, protocol)
        })
    }

    fn to_service(&self, subject: &Pod, packet: &Packet, service: &Service) -> Outcome {
        let answers: Vec<_> = (service.backends.iter())
            .map(|backend| {
                let behind = Packet { destination: *backend, port: service.target, ..*packet };
                (subject.addresses.contains(backend), self.by_policy(subject, &behind))
            })
            .collect();
        // Whether a pod is isolated does not depend on who it talks with.
        let nowhere = Packet { port: service.target, ..*packet };
        if self.by_policy(subject, &nowhere) == Answer::NotIsolated {
            Outcome::NotIsolated
        } else if answers.is_empty() || answers.iter().any(|(own, by)| *own || by.allows()) {
            Outcome::Pending
        } else {
            Outcome::PendingOrDenied
        }
    }
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::NotIsolated => Self::NotIsolated,
            Answer::Allowed(rules) => Self::Allowed(rules),
            Answer::Denied(_) => Self::Denied,
        }
    }
}
