//! Room: a full quota or table closes what is new and touches nothing that is there, and no pod takes
//! another's.

use std::net::IpAddr;

use enforcer::cluster::plan::{EndpointPlan, Plan};
use enforcer_common::{
    abi::{
        CtEntry, CtKey4,
        Direction::{self, Egress, Ingress},
    },
    conntrack::SECOND,
    reason::Reason,
};

use crate::{
    lab::{DROP, FRIEND4, IFINDEX, Lab, PASS, POD4, STRANGER4, TABLE, all, http, tally},
    packets::{ACK, FIN, RST, SYN, tcp, udp},
    runner::Runner,
};

/// A connection of the friend's, by its port.
fn establish(lab: &mut Lab, port: u16) {
    for (direction, packet) in [
        (Ingress, tcp(FRIEND4, POD4, (port, 80), SYN)),
        (Egress, tcp(POD4, FRIEND4, (80, port), SYN | ACK)),
        (Ingress, tcp(FRIEND4, POD4, (port, 80), ACK)),
    ] {
        assert_eq!(lab.run(direction, &packet).code, PASS);
    }
}

fn key(port: u16) -> CtKey4 {
    CtKey4 {
        ifindex: IFINDEX,
        local: u32::from_ne_bytes(POD4),
        remote: u32::from_ne_bytes(FRIEND4),
        local_port: 80,
        remote_port: port,
        proto: 6,
    }
}

/// Has a connection been silent for so many seconds, however long the test took so far.
fn idle(lab: &mut Lab, port: u16, seconds: u64) {
    let mut entry = lab.kernel.flow4(&key(port)).unwrap();
    entry.last_seen = enforcer::dataplane::monotonic().saturating_sub(seconds * SECOND);
    lab.kernel.set_flow4(&key(port), &entry).unwrap();
}

/// Fills the table with flows of an interface that is not there. Returns how many there was room for.
fn fill(lab: &mut Lab, now: u64) -> u32 {
    let entry = CtEntry { last_seen: now, created: now, slot: 4000, ..CtEntry::default() };
    let mut number = 0;
    loop {
        let key = CtKey4 { ifindex: 999, local: number, proto: 6, ..CtKey4::default() };
        if lab.kernel.set_flow4(&key, &entry).is_err() {
            return number;
        }
        number += 1;
        assert!(number < 1 << 20, "a table without end");
    }
}

#[test]
fn a_full_table_closes_new_flows_and_touches_no_old_one() {
    let mut lab = Lab::strict();
    establish(&mut lab, 1_000);
    establish(&mut lab, 1_001);
    idle(&mut lab, 1_001, 400_000);
    lab.run(Ingress, &tcp(FRIEND4, POD4, (1_002, 80), SYN));
    assert!(fill(&mut lab, enforcer::dataplane::monotonic()) > 4_000);
    for port in 2_000..2_010 {
        lab.expect(Ingress, &tcp(FRIEND4, POD4, (port, 80), SYN), Reason::ConntrackFull, true);
        lab.expect(Egress, &tcp(POD4, FRIEND4, (port, 80), SYN), Reason::ConntrackFull, true);
        lab.expect(Ingress, &tcp(STRANGER4, POD4, (port, 80), SYN), Reason::PolicyDenied, true);
    }
    // The busy one, the idle one and the one that is just opening go on, and may close.
    lab.fast(Ingress, &tcp(FRIEND4, POD4, (1_000, 80), ACK));
    assert_eq!(lab.run(Egress, &tcp(POD4, FRIEND4, (80, 1_001), ACK)).code, PASS);
    assert_eq!(lab.run(Egress, &tcp(POD4, FRIEND4, (80, 1_002), SYN | ACK)).code, PASS);
    assert_eq!(lab.run(Ingress, &tcp(FRIEND4, POD4, (1_002, 80), ACK)).code, PASS);
    assert_eq!(lab.kernel.flows(1), Some((0, 3)));
    // What the policy takes back stops, room or none.
    lab.lose_friends([true, true]);
    lab.expect(Ingress, &tcp(FRIEND4, POD4, (1_000, 80), ACK), Reason::PolicyDenied, true);
}

#[test]
fn a_full_table_closes_nobody_whom_no_policy_isolates() {
    let mut lab = Lab::new([false, false], [all(), all()]);
    fill(&mut lab, enforcer::dataplane::monotonic());
    lab.expect(Ingress, &tcp(FRIEND4, POD4, (2_000, 80), SYN), Reason::NotIsolated, true);
    assert_eq!(lab.run(Egress, &tcp(POD4, FRIEND4, (80, 2_000), SYN | ACK)).code, PASS);
}

#[test]
fn with_a_full_table_the_node_is_refused_whole_and_not_by_half() {
    let mut lab = Lab::strict();
    fill(&mut lab, enforcer::dataplane::monotonic());
    // Without an entry nobody would know the pod's answer for one.
    let probe = tcp(crate::lab::NODE4, POD4, (33_000, 9_999), SYN);
    let outcome = lab.run_from(Ingress, &probe, 0);
    let answer = lab.run(Egress, &tcp(POD4, crate::lab::NODE4, (9_999, 33_000), SYN | ACK));
    assert_eq!((outcome.code, answer.code), (DROP, DROP), "{outcome:?} {answer:?}");
}

#[test]
fn a_full_quota_of_established_flows_closes_what_would_become_one_more() {
    // 1,024 entries: 64 half-open and 256 established ones.
    let mut lab = Lab::sized([true, true], [http(), http()], 1024);
    for port in 1_000..1_256 {
        establish(&mut lab, port);
    }
    assert_eq!(lab.kernel.flows(1), Some((0, 256)));
    lab.expect(Ingress, &tcp(FRIEND4, POD4, (2_000, 80), SYN), Reason::Allowed, true);
    assert_eq!(lab.run(Egress, &tcp(POD4, FRIEND4, (80, 2_000), SYN | ACK)).code, PASS);
    let last = lab.run(Ingress, &tcp(FRIEND4, POD4, (2_000, 80), ACK));
    assert_eq!(last.counted, [(Reason::ConntrackFull, Ingress, 1)]);
    assert_eq!(lab.kernel.flows(1), Some((1, 256)));
    for port in 1_000..1_256 {
        assert_eq!(lab.send(Egress, &tcp(POD4, FRIEND4, (80, port), ACK), 2), PASS);
    }
}

/// A second pod, on a real interface.
fn with_neighbour(lab: &mut Lab) -> (u32, [u8; 4]) {
    let made = std::process::Command::new("ip")
        .args(["link", "add", "pod2", "type", "veth", "peer", "name", "in2"])
        .status()
        .unwrap();
    assert!(made.success(), "ip link add");
    // SAFETY: a text that ends with 0.
    let ifindex = unsafe { libc::if_nametoindex(c"pod2".as_ptr()) };
    let address = [10, 0, 0, 9];
    lab.plan(Plan {
        endpoints_set: vec![EndpointPlan {
            ifindex,
            interface: "pod2".into(),
            addresses: vec![IpAddr::from(address)],
            table: TABLE,
            isolated: [true, true],
            audit: false,
            rejudge: false,
            starting: false,
        }],
        ..Plan::default()
    });
    (ifindex, address)
}

#[test]
fn a_flood_of_a_million_tuples_costs_nobody_a_flow() {
    const TUPLES: u32 = 1_000_000;
    let mut lab = Lab::strict();
    let (neighbour, address) = with_neighbour(&mut lab);
    let runner = Runner::new(&mut lab.kernel);
    establish(&mut lab, 1_000);
    establish(&mut lab, 1_001);
    idle(&mut lab, 1_001, 431_000);
    let send =
        |ifindex, direction: Direction, packet: &[u8]| runner.run(direction, packet, ifindex, 2);
    // The neighbour has a flow of its own, and one that waits for its answer.
    let theirs = |port, flags| tcp(FRIEND4, address, (port, 80), flags);
    assert_eq!(send(neighbour, Ingress, &theirs(1_000, SYN)), PASS);
    assert_eq!(send(neighbour, Egress, &tcp(address, FRIEND4, (80, 1_000), SYN | ACK)), PASS);
    assert_eq!(send(neighbour, Ingress, &theirs(1_000, ACK)), PASS);
    assert_eq!(send(neighbour, Ingress, &theirs(1_001, SYN)), PASS);
    let ours = [
        (Ingress, tcp(FRIEND4, POD4, (1_000, 80), ACK)),
        (Egress, tcp(POD4, FRIEND4, (80, 1_000), ACK)),
    ];
    let mut passed = 0_u32;
    for number in 0..TUPLES {
        // Ten ports that policy allows, each source port of 50,000, and both ways.
        let (source, target) = (10_000 + (number / 20 % 50_000) as u16, 80 + (number % 10) as u16);
        let (direction, packet) = if number / 10 % 2 == 0 {
            (Ingress, tcp(FRIEND4, POD4, (source, target), SYN))
        } else {
            (Egress, tcp(POD4, FRIEND4, (source, target), SYN))
        };
        passed += u32::from(send(1, direction, &packet) == PASS);
        if number % 1_000 == 0 {
            for (direction, packet) in &ours {
                assert_eq!(send(1, *direction, packet), PASS, "after {number} tuples");
            }
            assert_eq!(send(neighbour, Ingress, &theirs(1_000, ACK)), PASS);
        }
        if number == TUPLES / 2 {
            // In the middle of it the neighbour opens, and its opened one completes.
            assert_eq!(send(neighbour, Ingress, &theirs(2_000, SYN)), PASS);
            let answer = tcp(address, FRIEND4, (80, 1_001), SYN | ACK);
            assert_eq!(send(neighbour, Egress, &answer), PASS);
            assert_eq!(send(neighbour, Ingress, &theirs(1_001, ACK)), PASS);
        }
    }
    // The quota of half-open flows, once over.
    assert_eq!(passed, 256);
    assert_eq!(lab.kernel.flows(1), Some((256, 2)));
    assert_eq!(lab.kernel.flows(neighbour), Some((1, 2)));
    // The idle one as well, and only its own time ends it.
    assert_eq!(send(1, Ingress, &tcp(FRIEND4, POD4, (1_001, 80), ACK)), PASS);
    let refused = u64::from(TUPLES - passed);
    let counted =
        lab.counted(Reason::ConntrackFull, Ingress) + lab.counted(Reason::ConntrackFull, Egress);
    assert_eq!(counted, refused);
}

#[test]
fn datagrams_fill_a_quota_and_their_answers_still_come() {
    let mut lab = Lab::new([true, true], [http(), all()]);
    let outcomes: Vec<_> =
        (1_000..1_300).map(|port| lab.run(Egress, &udp(POD4, FRIEND4, (port, 53)))).collect();
    let tally = tally(&outcomes);
    assert_eq!((tally[&Reason::Allowed], tally[&Reason::ConntrackFull]), (256, 44));
    for port in 1_000..1_256 {
        assert_eq!(lab.run(Ingress, &udp(FRIEND4, POD4, (53, port))).code, PASS, "{port}");
    }
    // What was refused has no answer.
    assert_eq!(lab.run(Ingress, &udp(FRIEND4, POD4, (53, 1_299))).code, DROP);
    // Answered flows count elsewhere: there is room again.
    lab.expect(Egress, &udp(POD4, FRIEND4, (1_299, 53)), Reason::Allowed, true);
}

/// Both sides close a connection of the friend's.
fn close(lab: &mut Lab, port: u16) {
    for (direction, packet) in [
        (Ingress, tcp(FRIEND4, POD4, (port, 80), FIN | ACK)),
        (Egress, tcp(POD4, FRIEND4, (80, port), FIN | ACK)),
        (Ingress, tcp(FRIEND4, POD4, (port, 80), ACK)),
    ] {
        assert_eq!(lab.run(direction, &packet).code, PASS);
    }
}

/// 256 connections, which is all that the pod may have: closed, but for two that are idle for long.
fn full_of_closed() -> Lab {
    // 1,024 entries: 64 half-open and 256 established ones.
    let mut lab = Lab::sized([true, true], [http(), http()], 1024);
    for port in 1_000..1_256 {
        establish(&mut lab, port);
        if port >= 1_002 {
            close(&mut lab, port);
        }
    }
    (1_000..1_002).for_each(|port| idle(&mut lab, port, 400_000));
    lab
}

#[test]
fn closed_connections_give_way_where_the_quota_is_full() {
    let mut lab = full_of_closed();
    lab.run(Ingress, &tcp(FRIEND4, POD4, (2_000, 80), SYN));
    assert_eq!(lab.run(Egress, &tcp(POD4, FRIEND4, (80, 2_000), SYN | ACK)).code, PASS);
    let last = tcp(FRIEND4, POD4, (2_000, 80), ACK);
    (1_002..1_256).for_each(|port| idle(&mut lab, port, 0));
    let early = lab.run(Ingress, &last);
    assert_eq!(early.counted, [(Reason::ConntrackFull, Ingress, 1)], "their ends may be repeated");
    // Long before their own time, which is two minutes.
    (1_002..1_255).for_each(|port| idle(&mut lab, port, 11));
    // The table is walked at most once a second.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    idle(&mut lab, 1_255, 0);
    assert_eq!(lab.run(Ingress, &last).code, PASS);
    // The idle ones, the one that closed a moment ago, and the new one.
    assert_eq!(lab.kernel.flows(1), Some((0, 4)));
    assert_eq!(lab.run(Egress, &tcp(POD4, FRIEND4, (80, 1_001), ACK)).code, PASS);
}

#[test]
fn room_that_one_pod_needs_is_not_made_of_anothers_flows() {
    let mut lab = full_of_closed();
    let (neighbour, address) = with_neighbour(&mut lab);
    let runner = Runner::new(&mut lab.kernel);
    let theirs = |flags| tcp(FRIEND4, address, (1_000, 80), flags);
    let answer = |flags| tcp(address, FRIEND4, (80, 1_000), flags);
    for (direction, packet) in [
        (Ingress, theirs(SYN)),
        (Egress, answer(SYN | ACK)),
        (Ingress, theirs(ACK)),
        (Ingress, theirs(FIN | ACK)),
        (Egress, answer(FIN | ACK)),
    ] {
        assert_eq!(runner.run(direction, &packet, neighbour, 2), PASS);
    }
    let key = CtKey4 { ifindex: neighbour, local: u32::from_ne_bytes(address), ..key(1_000) };
    let mut entry = lab.kernel.flow4(&key).unwrap();
    entry.last_seen = entry.last_seen.saturating_sub(11 * SECOND);
    lab.kernel.set_flow4(&key, &entry).unwrap();
    (1_002..1_256).for_each(|port| idle(&mut lab, port, 11));
    establish(&mut lab, 2_000);
    assert_eq!(lab.kernel.flows(1), Some((0, 3)));
    assert_eq!(lab.kernel.flows(neighbour), Some((0, 1)));
}

#[test]
fn the_sweep_makes_room_before_it_is_needed() {
    let mut lab = full_of_closed();
    (1_002..1_255).for_each(|port| idle(&mut lab, port, 11));
    idle(&mut lab, 1_255, 0);
    let swept = lab.kernel.sweep();
    assert_eq!((swept.live, swept.deleted), (3, 253));
    assert_eq!(lab.kernel.flows(1), Some((0, 3)));
    // With room enough they stay for their time.
    (1_300..1_310).for_each(|port| {
        establish(&mut lab, port);
        close(&mut lab, port);
        idle(&mut lab, port, 100);
    });
    assert_eq!(lab.kernel.sweep().deleted, 0);
}

#[test]
fn a_sweep_sees_each_of_many_flows_once() {
    let mut lab = Lab::sized([true, true], [http(), http()], 65_536);
    for port in 1_000..1_300 {
        establish(&mut lab, port);
    }
    let strangers = fill(&mut lab, enforcer::dataplane::monotonic());
    assert!(strangers > 60_000, "{strangers}");
    let swept = lab.kernel.sweep();
    assert_eq!((swept.live, swept.deleted), (300, strangers as usize));
    assert_eq!(lab.kernel.flows(1), Some((0, 300)));
    assert_eq!(lab.kernel.sweep().live, 300);
}

#[test]
fn a_full_table_makes_room_of_what_is_over() {
    let mut lab = Lab::strict();
    establish(&mut lab, 1_000);
    establish(&mut lab, 1_001);
    close(&mut lab, 1_001);
    idle(&mut lab, 1_001, 11);
    let there = fill(&mut lab, enforcer::dataplane::monotonic());
    // One place for the new connection, that of the closed one.
    lab.expect(Ingress, &tcp(FRIEND4, POD4, (2_000, 80), SYN), Reason::Allowed, true);
    lab.expect(Ingress, &tcp(FRIEND4, POD4, (2_001, 80), SYN), Reason::ConntrackFull, true);
    lab.fast(Ingress, &tcp(FRIEND4, POD4, (1_000, 80), ACK));
    // What is not over stays, whoever's it is.
    assert_eq!(lab.kernel.sweep().deleted, there as usize, "all but the pod's");
}

#[test]
fn a_reset_that_ended_nothing_costs_an_idle_connection_nothing() {
    let mut lab = Lab::strict();
    establish(&mut lab, 1_000);
    // With numbers that the pod throws away, as somebody would send who only guesses.
    assert_eq!(lab.run(Ingress, &tcp(FRIEND4, POD4, (1_000, 80), RST)).code, PASS);
    idle(&mut lab, 1_000, 3_000);
    assert_eq!(lab.run(Egress, &tcp(POD4, FRIEND4, (80, 1_000), ACK)).code, PASS);
    // The other side goes on, and so does the connection.
    assert_eq!(lab.run(Ingress, &tcp(FRIEND4, POD4, (1_000, 80), ACK)).code, PASS);
    idle(&mut lab, 1_000, 400_000);
    assert_eq!(lab.run(Egress, &tcp(POD4, FRIEND4, (80, 1_000), ACK)).code, PASS);
}
