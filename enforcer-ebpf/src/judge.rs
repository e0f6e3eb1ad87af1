//! Policy for one packet or one flow: who the other side is, and what the table says.

use aya_ebpf::bindings::__sk_buff;
use enforcer_common::{
    abi::{
        Addr, CT_FROM_NODE, CT_FROM_POD, CT_HAIRPIN, CT_MASQUERADED, CT_UNKNOWN_ORIGIN, CtEntry,
        Direction, EP_ADDR4, EP_ADDR6, rule,
    },
    packet::FRAG_NONE,
    reason::Reason,
    verdict::port_key,
};

use crate::{
    hook,
    maps::NODE_ADDRS,
    skb::Skb,
    state::{Judged, State},
    table::{PREFIX_ONLY, Query, look_up},
};

const INGRESS: u32 = Direction::Ingress as u32;
const EGRESS: u32 = Direction::Egress as u32;

/// Whether an address is the node's.
#[inline(always)]
fn is_node(addr: &Addr) -> bool {
    NODE_ADDRS.get_ptr(addr).is_some()
}

/// Whether the pod's own node made the packet: it has no interface that it came in by, and no mark
/// of a pod.
///
/// A fragment of IPv6 proves nothing: where the node reassembles and fragments again, the kernel
/// does not carry the interface over (`ip6_copy_metadata` in `net/ipv6/ip6_output.c`; IPv4's
/// `ip_copy_metadata` does), so that a remote sender's fragments look like the node's.
#[inline(always)]
pub(crate) fn from_node(skb: Skb, state: &State) -> bool {
    skb.ingress_ifindex() == 0
        && skb.tc_index() == 0
        && (state.packet.v6 == 0 || state.packet.fragment == FRAG_NONE)
}

/// Judges a packet that no entry speaks for, by its own direction: a [`Judged`].
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn judge_packet(skb: *mut __sk_buff, state: *const State) -> u64 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return Judged::new(Reason::PolicyDenied, rule::NONE).0;
    };
    let skb = Skb::new(skb);
    let hairpin = Judged::new(Reason::Hairpin, rule::HAIRPIN).flagged(CT_HAIRPIN, 0).0;
    let mut query = Query {
        remote: *state.remote(),
        word: state.word,
        key: port_key(state.packet.proto, state.packet.dst_port),
        direction: state.direction,
        slot: state.slot,
        by: 0,
    };
    if state.egress() {
        if hook::owns(state.slot, &query.remote) {
            return hairpin;
        }
        return look_up(&raw const query);
    }
    if from_node(skb, state) {
        return Judged::new(Reason::FromNode, rule::FROM_NODE).flagged(CT_FROM_NODE, 0).0;
    }
    let sender = skb.sender();
    if hook::owns(state.slot, &query.remote) {
        if sender == state.slot {
            return hairpin;
        }
        // The pod's own address as source, and the pod did not send it.
        return Judged::new(Reason::SpoofedSource, rule::NONE).0;
    }
    if sender != state.slot && !state.isolated() {
        return look_up(&raw const query);
    }
    if !is_node(&query.remote) {
        return look_up(&raw const query);
    }
    if sender == state.slot {
        // Only translation on this node brings a pod's packet back to it, with the pod's address
        // or the node's. Any other source with this mark was marked on another node: the mark
        // survives where nodes share a kernel.
        return hairpin;
    }
    // A node address that came in by an interface is masqueraded or forged. The mark of the
    // sender's hook names a local pod; for anything else only ipBlock can match.
    let hidden = unhide(&mut query, sender);
    Judged(look_up(&raw const query)).flagged(CT_MASQUERADED, hidden).0
}

/// Puts the address of the local pod in slot `sender` in place of the node's, if there is one.
/// Returns its slot, or 0.
#[inline(always)]
fn unhide(query: &mut Query, sender: u32) -> u16 {
    query.by = PREFIX_ONLY;
    if sender == 0 {
        return 0;
    }
    let Some(endpoint) = hook::at(sender) else {
        return 0;
    };
    if endpoint.ifindex == 0 {
        return 0;
    }
    if query.remote.is_v4() {
        if endpoint.flags & EP_ADDR4 == 0 {
            return 0;
        }
        query.remote = Addr::v4(endpoint.addr4);
    } else {
        if endpoint.flags & EP_ADDR6 == 0 {
            return 0;
        }
        query.remote = Addr(endpoint.addr6);
    }
    query.by = 0;
    sender as u16
}

/// Whether the connection in the other direction of the packet would be allowed: a [`Judged`].
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn judge_reverse(state: *const State) -> u64 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return Judged::new(Reason::PolicyDenied, rule::NONE).0;
    };
    let query = Query {
        remote: *state.remote(),
        word: state.word,
        // The connection back would go to the port that this packet comes from.
        key: port_key(state.packet.proto, state.packet.src_port),
        direction: state.direction ^ 1,
        slot: state.slot,
        by: 0,
    };
    if query.direction == INGRESS && is_node(&query.remote) {
        return Judged::new(Reason::FromNode, rule::FROM_NODE).flagged(CT_FROM_NODE, 0).0;
    }
    look_up(&raw const query)
}

/// A known flow to judge anew.
#[repr(C)]
pub(crate) struct Flow {
    /// The other address.
    pub(crate) remote: Addr,
    /// The policy word to judge by.
    pub(crate) word: u64,
    /// Slot of the endpoint.
    pub(crate) slot: u32,
    /// The pod's port.
    pub(crate) local_port: u16,
    /// The other port.
    pub(crate) remote_port: u16,
    /// IP protocol.
    pub(crate) proto: u8,
    /// `CT_…` bits of its entry.
    pub(crate) flags: u8,
    /// Slot of the hidden pod of its entry.
    pub(crate) hidden: u16,
    /// Zero.
    pub(crate) _pad: u32,
}

impl Flow {
    /// The flow of an entry, whose tuple this packet has.
    #[inline(always)]
    pub(crate) fn of(state: &State, entry: &CtEntry) -> Self {
        Self {
            remote: *state.remote(),
            word: state.word,
            slot: state.slot,
            local_port: state.local_port,
            remote_port: state.remote_port,
            proto: state.packet.proto,
            flags: entry.flags,
            hidden: entry.hidden_slot,
            _pad: 0,
        }
    }
}

/// Judges a known flow anew, by the direction in which it was opened: a [`Judged`].
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn judge_flow(flow: *const Flow) -> u64 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `Flow`.
    let Some(flow) = (unsafe { flow.as_ref() }) else {
        return Judged::new(Reason::PolicyDenied, rule::NONE).0;
    };
    if flow.flags & CT_HAIRPIN != 0 {
        return Judged::new(Reason::Hairpin, rule::HAIRPIN).0;
    }
    if flow.flags & CT_FROM_NODE != 0 {
        return Judged::new(Reason::FromNode, rule::FROM_NODE).0;
    }
    let out = port_key(flow.proto, flow.remote_port);
    let into = port_key(flow.proto, flow.local_port);
    let from_pod = flow.flags & CT_FROM_POD != 0;
    let mut query = Query {
        remote: flow.remote,
        word: flow.word,
        key: if from_pod { out } else { into },
        direction: if from_pod { EGRESS } else { INGRESS },
        slot: flow.slot,
        by: 0,
    };
    if !from_pod && flow.flags & CT_MASQUERADED != 0 {
        unhide(&mut query, u32::from(flow.hidden));
    }
    let judged = look_up(&raw const query);
    if flow.flags & CT_UNKNOWN_ORIGIN == 0 || !Judged(judged).allows() {
        return judged;
    }
    // Whoever opened it must be allowed to have done so; the node always is.
    query.key = if from_pod { into } else { out };
    query.direction ^= 1;
    if query.direction == INGRESS && is_node(&query.remote) {
        return judged;
    }
    look_up(&raw const query)
}
