//! Taking over from an earlier version of the layouts, whose maps and programs are in force.
//!
//! At every instant each packet is judged by at least one version, and no allowed one is dropped:
//!
//! 1. Its endpoints are found as if they were ours, its flows are copied.
//! 2. Our programs are attached beside its own, as a shadow ([`EP_SHADOW`]): they drop nothing,
//!    and keep the flows that open from now on. Its programs enforce.
//! 3. Its flows are copied again: what had opened between 1 and 2, and what the shadow has taken
//!    for something else because it did not see its beginning.
//! 4. The shadow ends: both enforce. When every program that ran in it has returned, the
//!    predecessor's are detached, and at last its maps go.
//!
//! Copied flows carry a generation that the endpoint does not have, so each is judged by our
//! policy at its next packet, by the origin that the copy remembers. A start that is interrupted
//! anywhere goes on at the next one. Marks of senders mean the same in both versions, because an
//! endpoint keeps its slot.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    mem::offset_of,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use enforcer_common::abi::{
    ABI_VERSION, AddrKey, CT_ESTABLISHED, CT_REVOKED, CtEntry, CtEntryV1, CtKey4, CtKey6,
    ENDPOINT_SLOTS, EP_SHADOW, Endpoint, FragEntry, FragKey, MAP_CT4, MAP_CT6, MAP_ENDPOINTS,
    MAP_FRAGMENTS, MAP_META, MAP_POD_ADDRS, Meta, PolicyWord,
};

use super::{
    DataplaneError, Kernel, attach,
    endpoints::read_armed,
    kernel::CLOSED_TABLE,
    maps::{SHAPES, Shape, failed},
    netlink::{links::Links, rcu},
    object::{self, PinPaths},
    program_pins, remove,
    sys::SharedArray,
};
use crate::cluster::{
    KernelState,
    plan::{EndpointPlan, Plan},
};

/// An endpoint of the version before.
#[derive(Clone, Debug)]
pub(super) struct OldEndpoint {
    pub(super) slot: u32,
    pub(super) word: PolicyWord,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) pickup_until: u64,
}

impl OldEndpoint {
    /// The generation to go on with: none of its flows has it.
    pub(super) fn next_generation(&self) -> u32 {
        self.word.generation().wrapping_add(1)
    }
}

/// The version before, in force.
#[derive(Debug)]
pub(super) struct Predecessor {
    pins: PinPaths,
    pub(super) armed: bool,
    /// Ids of its programs.
    pub(super) programs: Vec<u32>,
    /// Its endpoints that are not ours alone yet, by interface index.
    pub(super) endpoints: BTreeMap<u32, OldEndpoint>,
    ct4: OldFlows<CtKey4>,
    ct6: OldFlows<CtKey6>,
    fragments: HashMap<MapData, FragKey, FragEntry>,
}

/// The predecessor's flows. An entry of version 1 is the first part of one of today; a map with
/// whole ones is of a build between the two.
#[derive(Debug)]
enum OldFlows<K: aya::Pod> {
    Old(HashMap<MapData, K, CtEntryV1>),
    Today(HashMap<MapData, K, CtEntry>),
}

impl<K: aya::Pod> OldFlows<K> {
    fn open(pins: &PinPaths, name: &'static str) -> Result<Self, DataplaneError> {
        let path = pins.maps.join(name);
        let old = Shape {
            name,
            kind: "Hash",
            key: size_of::<K>() as u32,
            value: size_of::<CtEntryV1>() as u32,
            entries: None,
        };
        if object::check_pin(&path, &old).is_ok() {
            let data = MapData::from_pin(&path).map_err(|source| failed("open", name, source))?;
            let map = Map::HashMap(data).try_into();
            return map.map(Self::Old).map_err(|source| failed("open", name, source));
        }
        open(pins, name, Map::HashMap).map(Self::Today)
    }

    /// What can be read of them.
    fn all(&self) -> Vec<(K, CtEntry)> {
        // An entry that is deleted meanwhile may make the walk start over: then it is there twice.
        match self {
            Self::Old(map) => {
                map.iter().flatten().map(|(key, entry)| (key, entry.into())).collect()
            }
            Self::Today(map) => map.iter().flatten().collect(),
        }
    }
}

/// What a step of taking over did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upgraded {
    /// Interfaces that are ours alone now.
    pub interfaces: usize,
    /// Flows copied.
    pub flows: usize,
    /// Flows for which there was no room.
    pub lost_flows: usize,
}

/// Version numbers of the pins under `bpf_dir` that something is in force by.
fn versions(bpf_dir: &Path) -> Result<Vec<(u32, PinPaths)>, DataplaneError> {
    let mut found = Vec::new();
    for folder in remove::entries(bpf_dir)? {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(version) = name.strip_prefix('v').and_then(|number| number.parse().ok()) else {
            continue;
        };
        let pins = PinPaths::of(bpf_dir, version);
        // It is the first to go: without it, what is left is on its way out.
        if pins.maps.join(MAP_META).exists() {
            found.push((version, pins));
        } else if version < ABI_VERSION {
            remove_pins(&pins)?;
        }
    }
    found.sort_unstable_by_key(|(version, _)| *version);
    Ok(found)
}

/// Another version than ours that is in force too; for processes that are no agent.
///
/// # Errors
/// If the folder of pins cannot be read.
pub fn other_version(bpf_dir: &Path) -> Result<Option<u32>, DataplaneError> {
    let mut others = remove::entries(bpf_dir)?.into_iter().filter_map(|folder| {
        let version = folder.file_name()?.to_str()?.strip_prefix('v')?.parse().ok()?;
        let in_force = PinPaths::of(bpf_dir, version).maps.join(MAP_META).exists();
        (version != ABI_VERSION && in_force).then_some(version)
    });
    Ok(others.next())
}

/// The version before ours, if one is in force. To be called before anything is made.
///
/// # Errors
/// If a newer version is in force, one that is not known, or pins that are not what they should
/// be: then nothing has been touched.
pub(super) fn find(bpf_dir: &Path) -> Result<Option<Predecessor>, DataplaneError> {
    let mut predecessor = None;
    for (version, pins) in versions(bpf_dir)? {
        match version {
            ABI_VERSION => {}
            1 => predecessor = Some(read_v1(pins)?),
            other => {
                return Err(DataplaneError::OtherVersion { path: pins.version, version: other });
            }
        }
    }
    Ok(predecessor)
}

/// Opens a pinned map after looking at its shape.
fn open<T: TryFrom<Map, Error = MapError>>(
    pins: &PinPaths,
    name: &'static str,
    variant: fn(MapData) -> Map,
) -> Result<T, DataplaneError> {
    let data = data(pins, name)?;
    T::try_from(variant(data)).map_err(|source| failed("open", name, source))
}

fn data(pins: &PinPaths, name: &'static str) -> Result<MapData, DataplaneError> {
    let path = pins.maps.join(name);
    // But for flows, version 1 has of the maps that are read here the layouts of today, but for
    // words that were zero. Whoever changes one gives the old one a shape of its own.
    if let Some(shape) = SHAPES.iter().find(|shape| shape.name == name) {
        object::check_pin(&path, shape)?;
    }
    MapData::from_pin(&path).map_err(|source| failed("open", name, source))
}

/// Reads what version 1 has in force.
fn read_v1(pins: PinPaths) -> Result<Predecessor, DataplaneError> {
    let meta: Array<MapData, Meta> = open(&pins, MAP_META, Map::Array)?;
    let meta = meta.get(&0, 0).map_err(|source| failed("read", MAP_META, source))?;
    if meta.abi > 1 {
        return Err(DataplaneError::ForeignPin {
            path: pins.maps.join(MAP_META),
            found: format!("ABI version {} in the place of version 1", meta.abi),
        });
    }
    let array =
        SharedArray::map(data(&pins, MAP_ENDPOINTS)?.fd(), ENDPOINT_SLOTS, size_of::<Endpoint>())?;
    let pod_addrs: HashMap<MapData, AddrKey, u8> = open(&pins, MAP_POD_ADDRS, Map::HashMap)?;
    let endpoints = read_armed(&array, &pod_addrs)
        .into_iter()
        .map(|(ifindex, armed)| {
            let pickup = array.u64(armed.slot, offset_of!(Endpoint, pickup_until));
            let old = OldEndpoint {
                slot: armed.slot,
                word: armed.word,
                addresses: armed.addresses,
                pickup_until: pickup.load(Ordering::Acquire),
            };
            (ifindex, old)
        })
        .collect();
    let programs = program_pins::ids(&pins.programs)?;
    Ok(Predecessor {
        armed: meta.armed != 0,
        programs,
        endpoints,
        ct4: OldFlows::open(&pins, MAP_CT4)?,
        ct6: OldFlows::open(&pins, MAP_CT6)?,
        fragments: open(&pins, MAP_FRAGMENTS, Map::LruHashMap)?,
        pins,
    })
}

/// Bits of a flow that say how it began.
const fn origin(entry: &CtEntry) -> u8 {
    entry.flags & !(CT_ESTABLISHED | CT_REVOKED)
}

/// Copies the flows of these interfaces that are missing, or of which we think otherwise.
fn copy_flows<K: aya::Pod>(
    from: &OldFlows<K>,
    to: &mut HashMap<MapData, K, CtEntry>,
    concerned: impl Fn(&K) -> bool,
    upgraded: &mut Upgraded,
) {
    for (key, entry) in from.all().into_iter().filter(|(key, _)| concerned(key)) {
        if to.get(&key, 0).is_ok_and(|ours| origin(&ours) == origin(&entry)) {
            continue;
        }
        match to.insert(key, entry, 0) {
            Ok(()) => upgraded.flows += 1,
            Err(_full) => upgraded.lost_flows += 1,
        }
    }
}

impl Kernel {
    /// Whether a version before ours still enforces on some interface.
    #[must_use]
    pub fn upgrading(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Keeps the predecessor's slots for its endpoints, and copies its flows.
    pub(super) fn begin_upgrade(&mut self) -> Upgraded {
        // A shadow of nobody would leave its interface open for good.
        for ifindex in self.endpoints.by_ifindex.keys() {
            if self.old_endpoint(*ifindex).is_none() {
                self.endpoints.end_shadow(&self.maps, *ifindex);
            }
        }
        let Some(predecessor) = &self.predecessor else {
            return Upgraded::default();
        };
        for (ifindex, old) in &predecessor.endpoints {
            self.endpoints.reserve(*ifindex, old.slot);
        }
        let all = predecessor.endpoints.keys().copied().collect();
        self.copy(&all)
    }

    fn copy(&mut self, interfaces: &BTreeSet<u32>) -> Upgraded {
        let mut upgraded = Upgraded::default();
        let Some(Predecessor { ct4, ct6, fragments, endpoints, .. }) = &self.predecessor else {
            return upgraded;
        };
        let maps = &mut self.maps;
        let four = |key: &CtKey4| interfaces.contains(&key.ifindex);
        copy_flows(ct4, &mut maps.ct4, four, &mut upgraded);
        let six = |key: &CtKey6| interfaces.contains(&key.ifindex);
        copy_flows(ct6, &mut maps.ct6, six, &mut upgraded);
        for (key, entry) in fragments.iter().flatten() {
            let Some(old) = endpoints.get(&key.ifindex) else { continue };
            // Later fragments follow a first one of the policy in force.
            if interfaces.contains(&key.ifindex) && entry.generation == old.word.generation() {
                let entry = FragEntry { generation: old.next_generation(), ..entry };
                // Without it the rest of one datagram is lost.
                let _refused = maps.fragments.insert(key, entry, 0);
            }
        }
        upgraded
    }

    /// Arms what the predecessor had armed and no object speaks for, with nothing allowed: its last
    /// policy must not stay in force, which nobody keeps up to date any more.
    pub(super) fn close_old_unclaimed(&mut self, desired: &KernelState) -> Vec<u32> {
        let Some(predecessor) = &self.predecessor else { return Vec::new() };
        let interfaces = Links::open().and_then(|mut links| links.dump()).unwrap_or_default();
        let closed: Vec<EndpointPlan> = interfaces
            .into_iter()
            .filter(|link| !desired.endpoints.contains_key(&link.ifindex))
            .filter(|link| !self.endpoints.by_ifindex.contains_key(&link.ifindex))
            .filter_map(|link| {
                let old = predecessor.endpoints.get(&link.ifindex)?;
                Some(EndpointPlan {
                    ifindex: link.ifindex,
                    interface: link.name,
                    addresses: old.addresses.clone(),
                    table: CLOSED_TABLE,
                    isolated: [true, true],
                    audit: self.audits_unknown(),
                    rejudge: false,
                    starting: false,
                })
            })
            .collect();
        let unclaimed = closed.iter().map(|endpoint| endpoint.ifindex).collect();
        // What fails is tried again.
        let _failures = self.apply(&Plan { endpoints_set: closed, ..Plan::default() });
        unclaimed
    }

    /// Ends what can be ended of taking over: interfaces on which our whole plan is in force
    /// become ours alone. To be called again as long as [`Self::upgrading`].
    ///
    /// # Errors
    /// If the predecessor's programs or pins cannot be removed.
    pub fn finish_upgrade(&mut self) -> Result<Upgraded, DataplaneError> {
        let Some(predecessor) = &self.predecessor else {
            return Ok(Upgraded::default());
        };
        let programs = predecessor.programs.clone();
        let mut carrying: BTreeSet<u32> = BTreeSet::new();
        for link in Links::open()?.dump()? {
            if attach::on_some_hook(&programs, link.ifindex) {
                carrying.insert(link.ifindex);
            }
        }
        // Where packets leave, ours is beside its own: it goes with the last of the pods'.
        let outlets: BTreeSet<u32> =
            carrying.iter().copied().filter(|ifindex| self.uplinks.has(*ifindex)).collect();
        carrying.retain(|ifindex| !outlets.contains(ifindex));
        // Those without an endpoint it had closed: they stay so until they have one of ours.
        let concerned = predecessor.endpoints.keys().chain(&carrying).copied();
        let ready: BTreeSet<u32> = concerned.filter(|ifindex| self.is_ours(*ifindex)).collect();
        let mut upgraded = self.copy(&ready);
        for ifindex in &ready {
            self.endpoints.end_shadow(&self.maps, *ifindex);
        }
        // A packet that the shadow let through is still to be judged by the predecessor.
        rcu::grace_period();
        for ifindex in &ready {
            self.detach_predecessor(*ifindex, &programs)?;
        }
        upgraded.interfaces = ready.len();
        if let Some(predecessor) = &mut self.predecessor {
            predecessor.endpoints.retain(|ifindex, _| !ready.contains(ifindex));
            if predecessor.endpoints.is_empty() && carrying.is_subset(&ready) {
                for ifindex in &outlets {
                    remove::delete_filters(*ifindex, &programs)?;
                }
                remove_pins(&predecessor.pins)?;
                self.predecessor = None;
            }
        }
        if !ready.is_empty() {
            // The copies are counted by nobody yet.
            self.sweep();
        }
        Ok(upgraded)
    }

    /// Whether the whole of our plan is in force on an interface.
    fn is_ours(&self, ifindex: u32) -> bool {
        self.endpoints.by_ifindex.get(&ifindex).is_some_and(|armed| !armed.locked)
            && self.is_attached(ifindex)
            && !self.pending.endpoints.contains_key(&ifindex)
    }

    fn detach_predecessor(&self, ifindex: u32, programs: &[u32]) -> Result<(), DataplaneError> {
        if let Some(predecessor) = &self.predecessor {
            for pin in attach::link_paths(&predecessor.pins, ifindex) {
                remove::delete(&pin)?;
            }
        }
        remove::delete_filters(ifindex, programs)
    }

    /// Forgets an endpoint of the predecessor whose interface is gone. Returns its slot.
    pub(super) fn forget_predecessors(&mut self, ifindex: u32) -> Option<u32> {
        let old = self.predecessor.as_mut()?.endpoints.remove(&ifindex)?;
        self.endpoints.release(ifindex);
        Some(old.slot)
    }

    /// Flags of a new endpoint that takes over from the predecessor's.
    pub(super) fn shadow_flag(&self, ifindex: u32) -> u32 {
        if self.old_endpoint(ifindex).is_some() { EP_SHADOW } else { 0 }
    }

    /// The predecessor's endpoint of an interface.
    pub(super) fn old_endpoint(&self, ifindex: u32) -> Option<&OldEndpoint> {
        self.predecessor.as_ref()?.endpoints.get(&ifindex)
    }
}

/// Removes a version's pins and folders. What says that it is in force first: with that and without
/// the rest, no agent could start any more.
fn remove_pins(pins: &PinPaths) -> Result<(), DataplaneError> {
    remove::delete(&pins.maps.join(MAP_META))?;
    for folder in [&pins.links, &pins.programs, &pins.maps] {
        for pin in remove::entries(folder)? {
            remove::delete(&pin)?;
        }
    }
    for folder in [&pins.links, &pins.programs, &pins.maps, &pins.version] {
        remove_folder(folder)?;
    }
    Ok(())
}

fn remove_folder(path: &PathBuf) -> Result<(), DataplaneError> {
    match fs::remove_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DataplaneError::Io { operation: "delete the folder", path: path.clone(), source })
        }
        _ => Ok(()),
    }
}
