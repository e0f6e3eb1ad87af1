//! ICMP errors: they follow the flow that they quote, for as long as it is allowed, and only to who
//! sent what is quoted.

use enforcer_common::{
    abi::Direction::{self, Egress, Ingress},
    reason::Reason,
};

use crate::{
    lab::{FRIEND4, FRIEND6, Lab, POD4, POD6, STRANGER4, STRANGER6, all, expect, row},
    packets::{ACK, Ip, SYN, echo, error, sctp, tcp, udp},
};

/// Who is who in one family.
#[derive(Clone, Copy)]
struct Family {
    pod: Ip,
    friend: Ip,
    /// No friend: may send errors about a flow, and nothing else.
    router: Ip,
    /// Types of errors.
    errors: &'static [u8],
    echo: u8,
}

fn families() -> [Family; 2] {
    [
        Family {
            pod: POD4.into(),
            friend: FRIEND4.into(),
            router: STRANGER4.into(),
            errors: &[3, 11, 12],
            echo: 8,
        },
        Family {
            pod: POD6.into(),
            friend: FRIEND6.into(),
            router: STRANGER6.into(),
            errors: &[1, 2, 3, 4],
            echo: 128,
        },
    ]
}

/// A flow of each protocol: its first packet, and one that differs in the pod's port.
fn flows(from: Ip, to: Ip, echo_type: u8) -> [[Vec<u8>; 2]; 4] {
    let both = |make: &dyn Fn(u16) -> Vec<u8>| [make(80), make(81)];
    [
        both(&|port| tcp(from, to, (port, 80), SYN)),
        both(&|port| udp(from, to, (port, 80))),
        both(&|port| sctp(from, to, (port, 80))),
        both(&|port| echo(from, to, echo_type, port)),
    ]
}

/// Friends may do everything.
fn open() -> Lab {
    Lab::new([true, true], [all(), all()])
}

fn denied(lab: &mut Lab, direction: Direction, packet: &[u8]) {
    let outcome = lab.run(direction, packet);
    expect(&outcome, direction, Reason::PolicyDenied, !outcome.told.is_empty());
}

#[test]
fn an_error_about_what_the_pod_sent_comes_in_from_anywhere() {
    let mut lab = open();
    for family in families() {
        let Family { pod, friend, router, .. } = family;
        for [sent, other] in flows(pod, friend, family.echo) {
            lab.start_over([true, true]);
            for kind in family.errors {
                denied(&mut lab, Ingress, &error(router, pod, *kind, &sent));
            }
            lab.expect(Egress, &sent, Reason::Allowed, true);
            for kind in family.errors {
                lab.expect(Ingress, &error(router, pod, *kind, &sent), Reason::Related, false);
                denied(&mut lab, Ingress, &error(router, pod, *kind, &other));
            }
            lab.lose_friends([true, true]);
            for kind in family.errors {
                denied(&mut lab, Ingress, &error(router, pod, *kind, &sent));
            }
        }
    }
}

#[test]
fn an_error_about_what_the_pod_got_goes_out_to_who_sent_it_only() {
    let mut lab = open();
    for family in families() {
        let Family { pod, friend, router, .. } = family;
        for [got, other] in flows(friend, pod, family.echo) {
            lab.start_over([true, true]);
            lab.expect(Ingress, &got, Reason::Allowed, true);
            let kind = family.errors[0];
            lab.expect(Egress, &error(pod, friend, kind, &got), Reason::Related, false);
            denied(&mut lab, Egress, &error(pod, router, kind, &got));
            denied(&mut lab, Egress, &error(pod, router, kind, &other));
            lab.lose_friends([true, true]);
            denied(&mut lab, Egress, &error(pod, friend, kind, &got));
        }
    }
}

#[test]
fn an_error_that_quotes_what_nobody_sent_is_related_to_nothing() {
    for family in families() {
        let Family { pod, friend, router, errors, .. } = family;
        let kind = errors[0];
        let mut lab = open();
        let sent = tcp(pod, friend, (5_000, 80), SYN);
        lab.expect(Egress, &sent, Reason::Allowed, true);
        let foreign = [
            // Nobody's, another's, the wrong way round, of another protocol.
            tcp(router, friend, (5_000, 80), SYN),
            tcp(pod, router, (5_000, 80), SYN),
            tcp(friend, pod, (80, 5_000), SYN),
            tcp(pod, friend, (80, 5_000), SYN),
            tcp(pod, friend, (5_000, 81), SYN),
            udp(pod, friend, (5_000, 80)),
            sctp(pod, friend, (5_000, 80)),
            echo(pod, friend, family.echo, 5_000),
            // An error about an error is none.
            error(pod, friend, kind, &sent),
        ];
        for quoted in foreign {
            denied(&mut lab, Ingress, &error(router, pod, kind, &quoted));
        }
        // The flow is as it was.
        lab.expect(Ingress, &error(router, pod, kind, &sent), Reason::Related, false);
    }
}

#[test]
fn an_error_that_quotes_too_little_is_related_to_nothing() {
    for family in families() {
        let Family { pod, friend, router, errors, .. } = family;
        let mut lab = open();
        let sent = tcp(pod, friend, (5_000, 80), SYN);
        lab.expect(Egress, &sent, Reason::Allowed, true);
        let header = if matches!(pod, Ip::V4(_)) { 20 } else { 40 };
        // Ethernet, IP and both ports: RFC 792 promises eight bytes, and the ports are the first
        // four.
        for length in 14..14 + header + 4 {
            let outcome = lab.run(Ingress, &error(router, pod, errors[0], &sent[..length]));
            assert_ne!(outcome.code, crate::lab::PASS, "{length} bytes: {outcome:?}");
        }
        let enough = &sent[..14 + header + 8];
        lab.expect(Ingress, &error(router, pod, errors[0], enough), Reason::Related, false);
    }
}

#[test]
fn an_error_neither_opens_a_flow_nor_keeps_one_alive_nor_ends_it() {
    let mut lab = Lab::strict();
    let setting = super::script::settings(6).find(|setting| setting.by_pod && !setting.v6).unwrap();
    setting.run(&mut lab, "o S new S -\n r SA pass S SA");
    setting.age(&mut lab, 100);
    let before = setting.entry(&lab).unwrap();
    let (_, sent) = setting.packet(true, ACK);
    for kind in [3, 11, 12] {
        lab.expect(Ingress, &error(STRANGER4, POD4, kind, &sent), Reason::Related, false);
    }
    assert_eq!(setting.entry(&lab), Some(before));
    assert_eq!(lab.kernel.flows(1), Some((1, 0)));
    setting.age(&mut lab, 21);
    denied(&mut lab, Ingress, &error(STRANGER4, POD4, 3, &sent));
}

#[test]
fn messages_that_are_no_errors_are_judged_for_themselves() {
    let mut lab = Lab::new([true, true], [all(), row(1..2)]);
    let sent = udp(FRIEND4, POD4, (80, 80));
    lab.expect(Ingress, &sent, Reason::Allowed, true);
    // Redirect, timestamp and what has no meaning, around a flow's packet.
    for kind in [4, 5, 13, 200] {
        denied(&mut lab, Egress, &error(POD4, FRIEND4, kind, &sent));
        denied(&mut lab, Ingress, &error(STRANGER4, POD4, kind, &sent));
    }
}
