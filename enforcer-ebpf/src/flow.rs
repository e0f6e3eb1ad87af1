//! Flows: the conntrack look-up that most packets end with, and the life of an entry.

use core::arch::asm;

use aya_ebpf::bindings::{__sk_buff, BPF_ANY, BPF_NOEXIST};
use enforcer_common::{
    abi::{
        Addr, CT_ESTABLISHED, CT_FROM_NODE, CT_FROM_POD, CT_HAIRPIN, CT_MASQUERADED, CT_REVOKED,
        CT_UNKNOWN_ORIGIN, CtEntry, CtKey4, CtKey6, EVENT_REVOKED,
    },
    conntrack::{SECOND, SEEN, SHORTEST, established, expired, observe, reopens},
    packet::{FRAG_NONE, tcp},
    reason::Reason,
    verdict::proto::TCP,
};

use crate::{
    aging, event, fragment,
    hook::{self, DROP, PASS},
    judge::{Flow, from_node, judge_flow, judge_packet, judge_reverse},
    maps::{CT4, CT6},
    skb::Skb,
    state::{Judged, State},
};

/// A flow's two ends, from the pod's side.
#[derive(Clone, Copy)]
pub(crate) struct Tuple<'a> {
    /// Interface.
    pub(crate) ifindex: u32,
    /// The pod's address.
    pub(crate) local: &'a Addr,
    /// The other address.
    pub(crate) remote: &'a Addr,
    /// The pod's port, 0 for protocols without.
    pub(crate) local_port: u16,
    /// The other port.
    pub(crate) remote_port: u16,
    /// IP protocol.
    pub(crate) proto: u8,
}

impl<'a> Tuple<'a> {
    #[inline(always)]
    fn of(state: &'a State) -> Self {
        Self {
            ifindex: state.ifindex,
            local: state.local(),
            remote: state.remote(),
            local_port: state.local_port,
            remote_port: state.remote_port,
            proto: state.packet.proto,
        }
    }

    #[inline(always)]
    fn key4(&self) -> CtKey4 {
        CtKey4 {
            ifindex: self.ifindex,
            local: self.local.0[3],
            remote: self.remote.0[3],
            local_port: self.local_port,
            remote_port: self.remote_port,
            proto: u32::from(self.proto),
        }
    }

    #[inline(always)]
    fn key6(&self) -> CtKey6 {
        CtKey6 {
            ifindex: self.ifindex,
            local: self.local.0,
            remote: self.remote.0,
            local_port: self.local_port,
            remote_port: self.remote_port,
            proto: u32::from(self.proto),
        }
    }

    /// The flow's entry.
    #[inline(always)]
    pub(crate) fn find(&self) -> Option<*mut CtEntry> {
        if self.local.is_v4() { CT4.get_ptr_mut(self.key4()) } else { CT6.get_ptr_mut(self.key6()) }
    }
}

/// The entry of the packet's flow; apart, so that the longer key is on the stack only meanwhile.
#[inline(never)]
fn find6(state: &State) -> *mut CtEntry {
    CT6.get_ptr_mut(Tuple::of(state).key6()).unwrap_or(core::ptr::null_mut())
}

#[inline(always)]
fn find(state: &State) -> Option<&'static mut CtEntry> {
    let entry = if state.packet.v6 == 0 {
        CT4.get_ptr_mut(Tuple::of(state).key4()).unwrap_or(core::ptr::null_mut())
    } else {
        find6(state)
    };
    // SAFETY: null or an element, which lives until the program returns (RCU, not preallocated).
    // Other CPUs may write it: every field is read and written whole.
    unsafe { entry.as_mut() }
}

/// Entries that need more than a compare: revoked ones at every packet, those of the node and of
/// hairpins because only some packets may ride on them.
const SPECIAL: u8 = CT_REVOKED | CT_FROM_NODE | CT_HAIRPIN | CT_MASQUERADED;

/// A packet with a flow's tuple.
#[inline(always)]
pub(crate) fn run(skb: Skb, state: &State) -> i32 {
    let Some(e) = find(state) else {
        return open(skb.raw(), state, BPF_NOEXIST);
    };
    let from_origin = (e.flags & CT_FROM_POD != 0) == state.egress();
    let side = if from_origin { e.seen_origin } else { e.seen_reply };
    let flags = state.packet.tcp_flags;
    let idle = state.now.saturating_sub(e.last_seen);
    if e.generation == state.policy().generation()
        && e.flags & SPECIAL == 0
        && observe(side, flags) == side
        && flags & (tcp::SYN | tcp::FIN | tcp::RST) == 0
        && idle <= SHORTEST
        && state.packet.fragment == FRAG_NONE
    {
        if idle > SECOND {
            touch(state, e);
        }
        return PASS;
    }
    // Not called from `known` itself: the frames of a chain of calls share 512 bytes.
    match known(skb.raw(), state) {
        OPEN => open(skb.raw(), state, BPF_NOEXIST),
        REOPEN => open(skb.raw(), state, BPF_ANY),
        STATELESS => stateless(skb.raw(), state),
        code => code,
    }
}

/// [`known`]'s answer: there is no entry after all.
const OPEN: i32 = 100;
/// [`known`]'s answer: the entry gives way to a new flow.
const REOPEN: i32 = 101;
/// [`known`]'s answer: the entry is not this packet's to ride on.
const STATELESS: i32 = 102;

/// Refreshes an entry's and an endpoint's clocks; at most once a second for a flow.
#[inline(always)]
fn touch(state: &State, e: &mut CtEntry) {
    e.last_seen = state.now;
    hook::seen(state);
}

#[inline(always)]
pub(crate) fn add(counter: &mut i64, by: i64) {
    let counter: *mut i64 = counter;
    // SAFETY: aligned, lives as long as the map, only ever changed atomically. Core offers no
    // read-modify-write for this target; the plain instruction has been there since Linux 3.18.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) by) };
}

/// A packet of a known flow that is more than a compare: a return code, or what to do instead.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn known(skb: *mut __sk_buff, state: *const State) -> i32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return DROP;
    };
    let packet = &state.packet;
    let Some(e) = find(state) else {
        // It went between two look-ups.
        return OPEN;
    };
    let from_pod = e.flags & CT_FROM_POD != 0;
    let from_origin = from_pod == state.egress();
    if expired(packet.proto, e, state.now)
        || (packet.is_tcp_open() && reopens(e.seen_origin, e.seen_reply, from_origin))
    {
        return REOPEN;
    }
    if !state.egress() && !rides(Skb::new(skb), state, e) {
        // The tuple is the node's or the pod's own, and this packet is neither's.
        return STATELESS;
    }
    let generation = state.policy().generation();
    if e.flags & CT_REVOKED != 0 || e.generation != generation {
        let flow = Flow::of(state, e);
        let judged = Judged(judge_flow(&raw const flow));
        if !judged.allows() {
            e.flags |= CT_REVOKED;
            e.last_seen = state.now;
            return event::verdict(skb, state, judged.0, u32::from(EVENT_REVOKED));
        }
        e.flags &= !CT_REVOKED;
        e.rule = judged.rule();
        e.generation = generation;
    }
    advance(skb, state, e, from_origin)
}

/// Whether an ingress packet may ride on an entry: on the node's only the node's, on a pod's own
/// only the pod's, on that of a pod behind the node's address only that pod's (the node may give
/// the port to another pod's connection).
#[inline(always)]
fn rides(skb: Skb, state: &State, entry: &CtEntry) -> bool {
    let flags = entry.flags;
    if flags & CT_FROM_POD != 0 {
        return true;
    }
    if flags & CT_FROM_NODE != 0 {
        return from_node(skb, state);
    }
    if flags & CT_HAIRPIN != 0 {
        return skb.tc_index() == state.slot;
    }
    flags & CT_MASQUERADED == 0
        || entry.hidden_slot == 0
        || skb.tc_index() == u32::from(entry.hidden_slot)
}

/// Writes down what the packet says about its flow, and passes it, unless the flow would become
/// established and the endpoint has no room for it.
#[inline(always)]
fn advance(skb: *mut __sk_buff, state: &State, e: &mut CtEntry, from_origin: bool) -> i32 {
    let packet = &state.packet;
    let side = if from_origin { e.seen_origin } else { e.seen_reply };
    let next = observe(side, packet.tcp_flags);
    let (origin, reply) = if from_origin { (next, e.seen_reply) } else { (e.seen_origin, next) };
    if e.flags & CT_ESTABLISHED == 0 && established(packet.proto, origin, reply) {
        if let (Some(counts), Some(endpoint)) = (hook::counts(state.slot), hook::at(state.slot)) {
            if state.isolated_at_all()
                && e.flags & CT_FROM_NODE == 0
                && !has_room(state, &raw const counts.established, endpoint.quota_established)
            {
                return event::tell(Skb::new(skb), state, Reason::ConntrackFull);
            }
            add(&mut counts.half, -1);
            add(&mut counts.established, 1);
        }
        e.flags |= CT_ESTABLISHED;
    }
    let first_reply = !from_origin && side & SEEN == 0;
    let ends = tcp::FIN | tcp::RST;
    let ending = packet.proto == TCP && packet.tcp_flags & ends != 0 && next != side;
    if from_origin {
        e.seen_origin = next;
    } else {
        e.seen_reply = next;
    }
    touch(state, e);
    fragment::first(state);
    if first_reply || ending {
        event::trace(skb, state, e.rule, u32::from(!from_origin));
    }
    PASS
}

/// A packet that no entry speaks for and that makes none: judged by its own direction, every time.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn stateless(skb: *mut __sk_buff, state: *const State) -> i32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return DROP;
    };
    let judged = Judged(judge_packet(skb, state));
    alone(skb, state, judged)
}

/// The end of a packet that is judged and leaves no entry. Its later fragments follow it.
#[inline(always)]
fn alone(skb: *mut __sk_buff, state: &State, judged: Judged) -> i32 {
    if judged.allows() {
        fragment::first(state);
        return event::quiet(state, judged);
    }
    event::verdict(skb, state, judged.0, 0)
}

/// A packet that opens a flow, or that has none. `mode` is `BPF_NOEXIST`, or `BPF_ANY` where an old
/// entry gives way.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn open(skb: *mut __sk_buff, state: *const State, mode: u32) -> i32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return DROP;
    };
    let packet = &state.packet;
    let mut judged = Judged(judge_packet(skb, state));
    let egress = state.egress();
    let mut from_pod = egress;
    let mut flags = judged.flags();
    if packet.is_echo_reply() {
        // Only a request opens an echo flow: the entry would pass the requests that it answers.
        return alone(skb, state, judged);
    }
    if packet.proto == TCP && !packet.is_tcp_open() && !judged.is(Reason::Hairpin) {
        // In the middle of a connection that is not known: who opened it cannot be told, so it
        // may leave an entry only if policy allows it whoever did.
        let other = Judged(judge_reverse(state));
        let picked_up = !judged.allows()
            && packet.tcp_flags & tcp::SYN == 0
            && judged.is(Reason::PolicyDenied)
            && hook::at(state.slot).is_some_and(|endpoint| state.now < endpoint.pickup_until);
        if packet.tcp_flags & tcp::RST != 0 || !other.allows() || (!judged.allows() && !picked_up) {
            return alone(skb, state, judged);
        }
        if picked_up {
            judged = Judged::new(Reason::Pickup, other.rule()).flagged(other.flags(), 0);
            from_pod = !egress;
            flags = other.flags();
        } else {
            // A special entry would let other packets ride on a guess.
            flags = CT_UNKNOWN_ORIGIN;
        }
    }
    if !judged.allows() {
        return event::verdict(skb, state, judged.0, 0);
    }
    let seen = observe(0, packet.tcp_flags);
    let entry = CtEntry {
        last_seen: state.now,
        created: state.now,
        generation: state.policy().generation(),
        rule: judged.rule(),
        slot: state.slot as u16,
        flags: if from_pod { flags | CT_FROM_POD } else { flags },
        seen_origin: if from_pod == egress { seen } else { 0 },
        seen_reply: if from_pod == egress { 0 } else { seen },
        _pad: 0,
        hidden_slot: judged.hidden(),
    };
    if !record(state, &entry, mode) && state.isolated_at_all() {
        // Without an entry its replies could not be told from a new flow.
        return event::tell(Skb::new(skb), state, Reason::ConntrackFull);
    }
    fragment::first(state);
    event::verdict(skb, state, judged.0, 0)
}

/// Whether a count is below its quota, if need be after expired flows are deleted.
#[inline(always)]
fn has_room(state: &State, count: *const i64, quota: u32) -> bool {
    // SAFETY: a count of an array element, which lives as long as the map; volatile, because the
    // walk and other CPUs change it.
    let room = || unsafe { count.read_volatile() } < i64::from(quota);
    room() || (aging::age(state.now) != 0 && room())
}

/// Keeps an entry, within the endpoint's quota.
#[inline(always)]
fn record(state: &State, entry: &CtEntry, mode: u32) -> bool {
    let (Some(counts), Some(endpoint)) = (hook::counts(state.slot), hook::at(state.slot)) else {
        return false;
    };
    // The quota is against peers; the node always comes in, whatever they do.
    if entry.flags & CT_FROM_NODE == 0
        && !has_room(state, &raw const counts.half, endpoint.quota_half)
    {
        return false;
    }
    let mut replaced = 0;
    if mode == BPF_ANY
        && let Some(old) = find(state)
    {
        replaced = if old.flags & CT_ESTABLISHED != 0 { 2 } else { 1 };
    }
    let result = if state.packet.v6 == 0 {
        CT4.insert(Tuple::of(state).key4(), entry, u64::from(mode)).err().unwrap_or(0)
    } else {
        insert6(state, entry, mode)
    };
    match result {
        0 => {
            if replaced == 2 {
                add(&mut counts.established, -1);
            }
            if replaced != 1 {
                add(&mut counts.half, 1);
            }
            true
        }
        // Another CPU was first: the flow is known.
        EEXIST => true,
        _ => false,
    }
}

#[inline(never)]
fn insert6(state: &State, entry: &CtEntry, mode: u32) -> i32 {
    CT6.insert(Tuple::of(state).key6(), entry, u64::from(mode)).err().unwrap_or(0)
}

const EEXIST: i32 = -17;
