//! From the kernel's records to named flows in the ring: decode, join what belongs to a Service,
//! name, keep.
//!
//! **Invariant: a flow carries the names of its time.** A change of names has the time at which it
//! was sent, before the plan that makes it true was written, and counts for events from then on.
//! Records are read first and changes taken in afterwards, so the names of an event that only the
//! plan made possible are always there. Of what a turn could not read to its end nothing later is
//! told before the rest: the two rings come out as one, in the order of time. What an agent finds at
//! its start, from before it knew any names, waits for the first ones.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use enforcer_common::abi::lane;

use super::{
    decode::{RawFlow, decode},
    directory::Directory,
    event::{Flow, enrich},
    pending::{Pending, Told},
    ring::FlowRing,
};
use crate::cluster::plan::NameChange;

/// How many records may wait for older ones of the other lane, or for their time.
const MOST_HELD: usize = 65_536;

/// How long records wait for the first names, ns: an agent that has no plan by then has no API
/// server, and no saved state.
const PATIENCE: u64 = 5_000_000_000;

/// For each lane whether nothing was left unread.
pub type Exhausted = [bool; lane::COUNT as usize];

/// Where the kernel's records come from.
pub trait Records {
    /// Hands waiting records to `each` with their lane (`lane::…`), in the order of each lane; not
    /// without end, so that there may be more.
    fn read(&mut self, each: &mut dyn FnMut(u32, &[u8])) -> Exhausted;
}

/// Looks at flows as they are told, on the thread that reads them: what it does costs every flow.
pub trait Onlooker: fmt::Debug + Send {
    /// Takes a flow in. They come in the order of their time.
    fn look(&mut self, flow: &Flow);

    /// What was there has been told; these are the names now.
    fn turned(&mut self, _directory: &Directory) {}
}

/// Names that count from a time on.
#[derive(Debug)]
pub struct Renamed {
    /// From when on (`CLOCK_MONOTONIC`, ns).
    pub at: u64,
    /// The changes, in order.
    pub changes: Vec<NameChange>,
}

/// What was read, for others to look at.
///
/// Every record is told for certain: `sum(records) = undecodable + joined + held + waiting + flows`,
/// where `flows` is what the ring has seen ([`FlowRing::next`]). What the rings had no room for is
/// the kernel's to count.
#[derive(Debug, Default)]
pub struct Counts {
    /// Records by lane.
    pub records: [AtomicU64; lane::COUNT as usize],
    /// Records that made no sense.
    pub undecodable: AtomicU64,
    /// Records that were told as one flow with another.
    pub joined: AtomicU64,
    /// Flows to Services that wait for their verdict now.
    pub waiting: AtomicU64,
    /// Records that wait now for older ones.
    pub held: AtomicU64,
}

/// What is left after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing was there.
    Idle,
    /// All that was there was read.
    Done,
    /// There is more.
    More,
}

/// The state of reading.
#[derive(Debug)]
pub struct Reading {
    directory: Directory,
    to_services: Pending,
    /// Changes whose time has not come.
    renamed: VecDeque<Renamed>,
    /// What was read and is not told yet.
    records: Vec<RawFlow>,
    told: Vec<Arc<Flow>>,
    ring: FlowRing,
    wall_offset: Duration,
    start: Start,
    counts: Arc<Counts>,
    onlookers: Vec<Box<dyn Onlooker>>,
}

impl Reading {
    /// Reading into a ring. `wall_offset` is wall clock less the clock of events.
    #[must_use]
    pub fn new(ring: FlowRing, wall_offset: Duration) -> Self {
        Self {
            directory: Directory::default(),
            to_services: Pending::default(),
            renamed: VecDeque::new(),
            records: Vec::new(),
            told: Vec::new(),
            ring,
            wall_offset,
            start: Start::Named,
            counts: Arc::default(),
            onlookers: Vec::new(),
        }
    }

    /// The same, with records that wait for the first names, which count for all of them: an agent
    /// reads what the one before it has left, and what comes until its own first plan.
    #[must_use]
    pub fn waiting_for_names(mut self) -> Self {
        self.start = Start::Nameless { since: None };
        self
    }

    /// The same with somebody who looks at each flow before it is kept.
    #[must_use]
    pub fn seen_by(mut self, onlooker: impl Onlooker + 'static) -> Self {
        self.onlookers.push(Box::new(onlooker));
        self
    }

    /// Wall clock less the clock of events is this by now: for a clock that was set, or drifts.
    /// What is below a millisecond is the noise of reading two clocks, and would put flows out of
    /// order.
    pub fn note_wall_offset(&mut self, offset: Duration) {
        if offset.abs_diff(self.wall_offset) >= Duration::from_millis(1) {
            self.wall_offset = offset;
        }
    }

    /// What was read so far.
    #[must_use]
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Takes a change of names in.
    pub fn rename(&mut self, mut renamed: Renamed) {
        if matches!(self.start, Start::Nameless { .. }) {
            renamed.at = 0;
            self.start = Start::Named;
        }
        self.renamed.push_back(renamed);
    }

    /// Reads what is there and tells it. `now` is the clock of events before; `renamed` is asked
    /// for changes of names after the reading.
    pub fn turn(
        &mut self,
        records: &mut impl Records,
        now: u64,
        renamed: impl FnMut() -> Option<Renamed>,
    ) -> Turn {
        let (read, complete) = self.read(records, now);
        std::iter::from_fn(renamed).for_each(|renamed| self.rename(renamed));
        let (until, turn) = match complete {
            Complete::All if read == 0 && self.records.is_empty() => (now, Turn::Idle),
            Complete::All => (now, Turn::Done),
            Complete::Until(until) => (until, Turn::More),
        };
        let until = if self.is_nameless(now) { 0 } else { until };
        let until = if self.records.len() < MOST_HELD { until } else { u64::MAX };
        self.tell(until);
        // Only now: the verdict may have been among the records.
        self.end_of_patience(until.min(now));
        self.apply_names(until.min(now));
        self.keep();
        turn
    }

    /// Reads once more and tells everything that was read.
    pub fn finish(&mut self, records: &mut impl Records, now: u64) {
        let _complete = self.read(records, now);
        self.tell(u64::MAX);
        self.keep();
    }

    /// Whether the first names are still to come, and worth waiting for.
    fn is_nameless(&mut self, now: u64) -> bool {
        let Start::Nameless { since } = &mut self.start else { return false };
        let since = *since.get_or_insert(now);
        if now.saturating_sub(since) >= PATIENCE {
            self.start = Start::Named;
        }
        self.start != Start::Named
    }

    fn read(&mut self, records: &mut impl Records, now: u64) -> (usize, Complete) {
        let mut read = 0;
        let mut newest = [0; lane::COUNT as usize];
        let mut count = [0; lane::COUNT as usize];
        let exhausted = records.read(&mut |lane, bytes| {
            read += 1;
            let lane = lane as usize;
            if let Some(count) = count.get_mut(lane) {
                *count += 1;
            }
            match decode(bytes) {
                Ok(raw) => {
                    if let Some(newest) = newest.get_mut(lane) {
                        *newest = raw.time.max(*newest);
                    }
                    self.records.push(raw);
                }
                Err(error) => {
                    if self.counts.undecodable.fetch_add(1, Relaxed) == 0 {
                        tracing::warn!(
                            %error,
                            "an event of the kernel makes no sense; more are counted only"
                        );
                    }
                }
            }
        });
        for (total, count) in self.counts.records.iter().zip(count) {
            total.fetch_add(count, Relaxed);
        }
        let unread = newest.into_iter().zip(exhausted).filter(|(_, exhausted)| !exhausted);
        let complete = match unread.map(|(newest, _)| newest).min() {
            None => Complete::All,
            Some(until) => Complete::Until(until.min(now)),
        };
        (read, complete)
    }

    /// Tells the records up to a time, in order, each with the names that it found.
    fn tell(&mut self, until: u64) {
        // Two runs that are sorted already, but for processors that overtook each other.
        self.records.sort_by_key(|raw| raw.time);
        let end = self.records.partition_point(|raw| raw.time <= until);
        let mut records = std::mem::take(&mut self.records);
        for raw in records.drain(..end) {
            if self.renamed.front().is_some_and(|renamed| renamed.at <= raw.time) {
                self.apply_names(raw.time);
            }
            if let Some(told) = self.to_services.take(raw) {
                self.named(told);
            }
        }
        self.records = records;
    }

    fn named(&mut self, told: Told) {
        let flow = enrich(told, &self.directory, self.wall_offset);
        for onlooker in &mut self.onlookers {
            onlooker.look(&flow);
        }
        self.told.push(Arc::new(flow));
    }

    fn end_of_patience(&mut self, now: u64) {
        for told in self.to_services.overdue(now) {
            self.named(told);
        }
    }

    fn apply_names(&mut self, until: u64) {
        let now = Instant::now();
        while let Some(renamed) = self.renamed.pop_front_if(|renamed| renamed.at <= until) {
            for change in &renamed.changes {
                self.directory.apply(change, now);
            }
        }
    }

    fn keep(&mut self) {
        self.ring.append(&mut self.told);
        for onlooker in &mut self.onlookers {
            onlooker.turned(&self.directory);
        }
        let Counts { joined, waiting, held, .. } = &*self.counts;
        joined.store(self.to_services.joined(), Relaxed);
        waiting.store(self.to_services.waiting() as u64, Relaxed);
        held.store(self.records.len() as u64, Relaxed);
    }
}

/// Whether there were names already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Not yet; since the first look.
    Nameless { since: Option<u64> },
    /// There were, or nobody waits for them any more.
    Named,
}

/// Up to when all records are read.
enum Complete {
    All,
    Until(u64),
}

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
