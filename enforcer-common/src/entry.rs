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

/// What one side of a flow has sent, as far as it passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Traffic {
    /// Packets; one that the node's stack is still to cut into segments counts as that many.
    pub packets: u64,
    /// Bytes of the frames as they pass the hook.
    pub bytes: u64,
}

/// A flow.
///
/// What every packet reads stands first, what every packet writes last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct CtEntry {
    /// Last packet, to about a second (`CLOCK_MONOTONIC`, ns).
    pub last_seen: u64,
    /// First packet (`CLOCK_MONOTONIC`, ns); of a connection that went on after its end was told,
    /// the first packet after it.
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
    /// Round-trip time of the TCP handshake, µs; 0 if it is not known, and
    /// [`crate::conntrack::RTT_AMBIGUOUS`].
    pub rtt: u32,
    /// Zero.
    pub _pad: u32,
    /// Not 0 once the flow's end was told.
    pub ended: u64,
    /// What the side that opened the flow has sent.
    pub origin: Traffic,
    /// What the other side has sent.
    pub reply: Traffic,
}

/// A flow as version 1 kept it: the first part of a [`CtEntry`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct CtEntryV1 {
    /// As in [`CtEntry`], and so are all.
    pub last_seen: u64,
    /// First packet.
    pub created: u64,
    /// Generation of the endpoint's policy.
    pub generation: u32,
    /// The rule that allowed it.
    pub rule: RuleId,
    /// Slot of the endpoint.
    pub slot: u16,
    /// `CT_…` bits.
    pub flags: u8,
    /// What the opener has sent.
    pub seen_origin: u8,
    /// What the other side has sent.
    pub seen_reply: u8,
    /// Zero.
    pub _pad: u8,
    /// Slot of a pod behind the node's address.
    pub hidden_slot: u16,
}

impl From<CtEntryV1> for CtEntry {
    /// What it has carried is counted from now on.
    fn from(old: CtEntryV1) -> Self {
        let CtEntryV1 { last_seen, created, generation, rule, slot, flags, .. } = old;
        let CtEntryV1 { seen_origin, seen_reply, hidden_slot, .. } = old;
        Self {
            last_seen,
            created,
            generation,
            rule,
            slot,
            flags,
            seen_origin,
            seen_reply,
            hidden_slot,
            ..Self::default()
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_of_version_1_goes_on_as_it_was_and_has_carried_nothing_yet() {
        let old = CtEntryV1 {
            last_seen: 1,
            created: 2,
            generation: 3,
            rule: 4,
            slot: 5,
            flags: 6,
            seen_origin: 7,
            seen_reply: 8,
            _pad: 0,
            hidden_slot: 9,
        };
        let CtEntry { last_seen, created, generation, rule, slot, flags, .. } = CtEntry::from(old);
        assert_eq!((last_seen, created, generation, rule), (1, 2, 3, 4));
        assert_eq!((slot, flags), (5, 6));
        let CtEntry { seen_origin, seen_reply, hidden_slot, origin, reply, rtt, ended, .. } =
            CtEntry::from(old);
        assert_eq!((seen_origin, seen_reply, hidden_slot), (7, 8, 9));
        assert_eq!((origin, reply, rtt, ended), (Traffic::default(), Traffic::default(), 0, 0));
    }
}
