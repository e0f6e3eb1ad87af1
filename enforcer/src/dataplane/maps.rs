//! The maps by their types, and the shapes that pins are checked against.

use std::{fmt, net::IpAddr, os::fd::AsFd as _, path::Path, sync::mpsc::Receiver};

use aya::sys::SyscallError;
use aya::{
    Ebpf, Pod,
    maps::{
        Array, HashMap, IterableMap, LpmTrie, Map, MapData, MapError, MapInfo, PerCpuArray,
        RingBuf, lpm_trie::Key,
    },
};
use enforcer_common::abi::{
    self, Addr, AddrKey, Backend, COUNTER_SLOTS, Cidr4, Cidr6, ClassId, Closed, Control, CtEntry,
    CtKey4, CtKey6, DROP_SLOTS, DropSlot, ENDPOINT_SLOTS, Endpoint, EndpointState, FragEntry,
    FragKey, INTERVAL_SLOTS, Interval, Meta, Peer, Row, RowKey, Service, ServiceKey, lane,
};
use ipnet::IpNet;

use super::{
    DataplaneError,
    closings::Closings,
    drops::DropTable,
    sys::{self, SharedArray},
};

/// What a pinned map must look like.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    /// As `aya::maps::MapType` prints it.
    pub(super) kind: &'static str,
    pub(super) key: u32,
    pub(super) value: u32,
    /// Number of entries where the programs rely on it; else an older pin may keep its own.
    pub(super) entries: Option<u32>,
}

const fn shape<K, V>(name: &'static str, kind: &'static str, entries: Option<u32>) -> Shape {
    Shape { name, kind, key: size_of::<K>() as u32, value: size_of::<V>() as u32, entries }
}

/// All maps of the object.
pub(super) const SHAPES: &[Shape] = &[
    shape::<u32, Endpoint>(abi::MAP_ENDPOINTS, "Array", Some(ENDPOINT_SLOTS)),
    shape::<u32, EndpointState>(abi::MAP_ENDPOINT_STATE, "Array", Some(ENDPOINT_SLOTS)),
    shape::<u32, u32>(abi::MAP_IFINDEX_SLOT, "Hash", None),
    shape::<AddrKey, u8>(abi::MAP_POD_ADDRS, "Hash", None),
    shape::<Addr, u8>(abi::MAP_NODE_ADDRS, "Hash", None),
    shape::<Addr, Peer>(abi::MAP_PEERS, "Hash", None),
    shape::<ServiceKey, Service>(abi::MAP_SERVICES, "Hash", None),
    shape::<Key<Cidr4>, ClassId>(abi::MAP_CIDRS4, "LpmTrie", None),
    shape::<Key<Cidr6>, ClassId>(abi::MAP_CIDRS6, "LpmTrie", None),
    shape::<RowKey, Row>(abi::MAP_ROWS, "Hash", None),
    shape::<u32, Interval>(abi::MAP_INTERVALS, "Array", Some(INTERVAL_SLOTS)),
    shape::<CtKey4, CtEntry>(abi::MAP_CT4, "Hash", None),
    shape::<CtKey6, CtEntry>(abi::MAP_CT6, "Hash", None),
    shape::<CtKey6, Backend>(abi::MAP_BACKENDS, "Hash", None),
    shape::<FragKey, FragEntry>(abi::MAP_FRAGMENTS, "LruHash", None),
    shape::<u32, DropSlot>(abi::MAP_DROPS, "Array", Some(DROP_SLOTS)),
    shape::<u32, Control>(abi::MAP_CONTROL, "Array", Some(1)),
    shape::<u32, u64>(abi::MAP_COUNTERS, "PerCpuArray", Some(COUNTER_SLOTS)),
    shape::<u32, u64>(abi::MAP_LOST, "PerCpuArray", Some(lane::SLOTS)),
    Shape { name: abi::MAP_VERDICT_RING, kind: "RingBuf", key: 0, value: 0, entries: None },
    Shape { name: abi::MAP_TRACE_RING, kind: "RingBuf", key: 0, value: 0, entries: None },
    shape::<u32, Meta>(abi::MAP_META, "Array", Some(1)),
];

/// The maps that the agent writes or reads.
pub(super) struct Maps {
    pub(super) endpoints: SharedArray,
    pub(super) endpoint_state: SharedArray,
    pub(super) ifindex_slot: HashMap<MapData, u32, u32>,
    pub(super) pod_addrs: HashMap<MapData, AddrKey, u8>,
    pub(super) node_addrs: HashMap<MapData, Addr, u8>,
    pub(super) peers: HashMap<MapData, Addr, Peer>,
    pub(super) services: HashMap<MapData, ServiceKey, Service>,
    pub(super) cidrs4: LpmTrie<MapData, Cidr4, ClassId>,
    pub(super) cidrs6: LpmTrie<MapData, Cidr6, ClassId>,
    pub(super) rows: HashMap<MapData, RowKey, Row>,
    pub(super) intervals: Array<MapData, Interval>,
    pub(super) ct4: HashMap<MapData, CtKey4, CtEntry>,
    pub(super) ct6: HashMap<MapData, CtKey6, CtEntry>,
    pub(super) backends: HashMap<MapData, CtKey6, Backend>,
    pub(super) control: SharedArray,
    pub(super) fragments: HashMap<MapData, FragKey, FragEntry>,
    pub(super) counters: PerCpuArray<MapData, u64>,
    pub(super) lost: PerCpuArray<MapData, u64>,
    pub(super) meta: Array<MapData, Meta>,
    pub(super) closings: Closings,
}

/// Where events come from: the two rings, the table of drops, and what [`Maps`]' owner finds to be
/// over.
pub struct RingMaps {
    pub(super) verdicts: RingBuf<MapData>,
    pub(super) traces: RingBuf<MapData>,
    pub(super) drops: DropTable,
    pub(super) closed: Receiver<Closed>,
}

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maps").finish_non_exhaustive()
    }
}

impl fmt::Debug for RingMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingMaps").finish_non_exhaustive()
    }
}

/// What the library has of a map, whatever its type; `None` for types that the object has not.
pub(super) fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

/// The kernel's number of a map.
pub(super) fn id(map: &Map, name: &'static str) -> Result<u32, DataplaneError> {
    let data = data(map).ok_or(DataplaneError::Missing { what: "map", name })?;
    data.info().map(|info| info.id()).map_err(|source| failed("read", name, source))
}

/// That of the map that is pinned there.
pub(super) fn pinned_id(path: &Path, name: &'static str) -> Result<u32, DataplaneError> {
    let info = MapInfo::from_pin(path).map_err(|source| failed("open", name, source))?;
    Ok(info.id())
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, DataplaneError> {
    ebpf.take_map(name).ok_or(DataplaneError::Missing { what: "map", name })
}

/// Takes a map out of the object under its type.
fn typed<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, DataplaneError>
where
    T: TryFrom<Map, Error = MapError>,
{
    T::try_from(take(ebpf, name)?).map_err(|source| failed("open", name, source))
}

fn shared(
    ebpf: &mut Ebpf,
    name: &'static str,
    entries: u32,
    stride: usize,
) -> Result<SharedArray, DataplaneError> {
    match take(ebpf, name)? {
        Map::Array(data) => SharedArray::map(data.fd(), entries, stride),
        _ => Err(DataplaneError::Missing { what: "array map", name }),
    }
}

/// The same map once more, for another thread.
pub(super) fn second_handle<K: Pod, V: Pod>(
    map: &HashMap<MapData, K, V>,
    name: &'static str,
) -> Result<HashMap<MapData, K, V>, DataplaneError> {
    let fd = IterableMap::map(map).fd().as_fd().try_clone_to_owned();
    let fd =
        fd.map_err(|source| DataplaneError::System { operation: "duplicating a map", source })?;
    let data = MapData::from_fd(fd).map_err(|source| failed("open", name, source))?;
    HashMap::try_from(Map::HashMap(data)).map_err(|source| failed("open", name, source))
}

/// Says which operation on which map failed.
pub(super) fn failed(
    operation: &'static str,
    map: &'static str,
    source: MapError,
) -> DataplaneError {
    DataplaneError::Map { operation, map, source: Box::new(source) }
}

/// Takes all maps out of a loaded object.
pub(super) fn open(ebpf: &mut Ebpf) -> Result<(Maps, RingMaps), DataplaneError> {
    let (closings, closed) = Closings::new();
    let drops = shared(ebpf, abi::MAP_DROPS, DROP_SLOTS, size_of::<DropSlot>())?;
    let maps = Maps {
        endpoints: shared(ebpf, abi::MAP_ENDPOINTS, ENDPOINT_SLOTS, size_of::<Endpoint>())?,
        endpoint_state: shared(
            ebpf,
            abi::MAP_ENDPOINT_STATE,
            ENDPOINT_SLOTS,
            size_of::<EndpointState>(),
        )?,
        ifindex_slot: typed(ebpf, abi::MAP_IFINDEX_SLOT)?,
        pod_addrs: typed(ebpf, abi::MAP_POD_ADDRS)?,
        node_addrs: typed(ebpf, abi::MAP_NODE_ADDRS)?,
        peers: typed(ebpf, abi::MAP_PEERS)?,
        services: typed(ebpf, abi::MAP_SERVICES)?,
        cidrs4: typed(ebpf, abi::MAP_CIDRS4)?,
        cidrs6: typed(ebpf, abi::MAP_CIDRS6)?,
        rows: typed(ebpf, abi::MAP_ROWS)?,
        intervals: typed(ebpf, abi::MAP_INTERVALS)?,
        ct4: typed(ebpf, abi::MAP_CT4)?,
        ct6: typed(ebpf, abi::MAP_CT6)?,
        backends: typed(ebpf, abi::MAP_BACKENDS)?,
        control: shared(ebpf, abi::MAP_CONTROL, 1, size_of::<Control>())?,
        fragments: typed(ebpf, abi::MAP_FRAGMENTS)?,
        counters: typed(ebpf, abi::MAP_COUNTERS)?,
        lost: typed(ebpf, abi::MAP_LOST)?,
        meta: typed(ebpf, abi::MAP_META)?,
        closings,
    };
    let rings = RingMaps {
        verdicts: typed(ebpf, abi::MAP_VERDICT_RING)?,
        traces: typed(ebpf, abi::MAP_TRACE_RING)?,
        drops: DropTable::new(drops, sys::monotonic()),
        closed,
    };
    Ok((maps, rings))
}

/// An address as the maps hold it.
#[must_use]
pub(crate) fn addr(ip: IpAddr) -> Addr {
    match ip {
        IpAddr::V4(ip) => Addr::v4(u32::from_ne_bytes(ip.octets())),
        IpAddr::V6(ip) => Addr::from_octets(ip.octets()),
    }
}

/// An address as people read it.
#[must_use]
pub(crate) fn ip(addr: Addr) -> IpAddr {
    if addr.is_v4() { IpAddr::from(addr.0[3].to_ne_bytes()) } else { IpAddr::from(addr.octets()) }
}

impl Maps {
    /// Writes a prefix's class.
    pub(super) fn set_cidr(&mut self, net: IpNet, class: ClassId) -> Result<(), MapError> {
        let length = u32::from(net.prefix_len());
        match net {
            IpNet::V4(net) => {
                self.cidrs4.insert(&Key::new(length, net.network().octets()), class, 0)
            }
            IpNet::V6(net) => {
                self.cidrs6.insert(&Key::new(length, net.network().octets()), class, 0)
            }
        }
    }

    /// Removes a prefix.
    pub(super) fn remove_cidr(&mut self, net: IpNet) -> Result<(), MapError> {
        let length = u32::from(net.prefix_len());
        match net {
            IpNet::V4(net) => self.cidrs4.remove(&Key::new(length, net.network().octets())),
            IpNet::V6(net) => self.cidrs6.remove(&Key::new(length, net.network().octets())),
        }
    }
}

/// Deleting what is not there has done what it should.
pub(super) fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
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
