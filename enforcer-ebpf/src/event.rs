//! Counters and the two event rings.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_ktime_get_ns, maps::RingBuf};
use enforcer_common::{
    abi::{
        CONTROL_NO_DROPS, CONTROL_NO_TRACES, CONTROL_NO_VERDICTS, CT_MASQUERADED, Closed, Control,
        EVENT_MASQUERADED, EVENT_TRANSLATED, EVENT_UNPARSED, Event, PolicyWord, event_kind, lane,
    },
    packet::Bytes as _,
    reason::{FIRST_DROP, REASON_SLOTS, Reason},
    sample,
};

use crate::{
    drops::{self, Noted},
    hook::{self, DROP, PASS},
    maps::{CONTROL, COUNTERS, EVENT, LOST, TRACE_RING, VERDICT_RING},
    skb::Skb,
    spare::{self, read},
    state::{Judged, State},
};

/// The agent polls the rings; waking it for every event would cost the packet more than the event.
const NO_WAKEUP: u64 = 1;

/// Counts one packet with this outcome (numbers of `Reason` and `Direction`).
#[inline(always)]
pub(crate) fn count(reason: u8, direction: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(u32::from(reason) * 2 + direction) {
        // SAFETY: a per-CPU value, and TC programs are not re-entered on a CPU.
        unsafe { *counter += 1 };
    }
}

/// Counts one packet that passes and for this reason would have been dropped; `spared` is the
/// number of a `Spared`.
#[inline(always)]
pub(crate) fn count_spared(spared: u32, reason: u8, direction: u32) {
    let index = spared * REASON_SLOTS * 2 + u32::from(reason) * 2 + direction;
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: as in `count`.
        unsafe { *counter += 1 };
    }
}

/// The return code for an outcome that is not told, after counting it.
#[inline(always)]
pub(crate) fn settle(state: &State, reason: Reason) -> i32 {
    settle_number(state, reason as u8)
}

#[inline(always)]
fn settle_number(state: &State, reason: u8) -> i32 {
    hook::seen(state);
    count(reason, state.direction);
    if reason >= FIRST_DROP { DROP } else { PASS }
}

/// Drops or passes for a reason that is no policy's, and tells it.
#[inline(always)]
pub(crate) fn tell(skb: Skb, state: &State, reason: Reason) -> i32 {
    verdict(skb.raw(), state, Judged::new(reason, 0).0, 0)
}

/// Counts a judgement without telling it.
#[inline(always)]
pub(crate) fn quiet(state: &State, judged: Judged) -> i32 {
    settle_number(state, judged.reason())
}

/// For [`verdict`], beside `EVENT_…`: should the packet be spared, its flow has an entry that says
/// that it was told.
pub(crate) const FLOW_REMEMBERS: u32 = 0x100;

/// Counts a judgement, tells it, and returns its code. `flags` are `EVENT_…`. A drop that is
/// spared passes.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn verdict(
    skb: *mut __sk_buff,
    state: *const State,
    judged: u64,
    flags: u32,
) -> i32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return DROP;
    };
    conclude(Skb::new(skb).frame_len(), state, judged, flags)
}

/// [`verdict`] for a packet whose frame is `len` bytes long.
#[inline(always)]
pub(crate) fn conclude(len: u32, state: &State, judged: u64, flags: u32) -> i32 {
    let judged = Judged(judged);
    let reason = judged.reason();
    let spared = if judged.allows() { spare::NO } else { spare::spared(state.slot, state.now) };
    let mut bits = flags as u8;
    if spared != spare::NO {
        hook::seen(state);
        if spared == spare::SHADOW {
            return PASS;
        }
        count_spared(spared, reason, state.direction);
        bits |= spare::event_flag(spared);
    }
    let policy = judged.is(Reason::PolicyDenied) || judged.allows();
    let kind = if judged.is(Reason::Pending) {
        event_kind::PENDING
    } else if policy {
        event_kind::VERDICT
    } else {
        event_kind::DROP
    };
    let masqueraded = judged.flags() & CT_MASQUERADED != 0;
    if masqueraded {
        bits |= EVENT_MASQUERADED;
    }
    let hidden = if masqueraded { judged.hidden() } else { 0 };
    let header = Header { kind, reason, flags: bits, hidden, rule: judged.rule(), rtt: 0 };
    if judged.allows() {
        if wants_verdict(state, &header) {
            tell_verdict(len, state, &header);
        }
    } else if wants(CONTROL_NO_DROPS, lane::VERDICT) {
        tell_drop(len, state, &header, flags & FLOW_REMEMBERS != 0);
    }
    if spared == spare::NO { settle_number(state, reason) } else { PASS }
}

/// Tells a step of an established flow's life: its first reply, or that a side has closed.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn trace(
    skb: *mut __sk_buff,
    state: *const State,
    rule: u32,
    flags: u32,
    rtt: u32,
) -> i32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return DROP;
    };
    if wants_trace(hash(state)) {
        let kind = event_kind::TRACE;
        let reason = Reason::Established as u8;
        let header = Header { kind, reason, flags: flags as u8, hidden: 0, rule, rtt };
        if let Some(closed) = scratch() {
            fill(&mut closed.event, Skb::new(skb).frame_len(), state, &header);
            output(&TRACE_RING, lane::TRACE, &closed.event);
        }
    }
    PASS
}

/// Tells the end of a flow, which was put together in the [`scratch`].
#[inline(always)]
pub(crate) fn tell_closed(closed: &Closed) {
    output(&TRACE_RING, lane::TRACE, closed);
}

/// What an event says beside the packet.
struct Header {
    kind: u8,
    reason: u8,
    flags: u8,
    hidden: u16,
    rule: u32,
    rtt: u32,
}

#[inline(always)]
fn control() -> Option<&'static Control> {
    // SAFETY: array elements live as long as the map.
    CONTROL.get_ptr(0).map(|control| unsafe { &*control })
}

/// Whether somebody wants what this bit of `Control::flags` is about; counted if not.
#[inline(always)]
fn wants(bit: u32, lane: u32) -> bool {
    if control().is_some_and(|control| read(&control.flags) & bit != 0) {
        lost(lane::UNTOLD + lane);
        return false;
    }
    true
}

/// Whether a flow with this hash is one of those that are told; counted if not.
#[inline(always)]
fn sampled(hash: u32, lane: u32) -> bool {
    if control().is_none_or(|control| sample::is_told(hash, read(&control.sampling))) {
        return true;
    }
    lost(lane::UNTOLD + lane);
    false
}

/// Whether an event of a flow's life is told, by the hash of its tuple; counted if not.
#[inline(always)]
pub(crate) fn wants_trace(hash: u32) -> bool {
    wants(CONTROL_NO_TRACES, lane::TRACE) && sampled(hash, lane::TRACE)
}

/// Whether an allowed flow is told; counted if not.
#[inline(always)]
fn wants_verdict(state: &State, header: &Header) -> bool {
    // A flow to a Service is told in two events with two tuples, of which the agent makes one.
    let whole = header.kind == event_kind::PENDING || header.flags & EVENT_TRANSLATED != 0;
    wants(CONTROL_NO_VERDICTS, lane::VERDICT) && (whole || sampled(hash(state), lane::VERDICT))
}

#[inline(always)]
fn hash(state: &State) -> u32 {
    let (local_port, remote_port) = (state.local_port, state.remote_port);
    sample::tuple(state.local(), state.remote(), local_port, remote_port, state.packet.proto)
}

/// Where what is told is put together: the chains of calls that lead here have no room for it.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Closed> {
    // SAFETY: a per-CPU value. TC programs and those of netfilter run with bottom halves off, and
    // none inside another.
    EVENT.get_ptr_mut(0).map(|closed| unsafe { &mut *closed })
}

#[inline(always)]
fn tell_verdict(len: u32, state: &State, header: &Header) {
    if let Some(closed) = scratch() {
        fill(&mut closed.event, len, state, header);
        output(&VERDICT_RING, lane::VERDICT, &closed.event);
    }
}

/// Tells a drop: by its tuple at most once in a while, unless its flow remembers that it was told.
#[inline(always)]
fn tell_drop(len: u32, state: &State, header: &Header, flow_remembers: bool) {
    let Some(closed) = scratch() else {
        return;
    };
    let event = &mut closed.event;
    fill(event, len, state, header);
    if flow_remembers {
        output(&VERDICT_RING, lane::VERDICT, event);
        return;
    }
    let noted: Noted = drops::note(event, state.now);
    event.count = noted.packets();
    if event.count != 0 && VERDICT_RING.output::<Event>(&*event, NO_WAKEUP).is_err() {
        noted.put_back();
    }
}

#[inline(always)]
fn fill(event: &mut Event, len: u32, state: &State, header: &Header) {
    let packet = &state.packet;
    let icmp = packet.is_icmp();
    let unparsed = if packet.addresses == 0 { EVENT_UNPARSED } else { 0 };
    // SAFETY: the helper has no preconditions.
    event.time = unsafe { bpf_ktime_get_ns() };
    event.src = packet.src;
    event.dst = packet.dst;
    event.ifindex = state.ifindex;
    event.rule = header.rule;
    event.generation = PolicyWord(state.word).generation();
    event.len = len;
    event.src_port = if icmp { u16::from(packet.icmp_type) } else { packet.src_port };
    event.dst_port = if icmp { u16::from(packet.icmp_code) } else { packet.dst_port };
    event.slot = state.slot as u16;
    event.ethertype = if packet.addresses == 0 { packet.ethertype } else { 0 };
    event.kind = header.kind;
    event.reason = header.reason;
    event.direction = state.direction as u8;
    event.proto = packet.proto;
    event.tcp_flags = packet.tcp_flags;
    event.flags = header.flags | unparsed;
    event.hidden_slot = header.hidden;
    event.count = 1;
    event.rtt = header.rtt;
}

#[inline(always)]
fn output<T>(ring: &RingBuf, lane: u32, record: &T) {
    if ring.output::<T>(record, NO_WAKEUP).is_err() {
        lost(lane);
    }
}

/// Counts an event that is not told; see [`lane`].
#[inline(always)]
pub(crate) fn lost(index: u32) {
    if let Some(lost) = LOST.get_ptr_mut(index) {
        // SAFETY: a per-CPU value, as in `count`.
        unsafe { *lost += 1 };
    }
}
