//! Flows: the conntrack look-up that most packets end with, and the life of an entry.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_ANY, BPF_NOEXIST},
    helpers::generated::bpf_ktime_get_ns,
};
use enforcer_common::{
    abi::{
        CT_AUDITED, CT_ESTABLISHED, CT_FROM_NODE, CT_FROM_POD, CT_HAIRPIN, CT_MASQUERADED,
        CT_REVOKED, CT_SERVICE, CT_SERVICE_LOCAL, CT_UNKNOWN_ORIGIN, CtEntry, CtKey4, CtKey6,
        EVENT_REPLY, EVENT_REVOKED, MARK_JUDGE, MARK_SERVICE, Traffic, rule,
    },
    conntrack::{
        RTT_AMBIGUOUS, SECOND, SEEN, SHORTEST, completes_handshake, established, expired, micros,
        observe, over, reopens, repeats_syn,
    },
    ending::Ends,
    packet::{Bytes as _, FRAG_NONE, Packet, tcp},
    reason::Reason,
    verdict::proto::TCP,
};

use crate::{
    atomic::add,
    end, event, fragment,
    hook::{self, DROP, PASS},
    judge::{Flow, from_node, judge_flow, judge_packet, judge_reverse},
    maps::{CT4, CT6, ENTRY},
    quota::{has_room, record},
    sender, service,
    skb::Skb,
    spare::{self, read},
    state::{Judged, State},
};

/// A flow's two ends, and where its entry is.
#[derive(Clone, Copy)]
pub(crate) struct Tuple<'a>(pub(crate) Ends<'a>);

impl<'a> Tuple<'a> {
    #[inline(always)]
    pub(crate) fn of(state: &'a State) -> Self {
        Self(Ends {
            ifindex: state.ifindex,
            local: state.local(),
            remote: state.remote(),
            local_port: state.local_port,
            remote_port: state.remote_port,
            proto: state.packet.proto,
        })
    }

    #[inline(always)]
    pub(crate) fn key4(&self) -> CtKey4 {
        CtKey4 {
            ifindex: self.0.ifindex,
            local: self.0.local.0[3],
            remote: self.0.remote.0[3],
            local_port: self.0.local_port,
            remote_port: self.0.remote_port,
            proto: u32::from(self.0.proto),
        }
    }

    #[inline(always)]
    pub(crate) fn key6(&self) -> CtKey6 {
        CtKey6 {
            ifindex: self.0.ifindex,
            local: self.0.local.0,
            remote: self.0.remote.0,
            local_port: self.0.local_port,
            remote_port: self.0.remote_port,
            proto: u32::from(self.0.proto),
        }
    }

    /// The flow's entry; apart, so that the key is on the stack only meanwhile.
    #[inline(never)]
    pub(crate) fn find(&self) -> Option<*mut CtEntry> {
        if self.0.local.is_v4() {
            CT4.get_ptr_mut(self.key4())
        } else {
            CT6.get_ptr_mut(self.key6())
        }
    }
}

/// The entry of the packet's flow; apart, so that the longer key is on the stack only meanwhile.
#[inline(never)]
fn find6(state: &State) -> *mut CtEntry {
    CT6.get_ptr_mut(Tuple::of(state).key6()).unwrap_or(core::ptr::null_mut())
}

#[inline(always)]
pub(crate) fn find(state: &State) -> Option<&'static mut CtEntry> {
    let entry = if state.packet.v6 == 0 {
        CT4.get_ptr_mut(Tuple::of(state).key4()).unwrap_or(core::ptr::null_mut())
    } else {
        find6(state)
    };
    // SAFETY: null or an element, which lives as long as the map (preallocated). Other CPUs may write
    // it: every field is read and written whole.
    unsafe { entry.as_mut() }
}

/// Entries that need more than a compare: revoked and audited ones at every packet, those of the
/// node and of hairpins because only some packets may ride on them.
const SPECIAL: u8 = CT_REVOKED | CT_AUDITED | CT_FROM_NODE | CT_HAIRPIN | CT_MASQUERADED;

/// A packet with a flow's tuple.
#[inline(always)]
pub(crate) fn run(skb: Skb, state: &State) -> i32 {
    let mut mode = BPF_NOEXIST;
    let mark = if state.egress() { 0 } else { skb.tc_index() };
    let to_service = mark & (MARK_SERVICE | MARK_JUDGE);
    // What is not TCP may get another backend at any time, and an entry here may be of a time when
    // the sender's policy allowed this one.
    let judges = to_service & MARK_JUDGE != 0 || (to_service != 0 && state.packet.proto != TCP);
    if judges {
        let code = sender::judge_sender(skb.raw(), state);
        if code != PASS {
            return code;
        }
    }
    if let Some(e) = find(state) {
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
            carry(skb, e, from_origin);
            if idle > SECOND {
                touch(state, e);
            }
            if state.egress() && e.service & CT_SERVICE != 0 {
                if e.seen_reply & SEEN != 0 && idle <= SECOND {
                    skb.set_tc_index(state.slot | MARK_SERVICE);
                } else {
                    service::mark(skb, state, e);
                }
            }
            return PASS;
        }
        let mut code = known(skb.raw(), state, e, 0);
        if code == ANEW {
            // One after the other, as below.
            code = known(skb.raw(), state, e, service::judge_known(state, e));
        }
        mode = match code {
            REOPEN => BPF_ANY,
            RIVAL => REPLACE_IF_ALLOWED,
            STATELESS => return stateless(skb.raw(), state),
            code => return code,
        };
    }
    if to_service != 0 && !judges {
        // The sender's flow has an answer, and this pod knows nothing of it: the translation has
        // given it another backend.
        let code = sender::judge_sender(skb.raw(), state);
        if code != PASS {
            return code;
        }
    }
    // One after the other: the frames of a chain of calls share 512 bytes.
    let judged = judge_open(skb.raw(), state);
    open(skb.raw(), state, judged, mode)
}

/// [`known`]'s answer: the entry gives way to a new flow.
const REOPEN: i32 = 101;
/// [`known`]'s answer: the entry is not this packet's to ride on.
const STATELESS: i32 = 102;
/// [`known`]'s answer: a connection from the other side against a flow that lives, which gives way
/// only if that is allowed.
const RIVAL: i32 = 103;

/// [`known`]'s answer: it wants to be told what `service::judge_known` says.
const ANEW: i32 = 104;

/// For [`open`]: like `BPF_ANY`, but what is only spared replaces nothing.
pub(crate) const REPLACE_IF_ALLOWED: u32 = 2;

/// Notes that a flow is in use.
///
/// Of a connection to a Service only answers count: they show that it still has its translation.
/// What the pod sends shows nothing, and must not keep itself from being judged.
#[inline(always)]
fn used(state: &State, e: &mut CtEntry) {
    let shows_nothing = state.egress()
        && e.service & CT_SERVICE != 0
        && e.seen_reply & SEEN != 0
        && state.packet.proto == TCP;
    if !shows_nothing {
        e.last_seen = state.now;
    }
}

/// Counts a packet that passes. Plain additions: the packets of one direction come one after the
/// other, as good as always, and what two CPUs make of one word is not worth a locked instruction
/// for every packet.
#[inline(always)]
fn carry(skb: Skb, e: &mut CtEntry, from_origin: bool) {
    let side = if from_origin { &mut e.origin } else { &mut e.reply };
    side.packets += u64::from(skb.packets());
    side.bytes += u64::from(skb.frame_len());
}

/// Refreshes an entry's and an endpoint's clocks; at most once a second for a flow.
#[inline(always)]
fn touch(state: &State, e: &mut CtEntry) {
    used(state, e);
    hook::seen(state);
}

/// A packet of a known flow that is more than a compare: a return code, or what to do instead.
/// `backend` is the [`Judged`] of a flow to a Service, for its backend, or 0.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn known(
    skb: *mut __sk_buff,
    state: *const State,
    entry: *mut CtEntry,
    backend: u64,
) -> i32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return DROP;
    };
    // SAFETY: as above; `run` passes the element that `find` has given it.
    let Some(e) = (unsafe { entry.as_mut() }) else {
        return DROP;
    };
    let packet = &state.packet;
    let from_pod = e.flags & CT_FROM_POD != 0;
    let from_origin = from_pod == state.egress();
    if expired(packet.proto, e, state.now) {
        return REOPEN;
    }
    if !state.egress()
        && e.flags & (CT_FROM_POD | CT_FROM_NODE) == 0
        && from_node(Skb::new(skb), state)
    {
        // Somebody else's with the tuple that the node uses now, as one behind its address may have
        // been: it must not be judged as theirs, and its answers neither.
        return REOPEN;
    }
    let revoked_to_service = e.flags & CT_REVOKED != 0 && e.service & CT_SERVICE != 0;
    let reopened = reopens(e.seen_origin, e.seen_reply, from_origin)
        // A connection that was stopped is over for the pod, too: it may get another backend.
        || (from_origin && revoked_to_service);
    if packet.is_tcp_open() && reopened {
        return if from_origin { REOPEN } else { RIVAL };
    }
    if !state.egress() && !rides(Skb::new(skb), state, e) {
        // The tuple is the node's or the pod's own, and this packet is neither's.
        return STATELESS;
    }
    let generation = state.policy().generation();
    let idle = state.now.saturating_sub(e.last_seen);
    // In both directions: an answer that is first after a change must not speak for the flow.
    let looks = e.generation != generation || packet.is_tcp_open() || idle > SECOND;
    if e.service & CT_SERVICE == 0 && from_pod && service::has_ports(state) && looks {
        e.service |= service::became(state) as u8;
    }
    let to_service = e.service & CT_SERVICE != 0;
    if to_service && !state.egress() && !service::may_answer(Skb::new(skb), state, e) {
        return event::tell(Skb::new(skb), state, Reason::ServiceNodeBackend);
    }
    let anew = e.flags & (CT_REVOKED | CT_AUDITED) != 0 || e.generation != generation;
    if to_service && state.egress() {
        service::mark(Skb::new(skb), state, e);
    }
    if anew {
        let judged = if to_service {
            if backend == 0 {
                return ANEW;
            }
            Judged(backend)
        } else {
            let flow = Flow::of(state, e);
            Judged(judge_flow(&raw const flow))
        };
        // What is spared is told where its backend is seen.
        let elsewhere = judged.is(Reason::Pending)
            || (e.service & (CT_SERVICE | CT_SERVICE_LOCAL) == CT_SERVICE
                && !judged.allows()
                && spare::spared(state.slot, state.now) != spare::NO);
        if elsewhere {
            // Judged behind the translation, packet by packet, until its backend is known here.
        } else if judged.allows() {
            e.flags &= !(CT_REVOKED | CT_AUDITED);
            e.rule = judged.rule();
            e.generation = generation;
        } else {
            let code = disallowed(skb, state, e, judged, from_origin);
            if code != PASS {
                return code;
            }
        }
    }
    advance(skb, state, e, from_origin)
}

/// A packet of a known flow that is not allowed (any more): dropped, unless it is spared. Then it
/// is told once, and counted at every packet.
#[inline(always)]
fn disallowed(
    skb: *mut __sk_buff,
    state: &State,
    e: &mut CtEntry,
    judged: Judged,
    from_origin: bool,
) -> i32 {
    let spared = spare::spared(state.slot, state.now);
    let mut flags = u32::from(EVENT_REVOKED);
    if spared == spare::NO {
        if !from_origin && e.seen_reply & SEEN == 0 && opens_unseen(&state.packet) {
            // Nobody has answered this flow, so this may be a first answer as well as a flow of
            // its own: it passes if it may on its own, and opens nothing for the other side.
            return STATELESS;
        }
        e.flags = e.flags & !CT_AUDITED | CT_REVOKED;
        if !opens_unseen(&state.packet) {
            used(state, e);
        }
    } else if spared == spare::SHADOW {
        return PASS;
    } else if e.flags & CT_AUDITED != 0 {
        event::count_spared(spared, judged.reason(), state.direction);
        return PASS;
    } else {
        // The generation first and never the endpoint's: should another CPU's store undo the flag,
        // the flow is told twice, and still judged at every packet.
        e.generation = !state.policy().generation();
        e.flags = e.flags & !CT_REVOKED | CT_AUDITED;
        flags |= event::FLOW_REMEMBERS;
    }
    event::verdict(skb, state, judged.0, flags)
}

/// Whether packets of this protocol do not say if they open a flow or answer one. Then only time
/// tells: what comes after the flow's timeout answers nothing, and so what is dropped does not
/// prolong it.
#[inline(always)]
fn opens_unseen(packet: &Packet) -> bool {
    packet.proto != TCP && !packet.is_icmp()
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
        return skb.sender() == state.slot;
    }
    flags & CT_MASQUERADED == 0
        || entry.hidden_slot == 0
        || skb.sender() == u32::from(entry.hidden_slot)
}

/// Writes down what the packet says about its flow, and passes it, unless the flow would become
/// established and the endpoint has no room for it.
#[inline(always)]
fn advance(skb: *mut __sk_buff, state: &State, e: &mut CtEntry, from_origin: bool) -> i32 {
    let packet = &state.packet;
    let side = if from_origin { e.seen_origin } else { e.seen_reply };
    let next = observe(side, packet.tcp_flags);
    let (origin, reply) = if from_origin { (next, e.seen_reply) } else { (e.seen_origin, next) };
    if e.flags & CT_ESTABLISHED == 0
        && established(packet.proto, origin, reply)
        && let (Some(counts), Some(endpoint)) = (hook::counts(state.slot), hook::at(state.slot))
    {
        // As in `record`.
        let audited = e.flags & CT_AUDITED != 0;
        let quota =
            if audited { endpoint.quota_established / 2 } else { endpoint.quota_established };
        let room = !state.isolated_at_all()
            || e.flags & CT_FROM_NODE != 0
            || has_room(state, &raw const counts.established, quota);
        if room {
            add(&mut counts.half, -1);
            add(&mut counts.established, 1);
            e.flags |= CT_ESTABLISHED;
        } else if !audited {
            let code = event::tell(Skb::new(skb), state, Reason::ConntrackFull);
            if code != PASS {
                return code;
            }
        }
    }
    if from_origin {
        e.seen_origin = next;
    } else {
        e.seen_reply = next;
    }
    let proto = packet.proto;
    let is_over = over(proto, origin, reply);
    if !is_over && read(&e.ended) != 0 {
        // A reset that ended nothing: what follows is told for itself.
        e.origin = Traffic::default();
        e.reply = Traffic::default();
        e.created = state.now;
        e.ended = 0;
    }
    carry(Skb::new(skb), e, from_origin);
    let rtt = if proto == TCP && e.rtt == 0 { shake_hands(e, side, packet.tcp_flags) } else { 0 };
    touch(state, e);
    fragment::first(state);
    let first_reply = !from_origin && side & SEEN == 0;
    let ending = proto == TCP && packet.tcp_flags & (tcp::FIN | tcp::RST) != 0 && next != side;
    if ending && is_over {
        end::ended(state, e);
    } else if first_reply || ending {
        let flags = if from_origin { 0 } else { u32::from(EVENT_REPLY) };
        event::trace(skb, state, e.rule, flags, rtt);
    }
    PASS
}

/// Notes how long the handshake took, once the opener has acknowledged the answer. Returns how
/// long the answer took, µs, if this is a first one.
#[inline(always)]
fn shake_hands(e: &mut CtEntry, side: u8, flags: u8) -> u32 {
    // SAFETY: the helper has no preconditions.
    let elapsed = || micros(e.created, unsafe { bpf_ktime_get_ns() });
    if repeats_syn(side, flags) {
        e.rtt = RTT_AMBIGUOUS;
    } else if completes_handshake(side, e.seen_reply, flags) {
        e.rtt = elapsed();
    } else if side == 0 && flags & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK {
        return elapsed();
    }
    0
}

/// A packet that no entry speaks for and that makes none: judged by its own direction, every time.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn stateless(skb: *mut __sk_buff, state: *const State) -> i32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return DROP;
    };
    let judged = Judged(judge_any(skb, state));
    alone(skb, state, judged)
}

/// Judges a packet that no entry speaks for: a [`Judged`].
#[inline(always)]
fn judge_any(skb: *mut __sk_buff, state: &State) -> u64 {
    if service::may_be(state) {
        let judged = service::judge_service(skb, state);
        if judged != service::NOT_A_SERVICE {
            return judged;
        }
    }
    judge_packet(skb, state)
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

/// In the `CT_…` bits of [`judge_open`]'s answer: the packet leaves no entry.
const ALONE: u8 = CT_ESTABLISHED;

/// Judges a packet that opens a flow, or that has none: a [`Judged`] with the bits of its entry.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn judge_open(skb: *mut __sk_buff, state: *const State) -> u64 {
    let denied = Judged::new(Reason::PolicyDenied, rule::NONE).flagged(ALONE, 0).0;
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return denied;
    };
    let packet = &state.packet;
    let judged = Judged(judge_any(skb, state));
    let egress = state.egress();
    let from = |pod: bool| if pod { CT_FROM_POD } else { 0 };
    let hidden = judged.hidden();
    if packet.is_echo_reply() {
        // Only a request opens an echo flow: the entry would pass the requests that it answers.
        return judged.flagged(judged.flags() | ALONE, hidden).0;
    }
    if packet.proto != TCP || packet.is_tcp_open() || judged.is(Reason::Hairpin) {
        return judged.flagged(judged.flags() | from(egress), hidden).0;
    }
    // In the middle of a connection that is not known: who opened it cannot be told, so it may
    // leave an entry only if policy allows it whoever did.
    let other = Judged(judge_reverse(state));
    let picked_up = !judged.allows()
        && packet.tcp_flags & tcp::SYN == 0
        && judged.is(Reason::PolicyDenied)
        && hook::at(state.slot).is_some_and(|endpoint| state.now < endpoint.pickup_until);
    if packet.tcp_flags & tcp::RST != 0 || !other.allows() || (!judged.allows() && !picked_up) {
        return judged.flagged(judged.flags() | ALONE, hidden).0;
    }
    if picked_up {
        return Judged::new(Reason::Pickup, other.rule())
            .flagged(other.flags() | from(!egress), 0)
            .0;
    }
    judged.flagged(judged.flags() | CT_UNKNOWN_ORIGIN | from(egress), hidden).0
}

/// The end of a packet that [`judge_open`] has judged. `mode` is `BPF_NOEXIST`, or `BPF_ANY` or
/// [`REPLACE_IF_ALLOWED`] where an old entry gives way.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn open(
    skb: *mut __sk_buff,
    state: *const State,
    judged: u64,
    mode: u32,
) -> i32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return DROP;
    };
    let judged = Judged(judged);
    let mut flags = judged.flags();
    if flags & ALONE != 0 {
        return alone(skb, state, judged);
    }
    if flags & CT_UNKNOWN_ORIGIN != 0 {
        // A special entry would let other packets ride on a guess.
        flags &= CT_UNKNOWN_ORIGIN | CT_FROM_POD;
    }
    let mut generation = state.policy().generation();
    if !judged.allows() {
        if !spare::keeps_flow(state, judged, mode) {
            return event::verdict(skb, state, judged.0, 0);
        }
        // As in `disallowed`.
        generation = !generation;
        flags |= CT_AUDITED;
    } else if judged.is(Reason::Pending) && spare::spared(state.slot, state.now) != spare::NO {
        // As in `service::mark`.
        generation = !generation;
    }
    // A Service's bits, or the slot of a pod behind the node's address: only one can be.
    let (service, hidden_slot) =
        if state.egress() { (judged.hidden() as u8, 0) } else { (0, judged.hidden()) };
    let seen = observe(0, state.packet.tcp_flags);
    let by_origin = (flags & CT_FROM_POD != 0) == state.egress();
    // The chain of calls that goes on from here has no room on the stack for an entry.
    let Some(entry) = ENTRY.get_ptr_mut(0) else {
        return DROP;
    };
    // SAFETY: a per-CPU value, and TC programs are not re-entered on a CPU.
    let entry = unsafe { &mut *entry };
    entry.last_seen = state.now;
    // Handshakes are shorter than the coarse clock's tick.
    // SAFETY: the helper has no preconditions.
    entry.created = unsafe { bpf_ktime_get_ns() };
    entry.generation = generation;
    entry.rule = judged.rule();
    entry.slot = state.slot as u16;
    entry.flags = flags;
    entry.seen_origin = if by_origin { seen } else { 0 };
    entry.seen_reply = if by_origin { 0 } else { seen };
    entry.service = service;
    entry.hidden_slot = hidden_slot;
    entry.rtt = 0;
    entry.ended = 0;
    entry.origin = Traffic::default();
    entry.reply = Traffic::default();
    carry(Skb::new(skb), entry, by_origin);
    let recorded = record(state, entry, mode);
    if !judged.allows() {
        let remembers = if recorded { event::FLOW_REMEMBERS } else { 0 };
        return event::verdict(skb, state, judged.0, remembers);
    }
    if !recorded && state.isolated_at_all() {
        // Without an entry its replies could not be told from a new flow.
        return event::tell(Skb::new(skb), state, Reason::ConntrackFull);
    }
    fragment::first(state);
    event::verdict(skb, state, judged.0, 0)
}
