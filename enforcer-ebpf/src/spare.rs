//! What would be dropped and passes all the same: audit, enforcement that is switched off for a
//! time, and the shadow of the version before.
//!
//! Only asked where a packet is about to be dropped, so that what passes costs nothing more. Never
//! kept: whoever was spared is asked about again at its next packet.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use enforcer_common::{
    abi::{CONTROL_AUDIT, EP_AUDIT, EP_SHADOW, EVENT_AUDIT, EVENT_DISABLED, Endpoint, Spared},
    reason::Reason,
};

use crate::{
    event, flow, hook,
    maps::CONTROL,
    state::{Judged, State},
};

/// It is dropped.
pub(crate) const NO: u32 = 0;
const AUDIT: u32 = Spared::Audit as u32;
const DISABLED: u32 = Spared::Disabled as u32;
/// The programs of the version before judge it: nothing is counted, told or kept.
pub(crate) const SHADOW: u32 = 3;

/// Reads a word that others write, once.
#[inline(always)]
pub(crate) fn read<T: Copy>(word: &T) -> T {
    let word = &raw const *word;
    // SAFETY: from a reference to an aligned word.
    unsafe { word.read_volatile() }
}

/// Whether enforcement is switched off for the node, or (`audit`) what has no endpoint is in audit.
#[inline(always)]
fn node(now: u64, audit: bool) -> u32 {
    let Some(control) = CONTROL.get_ptr(0) else {
        return NO;
    };
    // SAFETY: array elements live as long as the map.
    let control = unsafe { &*control };
    if audit && read(&control.flags) & CONTROL_AUDIT != 0 {
        AUDIT
    } else if now < read(&control.disabled_until) {
        DISABLED
    } else {
        NO
    }
}

/// Why a packet of an endpoint passes that would be dropped; [`NO`] if it is dropped.
#[inline(always)]
pub(crate) fn spared(slot: u32, now: u64) -> u32 {
    let Some(endpoint) = hook::at(slot) else {
        return NO;
    };
    let Endpoint { flags, disabled_until, .. } = endpoint;
    let flags = read(flags);
    if flags & EP_SHADOW != 0 {
        SHADOW
    } else if flags & EP_AUDIT != 0 {
        AUDIT
    } else if now < read(disabled_until) {
        DISABLED
    } else {
        node(now, false)
    }
}

/// A frame for another pod: a bridge floods those for unknown addresses to every port. Not this
/// pod's business, and no event; its stack ignores it, so it says nothing in audit either.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn flooded(state: *const State) -> i32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return hook::DROP;
    };
    if spared(state.slot, state.now) != NO {
        return hook::PASS;
    }
    event::settle(state, Reason::NotForPod)
}

/// Whether a packet on an interface without an endpoint passes; counted then.
#[inline(never)]
pub(crate) fn unknown_interface(direction: u32) -> bool {
    // SAFETY: the helper has no preconditions.
    let spared = node(unsafe { bpf_ktime_get_coarse_ns() }, true);
    if spared == NO {
        return false;
    }
    event::count_spared(spared, Reason::EndpointNotReady as u8, direction);
    true
}

/// The `EVENT_…` bit of an event about a packet that was spared.
#[inline(always)]
pub(crate) fn event_flag(spared: u32) -> u8 {
    if spared == AUDIT { EVENT_AUDIT } else { EVENT_DISABLED }
}

/// Whether a flow that is not allowed leaves an entry: if it is spared, so that its replies are
/// known as such, and it is told once. It replaces no flow that lives.
#[inline(always)]
pub(crate) fn keeps_flow(state: &State, judged: Judged, mode: u32) -> bool {
    let by_policy = judged.is(Reason::PolicyDenied)
        || judged.is(Reason::Locked)
        // What a starting pod opens may be allowed when its policy is known.
        || judged.is(Reason::EndpointNotReady);
    if !by_policy || mode == flow::REPLACE_IF_ALLOWED {
        return false;
    }
    matches!(spared(state.slot, state.now), AUDIT | DISABLED)
}
