//! Endpoint records: which slot an interface has, and the stores that arm, switch and clear it.

use std::{
    collections::{HashMap, HashSet},
    mem::offset_of,
    net::IpAddr,
    sync::atomic::Ordering,
};

use aya::maps::{HashMap as BpfHashMap, MapData};
use enforcer_common::abi::{
    Addr, AddrKey, ENDPOINT_SLOTS, EP_ADDR4, EP_ADDR6, EP_AUDIT, EP_LOCKED, EP_MORE_ADDRS,
    EP_SHADOW, EP_STARTING, Endpoint, EndpointState, MAP_IFINDEX_SLOT, MAP_POD_ADDRS, PolicyWord,
};

use super::{
    DataplaneError,
    maps::{Maps, addr, failed, ip},
    sys::SharedArray,
};

/// What the agent knows of an armed endpoint.
#[derive(Clone, Debug)]
pub(super) struct Armed {
    pub(super) slot: u32,
    pub(super) word: PolicyWord,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) locked: bool,
    /// The pod's policy is not known yet.
    pub(super) starting: bool,
}

/// Flows an endpoint may have at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quotas {
    pub(super) half: u32,
    pub(super) established: u32,
}

/// What a new endpoint is armed with.
#[derive(Clone, Copy, Debug)]
pub(super) struct New<'a> {
    pub(super) ifindex: u32,
    pub(super) interface: &'a str,
    pub(super) word: PolicyWord,
    pub(super) addresses: &'a [IpAddr],
    pub(super) quotas: Quotas,
    /// See `abi::Endpoint::pickup_until`.
    pub(super) pickup_until: u64,
    /// Bits of `abi::Endpoint::flags` that do not follow from the addresses.
    pub(super) flags: u32,
}

/// Bits that a change of addresses leaves alone.
const KEPT_BITS: u32 = EP_LOCKED | EP_AUDIT | EP_SHADOW | EP_STARTING;

/// All armed endpoints of this node.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    pub(super) by_ifindex: HashMap<u32, Armed>,
    used: HashSet<u32>,
    /// Slots that interfaces will have, from another version ([`Self::reserve`]) or from a record
    /// that could not be written whole; in use already.
    reserved: HashMap<u32, u32>,
}

impl Endpoints {
    /// Reads back what an earlier agent armed.
    pub(super) fn read(maps: &Maps) -> Self {
        let by_ifindex = read_armed(&maps.endpoints, &maps.pod_addrs);
        let used = by_ifindex.values().map(|armed| armed.slot).collect();
        Self { by_ifindex, used, reserved: HashMap::new() }
    }

    /// Keeps a slot for an interface that has it already in another version's maps.
    pub(super) fn reserve(&mut self, ifindex: u32, slot: u32) {
        if !self.by_ifindex.contains_key(&ifindex) && self.used.insert(slot) {
            self.reserved.insert(ifindex, slot);
        }
    }

    /// Gives a reserved slot back that was not taken.
    pub(super) fn release(&mut self, ifindex: u32) {
        if let Some(slot) = self.reserved.remove(&ifindex) {
            self.used.remove(&slot);
        }
    }

    /// From now on our programs judge an interface.
    pub(super) fn end_shadow(&self, maps: &Maps, ifindex: u32) {
        if let Some(armed) = self.by_ifindex.get(&ifindex) {
            set_bit(maps, armed.slot, EP_SHADOW, false);
        }
    }

    /// Takes a slot for an interface, its natural one if it is free.
    fn take(&mut self, maps: &mut Maps, ifindex: u32) -> Result<Option<u32>, DataplaneError> {
        let natural = ifindex & (ENDPOINT_SLOTS - 1);
        let reserved = self.reserved.get(&ifindex).copied();
        if reserved == Some(natural)
            || (reserved.is_none() && natural != 0 && self.used.insert(natural))
        {
            self.reserved.remove(&ifindex);
            return Ok(Some(natural));
        }
        let free = || (1..ENDPOINT_SLOTS).find(|slot| !self.used.contains(slot));
        let Some(slot) = reserved.or_else(free) else {
            return Ok(None);
        };
        maps.ifindex_slot
            .insert(ifindex, slot, 0)
            .map_err(|source| failed("write to", MAP_IFINDEX_SLOT, source))?;
        self.reserved.remove(&ifindex);
        self.used.insert(slot);
        Ok(Some(slot))
    }

    /// Writes the record of a new endpoint: everything, then the interface index that makes the
    /// programs see it.
    pub(super) fn arm(&mut self, maps: &mut Maps, new: &New<'_>) -> Result<u32, DataplaneError> {
        let New { ifindex, interface, word, addresses, quotas, pickup_until, flags } = *new;
        let slot = self
            .take(maps, ifindex)?
            .ok_or_else(|| DataplaneError::Slots { interface: interface.to_owned() })?;
        let state = &maps.endpoint_state;
        state.i64(slot, offset_of!(EndpointState, half)).store(0, Ordering::Relaxed);
        state.i64(slot, offset_of!(EndpointState, established)).store(0, Ordering::Relaxed);
        let array = &maps.endpoints;
        let set = |offset, value| array.u32(slot, offset).store(value, Ordering::Relaxed);
        set(offset_of!(Endpoint, quota_half), quotas.half);
        set(offset_of!(Endpoint, quota_established), quotas.established);
        array.u64(slot, offset_of!(Endpoint, pickup_until)).store(pickup_until, Ordering::Relaxed);
        array.u64(slot, offset_of!(Endpoint, policy)).store(word.0, Ordering::Relaxed);
        // Whoever was in the slot before may have been switched off; this one is not.
        array.u64(slot, offset_of!(Endpoint, disabled_until)).store(0, Ordering::Relaxed);
        set(offset_of!(Endpoint, flags), flags & KEPT_BITS);
        if let Err(error) = self.write_addresses(maps, slot, addresses) {
            // It is tried again, with this slot; meanwhile others may need the room.
            self.reserved.insert(ifindex, slot);
            let _full = self.write_addresses(maps, slot, &[]);
            return Err(error);
        }
        maps.endpoints.u32(slot, offset_of!(Endpoint, ifindex)).store(ifindex, Ordering::Release);
        let starting = flags & EP_STARTING != 0;
        let armed = Armed { slot, word, addresses: addresses.to_vec(), locked: false, starting };
        self.by_ifindex.insert(ifindex, armed);
        Ok(slot)
    }

    fn write_addresses(
        &self,
        maps: &mut Maps,
        slot: u32,
        addresses: &[IpAddr],
    ) -> Result<(), DataplaneError> {
        let stale: Vec<AddrKey> =
            maps.pod_addrs.keys().flatten().filter(|key| key.slot == slot).collect();
        let flags = maps.endpoints.u32(slot, offset_of!(Endpoint, flags));
        // Without addresses nothing is the pod's own: closed while they change.
        flags.store(flags.load(Ordering::Relaxed) & KEPT_BITS, Ordering::Release);
        let mut bits = flags.load(Ordering::Relaxed);
        let mut more = Vec::new();
        for address in addresses {
            let value = addr(*address);
            match address {
                IpAddr::V4(_) if bits & EP_ADDR4 == 0 => {
                    bits |= EP_ADDR4;
                    let [.., v4] = value.0;
                    maps.endpoints
                        .u32(slot, offset_of!(Endpoint, addr4))
                        .store(v4, Ordering::Relaxed);
                }
                IpAddr::V6(_) if bits & EP_ADDR6 == 0 => {
                    bits |= EP_ADDR6;
                    for (n, word) in value.0.into_iter().enumerate() {
                        maps.endpoints
                            .u32(slot, offset_of!(Endpoint, addr6) + 4 * n)
                            .store(word, Ordering::Relaxed);
                    }
                }
                _ => more.push(AddrKey { slot, addr: value }),
            }
        }
        if !more.is_empty() {
            bits |= EP_MORE_ADDRS;
        }
        for key in &more {
            maps.pod_addrs
                .insert(key, 1, 0)
                .map_err(|source| failed("write to", MAP_POD_ADDRS, source))?;
        }
        for key in stale.iter().filter(|key| !more.contains(key)) {
            maps.pod_addrs
                .remove(key)
                .map_err(|source| failed("delete from", MAP_POD_ADDRS, source))?;
        }
        maps.endpoints.u32(slot, offset_of!(Endpoint, flags)).store(bits, Ordering::Release);
        Ok(())
    }

    /// Switches an armed endpoint to another word, by one store; new addresses first.
    pub(super) fn switch(
        &mut self,
        maps: &mut Maps,
        ifindex: u32,
        word: PolicyWord,
        addresses: &[IpAddr],
    ) -> Result<(), DataplaneError> {
        let Some(armed) = self.by_ifindex.get(&ifindex) else {
            return Ok(());
        };
        let slot = armed.slot;
        if armed.addresses != addresses {
            self.write_addresses(maps, slot, addresses)?;
        }
        maps.endpoints.u64(slot, offset_of!(Endpoint, policy)).store(word.0, Ordering::Release);
        if let Some(armed) = self.by_ifindex.get_mut(&ifindex) {
            armed.word = word;
            armed.addresses = addresses.to_vec();
        }
        Ok(())
    }

    /// Closes an endpoint's isolated directions for new flows, or opens them again.
    pub(super) fn lock(&mut self, maps: &Maps, ifindex: u32, locked: bool) {
        let Some(armed) = self.by_ifindex.get_mut(&ifindex) else {
            return;
        };
        if armed.locked == locked {
            return;
        }
        armed.locked = locked;
        set_bit(maps, armed.slot, EP_LOCKED, locked);
    }

    /// Has an endpoint audited only, or enforced again.
    pub(super) fn audit(&self, maps: &Maps, ifindex: u32, audit: bool) {
        if let Some(armed) = self.by_ifindex.get(&ifindex) {
            set_bit(maps, armed.slot, EP_AUDIT, audit);
        }
    }

    /// Marks an endpoint as one whose pod's policy is not known yet, or is now.
    pub(super) fn starting(&mut self, maps: &Maps, ifindex: u32, starting: bool) {
        if let Some(armed) = self.by_ifindex.get_mut(&ifindex) {
            armed.starting = starting;
            set_bit(maps, armed.slot, EP_STARTING, starting);
        }
    }

    /// Forgets an endpoint whose interface is gone. Returns its slot.
    pub(super) fn clear(
        &mut self,
        maps: &mut Maps,
        ifindex: u32,
    ) -> Result<Option<u32>, DataplaneError> {
        let Some(armed) = self.by_ifindex.remove(&ifindex) else {
            self.release(ifindex);
            // There is one if its record could not be written whole.
            let _absent = maps.ifindex_slot.remove(&ifindex);
            return Ok(None);
        };
        let slot = armed.slot;
        maps.endpoints.u32(slot, offset_of!(Endpoint, ifindex)).store(0, Ordering::Release);
        maps.endpoints.u64(slot, offset_of!(Endpoint, policy)).store(0, Ordering::Relaxed);
        let disabled_until = offset_of!(Endpoint, disabled_until);
        maps.endpoints.u64(slot, disabled_until).store(0, Ordering::Relaxed);
        self.write_addresses(maps, slot, &[])?;
        maps.endpoints.u32(slot, offset_of!(Endpoint, flags)).store(0, Ordering::Relaxed);
        if slot != ifindex & (ENDPOINT_SLOTS - 1) {
            maps.ifindex_slot
                .remove(&ifindex)
                .map_err(|source| failed("delete from", MAP_IFINDEX_SLOT, source))?;
        }
        self.used.remove(&slot);
        Ok(Some(slot))
    }
}

/// Sets or clears a bit of an endpoint's flags.
fn set_bit(maps: &Maps, slot: u32, bit: u32, set: bool) {
    let flags = maps.endpoints.u32(slot, offset_of!(Endpoint, flags));
    if set {
        flags.fetch_or(bit, Ordering::Release);
    } else {
        flags.fetch_and(!bit, Ordering::Release);
    }
}

/// What an array of endpoints says: by interface index.
pub(super) fn read_armed(
    array: &SharedArray,
    pod_addrs: &BpfHashMap<MapData, AddrKey, u8>,
) -> HashMap<u32, Armed> {
    let mut found = HashMap::new();
    for slot in 1..ENDPOINT_SLOTS {
        let ifindex = array.u32(slot, offset_of!(Endpoint, ifindex)).load(Ordering::Acquire);
        if ifindex == 0 {
            continue;
        }
        let word = array.u64(slot, offset_of!(Endpoint, policy)).load(Ordering::Acquire);
        let flags = array.u32(slot, offset_of!(Endpoint, flags)).load(Ordering::Acquire);
        let mut addresses = Vec::new();
        if flags & EP_ADDR4 != 0 {
            let v4 = array.u32(slot, offset_of!(Endpoint, addr4)).load(Ordering::Acquire);
            addresses.push(ip(Addr::v4(v4)));
        }
        if flags & EP_ADDR6 != 0 {
            let word = |n: usize| {
                array.u32(slot, offset_of!(Endpoint, addr6) + 4 * n).load(Ordering::Acquire)
            };
            addresses.push(ip(Addr([word(0), word(1), word(2), word(3)])));
        }
        if flags & EP_MORE_ADDRS != 0 {
            let keys = pod_addrs.keys().flatten().filter(|key| key.slot == slot);
            addresses.extend(keys.map(|key| ip(key.addr)));
        }
        let (word, locked) = (PolicyWord(word), flags & EP_LOCKED != 0);
        let starting = flags & EP_STARTING != 0;
        found.insert(ifindex, Armed { slot, word, addresses, locked, starting });
    }
    found
}
