//! A plan into the maps, in its order; what fails is closed, kept and tried again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use aya::maps::MapError;
use enforcer_common::abi::{
    ClassId, Direction, EP_AUDIT, EP_STARTING, INTERVAL_SLOTS, Interval, MAP_CIDRS4, MAP_CT4,
    MAP_INTERVALS, MAP_PEERS, MAP_ROWS, Peer, PolicyWord, Row, RowKey, Service, ServiceKey,
};
use ipnet::IpNet;

use super::{
    DataplaneError, Kernel,
    attach::{self, Place},
    endpoints::New,
    error::chain,
    intervals::Placement,
    maps::{absent_is_fine, addr, failed},
    netlink::rcu,
    seed::{self, Seed},
    upgrade::OldEndpoint,
};
use crate::cluster::plan::{EndpointPlan, Plan};

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Applied {
    /// What could not be written, in words. It is tried again by [`Kernel::retry`].
    pub failures: Vec<String>,
    /// Endpoints that were armed now: interface index and name.
    pub armed: Vec<(u32, Arc<str>)>,
}

/// What could not be written yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) rows: BTreeMap<RowKey, Arc<[Interval]>>,
    pub(super) cidrs: BTreeMap<IpNet, ClassId>,
    pub(super) peers: BTreeMap<IpAddr, ClassId>,
    /// Addresses whose class must go, and is there still.
    stale_peers: BTreeSet<IpAddr>,
    pub(super) services: BTreeMap<ServiceKey, Service>,
    /// Services that must go, and are there still.
    pub(super) stale_services: BTreeSet<ServiceKey>,
    pub(super) endpoints: BTreeMap<u32, EndpointPlan>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        let Self { rows, cidrs, peers, stale_peers, services, stale_services, endpoints } = self;
        rows.is_empty()
            && cidrs.is_empty()
            && peers.is_empty()
            && stale_peers.is_empty()
            && services.is_empty()
            && stale_services.is_empty()
            && endpoints.is_empty()
    }

    /// Whether what is missing could let something through at a pod with this word: one of its
    /// table's rows, a prefix that may be an exception, a class that is there still, or a Service
    /// whose address would be judged as a plain one.
    fn locks(&self, word: PolicyWord) -> bool {
        !self.cidrs.is_empty()
            || !self.stale_peers.is_empty()
            || (!self.services.is_empty() && word.isolated(Direction::Egress))
            || self.rows.keys().any(|key| key.table == word.table())
    }
}

impl Kernel {
    /// Writes a plan, in its order.
    ///
    /// # Errors
    /// Never for a map that is full or an interface that is gone (those are in
    /// [`Applied::failures`]); only if the maps themselves cannot be used.
    pub fn apply(&mut self, plan: &Plan) -> Applied {
        self.writing();
        let applied = self.write(plan);
        self.written();
        applied
    }

    fn write(&mut self, plan: &Plan) -> Applied {
        let mut applied = Applied::default();
        let Plan {
            revision: _,
            names: _,
            rows_added,
            cidrs_set,
            peers_set,
            peers_removed,
            services_set,
            endpoints_set,
            endpoints_removed,
            cidrs_removed,
            services_removed,
            rows_removed,
        } = plan;
        for key in rows_removed {
            self.pending.rows.remove(key);
        }
        for net in cidrs_removed {
            self.pending.cidrs.remove(net);
        }
        for key in services_removed {
            self.pending.services.remove(key);
        }
        for (key, row) in rows_added {
            if let Err(error) = self.add_row(*key, row) {
                applied.failures.push(chain(&error));
                self.pending.rows.insert(*key, Arc::clone(row));
                self.lock_table(key.table, true);
            }
        }
        for (net, class) in cidrs_set {
            self.set_cidr(*net, *class, &mut applied);
        }
        for (ip, class) in peers_set {
            self.set_peer(*ip, *class, &mut applied);
        }
        for ip in peers_removed {
            self.pending.peers.remove(ip);
            self.remove_peer(*ip, &mut applied);
        }
        self.set_services(services_set.iter().copied(), &mut applied);
        for endpoint in endpoints_set {
            self.set_endpoint(endpoint, &mut applied);
        }
        self.remove_endpoints(endpoints_removed, &mut applied);
        // A table that could not be written whole may be in nobody's use any more.
        self.unlock();
        if cidrs_removed.is_empty() && services_removed.is_empty() && rows_removed.is_empty() {
            return applied;
        }
        rcu::grace_period();
        for net in cidrs_removed {
            if let Err(error) = absent_is_fine(self.maps.remove_cidr(*net)) {
                applied.failures.push(chain(&failed("delete from", MAP_CIDRS4, error)));
            }
        }
        self.remove_services(services_removed.iter().copied(), &mut applied);
        let found = !(cidrs_removed.is_empty() && services_removed.is_empty());
        if found && !rows_removed.is_empty() {
            // A program that found one before it went may be about to read its class's row.
            rcu::grace_period();
        }
        for key in rows_removed {
            if let Err(error) = self.remove_row(*key) {
                applied.failures.push(chain(&error));
            }
        }
        if !services_removed.is_empty() && !self.pending.services.is_empty() {
            // There is room now.
            let missing = std::mem::take(&mut self.pending.services);
            self.set_services(missing, &mut applied);
            self.unlock();
        }
        applied
    }

    /// Tries again what could not be written.
    pub fn retry(&mut self) -> Applied {
        let mut applied = Applied::default();
        let Pending { rows, cidrs, peers, stale_peers, services, stale_services, endpoints } =
            std::mem::take(&mut self.pending);
        for (key, row) in rows {
            if let Err(error) = self.add_row(key, &row) {
                applied.failures.push(chain(&error));
                self.pending.rows.insert(key, row);
            }
        }
        for (net, class) in cidrs {
            self.set_cidr(net, class, &mut applied);
        }
        for (ip, class) in peers {
            self.set_peer(ip, class, &mut applied);
        }
        for ip in stale_peers {
            self.remove_peer(ip, &mut applied);
        }
        self.remove_services(stale_services, &mut applied);
        self.set_services(services, &mut applied);
        if self.lacks_node_addresses() {
            self.write_node_addresses(&mut applied);
        }
        for endpoint in endpoints.values() {
            self.set_endpoint(endpoint, &mut applied);
        }
        self.unlock();
        self.written();
        applied
    }

    /// Opens the endpoints again that were locked for something that is no longer missing.
    pub(super) fn unlock(&mut self) {
        let locked: Vec<u32> = self
            .endpoints
            .by_ifindex
            .iter()
            .filter(|(_, armed)| armed.locked && !self.locks(armed.word))
            .map(|(ifindex, _)| *ifindex)
            .collect();
        for ifindex in locked {
            self.endpoints.lock(&self.maps, ifindex, false);
        }
    }

    /// Whether an interface waits for its programs: until it has them it is open.
    #[must_use]
    pub fn unattached(&self) -> bool {
        self.pending.endpoints.keys().any(|ifindex| !self.attached.contains_key(ifindex))
    }

    /// Whether something waits for [`Self::retry`].
    #[must_use]
    pub fn incomplete(&self) -> bool {
        !self.pending.is_empty() || self.lacks_node_addresses()
    }

    /// Whether something is missing without which a pod with this word must take no new flow.
    fn locks(&self, word: PolicyWord) -> bool {
        self.lacks_node_addresses() || self.pending.locks(word)
    }

    fn add_row(&mut self, key: RowKey, row: &Arc<[Interval]>) -> Result<(), DataplaneError> {
        if self.rows.get(&key) == Some(row) {
            return Ok(());
        }
        let place = match self.intervals.take(row) {
            Placement::Shared(place) => place,
            Placement::New(place) => {
                for (index, interval) in (place.first..).zip(row.iter()) {
                    if let Err(error) = self.maps.intervals.set(index, interval, 0) {
                        self.intervals.give_back(row);
                        return Err(failed("write to", MAP_INTERVALS, error));
                    }
                }
                place
            }
            Placement::Full => {
                return Err(failed(
                    "find room in",
                    MAP_INTERVALS,
                    MapError::OutOfBounds { index: INTERVAL_SLOTS, max_entries: INTERVAL_SLOTS },
                ));
            }
        };
        if let Err(error) = self.maps.rows.insert(key, Row { place, key }, 0) {
            self.intervals.give_back(row);
            return Err(failed("write to", MAP_ROWS, error));
        }
        if let Some(old) = self.rows.insert(key, Arc::clone(row)) {
            // A program may be reading it; the next row could be written over it.
            rcu::grace_period();
            self.intervals.give_back(&old);
        }
        Ok(())
    }

    fn remove_row(&mut self, key: RowKey) -> Result<(), DataplaneError> {
        let Some(row) = self.rows.remove(&key) else {
            return Ok(());
        };
        absent_is_fine(self.maps.rows.remove(&key))
            .map_err(|error| failed("delete from", MAP_ROWS, error))?;
        self.intervals.give_back(&row);
        Ok(())
    }

    fn set_cidr(&mut self, net: IpNet, class: ClassId, applied: &mut Applied) {
        self.pending.cidrs.remove(&net);
        if let Err(error) = self.maps.set_cidr(net, class) {
            applied.failures.push(chain(&failed("write to", MAP_CIDRS4, error)));
            self.pending.cidrs.insert(net, class);
            // A prefix that is missing may be an exception of one that is there: whoever could be
            // judged by it is closed until it is written.
            self.lock_all();
        }
    }

    fn set_peer(&mut self, ip: IpAddr, class: ClassId, applied: &mut Applied) {
        self.pending.peers.remove(&ip);
        self.pending.stale_peers.remove(&ip);
        if let Err(error) = self.maps.peers.insert(addr(ip), Peer { class, addr: addr(ip) }, 0) {
            applied.failures.push(chain(&failed("write to", MAP_PEERS, error)));
            self.pending.peers.insert(ip, class);
            // Its old class may allow too much; without one it is judged by prefix only, which
            // allows less.
            self.remove_peer(ip, applied);
        }
    }

    /// Takes an address's class away; while that fails, everything that it could open is closed.
    fn remove_peer(&mut self, ip: IpAddr, applied: &mut Applied) {
        self.pending.stale_peers.remove(&ip);
        if let Err(error) = absent_is_fine(self.maps.peers.remove(&addr(ip))) {
            applied.failures.push(chain(&failed("delete from", MAP_PEERS, error)));
            self.pending.stale_peers.insert(ip);
            self.lock_all();
        }
    }

    fn lock_table(&mut self, table: u32, locked: bool) {
        let users: Vec<u32> = self
            .endpoints
            .by_ifindex
            .iter()
            .filter(|(_, armed)| armed.word.table() == table)
            .map(|(ifindex, _)| *ifindex)
            .collect();
        for ifindex in users {
            self.endpoints.lock(&self.maps, ifindex, locked);
        }
    }

    pub(super) fn lock_all(&mut self) {
        let all: Vec<u32> = self.endpoints.by_ifindex.keys().copied().collect();
        for ifindex in all {
            self.endpoints.lock(&self.maps, ifindex, true);
        }
    }

    fn set_endpoint(&mut self, plan: &EndpointPlan, applied: &mut Applied) {
        let EndpointPlan { ifindex, interface, table, isolated, rejudge, .. } = plan;
        self.pending.endpoints.remove(ifindex);
        let known = self.endpoints.by_ifindex.get(ifindex);
        let old = self.old_endpoint(*ifindex).map(OldEndpoint::next_generation);
        let taken_over = old.is_some();
        let generation = known.map_or(old.unwrap_or(0), |armed| armed.word.generation());
        let generation = if *rejudge { generation.wrapping_add(1) } else { generation };
        let word = PolicyWord::new(*table, *isolated, generation);
        let result = if known.is_some() { self.switch(plan, word) } else { self.arm(plan, word) };
        if self.locks(word) {
            self.endpoints.lock(&self.maps, *ifindex, true);
        }
        if result.is_err() && taken_over {
            // The version before enforces on it; ours could only close it.
            applied.failures.extend(result.err().map(|error| chain(&error)));
            self.pending.endpoints.insert(*ifindex, plan.clone());
            return;
        }
        // Attached in any case: without a record, or with half of one, the programs close the
        // interface, which without them would be open.
        let attached = self.attach(*ifindex, interface);
        if result.is_ok() && matches!(attached, Ok(true)) {
            applied.armed.push((*ifindex, Arc::clone(interface)));
        }
        for error in [result.err(), attached.err()].into_iter().flatten() {
            applied.failures.push(chain(&error));
            self.pending.endpoints.insert(*ifindex, plan.clone());
        }
    }

    /// What lets more pass comes before the word, what lets less pass after it: in between a packet
    /// may find either, and must not be judged more strictly than by both.
    fn switch(&mut self, plan: &EndpointPlan, word: PolicyWord) -> Result<(), DataplaneError> {
        let EndpointPlan { ifindex, addresses, audit, starting, .. } = plan;
        let (endpoints, maps) = (&mut self.endpoints, &mut self.maps);
        if *audit {
            endpoints.audit(maps, *ifindex, true);
        }
        if *starting {
            endpoints.starting(maps, *ifindex, true);
        }
        let switched = endpoints.switch(maps, *ifindex, word, addresses);
        endpoints.audit(maps, *ifindex, *audit);
        endpoints.starting(maps, *ifindex, *starting);
        switched
    }

    fn arm(&mut self, plan: &EndpointPlan, word: PolicyWord) -> Result<(), DataplaneError> {
        let EndpointPlan { ifindex, interface, addresses, audit, starting, .. } = plan;
        let ifindex = *ifindex;
        let flags = if *audit { EP_AUDIT } else { 0 }
            | if *starting { EP_STARTING } else { 0 }
            | self.shadow_flag(ifindex);
        let old = self.old_endpoint(ifindex);
        let arrived = self.arrival.as_ref().map_or(0, |arrival| arrival.pickup_until);
        let pickup_until = old.map_or(arrived, |old| old.pickup_until);
        let (maps, quotas) = (&mut self.maps, self.quotas);
        let new = New { ifindex, interface, word, addresses, quotas, pickup_until, flags };
        let slot = self.endpoints.arm(maps, &new)?;
        if let Some(arrival) = &self.arrival {
            let node = &self.node_addresses;
            let generation = word.generation();
            let seed = Seed { addresses, ifindex, slot, generation, node };
            seed::seed(maps, &arrival.flows, &seed)
                .map_err(|error| failed("write to", MAP_CT4, error))?;
        }
        Ok(())
    }

    /// Attaches if this agent has not yet. Whether it did.
    pub(super) fn attach(&mut self, ifindex: u32, interface: &str) -> Result<bool, DataplaneError> {
        if self.attached.contains_key(&ifindex) {
            return Ok(false);
        }
        let place = Place {
            pins: self.pins.as_ref(),
            state_dir: self.state_dir.as_deref(),
            our_programs: &self.our_programs,
        };
        let attachment = attach::attach(&mut self.ebpf, &place, self.mode, ifindex, interface)?;
        self.attached.insert(ifindex, attachment);
        Ok(true)
    }

    fn remove_endpoints(&mut self, gone: &[u32], applied: &mut Applied) {
        let mut slots = BTreeSet::new();
        for ifindex in gone {
            self.pending.endpoints.remove(ifindex);
            self.attached.remove(ifindex);
            attach::forget(&self.place(), *ifindex);
            match self.endpoints.clear(&mut self.maps, *ifindex) {
                Ok(slot) => slots.extend(slot),
                Err(error) => applied.failures.push(chain(&error)),
            }
            slots.extend(self.forget_predecessors(*ifindex));
        }
        if !slots.is_empty() {
            super::sweep::purge(&mut self.maps, gone, &slots);
        }
    }
}
