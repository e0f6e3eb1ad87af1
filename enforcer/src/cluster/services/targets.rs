//! What a Service's addresses stand for: from the Service and its slices to virtual addresses and
//! ports, and the backends behind each.

use std::{collections::BTreeSet, net::IpAddr};

use enforcer_common::{
    abi::{ANY_NODE_ADDRESS, Addr, REST_OF_SERVICES, ServiceKey},
    verdict::proto,
};

use crate::cluster::{
    event::{EndpointSlice, Protocol, Service, ServicePort, SlicePort},
    interfaces::canonical,
};

/// A backend: an address, and the port on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Target {
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

/// Virtual addresses and ports with the same backends.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Wanted {
    pub(super) keys: BTreeSet<ServiceKey>,
    pub(super) targets: BTreeSet<Target>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    V4,
    V6,
}

impl Family {
    const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// An address as the maps hold it.
pub(super) fn addr(address: IpAddr) -> Addr {
    Addr::from_octets(match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    })
}

/// A virtual address of a key; `None` for a node port.
pub(super) fn address(key: &ServiceKey) -> Option<IpAddr> {
    (key.addr != ANY_NODE_ADDRESS).then(|| IpAddr::from(key.addr.octets()).to_canonical())
}

/// The addresses of a Service that a proxy translates, each once.
///
/// A proxy serves a Service in the families of its cluster addresses only. Where none is given, as
/// in a manifest that leaves the choice to the API server, both count.
pub(super) fn virtual_addresses(service: &Service) -> Vec<IpAddr> {
    if service.headless {
        return Vec::new();
    }
    let Service { cluster_ips, external_ips, load_balancer_ips, .. } = service;
    let all = [cluster_ips, external_ips, load_balancer_ips].into_iter().flatten();
    let mut all = canonical(&all.copied().collect::<Vec<_>>());
    // `::` is what the key of a node port says.
    all.retain(|address| !address.is_unspecified() && serves(service, Family::of(address)));
    all
}

fn serves(service: &Service, family: Family) -> bool {
    let cluster = &service.cluster_ips;
    cluster.is_empty() || cluster.iter().any(|ip| Family::of(&ip.to_canonical()) == family)
}

/// What must be known of a Service: a group for each of its ports and families.
pub(super) fn wanted(service: &Service, slices: &[&EndpointSlice]) -> Vec<Wanted> {
    if service.headless {
        return Vec::new();
    }
    let addresses = virtual_addresses(service);
    let mut groups = Vec::new();
    for port in service.ports.iter().filter(|port| port.port != 0) {
        for family in Family::BOTH.into_iter().filter(|family| serves(service, *family)) {
            let own = addresses.iter().filter(|address| Family::of(address) == family);
            let key = |addr, number| ServiceKey {
                addr,
                port: number,
                proto: protocol(port.protocol),
                _pad: 0,
            };
            let node = port.node_port.filter(|number| *number != 0);
            let node = node.map(|number| key(ANY_NODE_ADDRESS, number));
            let keys: BTreeSet<_> =
                own.map(|address| key(addr(*address), port.port)).chain(node).collect();
            if !keys.is_empty() {
                groups.push(Wanted { keys, targets: targets(port, family, slices) });
            }
        }
    }
    groups
}

/// How many keys [`wanted`] has, those that two ports share counted twice. An object can ask for
/// more than there is memory, so they are not made for this.
pub(super) fn count(service: &Service) -> usize {
    let addresses = virtual_addresses(service).len();
    let node_ports =
        |port: &ServicePort| usize::from(port.node_port.is_some_and(|number| number != 0));
    let ports = service.ports.iter().filter(|port| port.port != 0 && !service.headless);
    ports.fold(0, |sum, port| sum.saturating_add(addresses).saturating_add(node_ports(port)))
}

/// What must be known of a Service that has no entries of its own: where its endpoints are. Their
/// port is none, which only a rule for all ports allows: it counts for processes of this node only.
pub(super) fn rest(slices: &[&EndpointSlice]) -> Wanted {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let first = endpoints.filter_map(|endpoint| endpoint.addresses.first());
    let targets = first.map(|address| Target { address: address.to_canonical(), port: 0 });
    Wanted { keys: BTreeSet::from([REST_OF_SERVICES]), targets: targets.collect() }
}

fn protocol(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => proto::TCP,
        Protocol::Udp => proto::UDP,
        Protocol::Sctp => proto::SCTP,
    }
}

/// The backends of a port. Every endpoint counts, whatever its state and the Service's traffic
/// policies: which ones a proxy takes is the proxy's to decide.
fn targets(port: &ServicePort, family: Family, slices: &[&EndpointSlice]) -> BTreeSet<Target> {
    let mut targets = BTreeSet::new();
    for slice in slices {
        let of_port = |one: &&SlicePort| one.name == port.name && one.protocol == port.protocol;
        for slice_port in slice.ports.iter().filter(of_port) {
            // None stands for all ports (`discovery/v1` `EndpointPort`).
            let number = slice_port.port.unwrap_or(port.port);
            let first = slice.endpoints.iter().filter_map(|endpoint| endpoint.addresses.first());
            for address in first.map(IpAddr::to_canonical) {
                if number != 0 && Family::of(&address) == family {
                    targets.insert(Target { address, port: number });
                }
            }
        }
    }
    targets
}
