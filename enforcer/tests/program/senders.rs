//! Who may send what: spoofed sources, ARP, neighbour discovery, floods.

use std::net::IpAddr;

use enforcer::cluster::plan::{EndpointPlan, Plan};
use enforcer_common::{
    abi::Direction::{Egress, Ingress},
    reason::Reason,
    verdict::proto::ICMPV6,
};

use crate::{
    lab::{FRIEND4, FRIEND6, Lab, NODE4, POD4, POD6, STRANGER4, TABLE, all, endpoint, http},
    packets::{SYN, ethernet, icmp, tcp, udp, v6},
};

const LINK_LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const NOBODY: [u8; 16] = [0; 16];

#[test]
fn a_source_that_is_not_the_pods_is_dropped_isolated_or_not() {
    for isolated in [[true, true], [false, false]] {
        let mut lab = Lab::new(isolated, [all(), all()]);
        let four = tcp(STRANGER4, FRIEND4, (1, 80), SYN);
        lab.expect(Egress, &four, Reason::SpoofedSource, true);
        let six = tcp(FRIEND6, POD6, (1, 80), SYN);
        lab.expect(Egress, &six, Reason::SpoofedSource, true);
    }
}

#[test]
fn a_forged_packet_of_the_victim_makes_no_entry() {
    let mut lab = Lab::strict();
    // As if the victim had opened it, from another pod: on this interface the source is foreign.
    let forged = tcp(FRIEND4, POD4, (80, 40_000), SYN);
    lab.expect(Egress, &forged, Reason::SpoofedSource, true);
    lab.expect(Ingress, &tcp(FRIEND4, POD4, (80, 40_000), SYN), Reason::PolicyDenied, true);
}

#[test]
fn the_pods_own_address_from_outside_is_spoofed() {
    let mut lab = Lab::new([false, false], [all(), all()]);
    lab.expect(Ingress, &tcp(POD4, POD4, (80, 80), SYN), Reason::SpoofedSource, true);
}

fn arp(sender: [u8; 4]) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 1];
    body.extend([2, 0, 0, 0, 0, 2]);
    body.extend(sender);
    body.extend([0; 6]);
    body.extend(FRIEND4);
    ethernet(0x0806, &body)
}

#[test]
fn arp_only_with_the_pods_own_sender_address() {
    let mut lab = Lab::strict();
    lab.expect(Egress, &arp(POD4), Reason::Discovery, false);
    lab.expect(Egress, &arp([0; 4]), Reason::Discovery, false);
    lab.expect(Egress, &arp(STRANGER4), Reason::SpoofedSource, true);
    lab.expect(Ingress, &arp(STRANGER4), Reason::Discovery, false);
    let cut = &arp(POD4)[..30];
    lab.expect(Egress, cut, Reason::SpoofedSource, true);
}

fn neighbour(src: [u8; 16], kind: u8, hops: u8, target: [u8; 16]) -> Vec<u8> {
    let mut body = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    body.extend(target);
    ethernet(0x86dd, &v6(src, ALL_NODES, ICMPV6, hops, &body))
}

#[test]
fn neighbour_discovery_from_the_pod_is_its_own_or_dropped() {
    let mut lab = Lab::strict();
    let pass = |lab: &mut Lab, frame: &[u8]| lab.expect(Egress, frame, Reason::Discovery, false);
    pass(&mut lab, &neighbour(POD6, 135, 255, FRIEND6));
    pass(&mut lab, &neighbour(LINK_LOCAL, 135, 255, FRIEND6));
    pass(&mut lab, &neighbour(NOBODY, 135, 255, POD6));
    pass(&mut lab, &neighbour(POD6, 136, 255, POD6));
    pass(&mut lab, &neighbour(LINK_LOCAL, 136, 255, LINK_LOCAL));
    pass(&mut lab, &neighbour(NOBODY, 133, 255, NOBODY));
    let drop = |lab: &mut Lab, frame: &[u8], reason| lab.expect(Egress, frame, reason, true);
    drop(&mut lab, &neighbour(POD6, 135, 64, FRIEND6), Reason::ForbiddenIcmpv6);
    drop(&mut lab, &neighbour(POD6, 136, 255, FRIEND6), Reason::ForbiddenIcmpv6);
    drop(&mut lab, &neighbour(FRIEND6, 135, 255, POD6), Reason::SpoofedSource);
    drop(&mut lab, &neighbour(NOBODY, 136, 255, POD6), Reason::SpoofedSource);
    for kind in [134, 137] {
        for src in [POD6, LINK_LOCAL] {
            drop(&mut lab, &neighbour(src, kind, 255, NOBODY), Reason::ForbiddenIcmpv6);
        }
    }
}

/// A pod whose policy is not known yet, with these addresses.
fn starting(addresses: &[IpAddr]) -> Lab {
    let mut lab = Lab::new([false, false], [all(), all()]);
    let endpoint = EndpointPlan {
        starting: true,
        addresses: addresses.to_vec(),
        ..endpoint(TABLE + 1, [true, true], true)
    };
    lab.plan(Plan { endpoints_set: vec![endpoint], ..Plan::default() });
    lab
}

#[test]
fn a_starting_pod_finds_its_neighbours_and_nothing_else_passes() {
    let mut lab = starting(&[]);
    lab.expect(Egress, &arp(STRANGER4), Reason::Discovery, false);
    lab.expect(Egress, &neighbour(POD6, 135, 255, FRIEND6), Reason::Discovery, false);
    lab.expect(Egress, &neighbour(POD6, 136, 255, POD6), Reason::Discovery, false);
    lab.expect(Egress, &neighbour(POD6, 135, 64, FRIEND6), Reason::ForbiddenIcmpv6, true);
    lab.expect(Egress, &neighbour(POD6, 134, 255, NOBODY), Reason::SpoofedSource, true);
    lab.expect(Egress, &tcp(POD4, FRIEND4, (1, 80), SYN), Reason::SpoofedSource, true);
    // With its addresses it has a name, and is held to it.
    let mut lab = starting(&[POD4.into(), POD6.into()]);
    lab.expect(Egress, &arp(STRANGER4), Reason::SpoofedSource, true);
    lab.expect(Egress, &arp(POD4), Reason::Discovery, false);
    lab.expect(Egress, &neighbour(FRIEND6, 135, 255, POD6), Reason::SpoofedSource, true);
    lab.expect(Egress, &neighbour(POD6, 136, 255, FRIEND6), Reason::ForbiddenIcmpv6, true);
    for (direction, from, to) in [(Egress, POD4, FRIEND4), (Ingress, FRIEND4, POD4)] {
        let packet = tcp(from, to, (1, 80), SYN);
        lab.expect(direction, &packet, Reason::EndpointNotReady, true);
    }
    // Its policy comes.
    lab.plan(Plan {
        endpoints_set: vec![endpoint(TABLE, [false, false], true)],
        ..Plan::default()
    });
    lab.expect(Egress, &tcp(POD4, FRIEND4, (1, 80), SYN), Reason::NotIsolated, true);
    lab.expect(Egress, &arp(STRANGER4), Reason::SpoofedSource, true);
}

#[test]
fn neighbour_discovery_reaches_an_isolated_pod_and_nothing_else_in_its_name() {
    let mut lab = Lab::strict();
    for kind in [133, 134, 135, 136, 137] {
        let mut frame = neighbour(FRIEND6, kind, 255, POD6);
        frame[0] = 0x33;
        lab.expect(Ingress, &frame, Reason::Discovery, false);
        let mut far = neighbour(FRIEND6, kind, 64, POD6);
        far[0] = 0x33;
        lab.expect(Ingress, &far, Reason::PolicyDenied, true);
    }
}

#[test]
fn a_link_local_source_is_no_pod() {
    let mut lab = Lab::strict();
    let packet = tcp(LINK_LOCAL, FRIEND6, (1, 80), SYN);
    lab.expect(Egress, &packet, Reason::Allowed, true);
    lab.expect(Ingress, &tcp(LINK_LOCAL, POD6, (1, 80), SYN), Reason::PolicyDenied, true);
}

#[test]
fn dhcp_passes_from_nobody_and_nothing_else_does() {
    let mut lab = Lab::strict();
    let broadcast = [255; 4];
    lab.expect(Egress, &udp([0; 4], broadcast, (68, 67)), Reason::Discovery, false);
    lab.expect(Egress, &udp([0; 4], broadcast, (68, 53)), Reason::SpoofedSource, true);
    lab.expect(Egress, &icmp([0; 4], broadcast, 8, &[0; 4]), Reason::SpoofedSource, true);
}

#[test]
fn a_flooded_frame_for_another_is_dropped_without_an_event() {
    let mut lab = Lab::new([false, false], [http(), http()]);
    lab.expect(Ingress, &tcp(FRIEND4, STRANGER4, (1, 80), SYN), Reason::NotForPod, false);
    let mut broadcast = udp(FRIEND4, [255; 4], (1, 80));
    broadcast[..6].copy_from_slice(&[255; 6]);
    lab.expect(Ingress, &broadcast, Reason::NotIsolated, true);
}

#[test]
fn a_node_address_that_came_in_by_an_interface_is_judged_by_prefix_only() {
    let mut lab = Lab::strict();
    lab.expect(Ingress, &tcp(NODE4, POD4, (1, 80), SYN), Reason::PolicyDenied, true);
}
