//! Quotas: how many flows an endpoint may have, and keeping one more.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use enforcer_common::abi::{CT_AUDITED, CT_ESTABLISHED, CT_FROM_NODE, CtEntry};

use crate::{
    aging,
    atomic::add,
    end,
    flow::{Tuple, find},
    hook,
    maps::{CT4, CT6},
    state::State,
};

/// Whether a count is below its quota, if need be after flows that are over are deleted.
#[inline(always)]
pub(crate) fn has_room(state: &State, count: *const i64, quota: u32) -> bool {
    // SAFETY: a count of an array element, which lives as long as the map; volatile, because the
    // walk and other CPUs change it.
    let room = || unsafe { count.read_volatile() } < i64::from(quota);
    room() || (aging::age(state.now, state.slot) != 0 && room())
}

/// Keeps an entry, within the endpoint's quota.
#[inline(always)]
pub(crate) fn record(state: &State, entry: &CtEntry, mode: u32) -> bool {
    let (Some(counts), Some(endpoint)) = (hook::counts(state.slot), hook::at(state.slot)) else {
        return false;
    };
    // What is only spared leaves room for what is allowed.
    let audited = entry.flags & CT_AUDITED != 0;
    let quota = if audited { endpoint.quota_half / 2 } else { endpoint.quota_half };
    // The quota is against peers; the node always comes in, whatever they do.
    if entry.flags & CT_FROM_NODE == 0 && !has_room(state, &raw const counts.half, quota) {
        return false;
    }
    let mut replaced = 0;
    if mode != BPF_NOEXIST
        && let Some(old) = find(state)
    {
        replaced = if old.flags & CT_ESTABLISHED != 0 { 2 } else { 1 };
        // While it is still there: what is replaced may serve another key at once.
        end::gave_way(state, old);
    }
    let mode = if mode == BPF_NOEXIST { BPF_NOEXIST } else { BPF_ANY };
    let mut result = insert(state, entry, mode);
    if result == E2BIG && aging::age(state.now, aging::ALL) != 0 {
        result = insert(state, entry, mode);
    }
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

#[inline(always)]
fn insert(state: &State, entry: &CtEntry, mode: u32) -> i32 {
    if state.packet.v6 == 0 {
        CT4.insert(Tuple::of(state).key4(), entry, u64::from(mode)).err().unwrap_or(0)
    } else {
        insert6(state, entry, mode)
    }
}

#[inline(never)]
fn insert6(state: &State, entry: &CtEntry, mode: u32) -> i32 {
    CT6.insert(Tuple::of(state).key6(), entry, u64::from(mode)).err().unwrap_or(0)
}

/// The table is full.
const E2BIG: i32 = -7;
const EEXIST: i32 = -17;
