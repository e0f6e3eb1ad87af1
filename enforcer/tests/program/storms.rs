//! Drops by tuple, what is told of them however many there are, and what is not told by wish.

use std::{collections::BTreeMap, thread, time::Duration};

use enforcer::dataplane::{FlowEvents, monotonic};
use enforcer_common::{
    abi::{
        DROP_REGION,
        Direction::{Egress, Ingress},
        EVENT_UNPARSED, Event, event_kind, rule,
    },
    conntrack::SECOND,
    reason::Reason,
};

use crate::{
    lab::{DROP, FRIEND4, Lab, PASS, POD4, STRANGER4, all, expect},
    packets::{ACK, FIN, SYN, tcp, udp},
};

fn denied(port: u16) -> Vec<u8> {
    tcp(STRANGER4, POD4, (port, 80), SYN)
}

fn packets(events: &[Event]) -> u64 {
    events.iter().map(|event| u64::from(event.count)).sum()
}

/// What is told of drops.
fn drops(events: Vec<Event>) -> Vec<Event> {
    events.into_iter().filter(|e| e.reason == Reason::PolicyDenied as u8).collect()
}

#[test]
fn a_tuples_first_drop_is_told_at_once_and_the_rest_once_a_second_by_number() {
    let mut lab = Lab::strict();
    let start = monotonic();
    assert_eq!(lab.send(Ingress, &denied(40_000), 2), DROP);
    let first = lab.drain().events;
    assert_eq!((first.len(), packets(&first)), (1, 1), "at once");
    let mut sent = 1;
    let mut told = Vec::new();
    while monotonic() - start < SECOND * 5 / 2 {
        assert_eq!(lab.send(Ingress, &denied(40_000), 2), DROP);
        sent += 1;
        told.extend(lab.drain().events);
        thread::sleep(Duration::from_millis(1));
    }
    assert!((1..=2).contains(&told.len()), "at most one a second: {told:?}");
    for event in &told {
        assert_eq!((event.kind, event.rule), (event_kind::VERDICT, rule::DEFAULT_DENY));
        assert_eq!((event.src_port, event.dst_port, event.flags), (40_000, 80, 0));
    }
    // The last ones are told without a packet more.
    assert_eq!(lab.sweep_drops(start), [], "not yet");
    let last = lab.sweep_drops(monotonic() + 2 * SECOND);
    assert_eq!(last.len(), 1);
    assert_eq!(Event { time: 0, count: 0, ..last[0] }, Event { time: 0, count: 0, ..told[0] });
    assert_eq!(1 + packets(&told) + packets(&last), sent);
    assert_eq!(lab.counted(Reason::PolicyDenied, Ingress), sent);
    // Forgotten after a while; then it is news again.
    for later in [4, 6, 8] {
        assert_eq!(lab.sweep_drops(monotonic() + later * SECOND), []);
    }
    assert_eq!(lab.send(Ingress, &denied(40_000), 2), DROP);
    assert_eq!(packets(&lab.drain().events), 1);
}

#[test]
fn more_tuples_than_there_is_room_for_are_counted_together_and_none_is_lost() {
    let mut lab = Lab::strict();
    let tuples = 5_000;
    for _ in 0..3 {
        (0..tuples).for_each(|port| assert_eq!(lab.send(Ingress, &denied(port), 2), DROP));
        (0..500).for_each(|port| {
            let out = tcp(POD4, STRANGER4, (port, 80), SYN);
            assert_eq!(lab.send(Egress, &out, 2), DROP);
        });
    }
    let mut told = lab.drain().events;
    for later in [2, 4] {
        told.extend(lab.sweep_drops(monotonic() + later * SECOND));
    }
    let [of_in, of_out] = [0, 1].map(|direction| {
        let events: Vec<_> = told.iter().copied().filter(|e| e.direction == direction).collect();
        packets(&events)
    });
    assert_eq!((of_in, of_out), (3 * u64::from(tuples), 3 * 500));
    assert_eq!(lab.kernel.lost().unwrap(), [0, 0]);
    let (coarse, fine): (Vec<&Event>, Vec<&Event>) =
        told.iter().partition(|event| event.flags & EVENT_UNPARSED != 0);
    // The storm took some seconds, so some were told several times.
    let mut counts = BTreeMap::new();
    fine.iter().for_each(|e: &&Event| *counts.entry((e.direction, e.src_port)).or_insert(0) += 1);
    assert!(counts.len() <= DROP_REGION as usize, "{}", counts.len());
    assert!(counts.len() > DROP_REGION as usize / 2, "{}", counts.len());
    assert!(coarse.iter().all(|e| (e.src_port, e.src.0, e.slot) == (0, [0; 4], 1)), "{coarse:?}");
    assert!(coarse.iter().any(|e| e.direction == 0) && coarse.len() < 60, "{}", coarse.len());
}

#[test]
fn no_drop_is_lost_beside_a_hundred_thousand_new_flows_that_nobody_reads() {
    const FLOWS: u32 = 100_000;
    const DROPS: u16 = 400;
    let mut lab = Lab::sized([true, true], [all(), all()], 1 << 19);
    for n in 0..FLOWS {
        let (port, service) = ((n % 50_000) as u16 + 1_000, 53 + (n / 50_000) as u16);
        assert_eq!(lab.send(Egress, &udp(POD4, FRIEND4, (port, service)), 2), PASS);
        assert_eq!(lab.send(Ingress, &udp(FRIEND4, POD4, (service, port)), 2), PASS);
        if n % (FLOWS / u32::from(DROPS)) == 0 {
            let port = (n / (FLOWS / u32::from(DROPS))) as u16;
            (0..2).for_each(|_| assert_eq!(lab.send(Ingress, &denied(port), 2), DROP));
        }
    }
    let [lost_verdicts, lost_traces] = lab.kernel.lost().unwrap();
    assert!(lost_verdicts > 0 && lost_traces > 0, "the rings are too large for this test");
    let events = lab.drain().events;
    let allowed = events.iter().filter(|e| e.reason == Reason::Allowed as u8).count() as u64;
    let traces = events.iter().filter(|e| e.kind == event_kind::TRACE).count() as u64;
    assert_eq!(allowed + lost_verdicts, u64::from(FLOWS), "kept and lost");
    assert_eq!(traces + lost_traces, u64::from(FLOWS), "kept and lost");
    let mut told = drops(events);
    told.extend(lab.sweep_drops(monotonic() + 2 * SECOND));
    let mut counts = BTreeMap::<_, u64>::new();
    for event in &told {
        *counts.entry(event.src_port).or_default() += u64::from(event.count);
    }
    assert_eq!(packets(&told), u64::from(DROPS) * 2);
    assert_eq!(packets(&told), lab.counted(Reason::PolicyDenied, Ingress));
    // Where eight tuples of one set were taken, the ninth is told without its ports.
    let named = counts.iter().filter(|(port, count)| **port > 0 && **count == 2).count();
    assert!(named > usize::from(DROPS) * 3 / 4, "{named} of {DROPS}");
}

/// Kinds of events that a flow, its end and a drop bring.
fn kinds(lab: &mut Lab) -> Vec<u8> {
    let out = |flags| tcp(FRIEND4, POD4, (40_000, 80), flags);
    let back = |flags| tcp(POD4, FRIEND4, (80, 40_000), flags);
    for (direction, packet) in [
        (Ingress, out(SYN)),
        (Egress, back(SYN | ACK)),
        (Ingress, out(ACK)),
        (Ingress, out(FIN | ACK)),
        (Egress, back(FIN | ACK)),
    ] {
        assert_eq!(lab.send(direction, &packet, 2), PASS);
    }
    assert_eq!(lab.send(Ingress, &denied(1), 2), DROP);
    let records = lab.drain();
    let kinds = records.events.iter().map(|event| event.kind);
    kinds.chain(records.closed.iter().map(|one| one.event.kind)).collect()
}

#[test]
fn what_nobody_wants_is_counted_and_not_told() {
    const TRACE: u8 = event_kind::TRACE;
    const VERDICT: u8 = event_kind::VERDICT;
    const CLOSE: u8 = event_kind::CLOSE;
    for (events, expected, untold) in [
        (FlowEvents::All, vec![VERDICT, VERDICT, TRACE, TRACE, CLOSE], [0, 0]),
        (FlowEvents::Verdicts, vec![VERDICT, VERDICT], [0, 3]),
        (FlowEvents::Drops, vec![VERDICT], [1, 3]),
        (FlowEvents::None, vec![], [2, 3]),
    ] {
        let mut lab = Lab::strict();
        lab.kernel.tell_flows(events, 1);
        assert_eq!(kinds(&mut lab), expected, "{events:?}");
        assert_eq!(lab.kernel.untold().unwrap(), untold, "{events:?}");
        assert_eq!(lab.counted(Reason::PolicyDenied, Ingress), 1);
        assert_eq!(lab.kernel.lost().unwrap(), [0, 0]);
        // It can be changed at any time.
        lab.kernel.tell_flows(FlowEvents::All, 0);
        assert_eq!(lab.run(Ingress, &denied(2)).told.len(), 1);
    }
}

#[test]
fn of_a_sampled_flow_everything_is_told_or_nothing_and_drops_always_are() {
    let mut lab = Lab::new([true, true], [all(), all()]);
    lab.kernel.tell_flows(FlowEvents::All, 10);
    let flows = 1_000;
    for port in 0..flows {
        // A flow each, and gone before the quota is full.
        for (direction, packet) in [
            (Ingress, tcp(FRIEND4, POD4, (port, 80), SYN)),
            (Egress, tcp(POD4, FRIEND4, (80, port), SYN | ACK)),
            (Ingress, tcp(FRIEND4, POD4, (port, 80), ACK)),
        ] {
            assert_eq!(lab.send(direction, &packet, 2), PASS);
        }
    }
    let mut told = BTreeMap::<u16, Vec<u8>>::new();
    for event in lab.drain().events {
        let port = if event.kind == event_kind::TRACE { event.dst_port } else { event.src_port };
        told.entry(port).or_default().push(event.kind);
    }
    assert!((50..200).contains(&told.len()), "{} of {flows}", told.len());
    for kinds in told.values() {
        assert_eq!(kinds, &[event_kind::VERDICT, event_kind::TRACE]);
    }
    let untold = u64::from(flows) - told.len() as u64;
    assert_eq!(lab.kernel.untold().unwrap(), [untold, untold]);
    // The same flows by their ends, which the agent tells.
    lab.plan(enforcer::cluster::plan::Plan {
        endpoints_removed: vec![crate::lab::IFINDEX],
        ..Default::default()
    });
    let ends: Vec<_> = lab.drain().closed.iter().map(|one| one.event.src_port).collect();
    let mut sorted = ends.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, told.keys().copied().collect::<Vec<_>>());
    assert_eq!(lab.kernel.untold().unwrap(), [untold, 2 * untold]);
}

#[test]
fn every_drop_is_told_where_flows_are_sampled() {
    let mut lab = Lab::strict();
    lab.kernel.tell_flows(FlowEvents::All, 1_000_000);
    for port in 0..100 {
        let outcome = lab.run(Ingress, &denied(port));
        expect(&outcome, Ingress, Reason::PolicyDenied, true);
    }
}
