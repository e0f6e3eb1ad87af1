//! Drops by tuple: where each is counted until it is told; part of the ABI.
//!
//! A tuple's first drop is told at once, later ones at most once in [`TELL_AGAIN`] with their
//! number. The table is an array, in slots that the programs take and only the agent gives back:
//! nothing is allocated in a storm, and no count goes with an element that somebody deletes. An
//! endpoint's tuples share a region of it, so that a pod can crowd few others out; tuples without
//! room are counted together, by endpoint, direction and reason.

use crate::{
    abi::{EVENT_AUDIT, EVENT_DISABLED, EVENT_UNPARSED, Event},
    conntrack::SECOND,
    sample::Hash,
};

/// A tuple is told at most once in this time, ns.
pub const TELL_AGAIN: u64 = SECOND;
/// The same for what would have been dropped and passed: an audited pod's packets go on coming.
pub const TELL_SPARED_AGAIN: u64 = 60 * SECOND;

/// Slots that are looked at for a tuple.
pub const DROP_WAYS: u32 = 8;
/// Slots that an endpoint's tuples share.
pub const DROP_REGION: u32 = 512;
/// Slots for tuples.
pub const DROP_FINE_SLOTS: u32 = 64 * DROP_REGION;
/// Slots for what found none.
pub const DROP_COARSE_SLOTS: u32 = 1024;
/// Entries of [`crate::abi::MAP_DROPS`].
pub const DROP_SLOTS: u32 = DROP_FINE_SLOTS + DROP_COARSE_SLOTS;

/// [`DropSlot::state`].
pub mod drop_state {
    /// Nobody's; the programs may take it.
    pub const FREE: u64 = 0;
    /// A program is writing whose it is.
    pub const TAKEN: u64 = 1;
    /// In use.
    pub const READY: u64 = 2;
    /// Given back by the agent: no program finds it any more, some may still be counting in it.
    pub const LEAVING: u64 = 3;
}

/// Drops of one tuple.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct DropSlot {
    /// `drop_state::…`.
    pub state: u64,
    /// Packets that are to be told; whoever tells them takes them out by an atomic exchange.
    pub untold: u64,
    /// When packets were told last (`CLOCK_MONOTONIC`, ns).
    pub told: u64,
    /// The last packet (`CLOCK_MONOTONIC`, ns).
    pub last: u64,
    /// What is told, but for time and number.
    pub event: Event,
}

/// How long a tuple is not told again, ns.
#[must_use]
#[inline(always)]
pub const fn interval(flags: u8) -> u64 {
    if flags & (EVENT_AUDIT | EVENT_DISABLED) == 0 { TELL_AGAIN } else { TELL_SPARED_AGAIN }
}

/// Whether two drops are told as one.
#[must_use]
#[inline(always)]
pub const fn is_same(one: &Event, other: &Event) -> bool {
    one.src.0[3] == other.src.0[3]
        && one.dst.0[3] == other.dst.0[3]
        && one.src.0[2] == other.src.0[2]
        && one.dst.0[2] == other.dst.0[2]
        && one.src.0[1] == other.src.0[1]
        && one.dst.0[1] == other.dst.0[1]
        && one.src.0[0] == other.src.0[0]
        && one.dst.0[0] == other.dst.0[0]
        && one.ifindex == other.ifindex
        && one.src_port == other.src_port
        && one.dst_port == other.dst_port
        && one.slot == other.slot
        && one.ethertype == other.ethertype
        && one.kind == other.kind
        && one.reason == other.reason
        && one.direction == other.direction
        && one.proto == other.proto
        && one.flags == other.flags
        && one.hidden_slot == other.hidden_slot
}

/// The first of the [`DROP_WAYS`] slots for a tuple.
#[must_use]
#[inline(always)]
pub const fn fine(event: &Event) -> u32 {
    let ports = (event.src_port as u32) << 16 | event.dst_port as u32;
    let hash = Hash::EMPTY.addr(&event.src).addr(&event.dst).word(ports).word(kind(event)).get();
    // Neighbours in number are in different regions.
    let region = (event.slot as u32) % (DROP_FINE_SLOTS / DROP_REGION);
    region * DROP_REGION + hash % (DROP_REGION / DROP_WAYS) * DROP_WAYS
}

/// The first of the [`DROP_WAYS`] slots for what found none, after [`Event::make_coarse`].
#[must_use]
#[inline(always)]
pub const fn coarse(event: &Event) -> u32 {
    let hash = Hash::EMPTY.word(event.ifindex).word(kind(event)).get();
    DROP_FINE_SLOTS + hash % (DROP_COARSE_SLOTS / DROP_WAYS) * DROP_WAYS
}

#[inline(always)]
const fn kind(event: &Event) -> u32 {
    let (direction, reason, proto) = (event.direction, event.reason, event.proto);
    (event.flags as u32) << 24 | (direction as u32) << 16 | (reason as u32) << 8 | proto as u32
}

impl Event {
    /// Leaves of a drop what it shares with others of its endpoint, direction and reason.
    #[inline(always)]
    pub const fn make_coarse(&mut self) {
        self.src.0 = [0; 4];
        self.dst.0 = [0; 4];
        self.src_port = 0;
        self.dst_port = 0;
        self.ethertype = 0;
        self.proto = 0;
        self.tcp_flags = 0;
        self.hidden_slot = 0;
        self.flags = self.flags & (EVENT_AUDIT | EVENT_DISABLED) | EVENT_UNPARSED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Addr;

    fn event(slot: u16, port: u16) -> Event {
        let (src, dst) = (Addr::v4(1), Addr::v4(2));
        Event { src, dst, ifindex: u32::from(slot), slot, src_port: port, ..Event::default() }
    }

    #[test]
    fn an_endpoints_tuples_stay_in_its_region_and_use_all_of_it() {
        let mut sets = std::collections::BTreeSet::new();
        for port in 0..10_000 {
            let first = fine(&event(65, port));
            assert_eq!(first / DROP_REGION, 1, "that of slot 1");
            assert_eq!(first % DROP_WAYS, 0);
            sets.insert(first);
        }
        assert_eq!(sets.len() as u32, DROP_REGION / DROP_WAYS);
        // Neighbours have regions of their own.
        let regions: std::collections::BTreeSet<u32> =
            (0..64).map(|slot| fine(&event(slot, 0)) / DROP_REGION).collect();
        assert_eq!(regions, (0..64).collect());
    }

    #[test]
    fn what_is_spared_is_told_again_after_a_minute_and_a_drop_after_a_second() {
        for flags in 0..=255 {
            let spared = flags & EVENT_AUDIT != 0 || flags & EVENT_DISABLED != 0;
            let seconds = if spared { 60 } else { 1 };
            assert_eq!(interval(flags), seconds * 1_000_000_000, "{flags:#x}");
        }
    }

    #[test]
    fn kinds_of_one_tuple_are_spread() {
        let one = event(3, 1);
        let places = |all: &[Event], place: fn(&Event) -> u32| {
            all.iter().map(place).collect::<std::collections::BTreeSet<u32>>().len()
        };
        let of = |change: fn(Event, u8) -> Event| {
            [1, 2, 4, 8, 16, 32, 64, 128].map(|value| change(one, value))
        };
        for all in [
            of(|event, flags| Event { flags, ..event }),
            of(|event, direction| Event { direction, ..event }),
            of(|event, reason| Event { reason, ..event }),
            of(|event, proto| Event { proto, ..event }),
        ] {
            // Of eight few meet by chance.
            assert!(places(&all, fine) >= 5 && places(&all, coarse) >= 5, "{all:?}");
        }
    }

    #[test]
    fn coarse_slots_are_the_last_ones() {
        let mut sets = std::collections::BTreeSet::new();
        for slot in 0..5_000 {
            let first = coarse(&event(slot, 0));
            assert!((DROP_FINE_SLOTS..=DROP_SLOTS - DROP_WAYS).contains(&first));
            sets.insert(first);
        }
        let all = (DROP_FINE_SLOTS..DROP_SLOTS).step_by(DROP_WAYS as usize);
        assert_eq!(sets, all.collect(), "all of them are used");
    }

    #[test]
    fn what_has_no_tuple_is_one_by_endpoint_direction_and_reason() {
        let made = |mut event: Event| {
            event.make_coarse();
            event
        };
        let one = made(Event { proto: 6, tcp_flags: 2, len: 60, rule: 4, ..event(3, 1) });
        assert!(is_same(&one, &made(Event { proto: 17, ..event(3, 2) })));
        assert!(!is_same(&one, &made(Event { reason: 70, ..event(3, 1) })));
        assert!(!is_same(&one, &made(Event { direction: 1, ..event(3, 1) })));
        assert!(!is_same(&one, &made(event(4, 1))));
        assert!(!is_same(&one, &made(Event { flags: EVENT_AUDIT, ..event(3, 1) })));
        assert_eq!(coarse(&one), coarse(&made(event(3, 9))));
        // Of its flags it keeps those that say whether it was dropped.
        for kept in [0, EVENT_AUDIT, EVENT_DISABLED] {
            let flags = kept | crate::abi::EVENT_REPLY;
            let flags = made(Event { flags, ..event(3, 1) }).flags;
            assert_eq!(flags, kept | EVENT_UNPARSED);
        }
    }

    #[test]
    fn every_part_of_the_tuple_makes_another_one() {
        let one = event(3, 1);
        assert!(is_same(&one, &Event { time: 9, len: 9, rule: 9, tcp_flags: 9, count: 9, ..one }));
        for byte in 0..16 {
            let mut octets = [0; 16];
            octets.iter_mut().skip(byte).take(1).for_each(|octet| *octet = 1);
            let other = Addr::from_octets(octets);
            assert!(!is_same(&one, &Event { src: other, ..one }));
            assert!(!is_same(&one, &Event { dst: other, ..one }));
        }
        for other in [
            Event { ifindex: 9, ..one },
            Event { src_port: 9, ..one },
            Event { dst_port: 9, ..one },
            Event { ethertype: 9, ..one },
            Event { proto: 9, ..one },
            Event { reason: 9, ..one },
            Event { direction: 1, ..one },
            Event { flags: EVENT_AUDIT, ..one },
        ] {
            assert!(!is_same(&one, &other));
        }
    }
}
