//! Packets and sequences of someone who wants through, and failures that must not open a pod.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use enforcer::{
    cluster::plan::Plan,
    dataplane::netlink::conntrack::{KernelFlow, Tuple},
};
use enforcer_common::{
    abi::Direction::{Egress, Ingress},
    reason::Reason,
    verdict::proto::{ICMP, TCP, UDP},
};

use crate::{
    lab::{
        DROP, FRIEND4, FRIEND6, IFINDEX, Lab, NODE4, PASS, POD4, POD6, RULE, STRANGER4, STRANGER6,
        all, endpoint, expect, http, key,
    },
    packets::{
        ACK, FIN, RST, SYN, echo, error, ethernet, icmp, tcp, tcp_header, udp, udp_header, v4, v6,
    },
};

/// Isolated both ways, with an agent's first arrival under way on a node that tracks nothing.
fn arriving(rows: [Arc<[enforcer_common::abi::Interval]>; 2]) -> Lab {
    let mut lab = Lab::strict();
    lab.plan(Plan { endpoints_removed: vec![IFINDEX], ..Plan::default() });
    lab.kernel.arrive(None);
    let [ingress, egress] = rows;
    lab.plan(Plan {
        rows_added: vec![
            (key(crate::lab::FRIENDS, Ingress), ingress),
            (key(crate::lab::FRIENDS, Egress), egress),
        ],
        endpoints_set: vec![endpoint(5, [true, true], false)],
        ..Plan::default()
    });
    lab
}

#[test]
fn what_is_picked_up_as_a_reply_does_not_open_the_other_way() {
    // The friend may open everything, the pod nothing but TCP 80 to 89.
    for first in [ACK, 0, 0x08, FIN] {
        let mut lab = arriving([all(), http()]);
        let middle = lab.run(Egress, &tcp(POD4, FRIEND4, (5_000, 22), first));
        assert_eq!(middle.code, PASS, "{middle:?}");
        let open = tcp(POD4, FRIEND4, (5_000, 22), SYN);
        lab.expect(Egress, &open, Reason::PolicyDenied, true);
    }
    // The node may open everything.
    let mut lab = arriving([http(), http()]);
    let middle = lab.run(Egress, &tcp(POD4, NODE4, (5_000, 22), ACK));
    assert_eq!(middle.code, PASS, "{middle:?}");
    let open = tcp(POD4, NODE4, (5_000, 22), SYN);
    lab.expect(Egress, &open, Reason::PolicyDenied, true);
}

#[test]
fn a_refused_connection_does_not_open_the_other_way() {
    let mut lab = Lab::strict();
    lab.expect(Egress, &tcp(POD4, FRIEND4, (50_000, 80), SYN), Reason::Allowed, true);
    assert_eq!(lab.run(Ingress, &tcp(FRIEND4, POD4, (80, 50_000), RST | ACK)).code, PASS);
    let back = tcp(FRIEND4, POD4, (80, 50_000), SYN);
    lab.expect(Ingress, &back, Reason::PolicyDenied, true);
    // Nor one that was answered.
    lab.expect(Egress, &tcp(POD4, FRIEND4, (50_001, 80), SYN), Reason::Allowed, true);
    assert_eq!(lab.run(Ingress, &tcp(FRIEND4, POD4, (80, 50_001), SYN | ACK)).code, PASS);
    let back = tcp(FRIEND4, POD4, (80, 50_001), SYN);
    lab.expect(Ingress, &back, Reason::PolicyDenied, true);
}

fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

#[test]
fn an_ipv4_address_in_ipv6_form_is_nobodys() {
    let mut lab = Lab::strict();
    let frames = [
        tcp(mapped(POD4), mapped(FRIEND4), (1, 80), SYN),
        tcp(mapped(POD4), FRIEND6, (1, 80), SYN),
        tcp(POD6, mapped(FRIEND4), (1, 80), SYN),
    ];
    for frame in &frames {
        lab.expect(Egress, frame, Reason::InvalidHeader, true);
    }
    let arriving = tcp(mapped(FRIEND4), mapped(POD4), (1, 80), SYN);
    lab.expect(Ingress, &arriving, Reason::InvalidHeader, true);
    drop(lab);
    let mut open = Lab::new([false, false], [all(), all()]);
    open.expect(Egress, &frames[0], Reason::SpoofedSource, true);
    open.expect(Egress, &frames[1], Reason::SpoofedSource, true);
    open.expect(Egress, &frames[2], Reason::PassedUnparsed, false);
}

#[test]
fn an_icmpv6_error_does_not_quote_an_ipv4_flow() {
    let mut lab = Lab::strict();
    let got = tcp(FRIEND4, POD4, (40_000, 80), SYN);
    lab.expect(Ingress, &got, Reason::Allowed, true);
    // Its low word is the friend's IPv4 address.
    let mut target = STRANGER6;
    target[12..].copy_from_slice(&FRIEND4);
    let quoted = ethernet(0x86dd, &v6(target, mapped(POD4), TCP, 64, &tcp_header(40_000, 80, SYN)));
    lab.expect(Egress, &error(POD6, target, 1, &quoted), Reason::PolicyDenied, true);
}

#[test]
fn an_unreadable_packet_from_a_link_local_source_passes_an_open_pod() {
    let mut lab = Lab::new([false, false], [all(), all()]);
    let link_local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let short = ethernet(0x86dd, &v6(link_local, FRIEND6, TCP, 64, &[0; 3]));
    lab.expect(Egress, &short, Reason::PassedUnparsed, false);
}

#[test]
fn ipv6_fragments_are_never_taken_for_the_nodes() {
    let mut lab = Lab::strict();
    let fragment = |offset: u16, more: bool, payload: &[u8]| {
        let mut body = vec![UDP, 0];
        body.extend((offset | u16::from(more)).to_be_bytes());
        body.extend([0, 0, 0, 9]);
        body.extend(payload);
        ethernet(0x86dd, &v6(STRANGER6, POD6, 44, 64, &body))
    };
    let mut datagram = udp_header(40_000, 53);
    datagram.resize(64, 0);
    let first = lab.run_from(Ingress, &fragment(0, true, &datagram), 0);
    expect(&first, Ingress, Reason::PolicyDenied, true);
    let later = lab.run_from(Ingress, &fragment(64, false, &[0; 8]), 0);
    expect(&later, Ingress, Reason::FragmentNoFirst, true);
    // Nor do they ride on what the node has opened.
    let opened = lab.run_from(Ingress, &udp(STRANGER6, POD6, (40_000, 53)), 0);
    expect(&opened, Ingress, Reason::FromNode, true);
    let riding = lab.run_from(Ingress, &fragment(0, true, &datagram), 0);
    expect(&riding, Ingress, Reason::PolicyDenied, true);
    // IPv4's keep the interface that they came in by, so the node's are the node's.
    let node = ethernet(0x0800, &v4(NODE4, POD4, UDP, 0x2000, &[], &datagram));
    expect(&lab.run_from(Ingress, &node, 0), Ingress, Reason::FromNode, true);
}

#[test]
fn an_echo_reply_opens_no_flow_for_requests() {
    let mut lab = Lab::new([true, true], [all(), http()]);
    lab.expect(Ingress, &echo(FRIEND4, POD4, 0, 9), Reason::Allowed, false);
    lab.expect(Egress, &echo(POD4, FRIEND4, 8, 9), Reason::PolicyDenied, true);
    lab.expect(Ingress, &echo(FRIEND6, POD6, 129, 9), Reason::Allowed, false);
    lab.expect(Egress, &echo(POD6, FRIEND6, 128, 9), Reason::PolicyDenied, true);
}

#[test]
fn later_fragments_follow_a_first_one_that_leaves_no_flow() {
    let mut lab = Lab::new([true, true], [all(), http()]);
    let later = |proto| ethernet(0x0800, &v4(FRIEND4, POD4, proto, 64 / 8, &[], &[0; 8]));
    // A timestamp request, and a segment of an unknown connection whose other way is closed.
    let mut timestamp = icmp(FRIEND4, POD4, 13, &[0; 60]);
    timestamp[20] = 0x20;
    lab.expect(Ingress, &timestamp, Reason::Allowed, false);
    lab.expect(Ingress, &later(ICMP), Reason::Fragment, false);
    let mut segment = tcp_header(40_000, 22, ACK);
    segment.resize(64, 0);
    let first = ethernet(0x0800, &v4(FRIEND4, POD4, TCP, 0x2000, &[], &segment));
    lab.expect(Ingress, &first, Reason::Allowed, false);
    lab.expect(Ingress, &later(TCP), Reason::Fragment, false);
}

#[test]
fn a_change_of_policy_drops_no_fragment_of_an_open_pod() {
    let mut lab = Lab::new([false, false], [http(), http()]);
    let mut datagram = udp_header(40_000, 53);
    datagram.resize(64, 0);
    let first = ethernet(0x0800, &v4(STRANGER4, POD4, UDP, 0x2000, &[], &datagram));
    lab.expect(Ingress, &first, Reason::NotIsolated, true);
    lab.lose_friends([false, true]);
    let later = ethernet(0x0800, &v4(STRANGER4, POD4, UDP, 64 / 8, &[], &[0; 8]));
    lab.expect(Ingress, &later, Reason::Fragment, false);
}

#[test]
fn peers_that_fill_the_quota_do_not_keep_the_node_out() {
    let mut lab = Lab::strict();
    for port in 2_000..2_300 {
        lab.run(Ingress, &tcp(FRIEND4, POD4, (port, 80), SYN));
    }
    let probe = lab.run_from(Ingress, &tcp(NODE4, POD4, (33_000, 8_080), SYN), 0);
    expect(&probe, Ingress, Reason::FromNode, true);
    assert_eq!(lab.run(Egress, &tcp(POD4, NODE4, (8_080, 33_000), SYN | ACK)).code, PASS);
    let done = lab.run_from(Ingress, &tcp(NODE4, POD4, (33_000, 8_080), ACK), 0);
    assert_eq!(done.code, PASS);
}

#[test]
fn a_connection_to_the_node_of_unknown_origin_outlives_a_change_of_policy() {
    // The pod may open what it likes; nobody but the node may come in.
    let mut lab = Lab::new([true, false], [http(), all()]);
    let out = tcp(POD4, NODE4, (50_000, 6_443), ACK);
    lab.expect(Egress, &out, Reason::NotIsolated, true);
    lab.lose_friends([true, false]);
    assert_eq!(lab.run(Egress, &out).code, PASS);
    assert_eq!(lab.run(Ingress, &tcp(NODE4, POD4, (6_443, 50_000), ACK)).code, PASS);
}

fn prefix(n: u32) -> ipnet::IpNet {
    ipnet::IpNet::from(IpAddr::from(Ipv4Addr::from_bits(0xac10_0000 + n)))
}

#[test]
fn a_prefix_that_finds_no_room_keeps_pods_closed_until_it_is_written() {
    const WIDE: u64 = 0xca5e;
    let mut lab = Lab::strict();
    let mut cidrs: Vec<_> = (0..65_535).map(|n| (prefix(n), 1)).collect();
    cidrs.push(("10.0.0.0/8".parse().unwrap(), WIDE));
    lab.plan(Plan {
        rows_added: vec![(key(WIDE, Ingress), all())],
        cidrs_set: cidrs,
        ..Plan::default()
    });
    let from = |port| tcp(STRANGER4, POD4, (port, 22), SYN);
    lab.expect(Ingress, &from(1), Reason::Allowed, true);
    // The exception to what was allowed just now; and a pod that comes while it is missing.
    let except = Plan {
        cidrs_set: vec![("10.0.0.3/32".parse().unwrap(), 1)],
        endpoints_set: vec![endpoint(5, [true, true], true)],
        ..Plan::default()
    };
    assert_eq!(lab.kernel.apply(&except).failures.len(), 1);
    lab.expect(Ingress, &from(2), Reason::Locked, true);
    assert_eq!(lab.kernel.retry().failures.len(), 1, "no room yet");
    lab.expect(Ingress, &from(3), Reason::Locked, true);
    let again = Plan { endpoints_removed: vec![IFINDEX], ..Plan::default() };
    lab.plan(again);
    let armed = Plan { endpoints_set: vec![endpoint(5, [true, true], false)], ..Plan::default() };
    lab.plan(armed);
    lab.expect(Ingress, &from(4), Reason::Locked, true);
    lab.plan(Plan { cidrs_removed: vec![prefix(7)], ..Plan::default() });
    assert_eq!(lab.kernel.retry().failures.len(), 0);
    lab.expect(Ingress, &from(5), Reason::PolicyDenied, true);
    lab.expect(Ingress, &tcp(FRIEND4, POD4, (6, 80), SYN), Reason::Allowed, true);
}

fn tracked(source: [u8; 4], behind: [u8; 4], ports: (u16, u16)) -> KernelFlow {
    let tuple = |source: [u8; 4], destination: [u8; 4], ports: (u16, u16)| Tuple {
        source: IpAddr::from(source),
        destination: IpAddr::from(destination),
        protocol: TCP,
        source_port: ports.0,
        destination_port: ports.1,
        icmp: None,
    };
    KernelFlow {
        orig: tuple(source, POD4, ports),
        reply: tuple(POD4, behind, (ports.1, ports.0)),
        seen_reply: true,
        assured: true,
        tcp_state: Some(3),
        timeout: None,
        zone: 0,
    }
}

/// A pod that is armed while the node tracks these connections.
fn seeded(flows: Vec<KernelFlow>) -> (Lab, Vec<String>) {
    let mut lab = Lab::strict();
    lab.plan(Plan { endpoints_removed: vec![IFINDEX], ..Plan::default() });
    lab.kernel.arrive(Some(flows));
    let plan = Plan { endpoints_set: vec![endpoint(5, [true, true], false)], ..Plan::default() };
    let failures = lab.kernel.apply(&plan).failures;
    (lab, failures)
}

#[test]
fn connections_of_the_node_outlive_the_arrival_and_others_behind_its_address_are_judged() {
    let (mut lab, failures) = seeded(vec![
        tracked(NODE4, NODE4, (33_000, 10_000)),
        tracked(STRANGER4, NODE4, (34_000, 10_000)),
        tracked(FRIEND4, FRIEND4, (35_000, 80)),
    ]);
    assert_eq!(failures, Vec::<String>::new());
    let of_node = tcp(NODE4, POD4, (33_000, 10_000), ACK);
    assert_eq!(lab.run_from(Ingress, &of_node, 0).code, PASS);
    assert_eq!(lab.run(Egress, &tcp(POD4, NODE4, (10_000, 33_000), ACK)).code, PASS);
    assert_eq!(lab.run(Ingress, &of_node).code, DROP, "not the node");
    assert_eq!(lab.run(Ingress, &tcp(NODE4, POD4, (34_000, 10_000), ACK)).code, DROP);
    assert_eq!(lab.run(Ingress, &tcp(FRIEND4, POD4, (35_000, 80), ACK)).code, PASS);
}

#[test]
fn an_interface_whose_flows_find_no_room_is_attached_all_the_same() {
    let flows = (0..5_000).map(|port| tracked(FRIEND4, FRIEND4, (port, 80))).collect();
    let (lab, failures) = seeded(flows);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(lab.kernel.is_attached(IFINDEX), "without its programs the pod is open");
}

#[test]
fn a_lock_goes_with_the_table_that_it_was_for() {
    let mut lab = Lab::strict();
    // A row of more intervals than there is room for.
    let huge = |from: u32| -> Arc<[enforcer_common::abi::Interval]> {
        (0..200_000)
            .map(|n| enforcer_common::abi::Interval {
                start: n,
                rule: RULE + from + n,
                ..Default::default()
            })
            .collect()
    };
    let in_five = |class| key(class, Ingress);
    let mut plan = Plan::default();
    for class in 100..103 {
        plan.rows_added.push((in_five(class), huge(class as u32)));
    }
    assert_eq!(lab.kernel.apply(&plan).failures.len(), 1);
    assert!(lab.kernel.locked(IFINDEX));
    lab.plan(Plan { rows_removed: vec![in_five(102)], ..Plan::default() });
    assert!(!lab.kernel.locked(IFINDEX));
    lab.expect(Ingress, &tcp(FRIEND4, POD4, (1, 80), SYN), Reason::Allowed, true);
}
