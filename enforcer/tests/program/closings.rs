//! The ends of flows: told once a life, with what the flow has carried.

use std::time::Duration;

use enforcer::dataplane::monotonic;
use enforcer_common::{
    abi::{
        Addr, CT_SERVICE, Closed, CtKey4,
        Direction::{Egress, Ingress},
        EVENT_REPLY, Traffic, event_kind,
    },
    conntrack::SECOND,
    reason::Reason,
    verdict::proto::{TCP, UDP},
};

use crate::{
    lab::{FRIEND4, FRIEND6, IFINDEX, Lab, POD4, POD6, RULE, all},
    packets::{ACK, FIN, RST, SYN, echo, tcp, udp},
};

fn out(flags: u8) -> Vec<u8> {
    tcp(FRIEND4, POD4, (40_000, 80), flags)
}

fn back(flags: u8) -> Vec<u8> {
    tcp(POD4, FRIEND4, (80, 40_000), flags)
}

fn key(remote_port: u16, local_port: u16, proto: u8) -> CtKey4 {
    CtKey4 {
        ifindex: IFINDEX,
        local: u32::from_ne_bytes(POD4),
        remote: u32::from_ne_bytes(FRIEND4),
        local_port,
        remote_port,
        proto: u32::from(proto),
    }
}

/// Opens a connection to the pod.
fn open(lab: &mut Lab) {
    lab.run(Ingress, &out(SYN));
    lab.run(Egress, &back(SYN | ACK));
    lab.run(Ingress, &out(ACK));
}

/// The only flow that was told to be over.
fn only(closed: Vec<Closed>) -> Closed {
    assert_eq!(closed.len(), 1, "{closed:?}");
    closed[0]
}

fn bytes(packets: &[&[u8]]) -> Traffic {
    let bytes = packets.iter().map(|packet| packet.len() as u64).sum();
    Traffic { packets: packets.len() as u64, bytes }
}

#[test]
fn a_connection_that_both_sides_close_is_told_with_every_packet() {
    let mut lab = Lab::strict();
    let since = monotonic();
    open(&mut lab);
    let long = [out(ACK), vec![0; 1_000]].concat();
    lab.fast(Ingress, &out(ACK));
    lab.fast(Egress, &back(ACK));
    lab.fast(Egress, &back(ACK));
    let half = lab.run(Ingress, &out(FIN | ACK));
    assert_eq!((half.told.len(), half.closed.len()), (1, 0), "half of it is open");
    assert_eq!(lab.run(Ingress, &long).code, -1);
    let Closed { event, totals } = only(lab.run(Egress, &back(FIN | ACK)).closed);
    let (from, to) = (out(ACK), back(ACK));
    assert_eq!(totals.origin, bytes(&[&from, &from, &from, &from, &long]));
    assert_eq!(totals.reply, bytes(&[&to, &to, &to, &to]));
    assert!(totals.duration > 0 && totals.duration <= monotonic() - since, "{totals:?}");
    let addr = |ip: [u8; 4]| Addr::v4(u32::from_ne_bytes(ip));
    assert_eq!((event.src, event.src_port), (addr(FRIEND4), 40_000), "from its opener");
    assert_eq!((event.dst, event.dst_port), (addr(POD4), 80));
    assert_eq!((event.kind, event.direction, event.rule), (event_kind::CLOSE, 0, RULE));
    assert_eq!((event.proto, event.tcp_flags, event.flags), (TCP, FIN | ACK, 0));
    assert_eq!((event.ifindex, event.slot, event.count), (IFINDEX, 1, 1));
    let micros = u64::from(event.rtt);
    assert!(micros > 0 && micros <= totals.duration / 1_000 + 1, "{event:?}");
    // Its last acknowledgement ends nothing, and neither does time.
    assert_eq!(lab.run(Ingress, &out(ACK)).closed, []);
    assert_eq!(lab.run(Egress, &back(FIN | ACK)).closed, [], "a retransmission");
    age(&mut lab, &key(40_000, 80, TCP), 200 * SECOND);
    assert_eq!(lab.kernel.sweep().deleted, 1);
    assert_eq!(lab.drain().closed, []);
}

/// Makes a flow's last packet older.
fn age(lab: &mut Lab, key: &CtKey4, by: u64) {
    let mut entry = lab.kernel.flow4(key).unwrap();
    entry.last_seen = entry.last_seen.saturating_sub(by);
    entry.created = entry.created.saturating_sub(by);
    lab.kernel.set_flow4(key, &entry).unwrap();
}

#[test]
fn a_refused_connection_is_told_with_its_reset_and_the_next_try_is_another_life() {
    let mut lab = Lab::strict();
    for _ in 0..2 {
        lab.expect(Ingress, &out(SYN), Reason::Allowed, true);
        let refused = lab.run(Egress, &back(RST | ACK));
        let Closed { event, totals } = only(refused.closed);
        assert_eq!((totals.origin.packets, totals.reply.packets), (1, 1));
        assert_eq!((event.tcp_flags, event.rtt), (RST | ACK, 0), "nobody shook hands");
        assert_eq!(lab.run(Egress, &back(RST | ACK)).closed, [], "once");
    }
}

#[test]
fn what_goes_on_after_a_reset_is_told_for_itself() {
    let mut lab = Lab::strict();
    open(&mut lab);
    let first = only(lab.run(Egress, &back(RST)).closed).totals;
    assert_eq!((first.origin.packets, first.reply.packets), (2, 2));
    // It was forged: the same side goes on.
    assert_eq!(lab.run(Egress, &back(ACK)).code, -1);
    lab.fast(Ingress, &out(ACK));
    lab.run(Ingress, &out(FIN | ACK));
    let second = only(lab.run(Egress, &back(FIN | ACK)).closed).totals;
    assert_eq!((second.origin.packets, second.reply.packets), (2, 2));
    assert!(second.duration < SECOND);
}

#[test]
fn a_flow_that_gives_way_is_told_first() {
    let mut lab = Lab::strict();
    lab.run(Ingress, &out(SYN));
    age(&mut lab, &key(40_000, 80, TCP), 130 * SECOND);
    let again = lab.run(Ingress, &out(SYN));
    let Closed { event, totals } = only(again.closed);
    assert_eq!((totals.origin.packets, totals.reply.packets), (1, 0));
    assert_eq!((event.tcp_flags, event.src_port), (0, 40_000));
    assert_eq!(again.told, [(event_kind::VERDICT, Reason::Allowed, RULE)]);
}

#[test]
fn a_repeated_syn_makes_the_round_trip_unknown() {
    let mut lab = Lab::strict();
    for (syns, syn_acks, known) in [(1, 1, true), (2, 1, false), (1, 2, false)] {
        (0..syns).for_each(|_| assert_eq!(lab.run(Ingress, &out(SYN)).code, -1));
        (0..syn_acks).for_each(|_| assert_eq!(lab.run(Egress, &back(SYN | ACK)).code, -1));
        lab.run(Ingress, &out(ACK));
        let event = only(lab.run(Egress, &back(RST)).closed).event;
        assert_eq!(event.rtt > 0, known, "{syns} SYN, {syn_acks} SYN-ACK: {event:?}");
    }
}

#[test]
fn the_first_reply_says_how_long_it_took() {
    let mut lab = Lab::strict();
    lab.send(Ingress, &out(SYN), 2);
    std::thread::sleep(Duration::from_millis(20));
    lab.drain();
    lab.send(Egress, &back(SYN | ACK), 2);
    let events = lab.drain().events;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].kind, events[0].flags), (event_kind::TRACE, EVENT_REPLY));
    assert!((20_000..2_000_000).contains(&events[0].rtt), "{:?}", events[0]);
}

#[test]
fn what_ages_is_told_by_the_sweep_whatever_its_protocol() {
    let mut lab = Lab::new([true, true], [all(), all()]);
    let query = udp(POD4, FRIEND4, (5_000, 53));
    let answer = udp(FRIEND4, POD4, (53, 5_000));
    lab.run(Egress, &query);
    lab.run(Ingress, &answer);
    lab.fast(Ingress, &answer);
    lab.run(Egress, &echo(POD4, FRIEND4, 8, 9));
    lab.run(Egress, &tcp(POD6, FRIEND6, (6_000, 80), SYN));
    assert_eq!((lab.kernel.sweep().deleted, lab.drain().closed), (0, vec![]));
    age(&mut lab, &key(53, 5_000, UDP), 200 * SECOND);
    assert_eq!(lab.kernel.sweep().deleted, 1);
    let Closed { event, totals } = only(lab.drain().closed);
    assert_eq!((event.proto, event.direction, event.src_port), (UDP, 1, 5_000));
    assert_eq!(totals.origin, bytes(&[&query]));
    assert_eq!(totals.reply, bytes(&[&answer, &answer]));
    assert!(totals.duration < SECOND);
    // With their pod the rest goes, too.
    lab.plan(enforcer::cluster::plan::Plan {
        endpoints_removed: vec![IFINDEX],
        ..Default::default()
    });
    let mut protocols: Vec<_> = lab.drain().closed.iter().map(|one| one.event.proto).collect();
    protocols.sort_unstable();
    assert_eq!(protocols, [1, TCP]);
}

#[test]
fn what_makes_room_without_an_agent_is_told() {
    let mut lab = Lab::strict();
    let syn = |port| tcp(FRIEND4, POD4, (port, 80), SYN);
    // 4,096 entries: 256 half-open flows an endpoint.
    for port in 2_000..2_256 {
        lab.expect(Ingress, &syn(port), Reason::Allowed, true);
    }
    for port in 2_000..2_010 {
        age(&mut lab, &key(port, 80, TCP), 300 * SECOND);
    }
    let closed = lab.run(Ingress, &syn(3_000)).closed;
    let mut ports: Vec<_> = closed.iter().map(|one| one.event.src_port).collect();
    ports.sort_unstable();
    assert_eq!(ports, (2_000..2_010).collect::<Vec<_>>());
    assert!(closed.iter().all(|one| one.totals.origin.packets == 1), "{closed:?}");
}

#[test]
fn counting_changes_nothing_of_what_an_entry_says() {
    let mut lab = Lab::strict();
    open(&mut lab);
    let before = lab.kernel.flow4(&key(40_000, 80, TCP)).unwrap();
    lab.fast(Ingress, &out(ACK));
    let mut after = lab.kernel.flow4(&key(40_000, 80, TCP)).unwrap();
    assert_eq!(after.origin.packets, before.origin.packets + 1);
    after.origin = before.origin;
    assert_eq!(after, before);
    assert_eq!(before.service & CT_SERVICE, 0);
}
