//! Order, names and counts of what is read, with rings that the tests fill.

use std::cell::RefCell;

use enforcer_common::{
    abi::{EVENT_TRANSLATED, Event, event_kind},
    reason::Reason,
};
use proptest::prelude::*;

use super::*;
use crate::flow::{
    decode::tests::image,
    event::tests::{addr, allowed, pod},
};

/// Two rings with room for so many records, of which so many are read at once.
struct Rings {
    waiting: [VecDeque<Vec<u8>>; 2],
    room: usize,
    batch: usize,
    lost: [u64; 2],
}

impl Rings {
    fn new(room: usize, batch: usize) -> Self {
        Self { waiting: Default::default(), room, batch, lost: [0; 2] }
    }

    fn put(&mut self, lane: u32, event: Event) {
        self.put_bytes(lane, image(&event));
    }

    fn put_bytes(&mut self, lane: u32, bytes: Vec<u8>) {
        let lane = lane as usize;
        if self.waiting[lane].len() < self.room {
            self.waiting[lane].push_back(bytes);
        } else {
            self.lost[lane] += 1;
        }
    }
}

impl Records for Rings {
    fn read(&mut self, each: &mut dyn FnMut(u32, &[u8])) -> Exhausted {
        [lane::VERDICT, lane::TRACE].map(|lane| {
            let ring = &mut self.waiting[lane as usize];
            let most = ring.len().min(self.batch);
            ring.drain(..most).for_each(|bytes| each(lane, &bytes));
            most < self.batch
        })
    }
}

fn at(time: u64) -> Event {
    Event { time, src: addr(1), ..allowed() }
}

fn called(time: u64, name: &str) -> Renamed {
    Renamed { at: time, changes: vec![NameChange::Address([10, 0, 0, 1].into(), pod("n", name))] }
}

fn all(ring: &FlowRing) -> Vec<(u64, Option<String>)> {
    let mut all = Vec::new();
    let mut next = 0;
    loop {
        let batch = ring.read(next, usize::MAX);
        if batch.kept.is_empty() {
            return all;
        }
        next = batch.next;
        all.extend(
            batch.kept.iter().map(|flow| {
                (flow.raw.time, flow.source.as_ref().map(|pod| pod.key.name.to_string()))
            }),
        );
    }
}

#[test]
fn each_event_has_the_names_of_its_time() {
    let (mut rings, ring) = (Rings::new(100, 100), FlowRing::new(100));
    let mut reading = Reading::new(ring.clone(), Duration::ZERO);
    for time in [5, 15, 25] {
        rings.put(lane::VERDICT, at(time));
    }
    // All were read before the changes were taken in.
    let mut renamed = vec![called(20, "b"), called(10, "a")];
    assert_eq!(reading.turn(&mut rings, 30, || renamed.pop()), Turn::Done);
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(all(&ring), [(5, None), (15, name("a")), (25, name("b"))]);
    assert_eq!(reading.turn(&mut rings, 31, || None), Turn::Idle);
}

#[test]
fn what_an_agent_finds_waits_for_its_first_names_but_not_for_ever() {
    let (mut rings, ring) = (Rings::new(100, 100), FlowRing::new(100));
    let mut reading = Reading::new(ring.clone(), Duration::ZERO).waiting_for_names();
    rings.put(lane::VERDICT, at(5));
    assert_eq!(reading.turn(&mut rings, 10, || None), Turn::Done);
    rings.put(lane::VERDICT, at(15));
    let mut renamed = vec![called(40, "b"), called(20, "a")];
    assert_eq!((reading.turn(&mut rings, 20, || None), ring.next()), (Turn::Done, 0));
    assert_eq!(reading.counts().held.load(Relaxed), 2);
    // The first ones say what had been so before; those after them count from their time on.
    rings.put(lane::VERDICT, at(45));
    assert_eq!(reading.turn(&mut rings, 50, || renamed.pop()), Turn::Done);
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(all(&ring), [(5, name("a")), (15, name("a")), (45, name("b"))]);

    let (mut rings, ring) = (Rings::new(100, 100), FlowRing::new(100));
    let mut reading = Reading::new(ring.clone(), Duration::ZERO).waiting_for_names();
    rings.put(lane::VERDICT, at(5));
    reading.turn(&mut rings, 10, || None);
    reading.turn(&mut rings, 9 + PATIENCE, || None);
    assert_eq!(ring.next(), 0);
    reading.turn(&mut rings, 10 + PATIENCE, || None);
    assert_eq!(all(&ring), [(5, None)]);
}

/// A plan that comes into force while the rings are read: its names, then an event that it made
/// possible.
struct Meanwhile<'a>(&'a RefCell<Vec<Renamed>>);

impl Records for Meanwhile<'_> {
    fn read(&mut self, each: &mut dyn FnMut(u32, &[u8])) -> Exhausted {
        self.0.borrow_mut().push(called(10, "a"));
        each(lane::VERDICT, &image(&at(11)));
        [true; 2]
    }
}

#[test]
fn names_that_come_while_it_reads_are_there_for_what_it_reads() {
    let (sent, ring) = (RefCell::new(Vec::new()), FlowRing::new(100));
    let mut reading = Reading::new(ring.clone(), Duration::ZERO);
    reading.turn(&mut Meanwhile(&sent), 20, || sent.borrow_mut().pop());
    assert_eq!(all(&ring), [(11, Some("a".to_owned()))]);
}

#[test]
fn lanes_come_out_as_one_and_nothing_overtakes_what_is_unread() {
    let (mut rings, ring) = (Rings::new(100, 3), FlowRing::new(100));
    let mut reading = Reading::new(ring.clone(), Duration::ZERO);
    // Of the traces two turns' worth; the verdicts are among them.
    for time in 1..=6 {
        rings.put(lane::TRACE, at(time * 10));
    }
    rings.put(lane::VERDICT, at(25));
    rings.put(lane::VERDICT, at(45));
    reading.rename(called(42, "late"));
    assert_eq!(reading.turn(&mut rings, 100, || None), Turn::More);
    let times = || all(&ring).into_iter().map(|(time, _)| time).collect::<Vec<_>>();
    assert_eq!(times(), [10, 20, 25, 30], "45 waits for the traces before it");
    assert_eq!(reading.counts().held.load(Relaxed), 1);
    assert_eq!(reading.turn(&mut rings, 101, || None), Turn::More);
    assert_eq!(reading.turn(&mut rings, 102, || None), Turn::Idle);
    assert_eq!(times(), [10, 20, 25, 30, 40, 45, 50, 60]);
    let named: Vec<_> = all(&ring).into_iter().filter(|(_, name)| name.is_some()).collect();
    assert_eq!(named.first().map(|(time, _)| *time), Some(45));
}

#[test]
fn an_event_of_after_the_look_waits_for_the_next() {
    let (mut rings, ring) = (Rings::new(100, 100), FlowRing::new(100));
    let mut reading = Reading::new(ring.clone(), Duration::ZERO);
    rings.put(lane::TRACE, at(7));
    assert_eq!(reading.turn(&mut rings, 6, || None), Turn::Done);
    assert_eq!(ring.next(), 0);
    assert_eq!(reading.turn(&mut rings, 7, || None), Turn::Done);
    assert_eq!(ring.next(), 1);
    rings.put(lane::TRACE, at(99));
    reading.finish(&mut rings, 8);
    assert_eq!(ring.next(), 2);
}

#[test]
fn a_verdict_that_waits_in_a_ring_is_not_too_late() {
    let (mut rings, ring) = (Rings::new(100, 100), FlowRing::new(100));
    let mut reading = Reading::new(ring.clone(), Duration::ZERO);
    let pending = Event { kind: event_kind::PENDING, reason: Reason::Pending as u8, ..at(1) };
    let late = 3_000_000_000;
    rings.put(lane::VERDICT, Event { dst: addr(8), ..pending });
    reading.turn(&mut rings, 2, || None);
    assert_eq!(reading.counts().waiting.load(Relaxed), 1);
    rings.put(lane::VERDICT, Event { flags: EVENT_TRANSLATED, ..at(3) });
    reading.turn(&mut rings, late, || None);
    assert_eq!((ring.next(), reading.counts().joined.load(Relaxed)), (1, 1));
    // One whose verdict does not come is told.
    rings.put(lane::VERDICT, Event { dst: addr(9), time: late, src_port: 7, ..pending });
    reading.turn(&mut rings, late, || None);
    assert_eq!(ring.next(), 1);
    reading.turn(&mut rings, late * 2, || None);
    assert_eq!((ring.next(), reading.counts().waiting.load(Relaxed)), (2, 0));
}

#[test]
fn at_ten_times_the_capacity_sent_is_kept_and_lost() {
    let (mut rings, ring) = (Rings::new(1000, 300), FlowRing::new(1000));
    let mut reading = Reading::new(ring.clone(), Duration::ZERO);
    let mut sent = [0; 2];
    for time in 1..=20_000_u64 {
        let lane = u32::from(time % 3 == 0);
        rings.put(lane, at(time));
        sent[lane as usize] += 1;
        // A turn now and then, at a tenth of what comes.
        if time % 3000 == 0 {
            reading.turn(&mut rings, time, || None);
        }
    }
    rings.put_bytes(lane::TRACE, vec![0; 3]);
    sent[1] += 1;
    while reading.turn(&mut rings, u64::MAX, || None) == Turn::More {}
    let counts = reading.counts();
    for lane in [0, 1] {
        assert_eq!(counts.records[lane].load(Relaxed) + rings.lost[lane], sent[lane]);
        assert!(rings.lost[lane] > sent[lane] / 2, "{:?} of {sent:?} lost", rings.lost);
    }
    let records: u64 = counts.records.iter().map(|lane| lane.load(Relaxed)).sum();
    // The record that makes no sense may have been lost, too.
    assert_eq!(records, counts.undecodable.load(Relaxed) + ring.next());
    assert_eq!(ring.next() - ring.oldest(), 1000);
}

proptest! {
    /// Whatever comes when, in whatever parts it is read: every record is told once, in order
    /// within what one look finds, with the names of its time.
    #[test]
    fn every_record_is_told_once_with_the_names_of_its_time(
        events in prop::collection::vec((any::<bool>(), 1..4_u64), 1..200),
        renames in prop::collection::vec(1..400_u64, 0..6),
        batch in 1..8_usize,
        every in 1..30_usize,
    ) {
        let (mut rings, ring) = (Rings::new(1000, batch), FlowRing::new(1000));
        let mut reading = Reading::new(ring.clone(), Duration::ZERO);
        let mut renames = renames;
        renames.sort_unstable();
        let mut due: VecDeque<u64> = renames.iter().copied().collect();
        let (mut time, mut expected) = (0, Vec::new());
        for (place, (trace, later)) in events.iter().enumerate() {
            time += later;
            rings.put(u32::from(*trace), at(time));
            let name = renames.iter().rev().find(|at| **at <= time).map(|at| format!("pod-{at}"));
            expected.push((time, name));
            if place % every == 0 {
                let now = time;
                // What is sent until now, and only that.
                reading.turn(&mut rings, now, || {
                    let at = due.pop_front_if(|at| *at <= now)?;
                    Some(called(at, &format!("pod-{at}")))
                });
            }
        }
        let mut rest = due.into_iter().map(|at| called(at, &format!("pod-{at}")));
        while reading.turn(&mut rings, 10_000, || rest.next()) != Turn::Idle {}
        prop_assert_eq!(all(&ring), expected);
    }
}
