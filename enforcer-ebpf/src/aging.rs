//! Aging without an agent: when an endpoint's quota is full, or the table is, expired flows are deleted
//! then and there.
//!
//! The agent's sweep keeps room while it lives. While none does, flows that are over would fill
//! the quotas and close pods; so the program that finds one full walks the table itself, at most
//! once a second on the whole node. Of the endpoint that needs room, connections that are closed
//! go then as well.

use core::ffi::{c_long, c_void};

use aya_ebpf::helpers::generated::bpf_for_each_map_elem;
use enforcer_common::{
    abi::{CT_ESTABLISHED, CtEntry, CtKey4, CtKey6},
    conntrack::{SECOND, expired, gives_way},
};

use crate::{
    atomic::add,
    end, hook,
    maps::{CT4, CT6},
};

/// What the helper calls for each element: map, key, value, context.
type Callback<K> = extern "C" fn(*mut c_void, *const K, *mut CtEntry, *mut Walk) -> c_long;

/// What a walk is told.
#[repr(C)]
struct Walk {
    now: u64,
    /// Slot of the endpoint that needs room, or [`ALL`].
    slot: u64,
}

/// Slot 0 is no endpoint's: its clocks say when the table was last walked for an endpoint and for all.
const WALK: u32 = 0;

/// Instead of a slot: the table is full.
pub(crate) const ALL: u32 = 0;

/// Deletes expired flows, and those of the endpoint in `slot` that give way, unless that was done
/// within the last second. Returns 1 if it walked.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn age(now: u64, slot: u32) -> u32 {
    let Some(walk) = hook::counts(WALK) else {
        return 0;
    };
    // Apart, so that a pod which has no room does not keep the table from having some.
    let last = if slot == ALL { &mut walk.last_ingress } else { &mut walk.last_egress };
    if now.saturating_sub(*last) < SECOND {
        return 0;
    }
    *last = now;
    let mut walk = Walk { now, slot: u64::from(slot) };
    let context: *mut c_void = (&raw mut walk).cast();
    let four: Callback<CtKey4> = expire4;
    let six: Callback<CtKey6> = expire6;
    let (four, six) = (four as *mut c_void, six as *mut c_void);
    let (map4, map6) = ((&raw const CT4).cast_mut().cast(), (&raw const CT6).cast_mut().cast());
    // SAFETY: the map and the callback's signature belong together; the context outlives the call.
    unsafe { bpf_for_each_map_elem(map4, four, context, 0) };
    // SAFETY: as above.
    unsafe { bpf_for_each_map_elem(map6, six, context, 0) };
    1
}

/// Takes one flow off its endpoint's counts.
#[inline(always)]
fn uncount(slot: u16, flags: u8) {
    if let Some(counts) = hook::counts(u32::from(slot)) {
        let count =
            if flags & CT_ESTABLISHED != 0 { &mut counts.established } else { &mut counts.half };
        add(count, -1);
    }
}

/// What the entry says, if it is over.
#[inline(always)]
fn over(proto: u32, entry: *const CtEntry, walk: *const Walk) -> Option<(u16, u8)> {
    // SAFETY: the helper passes the element that it stands on.
    let entry = unsafe { &*entry };
    // SAFETY: the helper passes the context that it was given.
    let walk = unsafe { &*walk };
    let over = expired(proto as u8, entry, walk.now)
        || ((walk.slot == u64::from(ALL) || walk.slot == u64::from(entry.slot))
            && gives_way(proto as u8, entry, walk.now));
    over.then_some((entry.slot, entry.flags))
}

extern "C" fn expire4(
    _map: *mut c_void,
    key: *const CtKey4,
    entry: *mut CtEntry,
    walk: *mut Walk,
) -> c_long {
    // SAFETY: the helper passes the key of the element that it stands on, which lives until the
    // program returns.
    let key = unsafe { &*key };
    if let Some((slot, flags)) = over(key.proto, entry, walk) {
        // While it is still there: an element that is deleted may serve another key at once.
        end::aged4(key, entry);
        if CT4.remove(key).is_ok() {
            uncount(slot, flags);
        }
    }
    0
}

extern "C" fn expire6(
    _map: *mut c_void,
    key: *const CtKey6,
    entry: *mut CtEntry,
    walk: *mut Walk,
) -> c_long {
    // SAFETY: the helper passes the key of the element that it stands on, which lives until the
    // program returns.
    let key = unsafe { &*key };
    if let Some((slot, flags)) = over(key.proto, entry, walk) {
        end::aged6(key, entry);
        if CT6.remove(key).is_ok() {
            uncount(slot, flags);
        }
    }
    0
}
