//! Counters and the two event rings.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_ktime_get_ns, maps::RingBuf};
use enforcer_common::{
    abi::{
        CT_MASQUERADED, EVENT_MASQUERADED, EVENT_REPLY, EVENT_UNPARSED, Event, PolicyWord,
        event_kind, lane,
    },
    packet::Bytes as _,
    reason::{FIRST_DROP, REASON_SLOTS, Reason},
};

use crate::{
    hook::{self, DROP, PASS},
    maps::{COUNTERS, LOST, TRACE_RING, VERDICT_RING},
    skb::Skb,
    spare,
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
        if flags & FLOW_REMEMBERS == 0 && !spare::is_new(state, reason) {
            return PASS;
        }
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
    let header = Header { kind, reason, flags: bits, hidden, rule: judged.rule() };
    emit(&VERDICT_RING, lane::VERDICT, len, state, &header);
    if spared == spare::NO { settle_number(state, reason) } else { PASS }
}

/// Tells a step of an established flow's life: its first reply (`reply` not 0), or its end.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn trace(
    skb: *mut __sk_buff,
    state: *const State,
    rule: u32,
    reply: u32,
) -> i32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return DROP;
    };
    let flags = if reply != 0 { EVENT_REPLY } else { 0 };
    let reason = Reason::Established as u8;
    let header = Header { kind: event_kind::TRACE, reason, flags, hidden: 0, rule };
    emit(&TRACE_RING, lane::TRACE, Skb::new(skb).frame_len(), state, &header);
    PASS
}

/// What an event says beside the packet.
struct Header {
    kind: u8,
    reason: u8,
    flags: u8,
    hidden: u16,
    rule: u32,
}

#[inline(always)]
fn emit(ring: &RingBuf, lane: u32, len: u32, state: &State, header: &Header) {
    let Some(mut entry) = ring.reserve::<Event>(0) else {
        if let Some(lost) = LOST.get_ptr_mut(lane) {
            // SAFETY: a per-CPU value, as in `count`.
            unsafe { *lost += 1 };
        }
        return;
    };
    let packet = &state.packet;
    let icmp = packet.is_icmp();
    let unparsed = if packet.addresses == 0 { EVENT_UNPARSED } else { 0 };
    let slot: &mut MaybeUninit<Event> = &mut entry;
    slot.write(Event {
        // SAFETY: the helper has no preconditions.
        time: unsafe { bpf_ktime_get_ns() },
        src: packet.src,
        dst: packet.dst,
        ifindex: state.ifindex,
        rule: header.rule,
        generation: PolicyWord(state.word).generation(),
        len,
        src_port: if icmp { u16::from(packet.icmp_type) } else { packet.src_port },
        dst_port: if icmp { u16::from(packet.icmp_code) } else { packet.dst_port },
        slot: state.slot as u16,
        ethertype: if packet.addresses == 0 { packet.ethertype } else { 0 },
        kind: header.kind,
        reason: header.reason,
        direction: state.direction as u8,
        proto: packet.proto,
        tcp_flags: packet.tcp_flags,
        flags: header.flags | unparsed,
        hidden_slot: header.hidden,
    });
    entry.submit(NO_WAKEUP);
}
