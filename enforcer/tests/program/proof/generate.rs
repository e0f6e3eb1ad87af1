//! Random clusters in which much overlaps: few labels, names, ports and addresses, and every feature
//! of NetworkPolicy.

use std::net::IpAddr;

use enforcer_reference::{Cluster, Labels, Name, NamedPort, Namespace, Pod, Protocol, Service};
use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule,
        NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::{
    places::{self, LOCAL, NAMESPACES, REMOTE},
    random::Random,
};

const KEYS: [&str; 3] = ["app", "tier", "kubernetes.io/metadata.name"];
const VALUES: [&str; 3] = ["x", "y", "a"];
const PORT_NAMES: [&str; 3] = ["web", "dns", "rpc"];
/// Ports that rules and pods name.
const PORTS: [u16; 8] = [1, 53, 80, 81, 82, 443, 8080, 65_535];
const POLICIES: usize = 8;
const SERVICES: usize = 4;

/// A cluster from nothing.
pub(crate) fn cluster(random: &mut Random) -> Cluster {
    let mut cluster = Cluster { node: places::node().to_vec(), ..Cluster::default() };
    for slot in 0..LOCAL {
        cluster.pods.push(local_pod(random, slot));
    }
    for place in 0..REMOTE {
        set_remote(random, &mut cluster, place);
    }
    for name in NAMESPACES {
        set_namespace(random, &mut cluster, name);
    }
    for place in 0..POLICIES {
        set_policy(random, &mut cluster, place);
    }
    for number in 0..SERVICES {
        set_service(random, &mut cluster, number);
    }
    cluster
}

/// A cluster that has come out of another by a few changes.
pub(crate) fn next(random: &mut Random, cluster: &Cluster) -> Cluster {
    if random.chance(10) {
        return self::cluster(random);
    }
    let mut next = cluster.clone();
    for _ in 0..=random.below(4) {
        change(random, &mut next);
    }
    next
}

/// One change of one object.
pub(crate) fn change(random: &mut Random, cluster: &mut Cluster) {
    match random.below(10) {
        0 | 1 => {
            let slot = random.below(LOCAL);
            cluster.pods[slot] = local_pod(random, slot);
        }
        2 | 3 => {
            let place = random.below(REMOTE);
            set_remote(random, cluster, place);
        }
        4 => {
            let name = random.pick(&NAMESPACES);
            set_namespace(random, cluster, name);
        }
        5 => {
            let number = random.below(SERVICES);
            set_service(random, cluster, number);
        }
        _ => {
            let place = random.below(POLICIES);
            set_policy(random, cluster, place);
        }
    }
}

fn labels(random: &mut Random) -> Labels {
    let keys = KEYS.iter().filter(|_| random.chance(50)).copied().collect::<Vec<_>>();
    keys.into_iter().map(|key| (key.to_owned(), random.pick(&VALUES).to_owned())).collect()
}

fn named_ports(random: &mut Random) -> Vec<NamedPort> {
    random.several(4, |random| NamedPort {
        name: random.pick(&PORT_NAMES).to_owned(),
        protocol: random.pick(&Protocol::ALL),
        number: random.pick(&PORTS),
    })
}

fn local_pod(random: &mut Random, slot: usize) -> Pod {
    Pod {
        name: Name::new(NAMESPACES[slot % NAMESPACES.len()], &format!("local{slot}")),
        uid: format!("local{slot}"),
        labels: labels(random),
        addresses: places::local(slot),
        host_network: false,
        finished: false,
        terminating: false,
        started: 1,
        ports: named_ports(random),
    }
}

/// A pod elsewhere, or none. Its name goes with the place, its address mostly.
fn set_remote(random: &mut Random, cluster: &mut Cluster, place: usize) {
    let name = Name::new(NAMESPACES[place % NAMESPACES.len()], &format!("remote{place}"));
    cluster.pods.retain(|pod| pod.name != name);
    if random.chance(15) {
        return;
    }
    let at = if random.chance(25) { random.below(REMOTE) } else { place };
    let host_network = random.chance(10);
    let [four, six] = if host_network { places::node() } else { places::remote(at) };
    let addresses = match random.below(6) {
        0 => vec![four],
        1 => vec![six],
        _ => vec![four, six],
    };
    cluster.pods.push(Pod {
        name,
        uid: format!("u{}", random.below(2)),
        labels: labels(random),
        addresses,
        host_network,
        finished: random.chance(8),
        terminating: random.chance(20),
        started: random.below(3) as i64,
        ports: named_ports(random),
    });
}

fn set_namespace(random: &mut Random, cluster: &mut Cluster, name: &str) {
    cluster.namespaces.retain(|namespace| namespace.name != name);
    if random.chance(10) {
        return;
    }
    let mut labels = labels(random);
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
    cluster.namespaces.push(Namespace { name: name.to_owned(), labels });
}

fn set_service(random: &mut Random, cluster: &mut Cluster, number: usize) {
    let name = Name::new(random.pick(&NAMESPACES), &format!("service{number}"));
    cluster.services.retain(|service| service.name.name != name.name);
    if random.chance(20) {
        return;
    }
    let address = random.pick(&places::service(number));
    let places = places::all();
    let node = places::node();
    let behind = |ip: &IpAddr| ip.is_ipv4() == address.is_ipv4() && !node.contains(ip);
    let places: Vec<IpAddr> = places.into_iter().filter(behind).collect();
    let mut backends = random.several(4, |random| random.pick(&places));
    backends.sort_unstable();
    backends.dedup();
    cluster.services.push(Service {
        name,
        address,
        port: random.pick(&[80, 443]),
        protocol: random.pick(&Protocol::ALL),
        backends,
        target: random.pick(&PORTS),
    });
}

fn selector(random: &mut Random) -> LabelSelector {
    let match_labels = random.chance(40).then(|| labels(random));
    let match_expressions = random.chance(40).then(|| random.several(3, expression));
    LabelSelector { match_labels, match_expressions }
}

fn expression(random: &mut Random) -> LabelSelectorRequirement {
    let operator = random.pick(&["In", "NotIn", "Exists", "DoesNotExist"]);
    let mut values = vec![random.pick(&VALUES).to_owned()];
    values.extend(random.several(2, |random| random.pick(&VALUES).to_owned()));
    LabelSelectorRequirement {
        key: random.pick(&KEYS).to_owned(),
        operator: operator.to_owned(),
        values: operator.ends_with("In").then_some(values),
    }
}

/// A prefix of an address: mostly without the bits behind it, as people write them.
fn prefix(random: &mut Random, of: IpAddr, shortest: u8) -> ipnet::IpNet {
    let longest = if of.is_ipv4() { 32 } else { 128 };
    let usual: &[u8] = if of.is_ipv4() {
        &[0, 8, 15, 16, 23, 24, 25, 28, 30, 31, 32]
    } else {
        &[0, 8, 48, 56, 63, 64, 65, 112, 126, 127, 128]
    };
    let length = random.pick(usual).max(shortest).min(longest);
    let net = ipnet::IpNet::new(of, length).unwrap();
    if random.chance(90) { net.trunc() } else { net }
}

fn block(random: &mut Random) -> IPBlock {
    let addresses = places::all();
    let of = random.pick(&addresses);
    let cidr = prefix(random, of, 0);
    let inside: Vec<IpAddr> = addresses.into_iter().filter(|ip| cidr.contains(ip)).collect();
    let except = random.chance(50).then(|| {
        let excepts = random.several(4, |random| {
            let of = random.pick(&inside);
            prefix(random, of, cidr.prefix_len().saturating_add(1))
        });
        // The API wants them to be smaller than the block.
        let smaller = excepts.into_iter().filter(|net| net.prefix_len() > cidr.prefix_len());
        smaller.map(|net| net.to_string()).collect()
    });
    IPBlock { cidr: cidr.to_string(), except }
}

fn peer(random: &mut Random) -> NetworkPolicyPeer {
    let mut peer = NetworkPolicyPeer::default();
    match random.below(5) {
        0 => peer.pod_selector = Some(selector(random)),
        1 => peer.namespace_selector = Some(selector(random)),
        2 => {
            peer.pod_selector = Some(selector(random));
            peer.namespace_selector = Some(selector(random));
        }
        _ => peer.ip_block = Some(block(random)),
    }
    peer
}

fn port(random: &mut Random) -> NetworkPolicyPort {
    let number = |number: u16| Some(IntOrString::Int(number.into()));
    let (port, end_port) = match random.below(8) {
        0 => (None, None),
        1..=3 => (number(random.pick(&PORTS)), None),
        4 | 5 => {
            let first = random.pick(&PORTS);
            let last = random.pick(&PORTS).max(first);
            (number(first), Some(last.into()))
        }
        _ => (Some(IntOrString::String(random.pick(&PORT_NAMES).to_owned())), None),
    };
    let protocol = random.pick(&[None, Some("TCP"), Some("UDP"), Some("SCTP")]);
    NetworkPolicyPort { port, end_port, protocol: protocol.map(str::to_owned) }
}

/// What a rule names: nothing, an empty list, or a few.
fn list<T>(random: &mut Random, one: impl FnMut(&mut Random) -> T) -> Option<Vec<T>> {
    random.chance(70).then(|| random.several(4, one))
}

/// A policy in a place, or none.
fn set_policy(random: &mut Random, cluster: &mut Cluster, place: usize) {
    let name = format!("policy{place}");
    cluster.policies.retain(|policy| policy.metadata.name.as_deref() != Some(&*name));
    if random.chance(25) {
        return;
    }
    let ingress = random.chance(75).then(|| {
        random.several(4, |random| NetworkPolicyIngressRule {
            from: list(random, peer),
            ports: list(random, port),
        })
    });
    let egress = random.chance(60).then(|| {
        random.several(4, |random| NetworkPolicyEgressRule {
            to: list(random, peer),
            ports: list(random, port),
        })
    });
    let types: &[&[&str]] = &[&["Ingress"], &["Egress"], &["Ingress", "Egress"]];
    let policy_types = random.chance(60).then(|| {
        let types = random.pick(types);
        types.iter().map(|name| (*name).to_owned()).collect()
    });
    // A policy that selects few pods leaves the rest to be not isolated.
    let pod_selector = if random.chance(30) { LabelSelector::default() } else { selector(random) };
    cluster.policies.push(NetworkPolicy {
        metadata: ObjectMeta {
            namespace: Some(random.pick(&NAMESPACES).to_owned()),
            name: Some(name),
            ..ObjectMeta::default()
        },
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(pod_selector),
            policy_types,
            ingress,
            egress,
        }),
    });
}
