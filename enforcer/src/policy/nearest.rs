//! The nearest miss of a flow that no rule allowed: the rule that matched in all but one thing,
//! and that thing.
//!
//! A rule asks two things of a flow: who the other end is, and for what protocol and port it is. A
//! rule that lacks both is no miss worth telling, nor is a peer that lacks both the right namespace
//! and the right labels. Of the others the best is told, in this order:
//!
//! 1. what is lacking, as [`Thing`] lists it: first what is most likely a slip;
//! 2. a rule that names the part that matched, before one that takes any there;
//! 3. the one that lacks fewer labels, or of ipBlocks the one with more bits in common;
//! 4. namespace and name of the policy, and the rule's place: the same flow has the same answer.

use std::{fmt, net::IpAddr, sync::Arc};

use enforcer_common::{abi::Direction, verdict::proto};

use super::{
    peer::{IpBlock, NamespacePeer, Peer, PeerSelector},
    rule::{Peers, Policy, Port, PortMatch, Ports, Rule},
};
use crate::cluster::event::{Labels, NamedPort, ObjectKey, Protocol};

/// A flow that the isolation of a pod denied, as it was known at its time.
#[derive(Clone, Copy, Debug)]
pub struct Denied<'a> {
    /// Direction of the connection as seen from the isolated pod.
    pub direction: Direction,
    /// Address of the other end.
    pub address: IpAddr,
    /// The pod at the other end; `None` if it is none to a selector.
    pub peer: Option<PeerPod<'a>>,
    /// IP protocol number.
    pub protocol: u8,
    /// Port at the destination, where the protocol has ports.
    pub port: u16,
    /// Named ports of the destination, if it is a pod.
    pub names: &'a [NamedPort],
}

/// A pod at the other end.
#[derive(Clone, Copy, Debug)]
pub struct PeerPod<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its namespace's labels.
    pub namespace_labels: &'a Labels,
    /// Its labels.
    pub labels: &'a Labels,
}

/// What a rule lacked, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// The peer matches and the protocol too; another port.
    Port,
    /// The peer and the port's number match; another protocol.
    Protocol,
    /// The port matches; the address is in the CIDR, and in an `except` of it.
    Except,
    /// The port and the namespace match; other labels of the pod.
    PodLabels,
    /// The port and the pod's labels match; another namespace.
    Namespace,
    /// The peer matches; another protocol and another port.
    ProtocolAndPort,
    /// The port matches; the address is not in the CIDR.
    OutsideBlock,
    /// The port matches; the rule is for pods, and the other end is none.
    NotAPod,
}

/// The rule that lacked least. Printed as one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearestMiss {
    /// The policy.
    pub policy: ObjectKey,
    /// Which of its lists.
    pub direction: Direction,
    /// Place in `spec.ingress` or `spec.egress`, from 0.
    pub index: u32,
    /// What it lacked.
    pub thing: Thing,
    /// What matched, for people: `matches the peer`.
    pub matched: &'static str,
    /// What did not, for people: `port 8443 is not 443`.
    pub missed: String,
}

impl fmt::Display for NearestMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, direction, index, matched, missed, .. } = self;
        let list = match direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        let ObjectKey { namespace, name } = policy;
        write!(f, "{namespace}/{name} {list}[{index}] {matched}; {missed}")
    }
}

/// The rule of these policies, all of which isolate the pod in the flow's direction, that lacked
/// least. `None` if none lacked one thing only; and if a rule allows the flow by what was known,
/// because then it was denied for another reason.
#[must_use]
pub fn nearest_miss(policies: &[Arc<Policy>], denied: &Denied<'_>) -> Option<NearestMiss> {
    let mut best: Option<(_, &Policy, &Rule, Miss<'_>)> = None;
    for policy in policies {
        for rule in policy.rules(denied.direction) {
            let peer = peers_part(&rule.peers, denied);
            let port = ports_part(&rule.ports, denied);
            let (named, miss) = match (peer, port) {
                (Part::Fits(_), Part::Fits(_)) => return None,
                (Part::Fits(named), Part::Lacks(miss)) | (Part::Lacks(miss), Part::Fits(named)) => {
                    (named, miss)
                }
                (Part::Lacks(_) | Part::Far, _) | (_, Part::Far) => continue,
            };
            let rank = (miss.thing, named, miss.distance, &policy.key, rule.index);
            if best.as_ref().is_none_or(|(other, ..)| rank < *other) {
                best = Some((rank, policy, rule, miss));
            }
        }
    }
    let ((thing, named, ..), policy, rule, miss) = best?;
    let matched = match (thing, named) {
        (Thing::Port | Thing::Protocol | Thing::ProtocolAndPort, Named::Itself) => {
            "matches the peer"
        }
        (Thing::Port | Thing::Protocol | Thing::ProtocolAndPort, Named::Any) => "is for any peer",
        (_, Named::Itself) => "matches the port",
        (_, Named::Any) => "is for any port",
    };
    Some(NearestMiss {
        policy: policy.key.clone(),
        direction: denied.direction,
        index: rule.index,
        thing,
        matched,
        missed: miss.text.to_string(),
    })
}

/// Whether the part that matched is named by the rule; the better one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    Itself,
    Any,
}

/// How one of a rule's two parts stands to a flow.
enum Part<'a> {
    Fits(Named),
    Lacks(Miss<'a>),
    /// More than one thing, or nothing can match.
    Far,
}

struct Miss<'a> {
    thing: Thing,
    /// Among misses of the same thing; smaller is nearer.
    distance: u32,
    text: Text<'a>,
}

/// What is said of a miss, written only for the best one.
enum Text<'a> {
    Ports(&'a Denied<'a>, Thing, &'a [PortMatch]),
    Except(IpAddr, &'a IpBlock),
    Outside(IpAddr, &'a IpBlock),
    PodLabels(&'a PeerSelector, PeerPod<'a>),
    Namespace(&'a NamespacePeer, PeerPod<'a>),
    NotAPod(IpAddr, &'a Peer),
}

fn peers_part<'a>(peers: &'a Peers, denied: &'a Denied<'a>) -> Part<'a> {
    let peers = match peers {
        Peers::Any => return Part::Fits(Named::Any),
        Peers::Of(peers) => peers,
    };
    let mut best: Option<Miss<'a>> = None;
    for peer in peers {
        let miss = match &**peer {
            Peer::Pods(selector) => match denied.peer {
                Some(pod) => pod_miss(selector, pod),
                None => Err(Some((Thing::NotAPod, 0, Text::NotAPod(denied.address, peer)))),
            },
            Peer::Block(block) => block_miss(block, denied.address),
        };
        match miss {
            Ok(()) => return Part::Fits(Named::Itself),
            Err(Some((thing, distance, text))) => {
                if best.as_ref().is_none_or(|b| (thing, distance) < (b.thing, b.distance)) {
                    best = Some(Miss { thing, distance, text });
                }
            }
            Err(None) => {}
        }
    }
    best.map_or(Part::Far, Part::Lacks)
}

/// What a peer lacks; nothing in it if that is more than one thing.
type Lack<'a> = Option<(Thing, u32, Text<'a>)>;

fn pod_miss<'a>(selector: &'a PeerSelector, pod: PeerPod<'a>) -> Result<(), Lack<'a>> {
    let in_namespace = match &selector.namespace {
        NamespacePeer::Same(name) => u32::from(**name != *pod.namespace),
        NamespacePeer::Selected(selector) => count(selector.unmet(pod.namespace_labels)),
    };
    let labels = count(selector.pod.unmet(pod.labels));
    match (in_namespace, labels) {
        (0, 0) => Ok(()),
        (0, lacking) => Err(Some((Thing::PodLabels, lacking, Text::PodLabels(selector, pod)))),
        (lacking, 0) => {
            Err(Some((Thing::Namespace, lacking, Text::Namespace(&selector.namespace, pod))))
        }
        _ => Err(None),
    }
}

fn count<T>(all: impl Iterator<Item = T>) -> u32 {
    u32::try_from(all.count()).unwrap_or(u32::MAX)
}

fn block_miss(block: &IpBlock, address: IpAddr) -> Result<(), Lack<'_>> {
    if block.contains(address) {
        return Ok(());
    }
    if block.cidr().contains(&address) {
        return Err(Some((Thing::Except, 0, Text::Except(address, block))));
    }
    let common = match (block.cidr().network(), address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        // Of the other family there is nothing in common.
        _ => return Err(None),
    };
    Err(Some((Thing::OutsideBlock, 128 - common, Text::Outside(address, block))))
}

fn ports_part<'a>(ports: &'a Ports, denied: &'a Denied<'a>) -> Part<'a> {
    let list = match ports {
        Ports::Any => return Part::Fits(Named::Any),
        Ports::Of(list) if list.is_empty() => return Part::Far,
        Ports::Of(list) => list,
    };
    let is_protocol = |one: &PortMatch| number(one.protocol) == denied.protocol;
    if list.iter().any(|one| is_protocol(one) && has_port(one, denied)) {
        return Part::Fits(Named::Itself);
    }
    let thing = if list.iter().any(is_protocol) {
        Thing::Port
    } else if has_ports(denied.protocol) && list.iter().any(|one| has_port(one, denied)) {
        Thing::Protocol
    } else {
        Thing::ProtocolAndPort
    };
    Part::Lacks(Miss { thing, distance: 0, text: Text::Ports(denied, thing, list) })
}

const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => proto::TCP,
        Protocol::Udp => proto::UDP,
        Protocol::Sctp => proto::SCTP,
    }
}

const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, proto::TCP | proto::UDP | proto::SCTP)
}

fn has_port(one: &PortMatch, denied: &Denied<'_>) -> bool {
    match &one.port {
        Port::Range(first, last) => (*first..=*last).contains(&denied.port),
        Port::Named(name) => numbers(name, one.protocol, denied).any(|own| own == denied.port),
    }
}

/// The numbers that a name has at the destination.
fn numbers(name: &str, protocol: Protocol, denied: &Denied<'_>) -> impl Iterator<Item = u16> {
    let own = denied.names.iter().filter(move |own| *own.name == *name);
    own.filter(move |own| own.protocol == protocol).map(|own| own.number)
}

fn protocol_name(number: u8) -> String {
    match number {
        proto::TCP => "TCP".to_owned(),
        proto::UDP => "UDP".to_owned(),
        proto::SCTP => "SCTP".to_owned(),
        proto::ICMP => "ICMP".to_owned(),
        proto::ICMPV6 => "ICMPv6".to_owned(),
        other => format!("protocol {other}"),
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ports(denied, thing, list) => ports_text(denied, *thing, list, f),
            Self::Except(address, block) => {
                let except = block.except().iter().find(|except| except.contains(address));
                write!(f, "the address {address} is excepted from {}", block.cidr())?;
                except.map_or(Ok(()), |except| write!(f, " by {except}"))
            }
            Self::Outside(address, block) => {
                write!(f, "the address {address} is not in {}", block.cidr())
            }
            Self::PodLabels(selector, pod) => {
                f.write_str("the peer's ")?;
                joined(selector.pod.unmet(pod.labels), " and its ", f)
            }
            Self::Namespace(NamespacePeer::Same(name), pod) => {
                write!(f, "the peer's namespace {} is not {name}", pod.namespace)
            }
            Self::Namespace(NamespacePeer::Selected(selector), pod) => {
                write!(f, "of the peer's namespace {} ", pod.namespace)?;
                joined(selector.unmet(pod.namespace_labels), " and ", f)
            }
            Self::NotAPod(address, peer) => {
                write!(f, "the address {address} is no pod's, and the rule is for {peer}")
            }
        }
    }
}

fn ports_text(
    denied: &Denied<'_>,
    thing: Thing,
    list: &[PortMatch],
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let protocol = protocol_name(denied.protocol);
    let of_protocol = |one: &&PortMatch| number(one.protocol) == denied.protocol;
    match thing {
        Thing::Port => {
            let all: Vec<_> = list.iter().filter(of_protocol).collect();
            write!(
                f,
                "port {} is {}",
                denied.port,
                if all.len() == 1 { "not " } else { "none of " }
            )?;
            joined(all.into_iter().map(|one| Wanted(one, denied)), ", ", f)
        }
        Thing::Protocol => {
            let mut all: Vec<_> = list.iter().filter(|one| has_port(one, denied)).collect();
            all.dedup_by_key(|one| one.protocol);
            write!(f, "port {} matches, but {protocol} is not ", denied.port)?;
            joined(all.into_iter().map(|one| protocol_name(number(one.protocol))), " or ", f)
        }
        _ => {
            if has_ports(denied.protocol) {
                write!(f, "{protocol} port {}", denied.port)?;
            } else {
                f.write_str(&protocol)?;
            }
            write!(f, " is {}", if list.len() == 1 { "not " } else { "none of " })?;
            let each = list.iter().map(|one| {
                format!("{} {}", protocol_name(number(one.protocol)), Wanted(one, denied))
            });
            joined(each, ", ", f)
        }
    }
}

/// A port of a rule; of a name also what it means at the destination.
struct Wanted<'a>(&'a PortMatch, &'a Denied<'a>);

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(PortMatch { protocol, port }, denied) = self;
        match port {
            Port::Range(0, u16::MAX) => f.write_str("any port"),
            Port::Range(first, last) if first == last => write!(f, "{first}"),
            Port::Range(first, last) => write!(f, "{first}-{last}"),
            Port::Named(name) => {
                write!(f, "{name} (")?;
                let mut numbers = numbers(name, *protocol, denied).peekable();
                if numbers.peek().is_none() {
                    return f.write_str("which the destination has not)");
                }
                joined(numbers, " or ", f)?;
                f.write_str(" there)")
            }
        }
    }
}

fn joined<T: fmt::Display>(
    parts: impl Iterator<Item = T>,
    between: &str,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    for (place, part) in parts.enumerate() {
        write!(f, "{}{part}", if place == 0 { "" } else { between })?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "nearest_tests.rs"]
mod tests;
