//! Aging by timer: expired flows are deleted, endpoints' counts made exact.
//!
//! The programs treat an expired entry as none, so this is about room, not about verdicts. What a
//! flow has carried that nobody saw end is told here.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    mem::offset_of,
    sync::atomic::Ordering,
};

use aya::maps::{HashMap as BpfHashMap, MapData};
use enforcer_common::{
    abi::{CT_ESTABLISHED, CT_MASQUERADED, CtEntry, CtKey4, CtKey6, EndpointState},
    conntrack::{expired, gives_way},
};
use tracing::debug;

use super::{
    Kernel, batch,
    closings::{Closings, Ending},
    maps::Maps,
    sys,
};

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Flows that live.
    pub live: usize,
    /// Flows deleted.
    pub deleted: usize,
}

/// Flows of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Half-open and one-way.
    pub half: usize,
    /// Established.
    pub established: usize,
}

/// Flows of one endpoint: half-open, established.
type Counts = HashMap<u16, (i64, i64)>;

/// Protocol and interface of a flow.
type Owner = (u8, u32);

trait Key: aya::Pod + Ending {
    fn proto(&self) -> u8;
    fn ifindex(&self) -> u32;
}

impl Key for CtKey4 {
    fn proto(&self) -> u8 {
        self.proto as u8
    }
    fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

impl Key for CtKey6 {
    fn proto(&self) -> u8 {
        self.proto as u8
    }
    fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

impl Kernel {
    /// Deletes expired flows and corrects the counts that quotas go by.
    pub fn sweep(&mut self) -> Swept {
        let now = sys::monotonic();
        let live: BTreeSet<u32> = self.endpoints.by_ifindex.keys().copied().collect();
        let mut counts = Counts::new();
        let before = self.state_counts();
        // Before their programs have to make room themselves.
        let half = |quota: u32| i64::from(quota / 2);
        let (half_open, established) = (half(self.quotas.half), half(self.quotas.established));
        let all: i64 = before.iter().map(|(_, (h, e))| h + e).sum();
        let table_is_short = all > half(self.sizes.conntrack);
        let short: BTreeSet<u32> = before
            .iter()
            .filter(|(_, (h, e))| table_is_short || *h > half_open || *e > established)
            .map(|(slot, _)| *slot)
            .collect();
        let keep = |(proto, ifindex): Owner, entry: &CtEntry| {
            live.contains(&ifindex)
                && !expired(proto, entry, now)
                && !(short.contains(&u32::from(entry.slot)) && gives_way(proto, entry, now))
        };
        let Maps { ct4, ct6, closings, control, .. } = &mut self.maps;
        closings.open(control, now);
        let four = sweep_map(ct4, &mut counts, closings, keep);
        let six = sweep_map(ct6, &mut counts, closings, keep);
        for (slot, (half, established)) in before {
            let (real_half, real_established) = u16::try_from(slot)
                .ok()
                .and_then(|slot| counts.get(&slot))
                .copied()
                .unwrap_or((0, 0));
            let state = &self.maps.endpoint_state;
            // The difference, not the value: the programs go on counting meanwhile.
            state
                .i64(slot, offset_of!(EndpointState, half))
                .fetch_add(real_half - half, Ordering::Relaxed);
            state
                .i64(slot, offset_of!(EndpointState, established))
                .fetch_add(real_established - established, Ordering::Relaxed);
        }
        Swept { live: four.live + six.live, deleted: four.deleted + six.deleted }
    }

    fn state_counts(&self) -> Vec<(u32, (i64, i64))> {
        let state = &self.maps.endpoint_state;
        let read = |slot, offset| state.i64(slot, offset).load(Ordering::Relaxed);
        self.endpoints
            .by_ifindex
            .values()
            .map(|armed| {
                let half = read(armed.slot, offset_of!(EndpointState, half));
                let established = read(armed.slot, offset_of!(EndpointState, established));
                (armed.slot, (half, established))
            })
            .collect()
    }

    /// When an endpoint's programs last saw a packet from the pod, to about a second
    /// (`CLOCK_MONOTONIC`, ns).
    #[must_use]
    pub fn last_egress(&self, ifindex: u32) -> Option<u64> {
        let slot = self.endpoints.by_ifindex.get(&ifindex)?.slot;
        let clock = offset_of!(EndpointState, last_egress);
        Some(self.maps.endpoint_state.u64(slot, clock).load(Ordering::Relaxed))
    }

    /// Flows counted at all endpoints.
    #[must_use]
    pub fn flow_counts(&self) -> FlowCounts {
        let mut sum = FlowCounts::default();
        for (_, (half, established)) in self.state_counts() {
            sum.half += usize::try_from(half).unwrap_or(0);
            sum.established += usize::try_from(established).unwrap_or(0);
        }
        sum
    }

    /// Flows counted at an endpoint (half-open and one-way, established).
    #[must_use]
    pub fn flows(&self, ifindex: u32) -> Option<(i64, i64)> {
        let slot = self.endpoints.by_ifindex.get(&ifindex)?.slot;
        self.state_counts().into_iter().find(|(s, _)| *s == slot).map(|(_, counts)| counts)
    }
}

fn sweep_map<K: Key>(
    map: &mut BpfHashMap<MapData, K, CtEntry>,
    counts: &mut Counts,
    closings: &mut Closings,
    keep: impl Fn(Owner, &CtEntry) -> bool,
) -> Swept {
    let seen = Seen::of(map, &keep).unwrap_or_else(|error| {
        // Rather slowly than not at all: quotas and later pods hang on it.
        debug!(%error, "a table of flows cannot be read in batches");
        let mut seen = Seen::default();
        // A concurrent deletion can make the walk start over: then an entry is seen twice, and the
        // counts are a little high until the next sweep.
        map.iter().flatten().for_each(|(key, entry)| seen.take(key, &entry, &keep));
        seen
    });
    let Seen { live, counts: here, gone } = seen;
    for (slot, (half, established)) in here {
        let count = counts.entry(slot).or_default();
        *count = (count.0 + half, count.1 + established);
    }
    let mut swept = Swept { live, deleted: 0 };
    for key in gone {
        // A packet may have revived it since it was read, or a new flow taken its place.
        let Ok(entry) = map.get(&key, 0) else { continue };
        if keep((key.proto(), key.ifindex()), &entry) {
            swept.live += 1;
            continue;
        }
        if map.remove(&key).is_ok() {
            swept.deleted += 1;
            closings.tell(&key, &entry);
        }
    }
    swept
}

/// What a walk over a table has seen.
struct Seen<K> {
    live: usize,
    counts: Counts,
    gone: Vec<K>,
}

impl<K> Default for Seen<K> {
    fn default() -> Self {
        Self { live: 0, counts: Counts::new(), gone: Vec::new() }
    }
}

impl<K: Key> Seen<K> {
    fn of(
        map: &BpfHashMap<MapData, K, CtEntry>,
        keep: impl Fn(Owner, &CtEntry) -> bool,
    ) -> io::Result<Self> {
        let mut seen = Self::default();
        batch::each(map, |key: K, entry| seen.take(key, &entry, &keep))?;
        Ok(seen)
    }

    fn take(&mut self, key: K, entry: &CtEntry, keep: impl Fn(Owner, &CtEntry) -> bool) {
        if !keep((key.proto(), key.ifindex()), entry) {
            self.gone.push(key);
            return;
        }
        self.live += 1;
        let count = self.counts.entry(entry.slot).or_default();
        if entry.flags & CT_ESTABLISHED != 0 {
            count.1 += 1;
        } else {
            count.0 += 1;
        }
    }
}

/// Deletes every flow of interfaces that are gone, and those that were judged as a pod in one of
/// these slots: a later pod there inherits nothing.
pub(super) fn purge(maps: &mut Maps, interfaces: &[u32], slots: &BTreeSet<u32>) {
    let stays = |(_, ifindex): Owner, entry: &CtEntry| {
        let hidden =
            entry.flags & CT_MASQUERADED != 0 && slots.contains(&u32::from(entry.hidden_slot));
        !interfaces.contains(&ifindex) && !hidden
    };
    let mut unused = Counts::new();
    let Maps { ct4, ct6, closings, control, .. } = maps;
    closings.open(control, sys::monotonic());
    sweep_map(ct4, &mut unused, closings, stays);
    sweep_map(ct6, &mut unused, closings, stays);
}
