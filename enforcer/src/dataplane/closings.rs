//! Flows that nobody saw end: what they have carried is told when they are deleted, on the way that
//! the programs' own events go.

use std::{
    mem::offset_of,
    sync::{
        atomic::Ordering,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use enforcer_common::{
    abi::{Addr, CONTROL_NO_TRACES, Closed, Control, CtEntry, CtKey4, CtKey6},
    ending::Ends,
    sample,
};

use super::sys::SharedArray;

/// How many may wait to be read: 7.5 MiB of them.
const MOST: usize = 65_536;

/// Where flows that are deleted go.
#[derive(Debug)]
pub(super) struct Closings {
    to: SyncSender<Closed>,
    /// `CLOCK_MONOTONIC` of this round, ns.
    now: u64,
    wanted: bool,
    one_of: u32,
    lost: u64,
    untold: u64,
}

/// A key of conntrack, as far as its flow's end tells it.
pub(super) trait Ending {
    /// What is told of a flow that is over since its last packet.
    fn closed(&self, entry: &CtEntry, now: u64) -> Closed;
    /// The hash by which flows are sampled.
    fn hash(&self) -> u32;
}

fn closed(ends: &Ends<'_>, entry: &CtEntry, now: u64) -> Closed {
    let mut closed = Closed::default();
    closed.tell(ends, entry, 0, now, entry.last_seen);
    closed
}

impl Ending for CtKey4 {
    fn closed(&self, entry: &CtEntry, now: u64) -> Closed {
        let &Self { ifindex, local, remote, local_port, remote_port, proto } = self;
        let (local, remote) = (&Addr::v4(local), &Addr::v4(remote));
        let proto = proto as u8;
        closed(&Ends { ifindex, local, remote, local_port, remote_port, proto }, entry, now)
    }

    fn hash(&self) -> u32 {
        sample::key4(self)
    }
}

impl Ending for CtKey6 {
    fn closed(&self, entry: &CtEntry, now: u64) -> Closed {
        let &Self { ifindex, local, remote, local_port, remote_port, proto } = self;
        let (local, remote) = (&Addr(local), &Addr(remote));
        let proto = proto as u8;
        closed(&Ends { ifindex, local, remote, local_port, remote_port, proto }, entry, now)
    }

    fn hash(&self) -> u32 {
        sample::key6(self)
    }
}

impl Closings {
    pub(super) fn new() -> (Self, Receiver<Closed>) {
        let (to, from) = sync_channel(MOST);
        (Self { to, now: 0, wanted: true, one_of: 1, lost: 0, untold: 0 }, from)
    }

    /// Begins a round: what is wanted is read off the node's control record.
    pub(super) fn open(&mut self, control: &SharedArray, now: u64) {
        let flags = control.u32(0, offset_of!(Control, flags)).load(Ordering::SeqCst);
        self.wanted = flags & CONTROL_NO_TRACES == 0;
        self.one_of = control.u32(0, offset_of!(Control, sampling)).load(Ordering::SeqCst);
        self.now = now;
    }

    /// Tells the end of a flow that was deleted, unless it was told.
    pub(super) fn tell(&mut self, key: &impl Ending, entry: &CtEntry) {
        if entry.ended != 0 {
            return;
        }
        if !self.wanted || !sample::is_told(key.hash(), self.one_of) {
            self.untold += 1;
        } else if self.to.try_send(key.closed(entry, self.now)).is_err() {
            self.lost += 1;
        }
    }

    /// How many found no room because nobody reads them.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// How many nobody wanted.
    pub(super) const fn untold(&self) -> u64 {
        self.untold
    }
}

#[cfg(test)]
mod tests {
    use enforcer_common::{
        abi::{CT_FROM_POD, Traffic},
        verdict::proto::UDP,
    };

    use super::*;

    fn key(port: u16) -> CtKey4 {
        CtKey4 {
            ifindex: 7,
            local: 1,
            remote: 2,
            local_port: port,
            remote_port: 53,
            proto: u32::from(UDP),
        }
    }

    fn entry() -> CtEntry {
        CtEntry {
            created: 1_000,
            last_seen: 5_000,
            flags: CT_FROM_POD,
            slot: 3,
            rule: 99,
            origin: Traffic { packets: 2, bytes: 200 },
            reply: Traffic { packets: 1, bytes: 500 },
            ..CtEntry::default()
        }
    }

    #[test]
    fn it_is_over_since_its_last_packet() {
        let (mut closings, told) = Closings::new();
        closings.now = 9_000;
        closings.tell(&key(4_000), &entry());
        let Closed { event, totals } = told.try_recv().unwrap();
        assert_eq!((event.src, event.src_port, event.time), (Addr::v4(1), 4_000, 9_000));
        assert_eq!((totals.duration, totals.origin.bytes), (4_000, 200));
        let six = CtKey6 { local: [1; 4], remote: [2; 4], proto: 17, ..CtKey6::default() };
        closings.tell(&six, &entry());
        assert_eq!(told.try_recv().unwrap().event.dst, Addr([2; 4]));
    }

    #[test]
    fn what_was_told_or_is_not_wanted_is_not_and_the_latter_is_counted() {
        let (mut closings, told) = Closings::new();
        closings.tell(&key(1), &CtEntry { ended: 1, ..entry() });
        assert_eq!(closings.untold(), 0);
        closings.wanted = false;
        closings.tell(&key(1), &entry());
        assert_eq!((closings.untold(), told.try_recv().is_err()), (1, true));
        (closings.wanted, closings.one_of) = (true, 10);
        (0..1_000).for_each(|port| closings.tell(&key(port), &entry()));
        let some = told.try_iter().count() as u64;
        assert_eq!(some + closings.untold() - 1, 1_000);
        assert!((50..200).contains(&some), "{some} of 1000");
    }

    #[test]
    fn nobody_waits_for_a_reader_and_what_it_misses_is_counted() {
        let (mut closings, told) = Closings::new();
        (0..=MOST).for_each(|_| closings.tell(&key(1), &entry()));
        assert_eq!((closings.lost(), told.try_iter().count()), (1, MOST));
    }
}
