//! The end of a flow, told with what it has carried: by whoever sees it end, once.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use enforcer_common::{
    abi::{Addr, CtEntry, CtKey4, CtKey6},
    ending::Ends,
    sample,
};

use crate::{atomic::swap, event, flow::Tuple, state::State};

/// A connection ended with the packet in hand.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ended(state: *const State, entry: *mut CtEntry) -> i32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return 0;
    };
    // SAFETY: likewise to a whole entry.
    let Some(entry) = (unsafe { entry.as_mut() }) else {
        return 0;
    };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    tell(&Tuple::of(state).0, entry, state.packet.tcp_flags, now);
    0
}

/// A flow gives way to a new one of its tuple, the packet in hand's.
#[inline(never)]
pub(crate) fn gave_way(state: &State, entry: &mut CtEntry) {
    let until = entry.last_seen;
    tell(&Tuple::of(state).0, entry, 0, until);
}

/// A flow has aged, and is to be deleted.
#[inline(always)]
pub(crate) fn aged4(key: &CtKey4, entry: *mut CtEntry) {
    let (local, remote) = (Addr::v4(key.local), Addr::v4(key.remote));
    let ends = Ends {
        ifindex: key.ifindex,
        local: &local,
        remote: &remote,
        local_port: key.local_port,
        remote_port: key.remote_port,
        proto: key.proto as u8,
    };
    aged(&ends, entry);
}

/// The same of an IPv6 flow.
#[inline(always)]
pub(crate) fn aged6(key: &CtKey6, entry: *mut CtEntry) {
    // In place, because the chain of calls that leads here has no room for copies.
    let address = |words: &[u32; 4]| {
        let address: *const Addr = (&raw const *words).cast();
        // SAFETY: an `Addr` is nothing but these words, and the key outlives the call.
        unsafe { &*address }
    };
    let ends = Ends {
        ifindex: key.ifindex,
        local: address(&key.local),
        remote: address(&key.remote),
        local_port: key.local_port,
        remote_port: key.remote_port,
        proto: key.proto as u8,
    };
    aged(&ends, entry);
}

#[inline(always)]
fn aged(ends: &Ends<'_>, entry: *mut CtEntry) {
    // SAFETY: the element that the walk stands on.
    let entry = unsafe { &mut *entry };
    let until = entry.last_seen;
    tell(ends, entry, 0, until);
}

/// Tells a flow's end, unless that was done.
#[inline(always)]
fn tell(ends: &Ends<'_>, entry: &mut CtEntry, tcp_flags: u8, until: u64) {
    if swap(&mut entry.ended, 1) != 0 {
        return;
    }
    let &Ends { local, remote, local_port, remote_port, proto, .. } = ends;
    if !event::wants_trace(sample::tuple(local, remote, local_port, remote_port, proto)) {
        return;
    }
    if let Some(closed) = event::scratch() {
        // SAFETY: the helper has no preconditions.
        let now = unsafe { bpf_ktime_get_ns() };
        closed.tell(ends, entry, tcp_flags, now, until);
        event::tell_closed(closed);
    }
}
