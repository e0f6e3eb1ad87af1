//! The last flows, for readers that come and go.
//!
//! Appending is constant time and waits for no reader: a reader copies references in small batches
//! and, if it is too slow, is told how many flows it has missed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::event::Flow;

/// The last flows; clones are handles to the same ring.
#[derive(Clone, Debug)]
pub struct FlowRing {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    appended: Notify,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    flows: VecDeque<Arc<Flow>>,
    /// Number of the next flow; the oldest kept is `next - flows.len()`.
    next: u64,
}

impl State {
    fn oldest(&self) -> u64 {
        self.next - self.flows.len() as u64
    }
}

/// Some flows, in order.
#[derive(Debug, Default)]
pub struct Batch {
    /// Flows that were overwritten before this reader came to them.
    pub lost: u64,
    /// The flows.
    pub flows: Vec<Arc<Flow>>,
    /// Where to read on.
    pub next: u64,
}

impl FlowRing {
    /// A ring of the last `capacity` flows, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        // Taken at once: growing would stop the writer for a moment.
        let state = State { flows: VecDeque::with_capacity(capacity), next: 0 };
        let shared = Shared { state: Mutex::new(state), appended: Notify::new(), capacity };
        Self { shared: Arc::new(shared) }
    }

    /// Appends a flow and forgets the oldest if the ring is full.
    pub fn push(&self, flow: Flow) {
        let flow = Arc::new(flow);
        let mut state = self.state();
        let oldest =
            if state.flows.len() == self.shared.capacity { state.flows.pop_front() } else { None };
        state.flows.push_back(flow);
        state.next += 1;
        drop(state);
        // Freed outside of the lock.
        drop(oldest);
        self.shared.appended.notify_waiters();
    }

    /// How many flows can be kept.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// Number of the oldest flow that is kept.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.state().oldest()
    }

    /// Number that the next flow will have: flows seen since the start.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.state().next
    }

    /// At most `most` flows from number `from` on.
    #[must_use]
    pub fn read(&self, from: u64, most: usize) -> Batch {
        let state = self.state();
        let oldest = state.oldest();
        let start = from.clamp(oldest, state.next);
        let skip = usize::try_from(start - oldest).unwrap_or(usize::MAX);
        let flows: Vec<_> = state.flows.range(skip..).take(most).map(Arc::clone).collect();
        Batch { lost: oldest.saturating_sub(from), next: start + flows.len() as u64, flows }
    }

    /// Waits until there is a flow with number `from`.
    pub async fn appended(&self, from: u64) {
        loop {
            // Registered before the look, so that a flow in between wakes it.
            let notified = self.shared.appended.notified();
            if self.next() > from {
                return;
            }
            notified.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can leave the state half changed.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use enforcer_common::abi::Event;

    use super::*;
    use crate::flow::event::tests::{allowed, flow};

    fn push(ring: &FlowRing, numbers: std::ops::Range<u64>) {
        for time in numbers {
            ring.push(flow(&Event { time, ..allowed() }));
        }
    }

    fn times(batch: &Batch) -> Vec<u64> {
        batch.flows.iter().map(|f| f.raw.time).collect()
    }

    #[test]
    fn the_last_flows_are_kept_in_order() {
        let ring = FlowRing::new(3);
        assert_eq!(ring.read(0, 9).next, 0);
        push(&ring, 0..2);
        let batch = ring.read(0, 1);
        assert_eq!((times(&batch), batch.next, batch.lost), (vec![0], 1, 0));
        push(&ring, 2..5);
        assert_eq!((ring.oldest(), ring.next()), (2, 5));
        assert_eq!(times(&ring.read(ring.oldest(), 9)), [2, 3, 4]);
    }

    #[test]
    fn an_overrun_reader_learns_how_much_it_missed() {
        let ring = FlowRing::new(4);
        push(&ring, 0..10);
        let batch = ring.read(1, 9);
        assert_eq!((batch.lost, times(&batch), batch.next), (5, vec![6, 7, 8, 9], 10));
        let batch = ring.read(batch.next, 9);
        assert_eq!((batch.lost, batch.flows.len(), batch.next), (0, 0, 10));
        // A number of the future waits for it.
        assert_eq!(ring.read(99, 9).next, 10);
    }

    #[tokio::test]
    async fn a_follower_is_woken() {
        let ring = FlowRing::new(4);
        let follower = tokio::spawn({
            let ring = ring.clone();
            async move {
                ring.appended(0).await;
                times(&ring.read(0, 9))
            }
        });
        tokio::task::yield_now().await;
        push(&ring, 7..8);
        assert_eq!(follower.await.unwrap(), [7]);
        // What is there already is not waited for.
        ring.appended(0).await;
    }
}
