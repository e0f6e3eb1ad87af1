//! Random small clusters in which much overlaps: few labels, names, addresses and prefixes.

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
use proptest::{option, prelude::*, sample::select, strategy::Union};

use super::{address, key, labels, named_port};
use crate::cluster::event::{NamedPort, Namespace, Pod, Protocol};

pub(super) const NAMESPACES: [&str; 3] = ["a", "b", "c"];
/// Number of names that pods have.
pub(super) const PODS: usize = 6;
/// Every address that a pod can have, by place, IPv4 and IPv6.
pub(super) const POD_ADDRESSES: [[&str; 2]; PODS] = [
    ["10.0.0.1", "fd00::1"],
    ["10.0.0.2", "fd00::2"],
    ["10.0.1.1", "fd00:0:0:1::1"],
    ["10.0.1.2", "fd00:0:0:1::2"],
    ["10.1.0.1", "fd01::1"],
    ["172.16.0.1", "fd02::1"],
];
/// Addresses that no pod has.
pub(super) const OUTSIDE: [&str; 4] = ["10.0.1.200", "10.9.0.1", "192.0.2.1", "fd00:0:0:1::99"];

const CIDRS: [&str; 12] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/23",
    "10.0.1.0/24",
    "10.0.1.0/30",
    "10.0.1.2/32",
    "10.9.0.0/16",
    "::/0",
    "fd00::/8",
    "fd00::/48",
    "fd00:0:0:1::/64",
    "fd00:0:0:1::2/128",
];
const PORT_NAMES: [&str; 2] = ["web", "dns"];

fn some_labels() -> impl Strategy<Value = String> {
    (option::of(select(vec!["1", "2"])), option::of(select(vec!["1", "2"]))).prop_map(|(x, y)| {
        let pair = |key, value: Option<&str>| value.map(|value| format!("{key}={value}"));
        [pair("x", x), pair("y", y)].into_iter().flatten().collect::<Vec<_>>().join(",")
    })
}

fn ports() -> impl Strategy<Value = Vec<NamedPort>> {
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp]);
    let one = (select(PORT_NAMES.to_vec()), protocol, select(vec![80, 81, 8080]));
    prop::collection::vec(one.prop_map(|(name, protocol, n)| named_port(name, protocol, n)), 0..3)
}

/// A pod in one of the places. Its name goes with the place, its address mostly.
pub(super) fn pod(place: usize) -> impl Strategy<Value = Pod> {
    let elsewhere = prop_oneof![9 => Just(place), 1 => 0..PODS];
    let flags = (0..12u8, option::of(0..3usize));
    (some_labels(), elsewhere, flags, ports(), 0..3i64).prop_map(
        move |(of, at, (flag, family), ports, started)| Pod {
            key: key(NAMESPACES[place % NAMESPACES.len()], &format!("p{place}")),
            uid: if flag % 3 == 0 { "".into() } else { format!("u{at}").into() },
            labels: labels(&of),
            addresses: POD_ADDRESSES[at]
                .iter()
                .enumerate()
                .filter(|(number, _)| family != Some(*number))
                .map(|(_, text)| address(text))
                .collect(),
            host_network: flag == 10,
            finished: flag == 11,
            terminating: flag == 9,
            started,
            containers_started: None,
            ports,
            node: None,
            workload: None,
        },
    )
}

pub(super) fn namespace(place: usize) -> impl Strategy<Value = Namespace> {
    some_labels().prop_map(move |of| super::namespace(NAMESPACES[place], &of))
}

fn selector() -> impl Strategy<Value = LabelSelector> {
    let values = prop::collection::vec(select(vec!["1".to_owned(), "2".to_owned()]), 1..3);
    let operator = select(vec!["In", "NotIn", "Exists", "DoesNotExist"]);
    let expression =
        (select(vec!["x", "y"]), operator, values).prop_map(|(key, operator, values)| {
            LabelSelectorRequirement {
                key: key.to_owned(),
                operator: operator.to_owned(),
                values: operator.ends_with("In").then_some(values),
            }
        });
    let expressions = prop::collection::vec(expression, 1..3);
    prop_oneof![
        2 => Just(LabelSelector::default()),
        3 => some_labels().prop_map(|of| LabelSelector {
            match_labels: Some(labels(&of).to_map()),
            match_expressions: None,
        }),
        2 => expressions.prop_map(|list| LabelSelector {
            match_labels: None,
            match_expressions: Some(list),
        }),
    ]
}

fn block() -> impl Strategy<Value = IPBlock> {
    (0..CIDRS.len(), prop::collection::vec(0..CIDRS.len(), 0..3)).prop_map(|(cidr, excepts)| {
        let net = |at: usize| CIDRS[at].parse::<ipnet::IpNet>().unwrap();
        let inside = |at: &usize| *at != cidr && net(cidr).contains(&net(*at));
        let except = excepts.into_iter().filter(inside).map(|at| CIDRS[at].to_owned()).collect();
        IPBlock { cidr: CIDRS[cidr].to_owned(), except: Some(except) }
    })
}

fn peer() -> impl Strategy<Value = NetworkPolicyPeer> {
    let of = |pod_selector, namespace_selector, ip_block| NetworkPolicyPeer {
        pod_selector,
        namespace_selector,
        ip_block,
    };
    prop_oneof![
        selector().prop_map(move |pods| of(Some(pods), None, None)),
        selector().prop_map(move |namespaces| of(None, Some(namespaces), None)),
        (selector(), selector()).prop_map(move |(p, n)| of(Some(p), Some(n), None)),
        block().prop_map(move |block| of(None, None, Some(block))),
    ]
}

fn port() -> impl Strategy<Value = NetworkPolicyPort> {
    let number = prop_oneof![
        1 => Just((None, None)),
        3 => select(vec![80, 81, 8080]).prop_map(|n| (Some(IntOrString::Int(n)), None)),
        2 => Just((Some(IntOrString::Int(80)), Some(81))),
        3 => select(PORT_NAMES.to_vec())
            .prop_map(|name| (Some(IntOrString::String(name.to_owned())), None)),
    ];
    let protocol = select(vec![None, Some("TCP"), Some("UDP"), Some("SCTP")]);
    (number, protocol).prop_map(|((port, end_port), protocol)| NetworkPolicyPort {
        port,
        end_port,
        protocol: protocol.map(str::to_owned),
    })
}

/// A policy in one of a few places, so that later ones replace earlier ones.
pub(super) fn policy(place: usize) -> impl Strategy<Value = NetworkPolicy> {
    let peers = || option::weighted(0.8, prop::collection::vec(peer(), 0..3));
    let ports = || option::weighted(0.6, prop::collection::vec(port(), 0..3));
    let ingress =
        (peers(), ports()).prop_map(|(from, ports)| NetworkPolicyIngressRule { from, ports });
    let egress = (peers(), ports()).prop_map(|(to, ports)| NetworkPolicyEgressRule { to, ports });
    let types = Union::new([
        Just(None).boxed(),
        select(vec![vec!["Ingress"], vec!["Egress"], vec!["Ingress", "Egress"]])
            .prop_map(|types| Some(types.into_iter().map(str::to_owned).collect()))
            .boxed(),
    ]);
    let rules = (
        option::of(prop::collection::vec(ingress, 0..3)),
        option::of(prop::collection::vec(egress, 0..3)),
    );
    (selector(), types, rules).prop_map(move |(subject, policy_types, (ingress, egress))| {
        NetworkPolicy {
            metadata: ObjectMeta {
                namespace: Some(NAMESPACES[place % 2].to_owned()),
                name: Some(format!("n{place}")),
                ..ObjectMeta::default()
            },
            spec: Some(NetworkPolicySpec {
                pod_selector: Some(subject),
                policy_types,
                ingress,
                egress,
            }),
        }
    })
}
