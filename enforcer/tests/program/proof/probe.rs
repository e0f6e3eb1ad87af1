//! Probes: packets that open a flow at a local pod's interface, each with a tuple of its own.

use std::{collections::BTreeSet, net::IpAddr};

use enforcer_reference::{Cluster, Direction, Packet};
use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicyPort},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    places::{self, LOCAL},
    random::Random,
};
use crate::packets::{self, SYN};

/// IP protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
/// Of protocols without ports; none of them is an extension header of IPv6.
const PORTLESS: [u8; 4] = [47, 89, 103, 115];

/// What two packets of one probe have in common, whatever is done to tell them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sameness {
    /// Nothing: each is a flow with a name of its own.
    Never,
    /// The name by which drops are told: echo requests differ by an identifier that is not in it.
    Told,
    /// The flow: there are no ports.
    Flow,
}

/// A packet at the interface of the local pod in a slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Probe {
    pub(crate) slot: usize,
    pub(crate) packet: Packet,
}

impl Probe {
    /// What stays the same whatever its number is.
    pub(crate) fn sameness(&self) -> Sameness {
        match self.packet.protocol {
            protocol if PORTLESS.contains(&protocol) => Sameness::Flow,
            1 | 58 => Sameness::Told,
            _ => Sameness::Never,
        }
    }

    /// The packet, made different from others by a number: its source port, or its identifier.
    pub(crate) fn frame(&self, number: u16) -> Vec<u8> {
        let Packet { source, destination, protocol, port, .. } = self.packet;
        let (source, destination) = (ip(source), ip(destination));
        match protocol {
            TCP => packets::tcp(source, destination, (number, port), SYN),
            UDP => packets::udp(source, destination, (number, port)),
            SCTP => packets::sctp(source, destination, (number, port)),
            1 => packets::echo(source, destination, 8, number),
            58 => packets::echo(source, destination, 128, number),
            other => packets::ip(source, destination, other, &[0; 16]),
        }
    }

    /// Ports as an event tells them.
    pub(crate) fn told_ports(&self, number: u16) -> Option<(u16, u16)> {
        (self.sameness() == Sameness::Never).then_some((number, self.packet.port))
    }
}

pub(crate) fn ip(address: IpAddr) -> packets::Ip {
    match address {
        IpAddr::V4(four) => packets::Ip::V4(four.octets()),
        IpAddr::V6(six) => packets::Ip::V6(six.octets()),
    }
}

/// Ports that make a difference in a cluster, and those beside them.
pub(crate) fn interesting_ports(cluster: &Cluster) -> Vec<u16> {
    let of = |port: &NetworkPolicyPort| {
        let first = match port.port {
            Some(IntOrString::Int(number)) => u16::try_from(number).ok(),
            _ => None,
        };
        [first, port.end_port.and_then(|last| u16::try_from(last).ok())]
    };
    let ports = |policy: &NetworkPolicy| {
        let spec = policy.spec.iter();
        let ingress = spec.clone().flat_map(|spec| spec.ingress.iter().flatten());
        let egress = spec.flat_map(|spec| spec.egress.iter().flatten());
        let lists = ingress.map(|rule| &rule.ports).chain(egress.map(|rule| &rule.ports));
        lists.flat_map(|list| list.iter().flatten()).flat_map(of).flatten().collect::<Vec<_>>()
    };
    let mut all: BTreeSet<u16> = cluster.policies.iter().flat_map(ports).collect();
    all.extend(cluster.pods.iter().flat_map(|pod| &pod.ports).map(|port| port.number));
    all.extend([1, 65_534]);
    all.iter().flat_map(|port| [port.wrapping_sub(1), *port, port.wrapping_add(1)]).collect()
}

/// A probe, mostly where something may decide.
pub(crate) fn probe(random: &mut Random, cluster: &Cluster, ports: &[u16]) -> Probe {
    let slot = random.below(LOCAL);
    let direction = random.pick(&Direction::BOTH);
    let own = random.pick(&places::local(slot));
    let is_service = direction == Direction::Egress && random.chance(15);
    let services: Vec<_> =
        cluster.services.iter().filter(|s| s.address.is_ipv4() == own.is_ipv4()).collect();
    if is_service && !services.is_empty() {
        let service = services[random.below(services.len())];
        // Now and then a port that it does not have.
        let port = if random.chance(90) { service.port } else { random.pick(ports) };
        let packet = Packet {
            direction,
            source: own,
            destination: service.address,
            protocol: service.protocol.number(),
            port,
            by_node: false,
        };
        return Probe { slot, packet };
    }
    let others: Vec<IpAddr> =
        places::all().into_iter().filter(|ip| ip.is_ipv4() == own.is_ipv4()).collect();
    let other = random.pick(&others);
    let protocol = match random.below(10) {
        0..=3 => TCP,
        4..=5 => UDP,
        6..=7 => SCTP,
        8 if own.is_ipv4() => 1,
        8 => 58,
        _ => random.pick(&PORTLESS),
    };
    let has_ports = matches!(protocol, TCP | UDP | SCTP);
    let port = match random.below(10) {
        _ if !has_ports => 0,
        0 => 1 + random.below(9_998) as u16,
        _ => random.pick(ports),
    };
    let by_node = direction == Direction::Ingress && random.chance(5);
    let (source, destination) = match direction {
        Direction::Ingress => (other, own),
        Direction::Egress if random.chance(3) => (other, random.pick(&others)),
        Direction::Egress => (own, other),
    };
    let packet = Packet { direction, source, destination, protocol, port, by_node };
    Probe { slot, packet }
}
