//! The sender's hook for a Service's address: what it decides alone, and what it leaves to the hook
//! behind the translation.
//!
//! The virtual addresses are in the friends' class, so that whoever takes one for a plain address
//! allows what must be denied.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use enforcer::{
    cluster::{NodeAddress, plan::Plan},
    dataplane::{Cover, Covered},
};
use enforcer_common::{
    abi::{
        ANY_NODE_ADDRESS, Addr, CT_SERVICE, CT_SERVICE_LOCAL, ClassId, ClassPort, CtEntry, CtKey4,
        Direction::{Egress, Ingress},
        NodeBackend, SVC_NODE_MANY, SVC_OTHERS, Service, ServiceKey, event_kind, rule,
    },
    reason::Reason,
    verdict::proto::{TCP, UDP},
};

use crate::{
    interrupted::ip,
    lab::{FRIENDS, IFINDEX, Lab, NODE4, PASS, POD4, POD6, TABLE, all, endpoint, expect, http},
    packets::{ACK, SYN, tcp, udp},
};

const VIP4: [u8; 4] = [10, 96, 0, 10];
const VIP6: [u8; 16] = [0xfd, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
const BOTH: [bool; 2] = [true, true];
/// A port on which policy allows the friends.
const ALLOWED: u16 = 85;
/// One on which it denies them.
const DENIED: u16 = 8080;

fn addr(ip: impl Into<IpAddr>) -> Addr {
    match ip.into() {
        IpAddr::V4(ip) => Addr::v4(u32::from_ne_bytes(ip.octets())),
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            let word =
                |at: usize| u32::from_ne_bytes(octets[at * 4..at * 4 + 4].try_into().unwrap());
            Addr([word(0), word(1), word(2), word(3)])
        }
    }
}

fn key(addr: Addr, proto: u8) -> ServiceKey {
    ServiceKey { addr, port: 80, proto, _pad: 0 }
}

/// What stands behind a virtual address.
#[derive(Clone, Copy, Default)]
struct Behind<'a> {
    /// Backends elsewhere, as they are in the map.
    pairs: &'a [(ClassId, u16)],
    /// Ports of backends that are processes of the node.
    node: &'a [u16],
    flags: u16,
}

fn service(key: ServiceKey, behind: Behind<'_>) -> (ServiceKey, Service) {
    let mut service = Service { key, flags: behind.flags, ..Service::default() };
    for (slot, (class, port)) in service.pairs.iter_mut().zip(behind.pairs) {
        *slot = ClassPort { class: *class, port: *port, ..ClassPort::default() };
    }
    service.pair_count = behind.pairs.len().try_into().unwrap();
    for (slot, port) in service.node.iter_mut().zip(behind.node) {
        *slot = NodeBackend { addr: addr(NODE4), port: *port, _pad: 0 };
    }
    service.node_count = behind.node.len().try_into().unwrap();
    (key, service)
}

/// A strict lab whose virtual addresses are in the friends' class, with these Services.
fn lab(services: Vec<(ServiceKey, Service)>) -> Lab {
    with(Lab::strict(), services)
}

fn with(mut lab: Lab, services: Vec<(ServiceKey, Service)>) -> Lab {
    lab.plan(Plan {
        cidrs_set: vec![
            ("10.96.0.0/16".parse().unwrap(), FRIENDS),
            ("fd96::/64".parse().unwrap(), FRIENDS),
        ],
        services_set: services,
        ..Plan::default()
    });
    lab
}

/// Puts the node's address into the friends' class.
fn befriend_node(lab: &mut Lab) {
    let net = "10.0.0.254/32".parse().unwrap();
    lab.plan(Plan { cidrs_set: vec![(net, FRIENDS)], ..Plan::default() });
}

fn syn(port: u16) -> Vec<u8> {
    tcp(POD4, VIP4, (40_000, port), SYN)
}

/// What the hook says of a first packet to a Service with this behind it, and the rule that it names.
fn said(behind: Behind<'_>, node_is_friend: bool) -> (Reason, u32) {
    let mut lab = lab(vec![service(key(addr(VIP4), TCP), behind)]);
    if node_is_friend {
        befriend_node(&mut lab);
    }
    let outcome = lab.run(Egress, &syn(80));
    let [(kind, reason, rule)] = outcome.told[..] else { panic!("told once: {outcome:?}") };
    expect(&outcome, Egress, reason, true);
    assert_eq!(kind == event_kind::PENDING, reason == Reason::Pending, "{outcome:?}");
    (reason, rule)
}

#[test]
fn backends_elsewhere_are_denied_at_once_only_if_all_are() {
    let by_default = (Reason::PolicyDenied, rule::DEFAULT_DENY);
    let pending = (Reason::Pending, rule::NONE);
    // What it is, its backends, its flags, what is said.
    type Case = (&'static str, &'static [(ClassId, u16)], u16, (Reason, u32));
    let cases: [Case; 7] = [
        ("no slices", &[], 0, pending),
        ("too many to list", &[], SVC_OTHERS, pending),
        ("all denied", &[(FRIENDS, DENIED), (7, ALLOWED)], SVC_OTHERS, by_default),
        ("one allowed", &[(FRIENDS, DENIED), (FRIENDS, ALLOWED)], SVC_OTHERS, pending),
        ("the first allowed", &[(FRIENDS, ALLOWED), (7, ALLOWED)], SVC_OTHERS, pending),
        ("all allowed: a slice may be late", &[(FRIENDS, ALLOWED)], SVC_OTHERS, pending),
        ("one of the pod's own class may be itself", &[(0, DENIED)], SVC_OTHERS, pending),
    ];
    for (what, pairs, flags, expected) in cases {
        let behind = Behind { pairs, flags, ..Behind::default() };
        assert_eq!(said(behind, false), expected, "{what}");
    }
}

#[test]
fn backends_that_are_processes_of_the_node_are_judged_here() {
    let others: &[(ClassId, u16)] = &[(FRIENDS, ALLOWED)];
    let denied: &[(ClassId, u16)] = &[(FRIENDS, DENIED)];
    let by_default = (Reason::PolicyDenied, rule::DEFAULT_DENY);
    let pending = (Reason::Pending, rule::NONE);
    let mixed = |rule| (Reason::ServiceNodeBackend, rule);
    // What is behind it, whether the node's address may be reached, what is said.
    let cases: [(&str, Behind<'_>, bool, (Reason, u32)); 8] = [
        (
            "denied, among others",
            Behind { pairs: others, node: &[ALLOWED], flags: SVC_OTHERS },
            false,
            mixed(rule::DEFAULT_DENY),
        ),
        (
            "denied, and others that are not listed",
            Behind { node: &[ALLOWED], flags: SVC_OTHERS, ..Behind::default() },
            false,
            mixed(rule::DEFAULT_DENY),
        ),
        (
            "denied, and so are the others",
            Behind { pairs: denied, node: &[ALLOWED], flags: SVC_OTHERS },
            false,
            by_default,
        ),
        ("denied, alone", Behind { node: &[ALLOWED], ..Behind::default() }, false, by_default),
        ("allowed, alone", Behind { node: &[ALLOWED], ..Behind::default() }, true, pending),
        (
            "the second denied by its port",
            Behind { pairs: others, node: &[ALLOWED, DENIED], flags: SVC_OTHERS },
            true,
            mixed(rule::DEFAULT_DENY),
        ),
        (
            "allowed, and the others are not: the packet may be for it",
            Behind { pairs: denied, node: &[ALLOWED], flags: SVC_OTHERS },
            true,
            pending,
        ),
        (
            "more than are listed",
            Behind { node: &[ALLOWED, ALLOWED], flags: SVC_NODE_MANY, ..Behind::default() },
            true,
            mixed(rule::NONE),
        ),
    ];
    for (what, behind, node_is_friend, expected) in cases {
        assert_eq!(said(behind, node_is_friend), expected, "{what}");
    }
}

/// A Service whose one backend is denied.
fn denied(addr: Addr, proto: u8) -> (ServiceKey, Service) {
    let behind = Behind { pairs: &[(FRIENDS, DENIED)], flags: SVC_OTHERS, ..Behind::default() };
    service(key(addr, proto), behind)
}

/// One of whose backends one is allowed.
fn mixed(addr: Addr, proto: u8) -> (ServiceKey, Service) {
    let pairs: &[(ClassId, u16)] = &[(FRIENDS, DENIED), (FRIENDS, ALLOWED)];
    service(key(addr, proto), Behind { pairs, flags: SVC_OTHERS, ..Behind::default() })
}

#[test]
fn a_sender_that_nothing_isolates_is_held_up_by_no_backend() {
    let mut lab = with(Lab::new([true, false], [http(), http()]), vec![denied(addr(VIP4), TCP)]);
    lab.expect(Egress, &syn(80), Reason::NotIsolated, true);
    let mut lab = with(Lab::new([true, true], [http(), http()]), vec![denied(addr(VIP4), TCP)]);
    lab.expect(Egress, &syn(80), Reason::PolicyDenied, true);
}

#[test]
fn a_service_is_its_protocol_and_port_and_the_rest_of_its_address_is_plain() {
    let mut lab = lab(vec![denied(addr(VIP4), TCP)]);
    lab.expect(Egress, &syn(80), Reason::PolicyDenied, true);
    // By the class of the virtual address.
    lab.expect(Egress, &syn(81), Reason::Allowed, true);
    lab.expect(Egress, &syn(90), Reason::PolicyDenied, true);
    // No rule is for UDP.
    lab.expect(Egress, &udp(POD4, VIP4, (40_000, 80)), Reason::PolicyDenied, true);
}

#[test]
fn udp_and_ipv6_are_judged_for_their_own_backends() {
    // The friends may be sent anything, others nothing.
    let others = Behind { pairs: &[(7, 53)], flags: SVC_OTHERS, ..Behind::default() };
    let some = Behind { pairs: &[(7, 53), (FRIENDS, 53)], flags: SVC_OTHERS, ..Behind::default() };
    let at = |ip: IpAddr, behind, expected| {
        let mut lab =
            with(Lab::new(BOTH, [all(), all()]), vec![service(key(addr(ip), UDP), behind)]);
        let packet = match ip {
            IpAddr::V4(_) => udp(POD4, VIP4, (40_000, 80)),
            IpAddr::V6(_) => udp(POD6, VIP6, (40_000, 80)),
        };
        lab.expect(Egress, &packet, expected, true);
        // The same port of another protocol is no Service's.
        let plain = match ip {
            IpAddr::V4(_) => tcp(POD4, VIP4, (40_000, 80), SYN),
            IpAddr::V6(_) => tcp(POD6, VIP6, (40_000, 80), SYN),
        };
        lab.expect(Egress, &plain, Reason::Allowed, true);
    };
    for ip in [IpAddr::from(VIP4), IpAddr::from(VIP6)] {
        at(ip, others, Reason::PolicyDenied);
        at(ip, some, Reason::Pending);
    }
    // A process of the node is a backend of its own family's address only.
    let node = Behind { pairs: &[(FRIENDS, 53)], node: &[53], flags: SVC_OTHERS };
    at(VIP6.into(), node, Reason::Pending);
    at(VIP4.into(), node, Reason::ServiceNodeBackend);
}

#[test]
fn a_node_port_is_a_service_on_the_addresses_that_serve_it() {
    let to_node = |port| tcp(POD4, NODE4, (40_000, port), SYN);
    let purpose = |lab: &mut Lab, purpose| {
        let applied = lab.kernel.set_node_addresses([(IpAddr::from(NODE4), purpose)].into());
        assert!(applied.failures.is_empty());
    };
    let mut lab = lab(vec![mixed(ANY_NODE_ADDRESS, TCP)]);
    lab.expect(Egress, &to_node(80), Reason::Pending, true);
    // Without one, it is the node's address.
    lab.expect(Egress, &to_node(81), Reason::PolicyDenied, true);
    // Nobody else's address has node ports: this is by its class.
    lab.expect(Egress, &syn(80), Reason::Allowed, true);
    purpose(&mut lab, NodeAddress::Plain);
    // It may be for the node itself: both must be allowed.
    let again = tcp(POD4, NODE4, (40_001, 80), SYN);
    lab.expect(Egress, &again, Reason::PolicyDenied, true);
    befriend_node(&mut lab);
    lab.expect(Egress, &again, Reason::Pending, true);
    lab.expect(Egress, &to_node(81), Reason::Allowed, true);
    // The Service's backends are asked for as well.
    lab.plan(Plan { services_set: vec![denied(ANY_NODE_ADDRESS, TCP)], ..Plan::default() });
    let third = tcp(POD4, NODE4, (40_002, 80), SYN);
    lab.expect(Egress, &third, Reason::PolicyDenied, true);
}

#[test]
fn a_service_is_closed_while_packets_may_leave_unjudged_unless_all_its_backends_are_allowed() {
    const OTHER: u32 = 97;
    let key = |last: u8| key(addr([10, 96, 0, last]), TCP);
    let node = Behind { node: &[ALLOWED], ..Behind::default() };
    let allowed = Behind { pairs: &[(FRIENDS, ALLOWED)], flags: SVC_OTHERS, ..Behind::default() };
    let mut lab = lab(vec![
        service(key(1), Behind::default()),
        mixed(key(2).addr, TCP),
        service(key(3), allowed),
        service(key(4), node),
        denied(key(5).addr, TCP),
    ]);
    befriend_node(&mut lab);
    ip(&["link", "add", "other", "index", "97", "type", "bridge"]);
    let told = lab
        .kernel
        .cover(&BTreeMap::from([(OTHER, Arc::from("nosuch"))]), Cover::Except(&BTreeSet::new()));
    // A kernel without the hook of netfilter says that as well.
    let failed: Vec<_> = told.iter().filter(|told| !matches!(told, Covered::NoInput(_))).collect();
    assert_eq!(failed.len(), 1, "{told:?}");
    assert_eq!(lab.kernel.uncovered(), [Arc::from("nosuch")]);
    let first = |lab: &mut Lab, port: u16, expected: [Reason; 5]| {
        for (last, reason) in (1..).zip(expected) {
            let packet = tcp(POD4, [10, 96, 0, last], (port, 80), SYN);
            lab.expect(Egress, &packet, reason, true);
        }
    };
    use Reason::{Pending, PolicyDenied, ServiceUnjudged};
    first(&mut lab, 40_000, [ServiceUnjudged, ServiceUnjudged, Pending, Pending, PolicyDenied]);
    let told = lab
        .kernel
        .cover(&BTreeMap::from([(OTHER, Arc::from("other"))]), Cover::Except(&BTreeSet::new()));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(lab.kernel.uncovered().is_empty());
    first(&mut lab, 40_001, [Pending, Pending, Pending, Pending, PolicyDenied]);
}

fn flow() -> CtKey4 {
    CtKey4 {
        ifindex: IFINDEX,
        local: u32::from_ne_bytes(POD4),
        remote: u32::from_ne_bytes(VIP4),
        local_port: 40_000,
        remote_port: 80,
        proto: TCP.into(),
    }
}

fn entry(lab: &Lab) -> CtEntry {
    lab.kernel.flow4(&flow()).unwrap()
}

/// Opens the flow, whose first packet has this outcome, and has it answered.
fn establish(lab: &mut Lab, first: Reason) {
    lab.expect(Egress, &syn(80), first, true);
    assert_eq!(lab.run(Ingress, &tcp(VIP4, POD4, (80, 40_000), SYN | ACK)).code, PASS);
    assert_eq!(lab.run(Egress, &tcp(POD4, VIP4, (40_000, 80), ACK)).code, PASS);
}

fn goes_on(lab: &mut Lab) {
    for _ in 0..3 {
        lab.fast(Ingress, &tcp(VIP4, POD4, (80, 40_000), ACK));
        lab.fast(Egress, &tcp(POD4, VIP4, (40_000, 80), ACK));
    }
}

#[test]
fn an_established_flow_to_a_service_takes_the_fast_path() {
    let mut lab = lab(vec![mixed(addr(VIP4), TCP)]);
    establish(&mut lab, Reason::Pending);
    let before = entry(&lab);
    assert_eq!(before.service, CT_SERVICE);
    goes_on(&mut lab);
    let after = entry(&lab);
    assert!(after.origin.packets > before.origin.packets);
    let but_for_traffic = CtEntry { origin: before.origin, reply: before.reply, ..after };
    assert_eq!(but_for_traffic, before, "the fast path counts and writes nothing else");
}

#[test]
fn a_process_of_the_node_answers_only_where_the_service_has_one() {
    let answer = tcp(VIP4, POD4, (80, 40_000), SYN | ACK);
    let mut strange = lab(vec![mixed(addr(VIP4), TCP)]);
    strange.expect(Egress, &syn(80), Reason::Pending, true);
    let outcome = strange.run_from(Ingress, &answer, 0);
    expect(&outcome, Ingress, Reason::ServiceNodeBackend, true);
    // Who came in by an interface is a backend behind the translation.
    assert_eq!(strange.run(Ingress, &answer).code, PASS);

    let node = Behind { node: &[ALLOWED], ..Behind::default() };
    let mut known = lab(vec![service(key(addr(VIP4), TCP), node)]);
    befriend_node(&mut known);
    known.expect(Egress, &syn(80), Reason::Pending, true);
    assert_eq!(known.run_from(Ingress, &answer, 0).code, PASS);
    assert_ne!(entry(&known).service & CT_SERVICE_LOCAL, 0);
}

#[test]
fn a_flow_that_is_older_than_its_service_is_not_judged_by_its_answer() {
    let rejudged = || Plan {
        services_set: vec![mixed(addr(VIP4), TCP)],
        endpoints_set: vec![endpoint(TABLE, BOTH, true)],
        ..Plan::default()
    };
    let answer = tcp(VIP4, POD4, (80, 40_000), ACK);
    let mut lab = lab_with_flow();
    let before = entry(&lab);
    assert_eq!(before.service, 0);
    lab.plan(rejudged());
    // The virtual address's class would allow it; an entry with the new generation would be asked
    // no more.
    assert_eq!(lab.run(Ingress, &answer).code, PASS);
    let after = entry(&lab);
    assert_eq!(after.service, CT_SERVICE);
    assert_eq!(after.generation, before.generation);
    // Nor if the pod was first.
    assert_eq!(lab.run(Egress, &tcp(POD4, VIP4, (40_000, 80), ACK)).code, PASS);
    assert_eq!(entry(&lab).generation, before.generation);

    let mut local = lab_with_flow();
    local.plan(rejudged());
    let outcome = local.run_from(Ingress, &answer, 0);
    expect(&outcome, Ingress, Reason::ServiceNodeBackend, true);
}

/// A lab with an established flow to an address that is no Service's yet.
fn lab_with_flow() -> Lab {
    let mut lab = lab(vec![]);
    establish(&mut lab, Reason::Allowed);
    lab
}

#[test]
fn a_locked_pod_keeps_its_flows_to_services_and_opens_none() {
    let mut lab = lab(vec![mixed(addr(VIP4), TCP)]);
    establish(&mut lab, Reason::Pending);
    let room = lab.kernel.service_entries();
    let many: Vec<_> =
        (0..=room).map(|n| denied(addr(std::net::Ipv4Addr::from(0x0a61_0000 + n)), TCP)).collect();
    let applied = lab.kernel.apply(&Plan { services_set: many, ..Plan::default() });
    assert!(!applied.failures.is_empty());
    assert!(lab.kernel.locked(IFINDEX));
    goes_on(&mut lab);
    let new = tcp(POD4, VIP4, (40_001, 80), SYN);
    lab.expect(Egress, &new, Reason::Locked, true);
    // A changed policy asks the backend that the flow has, where its packets get.
    lab.plan(Plan { endpoints_set: vec![endpoint(TABLE, BOTH, true)], ..Plan::default() });
    assert!(lab.kernel.locked(IFINDEX));
    assert_eq!(lab.run(Egress, &tcp(POD4, VIP4, (40_000, 80), ACK)).code, PASS);
    assert_eq!(lab.run(Ingress, &tcp(VIP4, POD4, (80, 40_000), ACK)).code, PASS);
}
