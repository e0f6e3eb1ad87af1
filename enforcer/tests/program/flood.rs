//! Ten times what the rings have room for: what is sent is kept or counted as lost, lane by lane.

use std::{sync::atomic::Ordering, time::Duration};

use enforcer::{
    dataplane::monotonic,
    flow::{
        reading::{Reading, Turn},
        ring::FlowRing,
    },
};
use enforcer_common::abi::{Direction, Event, lane};

use crate::{
    lab::{FRIEND4, Lab, PASS, POD4, all},
    packets::{ACK, RST, SYN, tcp},
};

/// Bytes of the rings, by lane, and of the header before each record.
const ROOM: [usize; 2] = [4 << 20, 1 << 20];
const HEADER: usize = 8;
/// Between two readings this many times the room is sent.
const PORTION: usize = 2;

/// Packets for which the rings have room, by lane.
fn capacity(lane: u32) -> usize {
    ROOM[lane as usize] / (size_of::<Event>() + HEADER)
}

struct Flood {
    lab: Lab,
    reading: Reading,
    flows: FlowRing,
    sent: [u64; 2],
}

impl Flood {
    fn new(lab: Lab) -> Self {
        let flows = FlowRing::new(1024);
        let reading = Reading::new(flows.clone(), Duration::ZERO);
        Self { lab, reading, flows, sent: [0; 2] }
    }

    fn records(&self) -> [u64; 2] {
        [lane::VERDICT, lane::TRACE]
            .map(|lane| self.reading.counts().records[lane as usize].load(Ordering::Relaxed))
    }

    fn read(&mut self) {
        while self.reading.turn(self.lab.rings(), monotonic(), || None) != Turn::Idle {}
    }

    /// A packet of a flow of its own, told once; what is dropped would be told together.
    fn open(&mut self, number: u32) {
        let [_, a, b, c] = number.to_be_bytes();
        let packet = tcp([10, 128 | a, b, c], POD4, (40_000, 443), SYN);
        assert_eq!(self.lab.send(Direction::Ingress, &packet, 2), PASS);
        self.sent[lane::VERDICT as usize] += 1;
    }

    /// A connection from its first packet to its end.
    fn connect(&mut self) {
        for (direction, flags) in [
            (Direction::Ingress, SYN),
            (Direction::Egress, SYN | ACK),
            (Direction::Ingress, RST | ACK),
        ] {
            let packet = match direction {
                Direction::Ingress => tcp(FRIEND4, POD4, (40_000, 80), flags),
                Direction::Egress => tcp(POD4, FRIEND4, (80, 40_000), flags),
            };
            assert_eq!(self.lab.send(direction, &packet, 2), PASS);
        }
    }

    fn check(mut self, flooded: u32) {
        self.read();
        let lost = self.lab.kernel.lost().unwrap();
        let records = self.records();
        for lane in [0, 1] {
            assert_eq!(records[lane] + lost[lane], self.sent[lane], "lane {lane}, lost {lost:?}");
        }
        let flooded = flooded as usize;
        assert!(lost[flooded] > self.sent[flooded] / 3, "lost {lost:?} of {:?}", self.sent);
        assert_eq!(lost[1 - flooded], 0, "a flood of one lane is nothing to the other");
        let counts = self.reading.counts();
        assert_eq!(counts.undecodable.load(Ordering::Relaxed), 0);
        // Every one that was read is a flow.
        assert_eq!(self.flows.next(), records.iter().sum::<u64>());
    }
}

#[test]
fn flows_at_ten_times_the_capacity_are_kept_or_counted() {
    // Not isolated: who has no room in conntrack passes all the same.
    let mut flood = Flood::new(Lab::new([false, false], [all(), all()]));
    let mut number = 0;
    for _ in 0..10 / PORTION {
        for _ in 0..PORTION * capacity(lane::VERDICT) {
            flood.open(number);
            number += 1;
        }
        flood.read();
    }
    flood.check(lane::VERDICT);
}

#[test]
fn traces_at_ten_times_the_capacity_lose_no_verdict() {
    let mut flood = Flood::new(Lab::strict());
    // What one connection tells, once it is not the first of its flow any more.
    flood.connect();
    flood.read();
    let before = flood.records();
    flood.connect();
    flood.read();
    let told: Vec<u64> =
        flood.records().iter().zip(before).map(|(after, before)| after - before).collect();
    let (verdicts, traces) = (told[0], told[1]);
    assert!(verdicts > 0 && traces > verdicts, "{told:?}");
    flood.sent = flood.records();
    let connections = capacity(lane::TRACE) as u64 / traces;
    for _ in 0..10 / PORTION {
        for _ in 0..PORTION as u64 * connections {
            flood.connect();
            flood.sent[0] += verdicts;
            flood.sent[1] += traces;
        }
        flood.read();
    }
    flood.check(lane::TRACE);
}
