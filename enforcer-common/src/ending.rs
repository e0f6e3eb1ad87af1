//! What is told of a flow that is over: the same by the programs and by the agent.

use crate::{
    abi::{
        Addr, CT_FROM_POD, CT_MASQUERADED, CT_REVOKED, Closed, CtEntry, Direction,
        EVENT_MASQUERADED, EVENT_REVOKED, event_kind,
    },
    conntrack::RTT_AMBIGUOUS,
    packet::icmp,
    reason::Reason,
    verdict::proto::{ICMP, ICMPV6},
};

/// A flow's two ends, from the pod's side, as its key has them.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// Interface.
    pub ifindex: u32,
    /// The pod's address.
    pub local: &'a Addr,
    /// The other address.
    pub remote: &'a Addr,
    /// The pod's port, or the identifier of an echo flow.
    pub local_port: u16,
    /// The other port.
    pub remote_port: u16,
    /// IP protocol.
    pub proto: u8,
}

impl Closed {
    /// Says that a flow was over at `until`, by a packet with these flags if it is a connection
    /// that was closed. Times are `CLOCK_MONOTONIC`, ns. Written in place: the programs have no
    /// room for one on the stack.
    #[inline(always)]
    pub fn tell(&mut self, ends: &Ends<'_>, entry: &CtEntry, tcp_flags: u8, now: u64, until: u64) {
        let &Ends { ifindex, local, remote, local_port, remote_port, proto } = ends;
        let from_pod = entry.flags & CT_FROM_POD != 0;
        let Self { event, totals } = self;
        event.time = now;
        event.ifindex = ifindex;
        event.rule = entry.rule;
        event.generation = entry.generation;
        event.len = 0;
        if from_pod {
            (event.src, event.dst) = (*local, *remote);
            (event.src_port, event.dst_port) = (local_port, remote_port);
            event.direction = Direction::Egress as u8;
        } else {
            (event.src, event.dst) = (*remote, *local);
            (event.src_port, event.dst_port) = (remote_port, local_port);
            event.direction = Direction::Ingress as u8;
        }
        // Type and code where others have ports.
        if local.is_v4() && proto == ICMP {
            (event.src_port, event.dst_port) = (icmp::V4_ECHO as u16, 0);
        } else if !local.is_v4() && proto == ICMPV6 {
            (event.src_port, event.dst_port) = (icmp::V6_ECHO as u16, 0);
        }
        event.slot = entry.slot;
        event.ethertype = 0;
        event.kind = event_kind::CLOSE;
        event.reason = Reason::Established as u8;
        event.proto = proto;
        event.tcp_flags = tcp_flags;
        event.flags = 0;
        event.hidden_slot = 0;
        if entry.flags & CT_MASQUERADED != 0 {
            event.flags |= EVENT_MASQUERADED;
            event.hidden_slot = entry.hidden_slot;
        }
        if entry.flags & CT_REVOKED != 0 {
            event.flags |= EVENT_REVOKED;
        }
        event.count = 1;
        event.rtt = if entry.rtt == RTT_AMBIGUOUS { 0 } else { entry.rtt };
        totals.origin = entry.origin;
        totals.reply = entry.reply;
        totals.duration = until.saturating_sub(entry.created);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{abi::Traffic, verdict::proto::UDP};

    const LOCAL: Addr = Addr::v4(1);
    const REMOTE: Addr = Addr::v4(2);

    fn ends(proto: u8) -> Ends<'static> {
        Ends {
            ifindex: 7,
            local: &LOCAL,
            remote: &REMOTE,
            local_port: 4_000,
            remote_port: 53,
            proto,
        }
    }

    fn entry() -> CtEntry {
        CtEntry {
            created: 1_000,
            flags: CT_FROM_POD,
            slot: 3,
            rule: 99,
            hidden_slot: 5,
            origin: Traffic { packets: 2, bytes: 200 },
            reply: Traffic { packets: 1, bytes: 500 },
            ..CtEntry::default()
        }
    }

    fn told(ends: &Ends<'_>, entry: &CtEntry) -> Closed {
        let mut closed = Closed::default();
        closed.tell(ends, entry, 0, 9_000, 5_000);
        closed
    }

    #[test]
    fn it_is_told_from_its_opener_with_what_it_carried() {
        let Closed { event, totals } = told(&ends(UDP), &entry());
        assert_eq!((event.src, event.src_port), (LOCAL, 4_000));
        assert_eq!((event.dst, event.dst_port), (REMOTE, 53));
        assert_eq!((event.direction, event.rule, event.slot), (1, 99, 3));
        assert_eq!((event.time, event.kind, event.count), (9_000, event_kind::CLOSE, 1));
        assert_eq!((event.hidden_slot, event.flags), (0, 0));
        assert_eq!((totals.duration, totals.origin.bytes, totals.reply.packets), (4_000, 200, 1));
        // Of the other side's flows the other side is the source.
        let flags = CT_MASQUERADED | CT_REVOKED;
        let entry = CtEntry { flags, rtt: RTT_AMBIGUOUS, ..entry() };
        let Closed { event, .. } = told(&ends(UDP), &entry);
        assert_eq!((event.src, event.dst_port), (REMOTE, 4_000));
        assert_eq!((event.direction, event.rtt, event.hidden_slot), (0, 0, 5));
        assert_eq!(event.flags, EVENT_MASQUERADED | EVENT_REVOKED);
    }

    #[test]
    fn an_echo_flow_has_no_ports() {
        let event = told(&ends(ICMP), &entry()).event;
        assert_eq!((event.src_port, event.dst_port), (8, 0));
        let six = Addr::from_octets([0xfd; 16]);
        let event = told(&Ends { local: &six, remote: &six, ..ends(ICMPV6) }, &entry()).event;
        assert_eq!((event.src_port, event.dst_port), (128, 0));
        let event = told(&Ends { local: &six, remote: &six, ..ends(UDP) }, &entry()).event;
        assert_eq!((event.src_port, event.dst_port), (4_000, 53));
        // One family's echo is no echo in the other.
        let event = told(&ends(ICMPV6), &entry()).event;
        assert_eq!((event.src_port, event.dst_port), (4_000, 53));
    }
}
