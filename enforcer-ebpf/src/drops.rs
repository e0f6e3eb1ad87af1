//! Drops by tuple: which are told now, and which are only counted until somebody tells them.

use enforcer_common::{
    abi::{DROP_WAYS, DropSlot, Event, drop_state, lane},
    drops::{coarse, fine, interval, is_same},
};

use crate::{
    atomic::{add_unsigned, exchange, swap},
    event,
    maps::DROPS,
    spare::read,
};

/// How many packets are to be told now, and where they were counted.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Noted(u64);

impl Noted {
    #[inline(always)]
    const fn new(index: u32, packets: u64) -> Self {
        let packets = if packets > u32::MAX as u64 { u32::MAX as u64 } else { packets };
        Self((index as u64) << 32 | packets)
    }

    /// Packets that the event stands for; none, no event.
    #[inline(always)]
    pub(crate) const fn packets(self) -> u32 {
        self.0 as u32
    }

    /// The event found no room: they are to be told later.
    #[inline(always)]
    pub(crate) fn put_back(self) {
        if let Some(slot) = at((self.0 >> 32) as u32) {
            add_unsigned(&mut slot.untold, u64::from(self.packets()));
        }
    }
}

#[inline(always)]
fn at(index: u32) -> Option<&'static mut DropSlot> {
    // SAFETY: array elements live as long as the map; every word of it is written whole.
    DROPS.get_ptr_mut(index).map(|slot| unsafe { &mut *slot })
}

/// Counts a drop. `event` becomes what it is counted as, if that is to be told now.
#[inline(always)]
pub(crate) fn note(event: &mut Event, now: u64) -> Noted {
    let noted = count(event, fine(event), now);
    if noted != NO_ROOM {
        return Noted(noted);
    }
    event.make_coarse();
    let noted = count(event, coarse(event), now);
    if noted != NO_ROOM {
        return Noted(noted);
    }
    event::lost(lane::VERDICT);
    Noted(0)
}

/// [`count`]'s answer: no slot is free.
const NO_ROOM: u64 = u64::MAX;

/// Counts a drop in one of the slots from `first` on: a [`Noted`].
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn count(event: *const Event, first: u32, now: u64) -> u64 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `Event`.
    let Some(event) = (unsafe { event.as_ref() }) else {
        return NO_ROOM;
    };
    let mut free = NO_SLOT;
    let mut way = 0;
    while way < DROP_WAYS {
        let index = first + way;
        way += 1;
        let Some(slot) = at(index) else { break };
        match read(&slot.state) {
            drop_state::READY if is_same(&slot.event, event) => {
                return again(slot, event, index, now).0;
            }
            drop_state::FREE if free == NO_SLOT => free = index,
            _ => {}
        }
    }
    let Some(slot) = at(free) else { return NO_ROOM };
    if !exchange(&mut slot.state, drop_state::FREE, drop_state::TAKEN) {
        // Another CPU was first; with the same tuple, as like as not.
        return NO_ROOM;
    }
    slot.event = *event;
    slot.told = now;
    slot.last = now;
    swap(&mut slot.state, drop_state::READY);
    Noted::new(free, 1).0
}

/// No index of a slot.
const NO_SLOT: u32 = u32::MAX;

/// Counts one more drop of a tuple.
#[inline(always)]
fn again(slot: &mut DropSlot, event: &Event, index: u32, now: u64) -> Noted {
    slot.last = now;
    // The policy may have changed; the last drop's is told.
    slot.event.rule = event.rule;
    slot.event.generation = event.generation;
    slot.event.len = event.len;
    slot.event.tcp_flags = event.tcp_flags;
    add_unsigned(&mut slot.untold, 1);
    let interval = interval(event.flags);
    if now.saturating_sub(read(&slot.told)) < interval {
        return Noted::new(index, 0);
    }
    if now.saturating_sub(swap(&mut slot.told, now)) < interval {
        // Somebody else tells them.
        return Noted::new(index, 0);
    }
    Noted::new(index, swap(&mut slot.untold, 0))
}
