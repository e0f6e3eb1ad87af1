//! What is known of the packet in hand, in one struct that fits the stack and that every function
//! of the slow path takes.
//!
//! The slow path is made of global functions: the verifier checks each once, for any arguments,
//! instead of once for every way that leads to it. They take this struct by pointer, so it holds
//! no pointers itself; what it points to in spirit is looked up again where it is needed.

use enforcer_common::{
    abi::{Addr, Direction, PolicyWord},
    packet::Packet,
    reason::Reason,
};

/// The packet in hand.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct State {
    /// The policy in force, read once and before anything it governs; see [`PolicyWord`].
    pub(crate) word: u64,
    /// Coarse monotonic clock, ns.
    pub(crate) now: u64,
    /// What the parser read.
    pub(crate) packet: Packet,
    /// The pod's slot.
    pub(crate) slot: u32,
    /// The interface of the hook.
    pub(crate) ifindex: u32,
    /// [`Direction`] as a number.
    pub(crate) direction: u32,
    /// The pod's port in the flow's key (see `abi::CtKey4`).
    pub(crate) local_port: u16,
    /// The other port in the flow's key.
    pub(crate) remote_port: u16,
}

impl State {
    /// The policy in force.
    #[inline(always)]
    pub(crate) fn policy(&self) -> PolicyWord {
        PolicyWord(self.word)
    }

    /// Whether the pod sends the packet.
    #[inline(always)]
    pub(crate) fn egress(&self) -> bool {
        self.direction == Direction::Egress as u32
    }

    /// Whether some policy isolates the pod for this packet's direction.
    #[inline(always)]
    pub(crate) fn isolated(&self) -> bool {
        self.word & (1 << self.direction) != 0
    }

    /// Whether some policy isolates the pod at all.
    #[inline(always)]
    pub(crate) fn isolated_at_all(&self) -> bool {
        self.word & 3 != 0
    }

    /// The pod's address in this packet.
    #[inline(always)]
    pub(crate) fn local(&self) -> &Addr {
        if self.egress() { &self.packet.src } else { &self.packet.dst }
    }

    /// The other address.
    #[inline(always)]
    pub(crate) fn remote(&self) -> &Addr {
        if self.egress() { &self.packet.dst } else { &self.packet.src }
    }
}

/// A judgement in one register, as global functions return it: rule, reason, `CT_…` bits for the
/// flow's entry, and the slot of the local pod behind a masquerade.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Judged(pub(crate) u64);

impl Judged {
    /// A judgement for a flow that needs no special treatment.
    #[inline(always)]
    pub(crate) const fn new(reason: Reason, rule: u32) -> Self {
        Self(rule as u64 | (reason as u64) << 32)
    }

    /// The same with bits for the flow's entry.
    #[inline(always)]
    pub(crate) const fn flagged(self, flags: u8, hidden: u16) -> Self {
        Self(self.0 & 0xff_ffff_ffff | (flags as u64) << 40 | (hidden as u64) << 48)
    }

    /// The rule that decided.
    #[inline(always)]
    pub(crate) const fn rule(self) -> u32 {
        self.0 as u32
    }

    /// Why, as a number.
    #[inline(always)]
    pub(crate) const fn reason(self) -> u8 {
        (self.0 >> 32) as u8
    }

    /// `CT_…` bits.
    #[inline(always)]
    pub(crate) const fn flags(self) -> u8 {
        (self.0 >> 40) as u8
    }

    /// Slot of the hidden pod, or 0.
    #[inline(always)]
    pub(crate) const fn hidden(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Whether it is this reason.
    #[inline(always)]
    pub(crate) const fn is(self, reason: Reason) -> bool {
        self.reason() == reason as u8
    }

    /// Whether it passes.
    #[inline(always)]
    pub(crate) const fn allows(self) -> bool {
        self.reason() < enforcer_common::reason::FIRST_DROP
    }
}
