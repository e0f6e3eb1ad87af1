//! Conntrack entries and their keys, all from the pod's side; part of the ABI.

use crate::abi::RuleId;
#[cfg(doc)]
use crate::abi::Spared;

/// Conntrack key of an IPv4 flow, from the pod's side: the same for both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct CtKey4 {
    /// Host-side interface that the flow belongs to.
    pub ifindex: u32,
    /// The pod's address.
    pub local: u32,
    /// The other address.
    pub remote: u32,
    /// The pod's port; for an ICMP echo flow its identifier.
    pub local_port: u16,
    /// The other port; for an ICMP echo flow see [`crate::conntrack::ECHO_FROM_POD`].
    pub remote_port: u16,
    /// IP protocol number.
    pub proto: u32,
}

/// Conntrack key of an IPv6 flow, from the pod's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct CtKey6 {
    /// Host-side interface that the flow belongs to.
    pub ifindex: u32,
    /// The pod's address.
    pub local: [u32; 4],
    /// The other address.
    pub remote: [u32; 4],
    /// The pod's port; for an ICMP echo flow its identifier.
    pub local_port: u16,
    /// The other port.
    pub remote_port: u16,
    /// IP protocol number.
    pub proto: u32,
}

/// A flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct CtEntry {
    /// Last packet, to about a second (`CLOCK_MONOTONIC`, ns).
    pub last_seen: u64,
    /// First packet (`CLOCK_MONOTONIC`, ns).
    pub created: u64,
    /// Generation of the endpoint's policy when the flow was last judged.
    pub generation: u32,
    /// The rule that allowed it.
    pub rule: RuleId,
    /// Slot of the endpoint.
    pub slot: u16,
    /// `CT_…` bits.
    pub flags: u8,
    /// What the side that opened the flow has sent; see [`crate::conntrack`].
    pub seen_origin: u8,
    /// What the other side has sent.
    pub seen_reply: u8,
    /// `CT_SERVICE…` bits.
    pub service: u8,
    /// With [`CT_MASQUERADED`]: slot of the local pod that the node hid behind its own address;
    /// 0 if it was none.
    pub hidden_slot: u16,
}

/// [`CtEntry::flags`]: the pod opened the flow (else the other side did).
pub const CT_FROM_POD: u8 = 1;
/// [`CtEntry::flags`]: the pod's own node opened it.
pub const CT_FROM_NODE: u8 = 2;
/// [`CtEntry::flags`]: the pod reaches itself.
pub const CT_HAIRPIN: u8 = 4;
/// [`CtEntry::flags`]: picked up in the middle; who opened it is not known, so it may stay only
/// while policy allows both directions.
pub const CT_UNKNOWN_ORIGIN: u8 = 8;
/// [`CtEntry::flags`]: no longer allowed. Kept for its origin, judged anew at every packet.
pub const CT_REVOKED: u8 = 16;
/// [`CtEntry::flags`]: counted as established.
pub const CT_ESTABLISHED: u8 = 32;
/// [`CtEntry::flags`]: the node hid the source behind its own address; judged as the local pod in
/// [`CtEntry::hidden_slot`], or by ipBlock only.
pub const CT_MASQUERADED: u8 = 64;

/// [`CtEntry::flags`]: never allowed, and passed because the endpoint was [`Spared`]. Kept for its
/// origin and because it was told; judged anew at every packet. Its generation is never the
/// endpoint's.
pub const CT_AUDITED: u8 = 128;

/// [`CtEntry::service`]: the pod opened the flow to an address that is translated: its egress is
/// judged for the backend, behind the translation.
pub const CT_SERVICE: u8 = 1;
/// [`CtEntry::service`]: the backend may be a process of this node.
pub const CT_SERVICE_NODE: u8 = 2;
/// [`CtEntry::service`]: the backend is a process of this node: it has answered.
pub const CT_SERVICE_LOCAL: u8 = 4;
