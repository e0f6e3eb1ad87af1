//! The kernel's state as the agent writes it: one owner of maps, endpoints and attachments.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use aya::{Ebpf, programs::SchedClassifier};
use enforcer_common::abi::{
    COUNTER_SLOTS, CtEntry, CtKey4, CtKey6, Direction, INTERVAL_SLOTS, Interval, MAP_CT4, MAP_CT6,
    MAP_META, Meta, PROG_NODE_EGRESS, PolicyWord, RowKey, TABLE_MASK,
};

use super::{
    AttachMode, DataplaneError,
    apply::{Applied, Pending},
    attach::{self, Attachment, Place},
    endpoints::{Endpoints, Quotas},
    input::Input,
    intervals::Allocator,
    kept::{self, Kept},
    maps::{self, Maps, RingMaps, failed},
    netlink::conntrack::KernelFlow,
    object::{self, Loaded, PinPaths, Sizes},
    program_pins,
    read::read_meta,
    release, sys,
    upgrade::{self, Predecessor},
    uplinks::Uplinks,
};
use crate::cluster::{
    NodeAddress,
    event::Interface,
    plan::{EndpointPlan, Plan},
};

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
    /// Virtual addresses and ports of Services that the node can know at once.
    pub service_entries: u32,
    /// Random, for the class hash of maps that are made now.
    pub class_key: [u64; 2],
}

/// The window in which replies of connections older than the agent are accepted where the node
/// tracks no connections.
pub const PICKUP_WINDOW: Duration = Duration::from_secs(60);

/// Maps, endpoints and attachments.
#[derive(Debug)]
pub struct Kernel {
    pub(super) maps: Maps,
    pub(super) ebpf: Ebpf,
    pub(super) pins: Option<PinPaths>,
    /// Maps and programs that are pinned.
    pub(super) kept: Vec<Kept>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) mode: AttachMode,
    /// This agent's programs and those of agents before.
    pub(super) our_programs: Vec<u32>,
    /// Those of them that say nothing of an interface but that it is no pod's.
    pub(super) outlet_programs: Vec<u32>,
    pub(super) programs: Vec<u32>,
    pub(super) intervals: Allocator,
    pub(super) rows: HashMap<RowKey, Arc<[Interval]>>,
    pub(super) endpoints: Endpoints,
    pub(super) attached: HashMap<u32, Attachment>,
    pub(super) uplinks: Uplinks,
    pub(super) input: Input,
    pub(super) quotas: Quotas,
    pub(super) sizes: Sizes,
    pub(super) pending: Pending,
    /// The agent before died with a plan half written.
    pub(super) interrupted: bool,
    /// As the map has them, and as it should.
    pub(super) node_addresses: BTreeMap<IpAddr, NodeAddress>,
    pub(super) wanted_node_addresses: BTreeMap<IpAddr, NodeAddress>,
    pub(super) meta: Meta,
    /// Flows to seed new endpoints with, while an arrival is under way.
    pub(super) arrival: Option<Arrival>,
    /// The version before, while it is in force.
    pub(super) predecessor: Option<Predecessor>,
}

/// What the agent found on its first arrival on a node.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) flows: Vec<KernelFlow>,
    pub(super) pickup_until: u64,
}

/// An endpoint as an earlier agent left it.
#[derive(Clone, Debug)]
pub struct FoundEndpoint {
    /// Host-side interface index.
    pub ifindex: u32,
    /// The addresses it was armed with.
    pub addresses: Vec<IpAddr>,
    /// Its pod was not known yet.
    pub starting: bool,
}

impl KernelConfig {
    const fn sizes(&self) -> Sizes {
        Sizes { conntrack: self.conntrack_entries, services: self.service_entries }
    }
}

/// Gives what was loaded its place among the pins; loaded anew where others' hands have changed them.
fn in_place(mut loaded: Loaded, pins: &PinPaths, sizes: Sizes) -> Result<Loaded, DataplaneError> {
    let Some(other) = loaded.place(pins)? else { return Ok(loaded) };
    tracing::info!(pin = %other.display(), "loading again: this map is another one now");
    loaded = Loaded::load(Some(pins), sizes)?;
    match loaded.place(pins)? {
        None => Ok(loaded),
        Some(path) => Err(DataplaneError::ForeignPin {
            path,
            found: "another map than a moment ago: somebody else makes pins here".to_owned(),
        }),
    }
}

impl Kernel {
    /// Has the kernel verify the programs, over an earlier agent's maps where there are any. Changes
    /// nothing on the node: to be called while another agent owns it.
    ///
    /// # Errors
    /// If the kernel refuses, or what is pinned is not this version's.
    pub fn prepare(config: &KernelConfig) -> Result<Loaded, DataplaneError> {
        if !sys::may_load() {
            return Err(DataplaneError::Privilege);
        }
        let pins = config.bpf_dir.as_deref().map(PinPaths::new);
        Loaded::load(pins.as_ref(), config.sizes())
    }

    /// Loads the object, over an earlier agent's pins where there are any.
    ///
    /// # Errors
    /// If the kernel refuses, pins cannot be made, or what is pinned is not this version's.
    pub fn open(config: &KernelConfig) -> Result<(Self, RingMaps), DataplaneError> {
        Self::open_prepared(config, None)
    }

    /// The same, with what was loaded before if it still fits what is pinned.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_prepared(
        config: &KernelConfig,
        prepared: Option<Loaded>,
    ) -> Result<(Self, RingMaps), DataplaneError> {
        if !sys::may_load() {
            return Err(DataplaneError::Privilege);
        }
        if let Some(warning) = release::warning() {
            tracing::warn!("{warning}");
        }
        // Before anything is made: what cannot be taken over is left as it is.
        let predecessor = match config.bpf_dir.as_deref() {
            Some(bpf_dir) => upgrade::find(bpf_dir)?,
            None => None,
        };
        let pins = config.bpf_dir.as_deref().map(PinPaths::new);
        if let Some(pins) = &pins {
            pins.create()?;
        }
        let loaded = match prepared {
            Some(loaded) => loaded,
            None => Loaded::load(pins.as_ref(), config.sizes())?,
        };
        let loaded = match &pins {
            Some(pins) => in_place(loaded, pins, config.sizes())?,
            None => loaded,
        };
        let Loaded { mut ebpf, input, sizes } = loaded;
        let (old_programs, programs) = match &pins {
            Some(pins) => program_pins::pin(&mut ebpf, pins)?,
            None => (Vec::new(), attach::program_ids(&mut ebpf)?),
        };
        let outlet_programs = match &pins {
            Some(pins) => program_pins::outlet_ids(&pins.programs)?,
            None => {
                let program = object::program(&mut ebpf, PROG_NODE_EGRESS)?;
                vec![attach::program_id(program, PROG_NODE_EGRESS)?]
            }
        };
        let kept = match &pins {
            Some(pins) => kept::open(pins, &programs)?,
            None => Vec::new(),
        };
        let (mut maps, rings) = maps::open(&mut ebpf)?;
        let meta = read_meta(&mut maps, config.class_key)?;
        let endpoints = Endpoints::read(&maps);
        let mut kernel = Self {
            maps,
            ebpf,
            pins,
            kept,
            state_dir: config.state_dir.clone(),
            mode: config.attach.resolve(),
            our_programs: [old_programs, programs.clone()].concat(),
            outlet_programs,
            programs,
            intervals: Allocator::new(INTERVAL_SLOTS),
            rows: HashMap::new(),
            endpoints,
            attached: HashMap::new(),
            uplinks: Uplinks::default(),
            input,
            quotas: Quotas {
                half: (sizes.conntrack / 16).max(64),
                established: (sizes.conntrack / 4).max(64),
            },
            sizes,
            pending: Pending::default(),
            interrupted: false,
            node_addresses: BTreeMap::new(),
            wanted_node_addresses: BTreeMap::new(),
            meta,
            arrival: None,
            predecessor,
        };
        kernel.interrupted = kernel.is_half_written();
        kernel.read_rows()?;
        kernel.begin_upgrade();
        kernel.node_addresses = kernel.node_addresses()?;
        kernel.wanted_node_addresses.clone_from(&kernel.node_addresses);
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
        self.meta.armed != 0 || self.predecessor.as_ref().is_some_and(|old| old.armed)
    }

    /// Whether programs that share these maps judge already: no earlier version's, which knows
    /// other marks.
    #[must_use]
    pub fn in_force(&self) -> bool {
        self.meta.armed != 0 && self.predecessor.is_none()
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
                starting: armed.starting,
            })
            .collect();
        let old = self.predecessor.iter().flat_map(|predecessor| &predecessor.endpoints);
        found.extend(
            old.filter(|(ifindex, _)| !self.endpoints.by_ifindex.contains_key(*ifindex)).map(
                |(ifindex, old)| FoundEndpoint {
                    ifindex: *ifindex,
                    addresses: old.addresses.clone(),
                    starting: false,
                },
            ),
        );
        found.sort_by_key(|endpoint| endpoint.ifindex);
        found
    }

    /// Notes that a whole plan is in force.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn set_armed(&mut self) -> Result<(), DataplaneError> {
        // What is kept too long is forgotten by the next agent.
        let _kept = self.forget_programs();
        self.begun();
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

    /// Closes an interface that was armed and that no object speaks for.
    pub(super) fn close(&mut self, ifindex: u32) {
        let Some(armed) = self.endpoints.by_ifindex.get(&ifindex).cloned() else {
            return;
        };
        let word =
            PolicyWord::new(CLOSED_TABLE, [true, true], armed.word.generation().wrapping_add(1));
        // Writing the same addresses writes nothing.
        let _same = self.endpoints.switch(&mut self.maps, ifindex, word, &armed.addresses);
        // The pod's namespace may have asked for audit; it is nobody's now.
        self.endpoints.audit(&self.maps, ifindex, self.audits_unknown());
    }

    /// Whether an interface is armed with the addresses that it has, or had: one that loses them
    /// keeps its name.
    #[must_use]
    pub fn knows_addresses(&self, interface: &Interface) -> bool {
        let now = &interface.peer_addresses;
        let armed = self.endpoints.by_ifindex.get(&interface.ifindex);
        armed.is_some_and(|armed| !armed.starting || now.is_empty() || armed.addresses == *now)
            && self.in_place(interface.ifindex)
    }

    /// Closes interfaces whose pods cannot be known yet: nothing passes but what the node sends.
    pub fn close_starting(&mut self, interfaces: &[Interface], audit: bool) -> Applied {
        let endpoint = |interface: &Interface| EndpointPlan {
            ifindex: interface.ifindex,
            interface: Arc::clone(&interface.name),
            addresses: interface.peer_addresses.clone(),
            table: CLOSED_TABLE,
            isolated: [true, true],
            audit,
            rejudge: false,
            starting: true,
        };
        // A record without programs is of an earlier interface under the same index: its flows and
        // its generation are not this one's.
        let indices = interfaces.iter().map(|interface| interface.ifindex);
        let earlier = indices.filter(|ifindex| !self.carries_ours(*ifindex)).collect();
        let mut applied = self.apply(&Plan { endpoints_removed: earlier, ..Plan::default() });
        let closed = self.apply(&Plan {
            endpoints_set: interfaces.iter().map(endpoint).collect(),
            ..Plan::default()
        });
        applied.failures.extend(closed.failures);
        applied.armed.extend(closed.armed);
        applied
    }

    /// Whether an interface has a program of ours, an earlier agent's included, however attached:
    /// then it is the one that was armed. An agent that died in the middle attached only one.
    #[must_use]
    pub fn carries_ours(&self, ifindex: u32) -> bool {
        attach::on_some_hook(&self.all_ours(), ifindex)
    }

    /// Whether an interface has programs of ours on both hooks.
    fn in_place(&self, ifindex: u32) -> bool {
        let ours = self.all_ours();
        [AttachMode::Tcx, AttachMode::Clsact]
            .into_iter()
            .any(|mode| attach::in_place(mode, &ours, ifindex))
    }

    fn all_ours(&self) -> Vec<u32> {
        let old = self.predecessor.iter().flat_map(|predecessor| &predecessor.programs);
        let pods = |id: &&u32| !self.outlet_programs.contains(id);
        self.our_programs.iter().filter(pods).chain(old).copied().collect()
    }

    /// Attaches what is missing where an earlier agent armed an interface and died between its two
    /// programs: until there is a plan its record is in force, in both directions.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn complete_attachment(
        &mut self,
        ifindex: u32,
        interface: &str,
    ) -> Result<(), DataplaneError> {
        let half = self.endpoints.by_ifindex.contains_key(&ifindex)
            && self.carries_ours(ifindex)
            && !self.in_place(ifindex);
        if half {
            self.attach(ifindex, interface)?;
        }
        Ok(())
    }

    /// Interfaces on which our programs are no longer where they were put.
    #[must_use]
    pub fn displaced(&self) -> Vec<u32> {
        let attached = self.attached.keys().copied();
        attached.filter(|ifindex| !attach::in_place(self.mode, &self.programs, *ifindex)).collect()
    }

    /// Other hands' programs on the hook of what a pod sends, by its interface, that run after ours:
    /// they can take the mark away by which a Service's backend is judged in the pod's name.
    #[must_use]
    pub fn marks_at_risk(&self) -> BTreeMap<u32, Vec<String>> {
        let ours = self.all_ours();
        let risk = |ifindex: &u32| (*ifindex, attach::after_ours(self.mode, &ours, *ifindex));
        self.attached.keys().map(risk).filter(|(_, after)| !after.is_empty()).collect()
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place {
            pins: self.pins.as_ref(),
            state_dir: self.state_dir.as_deref(),
            our_programs: &self.our_programs,
        }
    }

    /// Attaches again where our programs were displaced.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn reattach(&mut self, ifindex: u32, interface: &str) -> Result<(), DataplaneError> {
        // What is still in place is taken over by an atomic update, so there is no gap.
        self.attached.remove(&ifindex);
        self.attach(ifindex, interface).map(|_new| ())
    }

    /// Counters by index (see `abi::counter_index` and `abi::Spared`), summed over CPUs.
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

    /// Writes the conntrack entry of an IPv4 flow: for tests that need one of a certain age.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn set_flow4(&mut self, key: &CtKey4, entry: &CtEntry) -> Result<(), DataplaneError> {
        self.maps.ct4.insert(key, entry, 0).map_err(|error| failed("write to", MAP_CT4, error))
    }

    /// The conntrack entry of an IPv6 flow.
    #[must_use]
    pub fn flow6(&self, key: &CtKey6) -> Option<CtEntry> {
        self.maps.ct6.get(key, 0).ok()
    }

    /// The same for IPv6.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn set_flow6(&mut self, key: &CtKey6, entry: &CtEntry) -> Result<(), DataplaneError> {
        self.maps.ct6.insert(key, entry, 0).map_err(|error| failed("write to", MAP_CT6, error))
    }

    /// Flows of each family that the node can have at once.
    #[must_use]
    pub fn conntrack_entries(&self) -> u32 {
        self.sizes.conntrack
    }

    /// Virtual addresses and ports of Services that the node can know at once: as configured, or as
    /// many as an earlier agent's map has room for that holds more.
    #[must_use]
    pub fn service_entries(&self) -> u32 {
        self.sizes.services
    }

    /// Addresses of the node in their map.
    #[must_use]
    pub fn node_addresses_used(&self) -> usize {
        self.node_addresses.len()
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
}

/// A table number that no row has: whoever points to it allows nothing.
pub(super) const CLOSED_TABLE: u32 = TABLE_MASK;
