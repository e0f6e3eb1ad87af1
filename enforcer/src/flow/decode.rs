//! Bytes of an [`Event`] or a [`Closed`] to a typed value. What this build does not know (an event
//! of a newer program) is carried as a number and never refused.

use std::{mem::size_of, net::IpAddr, time::Duration};

use enforcer_common::{
    abi::{
        Addr, Closed, Direction, EVENT_AUDIT, EVENT_DISABLED, EVENT_MASQUERADED, EVENT_REPLY,
        EVENT_REVOKED, EVENT_TRANSLATED, EVENT_UNPARSED, Event, RuleId, Spared, Totals, event_kind,
    },
    reason::{FIRST_DROP, Reason},
};

use crate::dataplane::value_of;

/// The record in a ring has the wrong size: the programs are of another build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an event of {size} bytes instead of {wanted}: the programs in the kernel are of another \
     version; restart the agent of this version"
)]
pub struct DecodeError {
    /// Bytes of the record.
    pub size: usize,
    /// Bytes of an [`Event`], the smaller of the two.
    pub wanted: usize,
}

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A flow was judged.
    Verdict,
    /// A packet was dropped for another reason than policy.
    Drop,
    /// A flow's first reply, or that one side of a connection has closed it.
    Trace,
    /// A pod opens a flow to a Service's address; its verdict comes with the backend.
    Pending,
    /// A flow is over; see [`RawFlow::totals`].
    Close,
    /// A number of a later version.
    Unknown(u8),
}

/// Why a packet was passed or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasonCode {
    /// One of the list.
    Known(Reason),
    /// A number of a later version.
    Unknown(u8),
}

impl ReasonCode {
    /// Whether the packet was dropped; the numbers keep to that split.
    #[must_use]
    pub const fn is_drop(self) -> bool {
        match self {
            Self::Known(reason) => reason.is_drop(),
            Self::Unknown(number) => number >= FIRST_DROP,
        }
    }

    /// The machine name, `Unknown` for a number of a later version.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Known(reason) => reason.name(),
            Self::Unknown(_) => "Unknown",
        }
    }

    /// One line for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Known(reason) => reason.text(),
            Self::Unknown(_) => "reason of a later version",
        }
    }

    /// Hubble's `DropReason` number, 0 (unknown) where there is none.
    #[must_use]
    pub const fn hubble_code(self) -> u32 {
        match self {
            Self::Known(reason) => reason.hubble_code(),
            Self::Unknown(_) => 0,
        }
    }
}

/// An event, typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFlow {
    /// When (`CLOCK_MONOTONIC`, ns).
    pub time: u64,
    /// Source address, if it was read.
    pub src: Option<IpAddr>,
    /// Destination address, if it was read.
    pub dst: Option<IpAddr>,
    /// Host-side interface.
    pub ifindex: u32,
    /// The rule that decided.
    pub rule: RuleId,
    /// Generation of the policy that judged.
    pub generation: u32,
    /// Length of the packet, bytes.
    pub len: u32,
    /// Source port, or the ICMP type.
    pub src_port: u16,
    /// Destination port, or the ICMP code.
    pub dst_port: u16,
    /// Slot of the endpoint.
    pub slot: u16,
    /// Frame type of a frame that is not IP.
    pub ethertype: Option<u16>,
    /// What the event tells.
    pub kind: EventKind,
    /// Why.
    pub reason: ReasonCode,
    /// Direction of the packet as seen from the pod; `None` for a number of a later version.
    pub direction: Option<Direction>,
    /// IP protocol number.
    pub proto: u8,
    /// TCP flags, as in byte 13 of the header.
    pub tcp_flags: u8,
    /// The packet goes against the flow's opening direction.
    pub reply: bool,
    /// The source is hidden by masquerade.
    pub masqueraded: bool,
    /// An established flow that is no longer allowed.
    pub revoked: bool,
    /// Judged behind a Service's translation: the destination is the backend.
    pub translated: bool,
    /// It would have been dropped and passed.
    pub spared: Option<Spared>,
    /// Slot of another local pod that a masqueraded packet was judged as, else 0.
    pub hidden_slot: u16,
    /// Packets that the event stands for: drops of one tuple are told together.
    pub count: u32,
    /// Of a TCP handshake, where it is known: with a first reply how long that took, with a close
    /// the time to the opener's acknowledgement.
    pub rtt: Option<Duration>,
    /// What a flow that is over has carried.
    pub totals: Option<Totals>,
}

/// Reads one record of a ring.
///
/// # Errors
/// If the size is not that of an [`Event`] or a [`Closed`].
pub fn decode(bytes: &[u8]) -> Result<RawFlow, DecodeError> {
    if let Some(event) = value_of::<Event>(bytes) {
        return Ok(RawFlow::from(&event));
    }
    match value_of::<Closed>(bytes) {
        Some(Closed { event, totals }) => {
            Ok(RawFlow { totals: Some(totals), ..RawFlow::from(&event) })
        }
        None => Err(DecodeError { size: bytes.len(), wanted: size_of::<Event>() }),
    }
}

impl From<&Event> for RawFlow {
    fn from(event: &Event) -> Self {
        let &Event { time, src, dst, ifindex, rule, generation, len, .. } = event;
        let &Event { src_port, dst_port, slot, ethertype, kind, reason, direction, .. } = event;
        let &Event { proto, tcp_flags, flags, hidden_slot, count, rtt, .. } = event;
        let parsed = flags & EVENT_UNPARSED == 0 && ethertype == 0;
        let kind = match kind {
            event_kind::VERDICT => EventKind::Verdict,
            event_kind::DROP => EventKind::Drop,
            event_kind::TRACE => EventKind::Trace,
            event_kind::PENDING => EventKind::Pending,
            event_kind::CLOSE => EventKind::Close,
            other => EventKind::Unknown(other),
        };
        let spared = if flags & EVENT_AUDIT != 0 {
            Some(Spared::Audit)
        } else {
            (flags & EVENT_DISABLED != 0).then_some(Spared::Disabled)
        };
        Self {
            time,
            src: parsed.then(|| address(src)),
            dst: parsed.then(|| address(dst)),
            ifindex,
            rule,
            generation,
            len,
            src_port,
            dst_port,
            slot,
            ethertype: (ethertype != 0).then_some(ethertype),
            kind,
            reason: Reason::from_u8(reason).map_or(ReasonCode::Unknown(reason), ReasonCode::Known),
            direction: Direction::BOTH.into_iter().find(|d| *d as u8 == direction),
            proto,
            tcp_flags,
            reply: flags & EVENT_REPLY != 0,
            masqueraded: flags & EVENT_MASQUERADED != 0,
            revoked: flags & EVENT_REVOKED != 0,
            translated: flags & EVENT_TRANSLATED != 0,
            spared,
            hidden_slot,
            count,
            rtt: (rtt != 0).then(|| Duration::from_micros(rtt.into())),
            totals: None,
        }
    }
}

fn address(addr: Addr) -> IpAddr {
    let address = IpAddr::from(addr.octets());
    // A real IPv6 packet with a mapped address is shown as what it carries only if it is not one of
    // ours: the kernel writes IPv4 in this form.
    if addr.is_v4() { address.to_canonical() } else { address }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::mem::offset_of;

    use enforcer_common::abi::Traffic;
    use proptest::prelude::*;

    use super::*;

    /// The image of an event, as the kernel writes it: field by field, without what reads it.
    pub(crate) fn image(e: &Event) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<Event>()];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(offset_of!(Event, time), &e.time.to_ne_bytes());
        put(offset_of!(Event, src), &e.src.octets());
        put(offset_of!(Event, dst), &e.dst.octets());
        put(offset_of!(Event, ifindex), &e.ifindex.to_ne_bytes());
        put(offset_of!(Event, rule), &e.rule.to_ne_bytes());
        put(offset_of!(Event, generation), &e.generation.to_ne_bytes());
        put(offset_of!(Event, len), &e.len.to_ne_bytes());
        put(offset_of!(Event, src_port), &e.src_port.to_ne_bytes());
        put(offset_of!(Event, dst_port), &e.dst_port.to_ne_bytes());
        put(offset_of!(Event, slot), &e.slot.to_ne_bytes());
        put(offset_of!(Event, ethertype), &e.ethertype.to_ne_bytes());
        put(
            offset_of!(Event, kind),
            &[e.kind, e.reason, e.direction, e.proto, e.tcp_flags, e.flags],
        );
        put(offset_of!(Event, hidden_slot), &e.hidden_slot.to_ne_bytes());
        put(offset_of!(Event, count), &e.count.to_ne_bytes());
        put(offset_of!(Event, rtt), &e.rtt.to_ne_bytes());
        bytes
    }

    /// The image of what is told of a flow that is over.
    pub(crate) fn closed_image(e: &Event, totals: &Totals) -> Vec<u8> {
        let Totals { origin, reply, duration } = totals;
        let words = [origin.packets, origin.bytes, reply.packets, reply.bytes, *duration];
        image(e).into_iter().chain(words.into_iter().flat_map(u64::to_ne_bytes)).collect()
    }

    #[test]
    fn an_event_is_read_field_by_field() {
        let event = Event {
            time: 1,
            src: Addr::v4(u32::from_ne_bytes([10, 0, 0, 1])),
            dst: Addr::from_octets([0xfd; 16]),
            ifindex: 2,
            rule: 3,
            generation: 4,
            len: 5,
            src_port: 6,
            dst_port: 7,
            slot: 8,
            ethertype: 0,
            kind: event_kind::VERDICT,
            reason: Reason::PolicyDenied as u8,
            direction: 1,
            proto: 6,
            tcp_flags: 2,
            flags: EVENT_REPLY | EVENT_REVOKED,
            hidden_slot: 9,
            count: 10,
            rtt: 11,
        };
        let raw = decode(&image(&event)).unwrap();
        assert_eq!(raw.src, Some([10, 0, 0, 1].into()));
        assert_eq!(raw.dst, Some([0xfd; 16].into()));
        assert_eq!((raw.time, raw.ifindex, raw.rule, raw.generation, raw.len), (1, 2, 3, 4, 5));
        assert_eq!((raw.src_port, raw.dst_port, raw.slot, raw.hidden_slot), (6, 7, 8, 9));
        assert_eq!((raw.proto, raw.tcp_flags, raw.ethertype), (6, 2, None));
        assert_eq!(raw.kind, EventKind::Verdict);
        assert_eq!(raw.reason, ReasonCode::Known(Reason::PolicyDenied));
        assert_eq!(raw.direction, Some(Direction::Egress));
        assert!(raw.reply && raw.revoked && !raw.masqueraded);
        assert_eq!(raw.spared, None);
        assert_eq!((raw.count, raw.rtt, raw.totals), (10, Some(Duration::from_micros(11)), None));
        for (flag, spared) in [(EVENT_AUDIT, Spared::Audit), (EVENT_DISABLED, Spared::Disabled)] {
            let raw = decode(&image(&Event { flags: flag, ..event })).unwrap();
            assert_eq!((raw.spared, raw.revoked), (Some(spared), false));
        }
    }

    #[test]
    fn a_flow_that_is_over_is_read_with_what_it_carried() {
        let event = Event { kind: event_kind::CLOSE, src_port: 9, ..Event::default() };
        let traffic = |packets, bytes| Traffic { packets, bytes };
        let totals = Totals { origin: traffic(1, 2), reply: traffic(3, u64::MAX), duration: 5 };
        let raw = decode(&closed_image(&event, &totals)).unwrap();
        assert_eq!((raw.kind, raw.src_port, raw.rtt), (EventKind::Close, 9, None));
        assert_eq!(raw.totals, Some(totals));
    }

    #[test]
    fn addresses_that_were_not_read_are_none() {
        let unparsed = Event { flags: EVENT_UNPARSED, ..Event::default() };
        assert_eq!(decode(&image(&unparsed)).unwrap().src, None);
        let frame = Event { ethertype: 0x88cc, ..Event::default() };
        let raw = decode(&image(&frame)).unwrap();
        assert_eq!((raw.dst, raw.ethertype), (None, Some(0x88cc)));
    }

    #[test]
    fn another_size_is_an_error() {
        let error = decode(&[0; 7]).unwrap_err();
        assert_eq!((error.size, error.wanted), (7, size_of::<Event>()));
        assert!(decode(&vec![0; size_of::<Event>() + 8]).is_err());
    }

    proptest! {
        #[test]
        fn unknown_numbers_are_kept(
            bytes in proptest::collection::vec(any::<u8>(), size_of::<Event>()),
        ) {
            let raw = decode(&bytes).unwrap();
            let reason = bytes[offset_of!(Event, reason)];
            prop_assert_eq!(raw.reason.is_drop(), reason >= FIRST_DROP);
            if let ReasonCode::Unknown(number) = raw.reason {
                prop_assert_eq!(number, reason);
            }
            if let EventKind::Unknown(number) = raw.kind {
                prop_assert_eq!(number, bytes[offset_of!(Event, kind)]);
            }
        }
    }
}
