//! What the programs tell about packets; part of the ABI.

use crate::abi::{Addr, RuleId, Traffic};
#[cfg(doc)]
use crate::abi::{Direction, rule};

/// [`Event::kind`].
pub mod event_kind {
    /// A flow was judged: allowed or denied, see the reason.
    pub const VERDICT: u8 = 1;
    /// A packet was dropped for another reason than policy.
    pub const DROP: u8 = 2;
    /// A flow's first reply, or the first half of a connection's end.
    pub const TRACE: u8 = 3;
    /// A pod opens a flow to a Service's address: the verdict comes with the backend.
    pub const PENDING: u8 = 4;
    /// A flow is over: a [`super::Closed`].
    pub const CLOSE: u8 = 5;
}

/// [`Event::flags`]: the packet goes against the flow's opening direction.
pub const EVENT_REPLY: u8 = 1;
/// [`Event::flags`]: the source is hidden by masquerade.
pub const EVENT_MASQUERADED: u8 = 2;
/// [`Event::flags`]: addresses and ports were not read.
pub const EVENT_UNPARSED: u8 = 4;
/// [`Event::flags`]: an established flow that is no longer allowed.
pub const EVENT_REVOKED: u8 = 8;
/// [`Event::flags`]: it would have been dropped and passed, [`crate::abi::Spared::Audit`].
pub const EVENT_AUDIT: u8 = 16;
/// [`Event::flags`]: it would have been dropped and passed, [`crate::abi::Spared::Disabled`].
pub const EVENT_DISABLED: u8 = 32;
/// [`Event::flags`]: judged behind a Service's translation: the destination is the backend, and
/// the source may be the node's, for the pod in [`Event::slot`].
pub const EVENT_TRANSLATED: u8 = 64;

/// What the programs tell about a packet, or about several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Event {
    /// When (`CLOCK_MONOTONIC`, ns).
    pub time: u64,
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Host-side interface.
    pub ifindex: u32,
    /// The rule that decided; [`rule`]'s numbers or a dynamic one.
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
    /// Frame type of a frame that is not IP, else 0.
    pub ethertype: u16,
    /// `event_kind::…`.
    pub kind: u8,
    /// [`crate::reason::Reason`] as a number.
    pub reason: u8,
    /// [`Direction`] as a number.
    pub direction: u8,
    /// IP protocol number.
    pub proto: u8,
    /// TCP flags, as in byte 13 of the header.
    pub tcp_flags: u8,
    /// `EVENT_…` bits.
    pub flags: u8,
    /// Slot of another local pod that a masqueraded packet was judged as, else 0.
    pub hidden_slot: u16,
    /// Packets that the event stands for. More than 1 for drops only, which are told by tuple.
    pub count: u32,
    /// Round-trip time of the TCP handshake, µs: with a first reply from the SYN to it, with a close
    /// to the opener's acknowledgement. 0 if it is not known.
    pub rtt: u32,
}

/// What a flow has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Totals {
    /// By the side that opened it.
    pub origin: Traffic,
    /// By the other side.
    pub reply: Traffic,
    /// From its first packet to its end or, if it aged, to its last, ns.
    pub duration: u64,
}

/// What is told of a flow that is over: an [`Event`] from who opened it, and [`Totals`].
///
/// [`Event::tcp_flags`] are those of the packet that ended it; none if it aged or gave way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Closed {
    /// Who, and by which rule.
    pub event: Event,
    /// How much.
    pub totals: Totals,
}
