//! What policies mean, case by case, through the maps.

use enforcer_common::{
    abi::Direction::{self, Egress, Ingress},
    verdict::proto::{ICMP, ICMPV6, SCTP, TCP, UDP},
};

use super::{
    address, apply_pod, apply_policy, apply_veth, drain, index,
    kernel::{Probe, verdict},
    named_port, namespace, pod, policy,
};
use crate::cluster::{
    Index,
    event::{Event, Protocol},
};

/// A client and a server in namespace `a`, a stranger in `b` (label `team=x`); the server's
/// interface is 7.
fn cluster() -> Index {
    let mut index = index();
    for (name, of) in [("a", ""), ("b", "team=x")] {
        index.apply(Event::NamespaceApplied(namespace(name, of)));
    }
    let mut server = pod("a/server", "app=server", "10.0.0.1,fd00::1");
    server.ports =
        vec![named_port("web", Protocol::Tcp, 8080), named_port("web", Protocol::Udp, 8081)];
    apply_pod(&mut index, server);
    let mut client = pod("a/client", "app=client", "10.0.0.2,fd00::2");
    client.ports =
        vec![named_port("web", Protocol::Tcp, 9090), named_port("web", Protocol::Tcp, 9091)];
    apply_pod(&mut index, client);
    apply_pod(&mut index, pod("b/stranger", "app=client", "10.0.1.1,fd00:0:0:1::1"));
    apply_veth(&mut index, 7, "10.0.0.1,fd00::1");
    index
}

const CLIENT: &str = "10.0.0.2";
const CLIENT6: &str = "fd00::2";
const STRANGER: &str = "10.0.1.1";
const OUTSIDE: &str = "192.0.2.1";

/// Policies on the server, then probes `(direction, other, protocol, port, allowed)`.
fn check(policies: &[&str], probes: &[(Direction, &str, u8, u16, bool)]) {
    let mut index = cluster();
    for (number, spec) in policies.iter().enumerate() {
        apply_policy(&mut index, policy(&format!("a/p{number}"), spec));
    }
    drain(&mut index);
    let state = index.snapshot();
    for (direction, other, protocol, port, allowed) in probes.iter().copied() {
        let other = address(other);
        let probe = Probe { ifindex: 7, direction, other, protocol, port };
        assert_eq!(verdict(&state, &probe), Some(allowed), "{policies:?}: {probe:?}");
    }
}

const SERVER: &str = "podSelector: {matchLabels: {app: server}}";

fn ingress(rules: &str) -> String {
    format!("{SERVER}, ingress: [{rules}]")
}

fn egress(rules: &str) -> String {
    format!("{SERVER}, policyTypes: [Egress], egress: [{rules}]")
}

#[test]
fn without_a_policy_everything_passes() {
    let other = "podSelector: {matchLabels: {app: client}}, policyTypes: [Ingress, Egress]";
    for policies in [&[][..], &[other]] {
        let probes = [(Ingress, OUTSIDE, TCP, 1, true), (Egress, CLIENT, ICMP, 0, true)];
        check(policies, &probes);
    }
}

#[test]
fn a_policy_isolates_its_directions_only() {
    check(&[SERVER], &[(Ingress, CLIENT, TCP, 80, false), (Egress, CLIENT, TCP, 80, true)]);
    let both = format!("{SERVER}, policyTypes: [Ingress, Egress]");
    check(&[&both], &[(Ingress, CLIENT6, UDP, 80, false), (Egress, OUTSIDE, TCP, 80, false)]);
    let egress = format!("{SERVER}, policyTypes: [Egress]");
    check(&[&egress], &[(Ingress, CLIENT, TCP, 80, true), (Egress, CLIENT, TCP, 80, false)]);
    let derived = format!("{SERVER}, egress: [{{}}]");
    check(&[&derived], &[(Ingress, CLIENT, TCP, 80, false), (Egress, OUTSIDE, ICMP, 0, true)]);
}

#[test]
fn an_empty_rule_allows_everything_and_rules_are_a_union() {
    check(
        &[SERVER, &ingress("{}")],
        &[
            (Ingress, CLIENT, TCP, 80, true),
            (Ingress, OUTSIDE, ICMP, 0, true),
            (Ingress, "2001:db8::1", 89, 0, true),
        ],
    );
}

#[test]
fn peers_are_pods_by_pod_and_namespace() {
    let local = ingress("{from: [{podSelector: {matchLabels: {app: client}}}]}");
    check(
        &[&local],
        &[
            (Ingress, CLIENT, TCP, 80, true),
            (Ingress, CLIENT6, ICMPV6, 0, true),
            (Ingress, STRANGER, TCP, 80, false),
            (Ingress, OUTSIDE, TCP, 80, false),
        ],
    );
    let everywhere = ingress("{from: [{namespaceSelector: {}}]}");
    check(
        &[&everywhere],
        &[
            (Ingress, CLIENT, TCP, 80, true),
            (Ingress, STRANGER, TCP, 80, true),
            (Ingress, OUTSIDE, TCP, 80, false),
        ],
    );
    let and =
        "{namespaceSelector: {matchLabels: {team: x}}, podSelector: {matchLabels: {app: server}}}";
    check(&[&ingress(&format!("{{from: [{and}]}}"))], &[(Ingress, STRANGER, TCP, 80, false)]);
    let or = "{namespaceSelector: {matchLabels: {team: x}}}, {podSelector: {matchLabels: {app: client}}}";
    check(
        &[&ingress(&format!("{{from: [{or}]}}"))],
        &[(Ingress, STRANGER, TCP, 80, true), (Ingress, CLIENT, TCP, 80, true)],
    );
    let by_name = "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}}";
    check(
        &[&ingress(&format!("{{from: [{by_name}]}}"))],
        &[(Ingress, STRANGER, TCP, 80, true), (Ingress, CLIENT, TCP, 80, false)],
    );
}

#[test]
fn blocks_match_addresses_pods_too_and_excepts_take_from_their_own_block_only() {
    let block = "{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/24]}}]}";
    let other = "{from: [{ipBlock: {cidr: 10.0.0.2/32}}], ports: [{port: 80}]}";
    check(
        &[&ingress(block)],
        &[
            (Ingress, STRANGER, TCP, 80, true),
            (Ingress, "10.9.9.9", ICMP, 0, true),
            (Ingress, CLIENT, TCP, 80, false),
            (Ingress, OUTSIDE, TCP, 80, false),
            (Ingress, CLIENT6, TCP, 80, false),
        ],
    );
    check(
        &[&ingress(block), &ingress(other)],
        &[(Ingress, CLIENT, TCP, 80, true), (Ingress, CLIENT, TCP, 81, false)],
    );
    let all4 = ingress("{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}");
    check(&[&all4], &[(Ingress, OUTSIDE, TCP, 80, true), (Ingress, CLIENT6, TCP, 80, false)]);
    let all6 = ingress("{from: [{ipBlock: {cidr: '::/0', except: ['fd00::/64']}}]}");
    check(
        &[&all6],
        &[
            (Ingress, CLIENT, TCP, 80, false),
            (Ingress, CLIENT6, TCP, 80, false),
            (Ingress, "fd00:0:0:1::1", TCP, 80, true),
        ],
    );
}

#[test]
fn ports_are_exact_and_protocols_without_ports_need_a_rule_without_ports() {
    let list =
        "{ports: [{port: 80}, {protocol: UDP, port: 1000, endPort: 2000}, {protocol: SCTP}]}";
    check(
        &[&ingress(list)],
        &[
            (Ingress, CLIENT, TCP, 80, true),
            (Ingress, CLIENT, TCP, 79, false),
            (Ingress, CLIENT, TCP, 81, false),
            (Ingress, CLIENT, UDP, 80, false),
            (Ingress, CLIENT, UDP, 999, false),
            (Ingress, CLIENT, UDP, 1000, true),
            (Ingress, CLIENT, UDP, 2000, true),
            (Ingress, CLIENT, UDP, 2001, false),
            (Ingress, CLIENT, SCTP, 0, true),
            (Ingress, CLIENT, SCTP, 65_535, true),
            (Ingress, CLIENT, ICMP, 0, false),
        ],
    );
}

#[test]
fn a_port_name_is_the_number_on_the_destination() {
    let in_web = ingress("{ports: [{port: web}, {protocol: UDP, port: web}]}");
    check(
        &[&in_web],
        &[
            (Ingress, CLIENT, TCP, 8080, true),
            (Ingress, CLIENT, UDP, 8081, true),
            (Ingress, CLIENT, TCP, 8081, false),
            (Ingress, CLIENT, TCP, 9090, false),
        ],
    );
    // The client's two containers have the name for two numbers, the stranger has it not, and
    // an address that is no pod's has no names, even inside an ipBlock.
    let out_web = "{ports: [{port: web}]}";
    let out_block = "{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: web}]}";
    for rules in [out_web, out_block] {
        check(
            &[&egress(rules)],
            &[
                (Egress, CLIENT, TCP, 9090, true),
                (Egress, CLIENT, TCP, 9091, true),
                (Egress, CLIENT, UDP, 9090, false),
                (Egress, CLIENT, TCP, 8080, false),
                (Egress, STRANGER, TCP, 9090, false),
                (Egress, OUTSIDE, TCP, 9090, false),
            ],
        );
    }
    let stranger_only =
        "{to: [{namespaceSelector: {matchLabels: {team: x}}}], ports: [{port: web}]}";
    check(&[&egress(stranger_only)], &[(Egress, CLIENT, TCP, 9090, false)]);
}

#[test]
fn what_is_no_pod_of_the_pod_network_matches_no_selector() {
    let mut index = cluster();
    apply_policy(&mut index, policy("a/p", &ingress("{from: [{namespaceSelector: {}}]}")));
    let mut host = pod("a/host", "app=client", "10.0.9.1");
    host.host_network = true;
    let mut finished = pod("a/job", "app=client", "10.0.9.2");
    finished.finished = true;
    apply_pod(&mut index, host);
    apply_pod(&mut index, finished);
    apply_pod(&mut index, pod("new/pod", "", "10.0.9.3"));
    drain(&mut index);
    let state = index.snapshot();
    for (other, allowed) in [("10.0.9.1", false), ("10.0.9.2", false), ("10.0.9.3", true)] {
        let other = address(other);
        let probe = Probe { ifindex: 7, direction: Ingress, other, protocol: TCP, port: 80 };
        assert_eq!(verdict(&state, &probe), Some(allowed), "{other}");
    }
}

#[test]
fn the_later_started_of_two_pods_has_the_address() {
    let mut index = cluster();
    apply_policy(
        &mut index,
        policy("a/p", &ingress("{from: [{podSelector: {matchLabels: {app: new}}}]}")),
    );
    let mut new = pod("a/new", "app=new", CLIENT);
    new.started = 5;
    let probe =
        Probe { ifindex: 7, direction: Ingress, other: address(CLIENT), protocol: TCP, port: 1 };
    for (finished, allowed) in [(false, true), (true, false)] {
        new.finished = finished;
        apply_pod(&mut index, new.clone());
        drain(&mut index);
        assert_eq!(verdict(&index.snapshot(), &probe), Some(allowed));
    }
}

#[test]
fn only_what_policies_ask_is_in_the_kernel() {
    let mut index = cluster();
    drain(&mut index);
    assert!(index.snapshot().peers.is_empty() && index.snapshot().rows.is_empty());
    let rule = "{from: [{podSelector: {matchLabels: {app: client}}}, {ipBlock: {cidr: 10.0.0.0/8, \
                except: [10.1.0.0/16]}}]}";
    apply_policy(&mut index, policy("a/p", &ingress(rule)));
    // A policy that selects no local pod asks nothing.
    apply_policy(
        &mut index,
        policy("b/q", "podSelector: {}, ingress: [{from: [{podSelector: {}}]}]"),
    );
    drain(&mut index);
    let state = index.snapshot();
    let peers: Vec<_> = state.peers.keys().copied().collect();
    assert_eq!(peers, [address(CLIENT), address(CLIENT6)]);
    assert_eq!(state.cidrs.values().filter(|class| **class == 0).count(), 1, "the except is 0");
    assert_eq!(state.cidrs.len(), 2);
    index.apply(Event::PolicyDeleted(super::key("a", "p")));
    drain(&mut index);
    let state = index.snapshot();
    assert!(state.peers.is_empty() && state.cidrs.is_empty() && state.rows.is_empty());
    let counts = index.status().counts;
    assert_eq!((counts.classes, counts.tables, counts.policies), (0, 1, 1));
}

#[test]
fn a_verdict_names_the_first_rule_in_order() {
    use enforcer_common::{abi::rule::DEFAULT_DENY, verdict::search};

    use crate::cluster::plan::NameChange;
    let mut index = cluster();
    apply_policy(&mut index, policy("a/z", &ingress("{}")));
    apply_policy(
        &mut index,
        policy("a/b", &ingress("{ports: [{port: 1}]}, {ports: [{port: 80}]}")),
    );
    let plans = drain(&mut index);
    let state = index.snapshot();
    let row = state.rows.values().next().unwrap();
    let name = |key| {
        let number = search(row, key).unwrap().rule;
        plans.iter().flat_map(|plan| &plan.names).find_map(|name| match name {
            NameChange::Rule(id, rule) if *id == number => {
                Some((rule.policy.name.to_string(), rule.index))
            }
            _ => None,
        })
    };
    assert_eq!(name(65_536 + 80), Some(("b".to_owned(), 1)));
    assert_eq!(name(65_536 + 1), Some(("b".to_owned(), 0)));
    assert_eq!(name(0), Some(("z".to_owned(), 0)));
    index.apply(Event::PolicyDeleted(super::key("a", "z")));
    drain(&mut index);
    let state = index.snapshot();
    let row = state.rows.values().next().unwrap();
    assert_eq!(search(row, 0).unwrap().rule, DEFAULT_DENY);
}
