//! Flows: what opens one, what rides on it, what ends it.

use enforcer_common::{
    abi::{
        CtKey4,
        Direction::{Egress, Ingress},
    },
    conntrack::SECOND,
    reason::Reason,
    verdict::proto::TCP,
};

use crate::{
    lab::{
        DROP, FRIEND4, FRIEND6, Lab, NODE4, PASS, POD4, POD6, STRANGER4, STRANGER6, all, expect,
        http,
    },
    packets::{ACK, FIN, RST, SYN, echo, error, sctp, tcp, udp},
};

#[test]
fn an_allowed_connection_and_its_replies_pass_and_the_fast_path_writes_nothing() {
    let mut lab = Lab::strict();
    lab.expect(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), SYN), Reason::Allowed, true);
    let reply = lab.run(Egress, &tcp(POD4, FRIEND4, (80, 40_000), SYN | ACK));
    assert_eq!(reply.code, PASS);
    assert_eq!(reply.told.len(), 1, "a trace of the first reply: {reply:?}");
    assert_eq!(lab.run(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), ACK)).code, PASS);
    for _ in 0..3 {
        lab.fast(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), ACK));
        lab.fast(Egress, &tcp(POD4, FRIEND4, (80, 40_000), ACK));
    }
}

#[test]
fn ipv6_is_judged_like_ipv4() {
    let mut lab = Lab::strict();
    lab.expect(Ingress, &tcp(FRIEND6, POD6, (40_000, 89), SYN), Reason::Allowed, true);
    lab.expect(Ingress, &tcp(FRIEND6, POD6, (40_000, 90), SYN), Reason::PolicyDenied, true);
    lab.expect(Ingress, &tcp(STRANGER6, POD6, (40_000, 80), SYN), Reason::PolicyDenied, true);
    lab.expect(Egress, &tcp(POD6, FRIEND6, (50_000, 80), SYN), Reason::Allowed, true);
    assert_eq!(lab.run(Ingress, &tcp(FRIEND6, POD6, (80, 50_000), SYN | ACK)).code, PASS);
}

#[test]
fn ports_are_exact_at_both_ends_of_a_range() {
    let mut lab = Lab::strict();
    for (port, reason) in [
        (79, Reason::PolicyDenied),
        (80, Reason::Allowed),
        (89, Reason::Allowed),
        (90, Reason::PolicyDenied),
        (0, Reason::PolicyDenied),
        (65_535, Reason::PolicyDenied),
    ] {
        lab.expect(Ingress, &tcp(FRIEND4, POD4, (41_000, port), SYN), reason, true);
    }
}

#[test]
fn a_tcp_rule_opens_no_other_protocol() {
    let mut lab = Lab::strict();
    lab.expect(Ingress, &udp(FRIEND4, POD4, (40_000, 80)), Reason::PolicyDenied, true);
    lab.expect(Ingress, &sctp(FRIEND4, POD4, (40_000, 80)), Reason::PolicyDenied, true);
    lab.expect(Ingress, &echo(FRIEND4, POD4, 8, 7), Reason::PolicyDenied, true);
    let mut lab = Lab::new([true, true], [all(), all()]);
    lab.expect(Ingress, &udp(FRIEND4, POD4, (40_000, 80)), Reason::Allowed, true);
    lab.expect(Ingress, &sctp(FRIEND4, POD4, (40_000, 80)), Reason::Allowed, true);
    lab.expect(Ingress, &echo(FRIEND4, POD4, 8, 7), Reason::Allowed, true);
}

#[test]
fn a_flow_that_is_no_longer_allowed_stops_at_its_next_packet_in_both_directions() {
    let mut lab = Lab::strict();
    lab.run(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), SYN));
    lab.run(Egress, &tcp(POD4, FRIEND4, (80, 40_000), SYN | ACK));
    lab.run(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), ACK));
    lab.lose_friends([true, true]);
    lab.expect(Egress, &tcp(POD4, FRIEND4, (80, 40_000), ACK), Reason::PolicyDenied, true);
    lab.expect(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), ACK), Reason::PolicyDenied, true);
}

#[test]
fn a_revoked_connection_does_not_come_back_as_one_of_the_pods_own() {
    // Egress is open to all, so the pod's own segments alone would be allowed.
    let mut lab = Lab::new([true, false], [http(), http()]);
    lab.run(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), SYN));
    lab.run(Egress, &tcp(POD4, FRIEND4, (80, 40_000), SYN | ACK));
    lab.run(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), ACK));
    lab.lose_friends([true, false]);
    for _ in 0..3 {
        lab.expect(Egress, &tcp(POD4, FRIEND4, (80, 40_000), ACK), Reason::PolicyDenied, true);
        lab.expect(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), ACK), Reason::PolicyDenied, true);
    }
}

#[test]
fn a_segment_in_the_middle_of_an_unknown_connection_leaves_no_entry_that_opens_the_other_way() {
    let mut lab = Lab::new([true, false], [http(), http()]);
    let out = tcp(POD4, STRANGER4, (5_000, 6_000), ACK);
    lab.expect(Egress, &out, Reason::NotIsolated, false);
    lab.expect(Ingress, &tcp(STRANGER4, POD4, (6_000, 5_000), ACK), Reason::PolicyDenied, true);
}

#[test]
fn a_syn_against_an_established_flow_is_judged_for_itself() {
    let mut lab = Lab::strict();
    lab.expect(Egress, &tcp(POD4, FRIEND4, (50_000, 80), SYN), Reason::Allowed, true);
    lab.run(Ingress, &tcp(FRIEND4, POD4, (80, 50_000), SYN | ACK));
    lab.run(Egress, &tcp(POD4, FRIEND4, (50_000, 80), ACK));
    lab.expect(Ingress, &tcp(FRIEND4, POD4, (80, 50_000), SYN), Reason::PolicyDenied, true);
    // And the flow goes on.
    lab.fast(Egress, &tcp(POD4, FRIEND4, (50_000, 80), ACK));
}

#[test]
fn a_simultaneous_open_completes() {
    let mut lab = Lab::strict();
    lab.run(Egress, &tcp(POD4, FRIEND4, (50_000, 80), SYN));
    assert_eq!(lab.run(Ingress, &tcp(FRIEND4, POD4, (80, 50_000), SYN)).code, PASS);
    assert_eq!(lab.run(Egress, &tcp(POD4, FRIEND4, (50_000, 80), SYN | ACK)).code, PASS);
    assert_eq!(lab.run(Ingress, &tcp(FRIEND4, POD4, (80, 50_000), ACK)).code, PASS);
}

#[test]
fn ends_of_a_connection_are_traced_once_a_side_and_a_new_one_is_judged_anew() {
    let mut lab = Lab::strict();
    let out = |flags| tcp(FRIEND4, POD4, (40_000, 80), flags);
    let back = |flags| tcp(POD4, FRIEND4, (80, 40_000), flags);
    lab.run(Ingress, &out(SYN));
    lab.run(Egress, &back(SYN | ACK));
    lab.run(Ingress, &out(ACK));
    assert_eq!(lab.run(Ingress, &out(FIN | ACK)).told.len(), 1);
    assert_eq!(lab.run(Ingress, &out(FIN | ACK)).told.len(), 0, "a retransmission");
    assert_eq!(lab.run(Egress, &back(FIN | ACK)).closed.len(), 1);
    assert_eq!(lab.run(Ingress, &out(ACK)).code, PASS);
    lab.expect(Ingress, &out(SYN), Reason::Allowed, true);
    lab.lose_friends([true, true]);
    lab.expect(Ingress, &out(RST), Reason::PolicyDenied, true);
}

#[test]
fn echo_is_a_flow_by_its_identifier_and_only_requests_open_it() {
    let mut lab = Lab::new([true, true], [http(), all()]);
    lab.expect(Egress, &echo(POD4, FRIEND4, 8, 9), Reason::Allowed, true);
    assert_eq!(lab.run(Ingress, &echo(FRIEND4, POD4, 0, 9)).code, PASS);
    lab.expect(Ingress, &echo(FRIEND4, POD4, 0, 10), Reason::PolicyDenied, true);
    lab.expect(Ingress, &echo(FRIEND4, POD4, 8, 9), Reason::PolicyDenied, true);
    lab.expect(Egress, &echo(POD6, FRIEND6, 128, 9), Reason::Allowed, true);
    assert_eq!(lab.run(Ingress, &echo(FRIEND6, POD6, 129, 9)).code, PASS);
    lab.expect(Ingress, &echo(FRIEND6, POD6, 128, 9), Reason::PolicyDenied, true);
}

#[test]
fn errors_follow_the_flow_they_quote_and_go_only_to_who_sent_it() {
    let mut lab = Lab::strict();
    let sent = tcp(POD4, FRIEND4, (50_000, 80), SYN);
    lab.expect(Ingress, &error(STRANGER4, POD4, 3, &sent), Reason::PolicyDenied, true);
    lab.run(Egress, &sent);
    for kind in [3, 11, 12] {
        lab.expect(Ingress, &error(STRANGER4, POD4, kind, &sent), Reason::Related, false);
    }
    // About a packet that the pod did not send.
    let other = tcp(POD4, FRIEND4, (50_001, 80), SYN);
    lab.expect(Ingress, &error(STRANGER4, POD4, 3, &other), Reason::PolicyDenied, true);
    // From the pod about a packet that it got, to the one who sent it.
    let got = tcp(FRIEND4, POD4, (40_000, 80), SYN);
    lab.run(Ingress, &got);
    lab.expect(Egress, &error(POD4, FRIEND4, 3, &got), Reason::Related, false);
    lab.expect(Egress, &error(POD4, STRANGER4, 3, &got), Reason::PolicyDenied, true);
    // And no longer once the flow is not allowed.
    lab.lose_friends([true, true]);
    lab.expect(Ingress, &error(STRANGER4, POD4, 3, &sent), Reason::PolicyDenied, true);
}

#[test]
fn packet_too_big_comes_through_for_an_ipv6_flow() {
    let mut lab = Lab::strict();
    let sent = tcp(POD6, FRIEND6, (50_000, 80), SYN);
    lab.run(Egress, &sent);
    for kind in 1..=4 {
        lab.expect(Ingress, &error(STRANGER6, POD6, kind, &sent), Reason::Related, false);
    }
    let other = tcp(POD6, FRIEND6, (50_001, 80), SYN);
    lab.expect(Ingress, &error(STRANGER6, POD6, 2, &other), Reason::PolicyDenied, true);
}

#[test]
fn the_node_may_always_come_in_and_only_the_node() {
    let mut lab = Lab::strict();
    let probe = tcp(NODE4, POD4, (33_000, 9_999), SYN);
    let outcome = lab.run_from(Ingress, &probe, 0);
    expect(&outcome, Ingress, Reason::FromNode, true);
    assert_eq!(lab.run(Egress, &tcp(POD4, NODE4, (9_999, 33_000), SYN | ACK)).code, PASS);
    assert_eq!(lab.run_from(Ingress, &tcp(NODE4, POD4, (33_000, 9_999), ACK), 0).code, PASS);
    // The same tuple from elsewhere rides on nothing.
    let forged = lab.run(Ingress, &tcp(NODE4, POD4, (33_000, 9_999), ACK));
    expect(&forged, Ingress, Reason::PolicyDenied, true);
    // Any source that the node itself sends from.
    let odd = lab.run_from(Ingress, &tcp(STRANGER4, POD4, (33_000, 9_998), SYN), 0);
    expect(&odd, Ingress, Reason::FromNode, true);
    // A change of policy does not cut it.
    lab.lose_friends([true, true]);
    assert_eq!(lab.run(Egress, &tcp(POD4, NODE4, (9_999, 33_000), ACK)).code, PASS);
}

#[test]
fn a_middle_segment_from_the_node_opens_nothing_for_the_pod() {
    let mut lab = Lab::strict();
    let outcome = lab.run_from(Ingress, &tcp(NODE4, POD4, (6_443, 50_000), ACK), 0);
    expect(&outcome, Ingress, Reason::FromNode, false);
    // The pod's side of it is, as a reply of the node's connection, allowed only in the window of
    // arrival: here egress to the node is denied.
    lab.expect(Egress, &tcp(POD4, NODE4, (50_000, 6_443), ACK), Reason::PolicyDenied, true);
}

#[test]
fn a_pod_without_policies_passes_everything_and_its_flows_are_known_when_one_comes() {
    let mut lab = Lab::new([false, false], [http(), http()]);
    lab.expect(Ingress, &tcp(STRANGER4, POD4, (40_000, 22), SYN), Reason::NotIsolated, true);
    lab.expect(Egress, &udp(POD4, STRANGER4, (50_000, 53)), Reason::NotIsolated, true);
    lab.expect(Egress, &tcp(POD4, FRIEND4, (50_001, 80), SYN), Reason::NotIsolated, true);
    let plan = crate::lab::endpoint(5, [true, true], true);
    lab.plan(enforcer::cluster::plan::Plan { endpoints_set: vec![plan], ..Default::default() });
    // Its reply is one of a connection that the policy allows too.
    assert_eq!(lab.run(Ingress, &tcp(FRIEND4, POD4, (80, 50_001), SYN | ACK)).code, PASS);
    assert_eq!(lab.run(Ingress, &udp(STRANGER4, POD4, (53, 50_000))).code, DROP);
}

#[test]
fn a_full_quota_closes_new_flows_and_touches_no_old_one() {
    let mut lab = Lab::strict();
    // 4,096 entries: 256 half-open flows an endpoint.
    lab.run(Ingress, &tcp(FRIEND4, POD4, (1_000, 80), SYN));
    lab.run(Egress, &tcp(POD4, FRIEND4, (80, 1_000), SYN | ACK));
    lab.run(Ingress, &tcp(FRIEND4, POD4, (1_000, 80), ACK));
    let outcomes: Vec<_> =
        (2_000..2_300).map(|port| lab.run(Ingress, &tcp(FRIEND4, POD4, (port, 80), SYN))).collect();
    let tally = crate::lab::tally(&outcomes);
    assert_eq!(tally[&Reason::Allowed], 256);
    assert_eq!(tally[&Reason::ConntrackFull], 44);
    lab.fast(Ingress, &tcp(FRIEND4, POD4, (1_000, 80), ACK));
    assert_eq!(lab.kernel.flows(1), Some((256, 1)));
}

#[test]
fn without_an_agent_a_full_quota_makes_room_by_itself() {
    let mut lab = Lab::strict();
    let syn = |port| tcp(FRIEND4, POD4, (port, 80), SYN);
    for port in 2_000..2_256 {
        lab.expect(Ingress, &syn(port), Reason::Allowed, true);
    }
    lab.expect(Ingress, &syn(3_000), Reason::ConntrackFull, true);
    // All but the last have been silent for longer than a handshake may take.
    for port in 2_000..2_255 {
        let key = CtKey4 {
            ifindex: 1,
            local: u32::from_ne_bytes(POD4),
            remote: u32::from_ne_bytes(FRIEND4),
            local_port: 80,
            remote_port: port,
            proto: u32::from(TCP),
        };
        let mut entry = lab.kernel.flow4(&key).unwrap();
        entry.last_seen = entry.last_seen.saturating_sub(121 * SECOND);
        lab.kernel.set_flow4(&key, &entry).unwrap();
    }
    // The table was walked in vain a moment ago; it is walked at most once a second.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    lab.expect(Ingress, &syn(3_000), Reason::Allowed, true);
    assert_eq!(lab.kernel.flows(1), Some((2, 0)));
}
