//! Fragments: later ones follow the first one's verdict.

use aya_ebpf::bindings::__sk_buff;
use enforcer_common::{
    abi::{FragEntry, FragKey, MARK_JUDGE, MARK_SERVICE},
    conntrack::SECOND,
    packet::FRAG_FIRST,
    reason::Reason,
};

use crate::{event, hook::DROP, maps::FRAGMENTS, skb::Skb, state::State};

/// How long a datagram may take to arrive (the kernel reassembles for 30 s: `ip_frag_time`).
const LIFETIME: u64 = 30 * SECOND;

#[inline(always)]
fn key(state: &State) -> FragKey {
    let packet = &state.packet;
    FragKey {
        ifindex: state.ifindex,
        direction: state.direction,
        src: packet.src,
        dst: packet.dst,
        id: packet.fragment_id,
        proto: if packet.v6 == 0 { u32::from(packet.proto) } else { 0 },
    }
}

/// Remembers a first fragment that passed.
#[inline(always)]
pub(crate) fn first(state: &State) {
    if state.packet.fragment == FRAG_FIRST {
        remember(state);
    }
}

#[inline(never)]
fn remember(state: &State) {
    let entry = FragEntry {
        seen: state.now,
        first_end: state.packet.fragment_end,
        generation: state.policy().generation(),
    };
    // Refused only for want of memory: then the later fragments are dropped, never passed.
    if FRAGMENTS.insert(key(state), entry, 0).is_err() {
        event::count(Reason::FragmentNoFirst as u8, state.direction);
    }
}

/// Judges a later fragment.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn later(skb: *mut __sk_buff, state: *const State) -> i32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return DROP;
    };
    // Its first may have been denied in its sender's name, where the pod's own policy allows all.
    let marked = !state.egress() && Skb::new(skb).tc_index() & (MARK_SERVICE | MARK_JUDGE) != 0;
    let strict = state.isolated() || marked;
    let reason = match FRAGMENTS.get_ptr(key(state)) {
        Some(entry) => {
            // SAFETY: a preallocated element may be reused for another key while it is read; the
            // copy is then another datagram's first fragment that passed on this node, and the
            // checks below still hold for what they check.
            let entry = unsafe { *entry };
            if state.packet.fragment_start < entry.first_end {
                Reason::BadFragment
            } else if strict
                && (entry.generation != state.policy().generation()
                    || state.now.saturating_sub(entry.seen) > LIFETIME)
            {
                Reason::FragmentNoFirst
            } else {
                Reason::Fragment
            }
        }
        None if strict => Reason::FragmentNoFirst,
        None => Reason::Fragment,
    };
    if reason.is_drop() {
        return event::tell(Skb::new(skb), state, reason);
    }
    event::settle(state, reason)
}
