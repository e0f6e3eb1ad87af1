//! The node's own connections beside those of others on the same addresses and ports.

use enforcer::cluster::plan::Plan;
use enforcer_common::{
    abi::Direction::{Egress, Ingress},
    reason::Reason,
};

use crate::{
    lab::{DROP, FRIENDS, Lab, NODE4, PASS, POD4, endpoint, expect, http},
    packets::{ACK, SYN, tcp, udp},
};

/// Whoever is hidden behind the node's address may use HTTP.
fn lab() -> Lab {
    let mut lab = Lab::new([true, true], [http(), http()]);
    let net = "10.0.0.254/32".parse().unwrap();
    lab.plan(Plan { cidrs_set: vec![(net, FRIENDS)], ..Plan::default() });
    lab
}

fn lose_the_block(lab: &mut Lab) {
    lab.plan(Plan {
        cidrs_removed: vec!["10.0.0.254/32".parse().unwrap()],
        endpoints_set: vec![endpoint(crate::lab::TABLE, [true, true], true)],
        ..Plan::default()
    });
}

#[test]
fn the_node_comes_in_by_ports_that_somebody_behind_its_address_had_before() {
    let mut lab = lab();
    let syn = tcp(NODE4, POD4, (33_000, 80), SYN);
    let answer = |flags| tcp(POD4, NODE4, (80, 33_000), flags);
    lab.expect(Ingress, &syn, Reason::Allowed, true);
    assert_eq!(lab.run(Egress, &answer(SYN | ACK)).code, PASS);
    lose_the_block(&mut lab);
    lab.expect(Ingress, &syn, Reason::PolicyDenied, true);
    // Now it is a probe of the node itself.
    let outcome = lab.run_from(Ingress, &syn, 0);
    expect(&outcome, Ingress, Reason::FromNode, true);
    assert_eq!(lab.run(Egress, &answer(SYN | ACK)).code, PASS);
    let ack = tcp(NODE4, POD4, (33_000, 80), ACK);
    assert_eq!(lab.run_from(Ingress, &ack, 0).code, PASS);
    assert_eq!(lab.run(Egress, &answer(ACK)).code, PASS);
    // And who was there before rides on none of it.
    lab.expect(Ingress, &ack, Reason::PolicyDenied, true);
    assert_eq!(lab.run(Ingress, &syn).code, DROP);
    assert_eq!(lab.kernel.flows(1), Some((0, 1)));
}

#[test]
fn the_nodes_datagrams_are_its_own_too() {
    let rule = || crate::lab::row((2 << 16) + 80..(2 << 16) + 81);
    let mut lab = Lab::new([true, true], [rule(), rule()]);
    let net = "10.0.0.254/32".parse().unwrap();
    lab.plan(Plan { cidrs_set: vec![(net, FRIENDS)], ..Plan::default() });
    let (ask, answer) = (udp(NODE4, POD4, (33_000, 80)), udp(POD4, NODE4, (80, 33_000)));
    lab.expect(Ingress, &ask, Reason::Allowed, true);
    lose_the_block(&mut lab);
    lab.expect(Ingress, &ask, Reason::PolicyDenied, true);
    assert_eq!(lab.run(Egress, &answer).code, DROP);
    let outcome = lab.run_from(Ingress, &ask, 0);
    expect(&outcome, Ingress, Reason::FromNode, true);
    assert_eq!(lab.run(Egress, &answer).code, PASS);
    assert_eq!(lab.run(Ingress, &ask).code, DROP);
}

#[test]
fn a_segment_of_the_node_takes_no_flow_over_that_it_did_not_open() {
    let mut lab = lab();
    lab.expect(Ingress, &tcp(NODE4, POD4, (33_000, 80), SYN), Reason::Allowed, true);
    lab.run(Egress, &tcp(POD4, NODE4, (80, 33_000), SYN | ACK));
    let ack = tcp(NODE4, POD4, (33_000, 80), ACK);
    assert_eq!(lab.run_from(Ingress, &ack, 0).code, PASS);
    // The one behind the address goes on, and is judged like before.
    assert_eq!(lab.run(Ingress, &ack).code, PASS);
    lose_the_block(&mut lab);
    lab.expect(Ingress, &ack, Reason::PolicyDenied, true);
    assert_eq!(lab.run_from(Ingress, &ack, 0).code, PASS);
}
