//! The table of drops, swept: what a storm's last packets were is told, and slots that nobody uses
//! any more are given back.

use std::{
    mem::{offset_of, size_of},
    sync::atomic::{AtomicU64, Ordering},
};

use enforcer_common::{
    abi::{DROP_SLOTS, DropSlot, Event, drop_state},
    conntrack::SECOND,
    drops::interval,
};

use super::sys::{self, SharedArray};

/// Between two sweeps, ns. Longer than a program runs: a slot that leaves in one is nobody's in the
/// next.
const PERIOD: u64 = SECOND;

/// The programs' table of drops.
#[derive(Debug)]
pub(super) struct DropTable {
    slots: SharedArray,
    next: u64,
}

impl DropTable {
    pub(super) fn new(slots: SharedArray, now: u64) -> Self {
        // An agent before may have left slots on their way out a moment ago.
        Self { slots, next: now + PERIOD }
    }

    /// Hands over what is due, if it is time to look. Returns how many events there were.
    pub(super) fn sweep(&mut self, now: u64, mut each: impl FnMut(&Event)) -> usize {
        if now < self.next {
            return 0;
        }
        self.next = now + PERIOD;
        let mut told = 0;
        for index in 0..DROP_SLOTS {
            let slot = Slot { slots: &self.slots, index };
            let state = slot.word(offset_of!(DropSlot, state));
            let packets = match state.load(Ordering::Acquire) {
                drop_state::READY => slot.due(now),
                drop_state::LEAVING => {
                    let rest = slot.take();
                    state.store(drop_state::FREE, Ordering::Release);
                    rest.map(|packets| (packets, slot.event()))
                }
                _ => None,
            };
            if let Some((packets, event)) = packets {
                told += 1;
                let time = slot.word(offset_of!(DropSlot, last)).load(Ordering::Relaxed);
                each(&Event { time, count: u32::try_from(packets).unwrap_or(u32::MAX), ..event });
            }
        }
        told
    }
}

/// One slot of the table.
struct Slot<'a> {
    slots: &'a SharedArray,
    index: u32,
}

impl Slot<'_> {
    fn word(&self, offset: usize) -> &AtomicU64 {
        self.slots.u64(self.index, offset)
    }

    /// Takes out what is to be told.
    fn take(&self) -> Option<u64> {
        let packets = self.word(offset_of!(DropSlot, untold)).swap(0, Ordering::AcqRel);
        (packets > 0).then_some(packets)
    }

    /// What is to be told of a slot in use; one that is no more in use leaves.
    fn due(&self, now: u64) -> Option<(u64, Event)> {
        let event = self.event();
        let interval = interval(event.flags);
        let told = self.word(offset_of!(DropSlot, told));
        if self.word(offset_of!(DropSlot, untold)).load(Ordering::Relaxed) > 0 {
            if now.saturating_sub(told.load(Ordering::Relaxed)) < interval {
                return None;
            }
            told.store(now, Ordering::Relaxed);
            return self.take().map(|packets| (packets, event));
        }
        let last = self.word(offset_of!(DropSlot, last)).load(Ordering::Relaxed);
        if now.saturating_sub(last) >= interval {
            // What is counted in it from now on, its finder says when it is freed.
            self.word(offset_of!(DropSlot, state)).store(drop_state::LEAVING, Ordering::Release);
        }
        None
    }

    /// What is told of it, but for time and number.
    fn event(&self) -> Event {
        const AT: usize = offset_of!(DropSlot, event);
        let mut bytes = [0; size_of::<Event>()];
        for (place, chunk) in bytes.chunks_exact_mut(8).enumerate() {
            let word = self.word(AT + place * 8).load(Ordering::Relaxed);
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        sys::value_of(&bytes).unwrap_or_default()
    }
}
