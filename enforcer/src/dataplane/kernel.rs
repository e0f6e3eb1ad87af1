//! The kernel's state as the agent writes it: one owner of maps, endpoints and attachments.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use aya::{Ebpf, maps::MapError, programs::SchedClassifier, sys::SyscallError};
use enforcer_common::abi::{
    ABI_VERSION, Addr, COUNTER_SLOTS, ClassId, CtEntry, CtKey4, CtKey6, Direction, INTERVAL_SLOTS,
    Interval, MAP_CIDRS4, MAP_CT4, MAP_INTERVALS, MAP_META, MAP_NODE_ADDRS, MAP_PEERS, MAP_ROWS,
    Meta, PolicyWord, RowKey, TABLE_MASK, lane,
};
use ipnet::IpNet;

use super::{
    AttachMode, DataplaneError,
    attach::{self, Attachment, Place},
    endpoints::{Endpoints, New, Quotas},
    intervals::{Allocator, Placement},
    maps::{self, Maps, RingMaps, addr, failed},
    netlink::{conntrack::KernelFlow, rcu},
    object::{self, PinPaths},
    seed::{self, Seed},
    sys,
};
use crate::cluster::plan::{EndpointPlan, Plan};

/// What a [`Kernel`] is made with.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// Folder for pins; `None` for a load that ends with the process (tests, benchmarks).
    pub bpf_dir: Option<PathBuf>,
    /// Folder for what must be remembered beside the pins.
    pub state_dir: Option<PathBuf>,
    /// How to attach.
    pub attach: AttachMode,
    /// Flows of each family that the node can have at once.
    pub conntrack_entries: u32,
    /// Random, for the class hash of maps that are made now.
    pub class_key: [u64; 2],
}

/// The window in which replies of connections older than the agent are accepted where the node
/// tracks no connections.
pub const PICKUP_WINDOW: Duration = Duration::from_secs(60);

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
struct Pending {
    rows: BTreeMap<RowKey, Arc<[Interval]>>,
    cidrs: BTreeMap<IpNet, ClassId>,
    peers: BTreeMap<IpAddr, ClassId>,
    /// Addresses whose class must go, and is there still.
    stale_peers: BTreeSet<IpAddr>,
    endpoints: BTreeMap<u32, EndpointPlan>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        let Self { rows, cidrs, peers, stale_peers, endpoints } = self;
        rows.is_empty()
            && cidrs.is_empty()
            && peers.is_empty()
            && stale_peers.is_empty()
            && endpoints.is_empty()
    }

    /// Whether what is missing could let something through at a pod with this table: one of its
    /// rows, a prefix that may be an exception, or a class that is there still.
    fn locks(&self, table: u32) -> bool {
        !self.cidrs.is_empty()
            || !self.stale_peers.is_empty()
            || self.rows.keys().any(|key| key.table == table)
    }
}

/// Maps, endpoints and attachments.
#[derive(Debug)]
pub struct Kernel {
    pub(super) maps: Maps,
    ebpf: Ebpf,
    pins: Option<PinPaths>,
    state_dir: Option<PathBuf>,
    mode: AttachMode,
    old_programs: Vec<u32>,
    programs: Vec<u32>,
    intervals: Allocator,
    pub(super) rows: HashMap<RowKey, Arc<[Interval]>>,
    pub(super) endpoints: Endpoints,
    attached: HashMap<u32, Attachment>,
    quotas: Quotas,
    conntrack_entries: u32,
    pending: Pending,
    node_addresses: BTreeSet<IpAddr>,
    meta: Meta,
    /// Flows to seed new endpoints with, while an arrival is under way.
    arrival: Option<Arrival>,
}

/// What the agent found on its first arrival on a node.
#[derive(Debug)]
struct Arrival {
    flows: Vec<KernelFlow>,
    pickup_until: u64,
}

/// An endpoint as an earlier agent left it.
#[derive(Clone, Debug)]
pub struct FoundEndpoint {
    /// Host-side interface index.
    pub ifindex: u32,
    /// The addresses it was armed with.
    pub addresses: Vec<IpAddr>,
}

impl Kernel {
    /// Loads the object, over an earlier agent's pins where there are any.
    ///
    /// # Errors
    /// If the kernel refuses, pins cannot be made, or what is pinned is not this version's.
    pub fn open(config: &KernelConfig) -> Result<(Self, RingMaps), DataplaneError> {
        if !sys::may_load() {
            return Err(DataplaneError::Privilege);
        }
        let pins = config.bpf_dir.as_deref().map(PinPaths::new);
        if let Some(pins) = &pins {
            pins.create()?;
        }
        let mut ebpf = object::load(pins.as_ref(), config.conntrack_entries)?;
        let (old_programs, programs) = match &pins {
            Some(pins) => attach::pin_programs(&mut ebpf, pins)?,
            None => (Vec::new(), attach::program_ids(&mut ebpf)?),
        };
        let (mut maps, rings) = maps::open(&mut ebpf)?;
        let meta = read_meta(&mut maps, config.class_key)?;
        let endpoints = Endpoints::read(&maps);
        let mut kernel = Self {
            maps,
            ebpf,
            pins,
            state_dir: config.state_dir.clone(),
            mode: config.attach.resolve(),
            old_programs,
            programs,
            intervals: Allocator::new(INTERVAL_SLOTS),
            rows: HashMap::new(),
            endpoints,
            attached: HashMap::new(),
            quotas: Quotas {
                half: (config.conntrack_entries / 16).max(64),
                established: (config.conntrack_entries / 4).max(64),
            },
            conntrack_entries: config.conntrack_entries,
            pending: Pending::default(),
            node_addresses: BTreeSet::new(),
            meta,
            arrival: None,
        };
        kernel.read_rows()?;
        kernel.node_addresses = kernel.maps.node_addrs.keys().flatten().map(maps::ip).collect();
        Ok((kernel, rings))
    }

    /// Key of the class hash: that of the pinned maps, if there were any.
    #[must_use]
    pub fn class_key(&self) -> [u64; 2] {
        self.meta.class_key
    }

    /// Whether an agent has brought a whole plan into force on these maps before.
    #[must_use]
    pub fn was_armed(&self) -> bool {
        self.meta.armed != 0
    }

    /// First table number that no row in the kernel uses.
    #[must_use]
    pub fn first_table(&self) -> u32 {
        let rows = self.rows.keys().map(|key| key.table);
        let words = self.endpoints.by_ifindex.values().map(|armed| armed.word.table());
        rows.chain(words).filter(|table| *table != CLOSED_TABLE).max().map_or(1, |table| table + 1)
    }

    /// Endpoints that an earlier agent armed.
    #[must_use]
    pub fn found(&self) -> Vec<FoundEndpoint> {
        let mut found: Vec<_> = self
            .endpoints
            .by_ifindex
            .iter()
            .map(|(ifindex, armed)| FoundEndpoint {
                ifindex: *ifindex,
                addresses: armed.addresses.clone(),
            })
            .collect();
        found.sort_by_key(|endpoint| endpoint.ifindex);
        found
    }

    /// Notes that a whole plan is in force.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn set_armed(&mut self) -> Result<(), DataplaneError> {
        self.meta.armed = 1;
        self.maps.meta.set(0, self.meta, 0).map_err(|e| failed("write to", MAP_META, e))
    }

    /// Prepares for pods that were there before the agent: their connections are taken from the
    /// node's own conntrack; where it has none, a window opens in which replies are accepted.
    pub fn arrive(&mut self, flows: Option<Vec<KernelFlow>>) {
        let flows = flows.unwrap_or_default();
        let window = u64::try_from(PICKUP_WINDOW.as_nanos()).unwrap_or(u64::MAX);
        let pickup_until =
            if flows.is_empty() { sys::monotonic().saturating_add(window) } else { 0 };
        self.arrival = Some(Arrival { flows, pickup_until });
    }

    /// Ends the arrival: what is armed from now on is new, and has no past.
    pub fn arrived(&mut self) {
        self.arrival = None;
    }

    /// Writes a plan, in its order.
    ///
    /// # Errors
    /// Never for a map that is full or an interface that is gone (those are in
    /// [`Applied::failures`]); only if the maps themselves cannot be used.
    pub fn apply(&mut self, plan: &Plan) -> Applied {
        let mut applied = Applied::default();
        let Plan {
            revision: _,
            names: _,
            rows_added,
            cidrs_set,
            peers_set,
            peers_removed,
            endpoints_set,
            endpoints_removed,
            cidrs_removed,
            rows_removed,
        } = plan;
        for key in rows_removed {
            self.pending.rows.remove(key);
        }
        for net in cidrs_removed {
            self.pending.cidrs.remove(net);
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
        for endpoint in endpoints_set {
            self.set_endpoint(endpoint, &mut applied);
        }
        self.remove_endpoints(endpoints_removed, &mut applied);
        // A table that could not be written whole may be in nobody's use any more.
        self.unlock();
        if cidrs_removed.is_empty() && rows_removed.is_empty() {
            return applied;
        }
        rcu::grace_period();
        for net in cidrs_removed {
            if let Err(error) = absent_is_fine(self.maps.remove_cidr(*net)) {
                applied.failures.push(chain(&failed("delete from", MAP_CIDRS4, error)));
            }
        }
        if !cidrs_removed.is_empty() && !rows_removed.is_empty() {
            // A program that found a prefix before it went may be about to read its class's row.
            rcu::grace_period();
        }
        for key in rows_removed {
            if let Err(error) = self.remove_row(*key) {
                applied.failures.push(chain(&error));
            }
        }
        applied
    }

    /// Tries again what could not be written.
    pub fn retry(&mut self) -> Applied {
        let mut applied = Applied::default();
        let Pending { rows, cidrs, peers, stale_peers, endpoints } =
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
        for endpoint in endpoints.values() {
            self.set_endpoint(endpoint, &mut applied);
        }
        self.unlock();
        applied
    }

    /// Opens the endpoints again that were locked for something that is no longer missing.
    fn unlock(&mut self) {
        let locked: Vec<u32> = self
            .endpoints
            .by_ifindex
            .iter()
            .filter(|(_, armed)| armed.locked && !self.pending.locks(armed.word.table()))
            .map(|(ifindex, _)| *ifindex)
            .collect();
        for ifindex in locked {
            self.endpoints.lock(&self.maps, ifindex, false);
        }
    }

    /// Whether something waits for [`Self::retry`].
    #[must_use]
    pub fn incomplete(&self) -> bool {
        !self.pending.is_empty()
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
        if let Err(error) = self.maps.rows.insert(key, place, 0) {
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
        if let Err(error) = self.maps.peers.insert(addr(ip), class, 0) {
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

    fn lock_all(&mut self) {
        let all: Vec<u32> = self.endpoints.by_ifindex.keys().copied().collect();
        for ifindex in all {
            self.endpoints.lock(&self.maps, ifindex, true);
        }
    }

    fn set_endpoint(&mut self, plan: &EndpointPlan, applied: &mut Applied) {
        let EndpointPlan { ifindex, interface, addresses, table, isolated, rejudge } = plan;
        self.pending.endpoints.remove(ifindex);
        let known = self.endpoints.by_ifindex.get(ifindex);
        let generation = known.map_or(0, |armed| armed.word.generation());
        let generation = if *rejudge { generation.wrapping_add(1) } else { generation };
        let word = PolicyWord::new(*table, *isolated, generation);
        let result = if known.is_some() {
            self.endpoints.switch(&mut self.maps, *ifindex, word, addresses)
        } else {
            self.arm(*ifindex, interface, word, addresses)
        };
        if self.pending.locks(*table) {
            self.endpoints.lock(&self.maps, *ifindex, true);
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

    fn arm(
        &mut self,
        ifindex: u32,
        interface: &str,
        word: PolicyWord,
        addresses: &[IpAddr],
    ) -> Result<(), DataplaneError> {
        let pickup_until = self.arrival.as_ref().map_or(0, |arrival| arrival.pickup_until);
        let (maps, quotas) = (&mut self.maps, self.quotas);
        let new = New { ifindex, interface, word, addresses, quotas, pickup_until };
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
    fn attach(&mut self, ifindex: u32, interface: &str) -> Result<bool, DataplaneError> {
        if self.attached.contains_key(&ifindex) {
            return Ok(false);
        }
        let place = Place {
            pins: self.pins.as_ref(),
            state_dir: self.state_dir.as_deref(),
            old_programs: &self.old_programs,
        };
        let attachment = attach::attach(&mut self.ebpf, &place, self.mode, ifindex, interface)?;
        self.attached.insert(ifindex, attachment);
        Ok(true)
    }

    fn remove_endpoints(&mut self, gone: &[u32], applied: &mut Applied) {
        let mut slots = BTreeSet::new();
        for ifindex in gone {
            self.pending.endpoints.remove(ifindex);
            if let Some(attachment) = self.attached.remove(ifindex) {
                attachment.forget();
            }
            match self.endpoints.clear(&mut self.maps, *ifindex) {
                Ok(slot) => slots.extend(slot),
                Err(error) => applied.failures.push(chain(&error)),
            }
        }
        if !slots.is_empty() {
            super::sweep::purge(&mut self.maps, gone, &slots);
        }
    }

    /// Detaches from an interface that is there but no longer enforced on: not used for pods.
    pub(super) fn close(&mut self, ifindex: u32) {
        let Some(armed) = self.endpoints.by_ifindex.get(&ifindex).cloned() else {
            return;
        };
        let word =
            PolicyWord::new(CLOSED_TABLE, [true, true], armed.word.generation().wrapping_add(1));
        // Writing the same addresses writes nothing.
        let _same = self.endpoints.switch(&mut self.maps, ifindex, word, &armed.addresses);
    }

    /// Interfaces on which our programs are no longer where they were put.
    #[must_use]
    pub fn displaced(&self) -> Vec<u32> {
        let attached = self.attached.keys().copied();
        attached.filter(|ifindex| !attach::in_place(self.mode, &self.programs, *ifindex)).collect()
    }

    /// Attaches again where our programs were displaced.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn reattach(&mut self, ifindex: u32, interface: &str) -> Result<(), DataplaneError> {
        if let Some(attachment) = self.attached.remove(&ifindex) {
            attachment.forget();
        }
        self.attach(ifindex, interface).map(|_new| ())
    }

    /// Makes the node's addresses these.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn set_node_addresses(
        &mut self,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), DataplaneError> {
        let new: BTreeSet<IpAddr> = addresses.into_iter().collect();
        for ip in new.difference(&self.node_addresses) {
            self.maps
                .node_addrs
                .insert(addr(*ip), 1, 0)
                .map_err(|error| failed("write to", MAP_NODE_ADDRS, error))?;
        }
        for ip in self.node_addresses.difference(&new) {
            absent_is_fine(self.maps.node_addrs.remove(&addr(*ip)))
                .map_err(|error| failed("delete from", MAP_NODE_ADDRS, error))?;
        }
        self.node_addresses = new;
        Ok(())
    }

    /// Counters by index (see `abi::counter_index`), summed over CPUs.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn counters(&self) -> Result<Vec<u64>, DataplaneError> {
        (0..COUNTER_SLOTS)
            .map(|index| {
                let values = self.maps.counters.get(&index, 0);
                values.map(|values| values.iter().sum())
            })
            .collect::<Result<_, _>>()
            .map_err(|error| failed("read", enforcer_common::abi::MAP_COUNTERS, error))
    }

    /// Events lost by lane, summed over CPUs.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn lost(&self) -> Result<[u64; lane::COUNT as usize], DataplaneError> {
        let mut lost = [0; lane::COUNT as usize];
        for (index, sum) in (0..).zip(&mut lost) {
            let values = self.maps.lost.get(&index, 0);
            *sum = values
                .map_err(|error| failed("read", enforcer_common::abi::MAP_LOST, error))?
                .iter()
                .sum();
        }
        Ok(lost)
    }

    /// Whether an endpoint is closed because its plan is not whole.
    #[must_use]
    pub fn locked(&self, ifindex: u32) -> bool {
        self.endpoints.by_ifindex.get(&ifindex).is_some_and(|armed| armed.locked)
    }

    /// Whether both programs are attached to an interface.
    #[must_use]
    pub fn is_attached(&self, ifindex: u32) -> bool {
        self.attached.contains_key(&ifindex)
    }

    /// A loaded program, for test runs and benchmarks.
    ///
    /// # Errors
    /// If the object has none for the direction.
    pub fn program(
        &mut self,
        direction: Direction,
    ) -> Result<&mut SchedClassifier, DataplaneError> {
        object::program(&mut self.ebpf, attach::program_name(direction))
    }

    /// The conntrack entry of an IPv4 flow.
    #[must_use]
    pub fn flow4(&self, key: &CtKey4) -> Option<CtEntry> {
        self.maps.ct4.get(key, 0).ok()
    }

    /// The conntrack entry of an IPv6 flow.
    #[must_use]
    pub fn flow6(&self, key: &CtKey6) -> Option<CtEntry> {
        self.maps.ct6.get(key, 0).ok()
    }

    /// Flows of each family that the node can have at once.
    #[must_use]
    pub fn conntrack_entries(&self) -> u32 {
        self.conntrack_entries
    }

    /// Intervals in use.
    #[must_use]
    pub fn intervals_used(&self) -> u32 {
        self.intervals.used()
    }

    /// TCX or clsact.
    #[must_use]
    pub fn mode(&self) -> AttachMode {
        self.mode
    }

    fn read_rows(&mut self) -> Result<(), DataplaneError> {
        let mut broken = Vec::new();
        for entry in self.maps.rows.iter() {
            let (key, place) = entry.map_err(|error| failed("read", MAP_ROWS, error))?;
            let row: Result<Arc<[Interval]>, _> = (place.first..place.first + place.count)
                .map(|index| self.maps.intervals.get(&index, 0))
                .collect();
            match row {
                Ok(row) if self.intervals.adopt(&row, place) => {
                    self.rows.insert(key, row);
                }
                _ => broken.push(key),
            }
        }
        // A row that cannot be read is as good as none: closed until it is written again.
        for key in broken {
            absent_is_fine(self.maps.rows.remove(&key))
                .map_err(|error| failed("delete from", MAP_ROWS, error))?;
        }
        Ok(())
    }

    /// Addresses and classes as the kernel has them.
    pub(super) fn read_peers(&self) -> Result<BTreeMap<IpAddr, ClassId>, DataplaneError> {
        self.maps
            .peers
            .iter()
            .map(|entry| entry.map(|(key, class): (Addr, ClassId)| (maps::ip(key), class)))
            .collect::<Result<_, _>>()
            .map_err(|error| failed("read", MAP_PEERS, error))
    }

    /// Prefixes and classes as the kernel has them.
    pub(super) fn read_cidrs(&self) -> Result<BTreeMap<IpNet, ClassId>, DataplaneError> {
        let mut found = BTreeMap::new();
        let length = |bits: u32| u8::try_from(bits).unwrap_or(u8::MAX);
        for entry in self.maps.cidrs4.iter() {
            let (key, class) = entry.map_err(|error| failed("read", MAP_CIDRS4, error))?;
            if let Ok(net) = IpNet::new(IpAddr::from(key.data()), length(key.prefix_len())) {
                found.insert(net, class);
            }
        }
        for entry in self.maps.cidrs6.iter() {
            let (key, class) = entry.map_err(|error| failed("read", MAP_CIDRS4, error))?;
            if let Ok(net) = IpNet::new(IpAddr::from(key.data()), length(key.prefix_len())) {
                found.insert(net, class);
            }
        }
        Ok(found)
    }
}

/// A table number that no row has: whoever points to it allows nothing.
pub(super) const CLOSED_TABLE: u32 = TABLE_MASK;

/// An error with all its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Deleting what is not there has done what it should.
fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(SyscallError { io_error, .. }))
            if io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        other => other,
    }
}

fn read_meta(maps: &mut Maps, class_key: [u64; 2]) -> Result<Meta, DataplaneError> {
    let meta = maps.meta.get(&0, 0).map_err(|error| failed("read", MAP_META, error))?;
    match meta.abi {
        ABI_VERSION => Ok(meta),
        0 => {
            let fresh = Meta { abi: ABI_VERSION, armed: 0, class_key };
            maps.meta.set(0, fresh, 0).map_err(|error| failed("write to", MAP_META, error))?;
            Ok(fresh)
        }
        other => Err(DataplaneError::ForeignPin {
            path: PathBuf::from(MAP_META),
            found: format!("ABI version {other}"),
        }),
    }
}
