//! The last flows, or other news, for readers that come and go.
//!
//! Appending is constant time and waits for no reader longer than copying a few references takes: a
//! reader gets so many at once at most and, if it is too slow, is told how many it has missed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::event::Flow;

/// How many are read or appended in one hold of the lock: some microseconds.
const AT_ONCE: usize = 512;

/// Memory for each flow that is kept, at most, in bytes: the flow with the two counters before it,
/// what the allocator adds, and the ring's reference. Names, labels and policies are shared among
/// flows and with the state that they come from.
pub const BYTES_A_FLOW: usize = size_of::<Flow>() + 2 * 8 + 8 + 15 + size_of::<Arc<Flow>>();

const _: () = assert!(65_535 * BYTES_A_FLOW <= 64 << 20, "a full ring of the default size");

/// The last flows.
pub type FlowRing = Ring<Flow>;

/// The last so many of something; clones are handles to the same ring.
#[derive(Debug)]
pub struct Ring<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Ring<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    appended: Notify,
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    kept: VecDeque<Arc<T>>,
    /// Number of the next one; the oldest kept is `next - kept.len()`.
    next: u64,
}

impl<T> State<T> {
    fn oldest(&self) -> u64 {
        self.next - self.kept.len() as u64
    }
}

/// Some of them, in order.
#[derive(Debug)]
pub struct Batch<T = Flow> {
    /// How many were overwritten before this reader came to them.
    pub lost: u64,
    /// What is there of them.
    pub kept: Vec<Arc<T>>,
    /// Where to read on.
    pub next: u64,
}

impl<T> Ring<T> {
    /// A ring of the last `capacity`, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        // Taken at once: growing would stop the writer for a moment.
        let state = State { kept: VecDeque::with_capacity(capacity), next: 0 };
        let shared = Shared { state: Mutex::new(state), appended: Notify::new(), capacity };
        Self { shared: Arc::new(shared) }
    }

    /// Appends one and forgets the oldest if the ring is full.
    pub fn push(&self, new: T) {
        self.append(&mut vec![Arc::new(new)]);
    }

    /// Appends what is taken out of `new`, and forgets the oldest if there is no room.
    pub fn append(&self, new: &mut Vec<Arc<T>>) {
        if new.is_empty() {
            return;
        }
        let mut forgotten = Vec::with_capacity(AT_ONCE.min(new.len()));
        let mut new = new.drain(..).peekable();
        while new.peek().is_some() {
            let mut state = self.state();
            for one in new.by_ref().take(AT_ONCE) {
                if state.kept.len() == self.shared.capacity {
                    forgotten.extend(state.kept.pop_front());
                }
                state.kept.push_back(one);
                state.next += 1;
            }
            drop(state);
            // Freed outside of the lock.
            forgotten.clear();
        }
        self.shared.appended.notify_waiters();
    }

    /// How many can be kept.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// Number of the oldest that is kept.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.state().oldest()
    }

    /// Number that the next one will have: how many were seen since the start.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.state().next
    }

    /// At most `most` from number `from` on, and never more than some hundred: read on.
    #[must_use]
    pub fn read(&self, from: u64, most: usize) -> Batch<T> {
        let state = self.state();
        let oldest = state.oldest();
        let start = from.clamp(oldest, state.next);
        let skip = usize::try_from(start - oldest).unwrap_or(usize::MAX);
        let most = most.min(AT_ONCE);
        let kept: Vec<_> = state.kept.range(skip..).take(most).map(Arc::clone).collect();
        Batch { lost: oldest.saturating_sub(from), next: start + kept.len() as u64, kept }
    }

    /// Waits until there is one with number `from`.
    pub async fn appended(&self, from: u64) {
        loop {
            // Registered before the look, so that one in between wakes it.
            let notified = self.shared.appended.notified();
            if self.next() > from {
                return;
            }
            notified.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
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
        batch.kept.iter().map(|f| f.raw.time).collect()
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
        assert_eq!((batch.lost, batch.kept.len(), batch.next), (0, 0, 10));
        // A number of the future waits for it.
        assert_eq!(ring.read(99, 9).next, 10);
    }

    #[test]
    fn batches_larger_than_the_ring_leave_the_last_and_count_all() {
        let ring = FlowRing::new(AT_ONCE + 3);
        let one = |time| Arc::new(flow(&Event { time, ..allowed() }));
        let mut batch: Vec<_> = (0..3 * AT_ONCE as u64).map(one).collect();
        ring.append(&mut batch);
        assert_eq!((batch.len(), ring.next()), (0, 3 * AT_ONCE as u64));
        assert_eq!(ring.oldest(), 2 * AT_ONCE as u64 - 3);
        // A reader that wants all gets it in parts.
        let first = ring.read(ring.oldest(), usize::MAX);
        assert_eq!((first.kept.len(), first.lost), (AT_ONCE, 0));
        let rest = ring.read(first.next, usize::MAX);
        assert_eq!(times(&rest), (3 * AT_ONCE as u64 - 3..3 * AT_ONCE as u64).collect::<Vec<_>>());
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
