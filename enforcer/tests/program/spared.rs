//! Audit and enforcement that is switched off: what passes, what is told of it and how often, and
//! that the first packet after its end is judged as if it had never been.

use std::{net::IpAddr, thread::sleep, time::Duration};

use enforcer::{
    cluster::{
        KernelState,
        plan::{EndpointPlan, Plan},
    },
    dataplane::monotonic,
};
use enforcer_common::{
    abi::{
        CT_AUDITED, CT_FROM_POD, CT_REVOKED, CtKey4,
        Direction::{self, Egress, Ingress},
        EVENT_AUDIT, EVENT_REVOKED, Spared,
    },
    conntrack::SECOND,
    reason::Reason,
    verdict::proto::{SCTP, TCP, UDP},
};

use crate::{
    lab::{
        FRIEND4, FRIEND6, IFINDEX, Lab, Outcome, PASS, POD4, POD6, STRANGER4, STRANGER6, TABLE,
        all, endpoint, expect, expect_spared, http,
    },
    packets::{ACK, FIN, Ip, SYN, echo, error, ethernet, sctp, tcp, udp, udp_header, v4},
};

const BOTH: [bool; 2] = [true, true];

impl Lab {
    /// Isolated both ways, friends may use TCP 80 to 89, and audited.
    fn audited() -> Self {
        let mut lab = Self::strict();
        lab.audit(BOTH, true);
        lab
    }

    fn spared(&mut self, direction: Direction, packet: &[u8], reason: Reason, told: bool) {
        let outcome = self.run(direction, packet);
        expect_spared(&outcome, direction, Spared::Audit, reason, told);
    }
}

fn key(remote: [u8; 4], ports: (u16, u16), proto: u8) -> CtKey4 {
    CtKey4 {
        ifindex: IFINDEX,
        local: u32::from_ne_bytes(POD4),
        remote: u32::from_ne_bytes(remote),
        local_port: ports.0,
        remote_port: ports.1,
        proto: u32::from(proto),
    }
}

/// A connection that policy denies, both ways and for a while.
fn a_denied_connection(lab: &mut Lab, peer: impl Into<Ip> + Copy, pod: impl Into<Ip> + Copy) {
    let denied = Reason::PolicyDenied;
    lab.spared(Ingress, &tcp(peer, pod, (40_000, 22), SYN), denied, true);
    let reply = lab.run(Egress, &tcp(pod, peer, (22, 40_000), SYN | ACK));
    expect_spared(&reply, Egress, Spared::Audit, denied, false);
    assert_eq!(reply.told.len(), 1, "the trace of the first reply: {reply:?}");
    lab.spared(Ingress, &tcp(peer, pod, (40_000, 22), ACK), denied, false);
    for _ in 0..3 {
        lab.spared(Ingress, &tcp(peer, pod, (40_000, 22), ACK), denied, false);
        lab.spared(Egress, &tcp(pod, peer, (22, 40_000), ACK), denied, false);
    }
    assert_eq!(lab.kernel.flows(IFINDEX), Some((0, 1)));
}

/// The first packet after the end is dropped, and so is what follows.
fn is_over(lab: &mut Lab, peer: impl Into<Ip> + Copy, pod: impl Into<Ip> + Copy) {
    let first = lab.run(Egress, &tcp(pod, peer, (22, 40_000), ACK));
    expect(&first, Egress, Reason::PolicyDenied, true);
    assert_eq!(first.flags, [EVENT_REVOKED]);
    lab.expect(Ingress, &tcp(peer, pod, (40_000, 22), ACK), Reason::PolicyDenied, true);
    lab.expect(Ingress, &tcp(peer, pod, (40_001, 22), SYN), Reason::PolicyDenied, true);
}

#[test]
fn an_audited_connection_passes_is_told_once_and_ends_at_its_first_packet_after() {
    let mut lab = Lab::audited();
    a_denied_connection(&mut lab, STRANGER4, POD4);
    lab.audit(BOTH, false);
    is_over(&mut lab, STRANGER4, POD4);
    let mut lab = Lab::audited();
    a_denied_connection(&mut lab, STRANGER6, POD6);
    lab.audit(BOTH, false);
    is_over(&mut lab, STRANGER6, POD6);
}

#[test]
fn the_event_says_what_a_drop_would_say() {
    let mut lab = Lab::audited();
    let told = lab.run(Ingress, &tcp(STRANGER4, POD4, (40_000, 22), SYN));
    let mut enforced = Lab::strict();
    let dropped = enforced.run(Ingress, &tcp(STRANGER4, POD4, (40_000, 22), SYN));
    assert_eq!((told.told, told.flags), (dropped.told, vec![EVENT_AUDIT]));
    assert_eq!(dropped.flags, [0]);
}

#[test]
fn what_is_allowed_is_as_without_audit() {
    let mut lab = Lab::audited();
    lab.expect(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), SYN), Reason::Allowed, true);
    lab.run(Egress, &tcp(POD4, FRIEND4, (80, 40_000), SYN | ACK));
    lab.run(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), ACK));
    lab.fast(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), ACK));
    lab.audit(BOTH, false);
    lab.fast(Egress, &tcp(POD4, FRIEND4, (80, 40_000), ACK));
}

#[test]
fn a_flow_that_stops_being_allowed_in_audit_goes_on_and_is_fast_again_once_allowed() {
    let mut lab = Lab::audited();
    let out = tcp(FRIEND4, POD4, (40_000, 80), ACK);
    lab.run(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), SYN));
    lab.run(Egress, &tcp(POD4, FRIEND4, (80, 40_000), SYN | ACK));
    lab.run(Ingress, &out);
    lab.plan(Plan {
        peers_removed: vec![IpAddr::from(FRIEND4), IpAddr::from(FRIEND6)],
        endpoints_set: vec![EndpointPlan { audit: true, ..endpoint(5, BOTH, true) }],
        ..Plan::default()
    });
    let first = lab.run(Ingress, &out);
    expect_spared(&first, Ingress, Spared::Audit, Reason::PolicyDenied, true);
    assert_eq!(first.flags, [EVENT_AUDIT | EVENT_REVOKED]);
    lab.spared(Ingress, &out, Reason::PolicyDenied, false);
    lab.find_friends();
    assert_eq!(lab.run(Ingress, &out).spared, []);
    lab.fast(Ingress, &out);
}

#[test]
fn what_was_revoked_lives_on_in_audit_and_is_revoked_again_after() {
    let mut lab = Lab::strict();
    let out = tcp(FRIEND4, POD4, (40_000, 80), ACK);
    lab.run(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), SYN));
    lab.run(Egress, &tcp(POD4, FRIEND4, (80, 40_000), SYN | ACK));
    lab.run(Ingress, &out);
    lab.lose_friends(BOTH);
    lab.expect(Ingress, &out, Reason::PolicyDenied, true);
    lab.audit(BOTH, true);
    lab.spared(Ingress, &out, Reason::PolicyDenied, true);
    lab.spared(Egress, &tcp(POD4, FRIEND4, (80, 40_000), ACK), Reason::PolicyDenied, false);
    let at = key(FRIEND4, (80, 40_000), TCP);
    assert_eq!(lab.kernel.flow4(&at).unwrap().flags & (CT_AUDITED | CT_REVOKED), CT_AUDITED);
    lab.audit(BOTH, false);
    lab.expect(Ingress, &out, Reason::PolicyDenied, true);
    assert_eq!(lab.kernel.flow4(&at).unwrap().flags & (CT_AUDITED | CT_REVOKED), CT_REVOKED);
}

#[test]
fn replies_to_an_audited_datagram_do_not_become_a_flow_of_the_pods_own() {
    // Egress is open, so that the answer alone would be allowed, and with it what it answers.
    let mut lab = Lab::new([true, false], [http(), http()]);
    lab.audit([true, false], true);
    let out = udp(STRANGER4, POD4, (5_000, 53));
    let back = udp(POD4, STRANGER4, (53, 5_000));
    lab.spared(Ingress, &out, Reason::PolicyDenied, true);
    let reply = lab.run(Egress, &back);
    expect_spared(&reply, Egress, Spared::Audit, Reason::PolicyDenied, false);
    let entry = lab.kernel.flow4(&key(STRANGER4, (53, 5_000), UDP)).unwrap();
    assert_eq!(entry.flags & (CT_AUDITED | CT_FROM_POD), CT_AUDITED);
    lab.audit([true, false], false);
    lab.expect(Ingress, &out, Reason::PolicyDenied, true);
    lab.expect(Egress, &back, Reason::PolicyDenied, true);
}

/// Moves a flow's last packet into the past.
fn idle(lab: &mut Lab, at: &CtKey4, seconds: u64) {
    let mut entry = lab.kernel.flow4(at).unwrap();
    entry.last_seen = entry.last_seen.saturating_sub(seconds * SECOND);
    lab.kernel.set_flow4(at, &entry).unwrap();
}

#[test]
fn a_strangers_audited_datagram_does_not_stop_what_the_pod_may_send_to_it() {
    let mut lab = Lab::new([true, false], [http(), http()]);
    for (into, out, proto) in [
        (udp(STRANGER4, POD4, (500, 500)), udp(POD4, STRANGER4, (500, 500)), UDP),
        (sctp(STRANGER4, POD4, (500, 500)), sctp(POD4, STRANGER4, (500, 500)), SCTP),
    ] {
        let at = key(STRANGER4, (500, 500), proto);
        lab.audit([true, false], true);
        lab.spared(Ingress, &into, Reason::PolicyDenied, true);
        lab.audit([true, false], false);
        // The pod has not answered: this may be its answer, and lets the stranger in no more.
        lab.expect(Egress, &out, Reason::NotIsolated, false);
        lab.expect(Ingress, &into, Reason::PolicyDenied, true);
        lab.expect(Egress, &out, Reason::NotIsolated, false);
        // What was dropped prolongs nothing.
        idle(&mut lab, &at, 61);
        lab.expect(Egress, &out, Reason::NotIsolated, true);
        assert_eq!(lab.kernel.flow4(&at).unwrap().flags & CT_FROM_POD, CT_FROM_POD);
        assert_eq!(lab.run(Ingress, &into).code, PASS, "its reply");
    }
}

#[test]
fn replies_to_a_revoked_datagram_stop_until_its_time_is_over_however_many_come() {
    let mut lab = Lab::new([true, false], [all(), http()]);
    let into = udp(FRIEND4, POD4, (5_000, 53));
    let back = udp(POD4, FRIEND4, (53, 5_000));
    let at = key(FRIEND4, (53, 5_000), UDP);
    lab.expect(Ingress, &into, Reason::Allowed, true);
    assert_eq!(lab.run(Egress, &back).code, PASS);
    lab.lose_friends([true, false]);
    // The flow was answered, so these are answers, up to its timeout of 60 s.
    for _ in 0..5 {
        lab.expect(Egress, &back, Reason::PolicyDenied, true);
        lab.expect(Ingress, &into, Reason::PolicyDenied, true);
        idle(&mut lab, &at, 11);
    }
    lab.expect(Egress, &back, Reason::PolicyDenied, true);
    idle(&mut lab, &at, 11);
    lab.expect(Ingress, &into, Reason::PolicyDenied, true);
    lab.expect(Egress, &back, Reason::NotIsolated, true);
    assert_eq!(lab.kernel.flows(IFINDEX), Some((1, 0)));
}

#[test]
fn an_answer_to_a_revoked_ping_is_no_packet_of_its_own() {
    let mut lab = Lab::new([true, false], [all(), http()]);
    lab.expect(Ingress, &echo(FRIEND4, POD4, 8, 9), Reason::Allowed, true);
    lab.lose_friends([true, false]);
    lab.expect(Egress, &echo(POD4, FRIEND4, 0, 9), Reason::PolicyDenied, true);
}

#[test]
fn the_middle_of_an_unknown_connection_passes_is_told_once_and_leaves_no_entry() {
    let mut lab = Lab::audited();
    let out = tcp(STRANGER4, POD4, (40_000, 22), ACK);
    lab.spared(Ingress, &out, Reason::PolicyDenied, true);
    lab.spared(Ingress, &out, Reason::PolicyDenied, false);
    assert_eq!(lab.kernel.flow4(&key(STRANGER4, (22, 40_000), TCP)), None);
    lab.audit(BOTH, false);
    lab.expect(Ingress, &out, Reason::PolicyDenied, true);
}

#[test]
fn an_audited_connection_does_not_replace_a_flow_that_lives_and_does_one_that_is_over() {
    let mut lab = Lab::audited();
    lab.expect(Egress, &tcp(POD4, FRIEND4, (50_000, 80), SYN), Reason::Allowed, true);
    lab.run(Ingress, &tcp(FRIEND4, POD4, (80, 50_000), SYN | ACK));
    lab.run(Egress, &tcp(POD4, FRIEND4, (50_000, 80), ACK));
    lab.spared(Ingress, &tcp(FRIEND4, POD4, (80, 50_000), SYN), Reason::PolicyDenied, true);
    lab.fast(Egress, &tcp(POD4, FRIEND4, (50_000, 80), ACK));
    lab.run(Egress, &tcp(POD4, FRIEND4, (50_000, 80), FIN | ACK));
    lab.run(Ingress, &tcp(FRIEND4, POD4, (80, 50_000), FIN | ACK));
    lab.plan(Plan { peers_removed: vec![IpAddr::from(FRIEND4)], ..Plan::default() });
    lab.spared(Egress, &tcp(POD4, FRIEND4, (50_000, 80), SYN), Reason::PolicyDenied, true);
    let entry = lab.kernel.flow4(&key(FRIEND4, (50_000, 80), TCP)).unwrap();
    assert_eq!(entry.flags, CT_AUDITED | CT_FROM_POD);
}

#[test]
fn what_is_no_policys_passes_too_and_is_told_once() {
    let mut lab = Lab::audited();
    let spoofed = tcp(STRANGER4, FRIEND4, (50_000, 80), SYN);
    let fragment = ethernet(0x0800, &v4(FRIEND4, POD4, UDP, 8, &[], &[0; 8]));
    let first = ethernet(0x0800, &v4(FRIEND4, POD4, TCP, 0x2000, &[], &udp_header(1, 2)));
    let truncated = ethernet(0x0800, &v4(FRIEND4, POD4, TCP, 0, &[], &[0; 6]));
    let foreign = ethernet(0x88cc, &[0; 46]);
    for (direction, packet, reason) in [
        (Egress, &spoofed, Reason::SpoofedSource),
        (Ingress, &fragment, Reason::FragmentNoFirst),
        (Ingress, &first, Reason::BadFragment),
        (Ingress, &truncated, Reason::Truncated),
        (Egress, &foreign, Reason::UnknownEthertype),
        (Ingress, &echo(FRIEND4, POD4, 0, 9), Reason::PolicyDenied),
        (Ingress, &error(STRANGER4, POD4, 3, &spoofed), Reason::PolicyDenied),
    ] {
        lab.spared(direction, packet, reason, true);
        lab.spared(direction, packet, reason, false);
    }
    // A different one is told.
    lab.spared(Egress, &tcp(STRANGER4, FRIEND4, (50_001, 80), SYN), Reason::SpoofedSource, true);
    lab.audit(BOTH, false);
    lab.expect(Egress, &spoofed, Reason::SpoofedSource, true);
    lab.expect(Ingress, &fragment, Reason::FragmentNoFirst, true);
}

#[test]
fn fragments_of_an_audited_datagram_pass() {
    let mut lab = Lab::audited();
    let mut datagram = udp_header(40_000, 53);
    datagram.resize(64, 0);
    let first = ethernet(0x0800, &v4(STRANGER4, POD4, UDP, 0x2000, &[], &datagram));
    let later = ethernet(0x0800, &v4(STRANGER4, POD4, UDP, 8, &[], &[0; 8]));
    lab.spared(Ingress, &first, Reason::PolicyDenied, true);
    lab.spared(Ingress, &later, Reason::FragmentNoFirst, true);
    lab.audit(BOTH, false);
    lab.expect(Ingress, &later, Reason::FragmentNoFirst, true);
}

#[test]
fn frames_for_other_pods_pass_and_say_nothing() {
    let mut lab = Lab::audited();
    lab.fast(Ingress, &tcp(FRIEND4, STRANGER4, (40_000, 80), SYN));
    lab.audit(BOTH, false);
    lab.expect(Ingress, &tcp(FRIEND4, STRANGER4, (40_000, 80), SYN), Reason::NotForPod, false);
}

#[test]
fn errors_about_an_audited_flow_are_audited_with_it() {
    let mut lab = Lab::audited();
    let sent = tcp(POD4, STRANGER4, (50_000, 22), SYN);
    lab.spared(Egress, &sent, Reason::PolicyDenied, true);
    lab.spared(Ingress, &error(FRIEND4, POD4, 3, &sent), Reason::PolicyDenied, true);
    lab.audit(BOTH, false);
    lab.expect(Ingress, &error(FRIEND4, POD4, 3, &sent), Reason::PolicyDenied, true);
}

#[test]
fn audited_flows_leave_half_the_quota_to_allowed_ones_and_a_full_one_drops_nothing() {
    let mut lab = Lab::new(BOTH, [all(), all()]);
    lab.audit(BOTH, true);
    // 4,096 entries: 256 half-open flows an endpoint.
    for port in 1_000..1_128 {
        lab.spared(Ingress, &tcp(STRANGER4, POD4, (port, 22), SYN), Reason::PolicyDenied, true);
    }
    assert_eq!(lab.kernel.flows(IFINDEX), Some((128, 0)));
    let beyond = tcp(STRANGER4, POD4, (2_000, 22), SYN);
    lab.spared(Ingress, &beyond, Reason::PolicyDenied, true);
    lab.spared(Ingress, &beyond, Reason::PolicyDenied, false);
    assert_eq!(lab.kernel.flows(IFINDEX), Some((128, 0)));
    for port in 1_000..1_128 {
        lab.expect(Ingress, &tcp(FRIEND4, POD4, (port, 80), SYN), Reason::Allowed, true);
    }
    let full = tcp(FRIEND4, POD4, (2_000, 80), SYN);
    lab.spared(Ingress, &full, Reason::ConntrackFull, true);
    lab.spared(Ingress, &full, Reason::ConntrackFull, false);
    lab.audit(BOTH, false);
    lab.expect(Ingress, &full, Reason::ConntrackFull, true);
}

/// A packet to an interface without an endpoint.
fn without_endpoint(lab: &mut Lab) -> Outcome {
    lab.run(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), SYN))
}

#[test]
fn interfaces_without_an_endpoint_follow_the_node() {
    let mut lab = Lab::strict();
    lab.plan(Plan { endpoints_removed: vec![IFINDEX], ..Plan::default() });
    let closed = without_endpoint(&mut lab);
    expect(&closed, Ingress, Reason::EndpointNotReady, false);
    lab.kernel.audit_unknown(true);
    let reason = Reason::EndpointNotReady;
    expect_spared(&without_endpoint(&mut lab), Ingress, Spared::Audit, reason, false);
    lab.kernel.audit_unknown(false);
    lab.kernel.disable_node(u64::MAX);
    expect_spared(&without_endpoint(&mut lab), Ingress, Spared::Disabled, reason, false);
    lab.kernel.disable_node(0);
    expect(&without_endpoint(&mut lab), Ingress, reason, false);
}

const SOON: Duration = Duration::from_millis(300);

/// The clock of the programs is coarse.
const TICK: Duration = Duration::from_millis(20);

fn soon() -> u64 {
    monotonic() + u64::try_from(SOON.as_nanos()).unwrap()
}

/// Enforcement is switched off: a denied connection passes until the time is over.
fn ends_by_itself(disable: impl Fn(&mut Lab, u64)) {
    let mut lab = Lab::strict();
    disable(&mut lab, soon());
    let out = tcp(STRANGER4, POD4, (40_000, 22), SYN);
    let why = Spared::Disabled;
    expect_spared(&lab.run(Ingress, &out), Ingress, why, Reason::PolicyDenied, true);
    let reply = lab.run(Egress, &tcp(POD4, STRANGER4, (22, 40_000), SYN | ACK));
    expect_spared(&reply, Egress, why, Reason::PolicyDenied, false);
    let out = tcp(STRANGER6, POD6, (40_000, 22), SYN);
    expect_spared(&lab.run(Ingress, &out), Ingress, why, Reason::PolicyDenied, true);
    // What the agent writes meanwhile changes nothing of it.
    lab.audit(BOTH, false);
    expect_spared(&lab.run(Ingress, &out), Ingress, why, Reason::PolicyDenied, false);
    sleep(SOON + TICK);
    let first = lab.run(Ingress, &tcp(STRANGER4, POD4, (40_000, 22), ACK));
    expect(&first, Ingress, Reason::PolicyDenied, true);
    assert_eq!(first.flags, [EVENT_REVOKED]);
    lab.expect(Ingress, &out, Reason::PolicyDenied, true);
}

#[test]
fn enforcement_switched_off_for_a_pod_comes_back_by_itself() {
    ends_by_itself(|lab, until| assert!(lab.kernel.disable_endpoint(IFINDEX, until)));
}

#[test]
fn enforcement_switched_off_for_the_node_comes_back_by_itself() {
    ends_by_itself(|lab, until| lab.kernel.disable_node(until));
}

#[test]
fn what_is_allowed_while_switched_off_is_an_ordinary_flow() {
    let mut lab = Lab::strict();
    lab.kernel.disable_node(u64::MAX);
    lab.expect(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), SYN), Reason::Allowed, true);
    lab.run(Egress, &tcp(POD4, FRIEND4, (80, 40_000), SYN | ACK));
    lab.run(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), ACK));
    lab.kernel.disable_node(0);
    lab.fast(Ingress, &tcp(FRIEND4, POD4, (40_000, 80), ACK));
}

#[test]
fn audit_counts_before_a_switch_and_a_new_pod_in_the_slot_is_enforced() {
    let mut lab = Lab::audited();
    assert!(lab.kernel.disable_endpoint(IFINDEX, u64::MAX));
    let out = tcp(STRANGER4, POD4, (40_000, 22), SYN);
    lab.spared(Ingress, &out, Reason::PolicyDenied, true);
    assert_eq!(lab.kernel.disabled(monotonic()).endpoints, [(IFINDEX, u64::MAX)]);
    lab.plan(Plan { endpoints_removed: vec![IFINDEX], ..Plan::default() });
    assert!(!lab.kernel.disable_endpoint(IFINDEX, u64::MAX), "no endpoint, no switch");
    lab.plan(Plan { endpoints_set: vec![endpoint(5, BOTH, false)], ..Plan::default() });
    assert_eq!(lab.kernel.disabled(monotonic()), Default::default());
    lab.expect(Ingress, &out, Reason::PolicyDenied, true);
}

#[test]
fn a_switch_from_audit_to_off_is_silent_for_flows_that_were_told() {
    let mut lab = Lab::audited();
    let out = tcp(STRANGER4, POD4, (40_000, 22), SYN);
    lab.spared(Ingress, &out, Reason::PolicyDenied, true);
    lab.kernel.disable_node(u64::MAX);
    lab.audit(BOTH, false);
    let outcome = lab.run(Ingress, &out);
    expect_spared(&outcome, Ingress, Spared::Disabled, Reason::PolicyDenied, false);
    assert_eq!(outcome.code, PASS);
}

#[test]
fn a_connection_of_a_starting_pod_that_was_spared_goes_on_if_policy_allows_it() {
    let mut lab = Lab::new([true, true], [http(), all()]);
    let start = EndpointPlan { starting: true, audit: true, ..endpoint(TABLE + 1, BOTH, false) };
    lab.plan(Plan { endpoints_set: vec![start], ..Plan::default() });
    let not_ready = Reason::EndpointNotReady;
    lab.spared(Egress, &tcp(POD4, FRIEND4, (50_000, 5432), SYN), not_ready, true);
    lab.run(Ingress, &tcp(FRIEND4, POD4, (5432, 50_000), SYN | ACK));
    lab.run(Egress, &tcp(POD4, FRIEND4, (50_000, 5432), ACK));
    // Its policy is known, and it is enforced: it may connect, and the answers are answers.
    lab.plan(Plan { endpoints_set: vec![endpoint(TABLE, BOTH, true)], ..Plan::default() });
    assert_eq!(lab.run(Ingress, &tcp(FRIEND4, POD4, (5432, 50_000), ACK)).code, PASS);
    lab.fast(Egress, &tcp(POD4, FRIEND4, (50_000, 5432), ACK));
}

#[test]
fn established_audited_flows_leave_half_the_quota_to_allowed_ones() {
    let mut lab = Lab::new(BOTH, [http(), all()]);
    lab.audit(BOTH, true);
    // 4,096 entries: 1,024 established flows an endpoint.
    let connect = |lab: &mut Lab, peer, port: u16, to: u16| {
        lab.run(Ingress, &tcp(peer, POD4, (port, to), SYN));
        lab.run(Egress, &tcp(POD4, peer, (to, port), SYN | ACK));
        lab.run(Ingress, &tcp(peer, POD4, (port, to), ACK))
    };
    for port in 1_000..1_700 {
        assert_eq!(connect(&mut lab, STRANGER4, port, 22).code, PASS);
    }
    let (_, established) = lab.kernel.flows(IFINDEX).unwrap();
    assert!(established <= 512, "{established}");
    lab.audit(BOTH, false);
    for port in 1_000..1_500 {
        assert_eq!(connect(&mut lab, FRIEND4, port, 80).code, PASS);
    }
}

#[test]
fn what_nobody_speaks_for_after_a_restart_is_closed_even_if_it_was_audited() {
    let mut lab = Lab::audited();
    let out = tcp(FRIEND4, POD4, (40_000, 80), SYN);
    assert_eq!(lab.kernel.close_unclaimed(&KernelState::default()), [IFINDEX]);
    lab.expect(Ingress, &out, Reason::PolicyDenied, true);
    // Where the node audits what is nobody's, so it is.
    lab.kernel.audit_unknown(true);
    lab.kernel.close_unclaimed(&KernelState::default());
    assert_eq!(lab.run(Ingress, &out).code, PASS);
}
