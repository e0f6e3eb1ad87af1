//! The maps, by the names and layouts of `enforcer_common::abi`.
//!
//! Sizes here are what a test load gets; the agent sets those that depend on the node.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use enforcer_common::abi::{
    Addr, AddrKey, Backend, COUNTER_SLOTS, Cidr4, Cidr6, ClassId, Closed, Control, CtEntry, CtKey4,
    CtKey6, DROP_SLOTS, DropSlot, ENDPOINT_SLOTS, Endpoint, EndpointState, FragEntry, FragKey,
    INTERVAL_SLOTS, Interval, Meta, NODE_ADDRESSES, Peer, Row, RowKey, Service, ServiceKey, lane,
};

use crate::state::State;

// An update of a hash map replaces the element as a whole (RCU), so a reader sees the old value or the
// new one. What only the agent writes is not preallocated: memory follows use. The flows are: what
// a packet waits for would else be memory from the kernel's allocator, the dearest part of a new flow.

#[map]
pub(crate) static ENDPOINTS: Array<Endpoint> =
    Array::with_max_entries(ENDPOINT_SLOTS, BPF_F_MMAPABLE);
#[map]
pub(crate) static ENDPOINT_STATE: Array<EndpointState> =
    Array::with_max_entries(ENDPOINT_SLOTS, BPF_F_MMAPABLE);
#[map]
pub(crate) static IFINDEX_SLOT: HashMap<u32, u32> =
    HashMap::with_max_entries(ENDPOINT_SLOTS, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static POD_ADDRS: HashMap<AddrKey, u8> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static NODE_ADDRS: HashMap<Addr, u8> =
    HashMap::with_max_entries(NODE_ADDRESSES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static PEERS: HashMap<Addr, Peer> =
    HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static CIDRS4: LpmTrie<Cidr4, ClassId> =
    LpmTrie::with_max_entries(65_536, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static CIDRS6: LpmTrie<Cidr6, ClassId> =
    LpmTrie::with_max_entries(65_536, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static ROWS: HashMap<RowKey, Row> =
    HashMap::with_max_entries(524_288, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static INTERVALS: Array<Interval> = Array::with_max_entries(INTERVAL_SLOTS, 0);
#[map]
pub(crate) static CT4: HashMap<CtKey4, CtEntry> = HashMap::with_max_entries(16_384, 0);
#[map]
pub(crate) static CT6: HashMap<CtKey6, CtEntry> = HashMap::with_max_entries(16_384, 0);
#[map]
pub(crate) static SERVICES: HashMap<ServiceKey, Service> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static BACKENDS: HashMap<CtKey6, Backend> =
    HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);
/// Where a key of [`BACKENDS`] is put together; nobody else looks at it.
#[map]
pub(crate) static BACKEND_KEY: PerCpuArray<CtKey6> = PerCpuArray::with_max_entries(1, 0);
/// The packet in hand as its sender's; nobody else looks at it.
#[map]
pub(crate) static SENDER: PerCpuArray<State> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static FRAGMENTS: LruHashMap<FragKey, FragEntry> =
    LruHashMap::with_max_entries(16_384, 0);
#[map]
pub(crate) static DROPS: Array<DropSlot> = Array::with_max_entries(DROP_SLOTS, BPF_F_MMAPABLE);
/// Where a new flow's entry is put together; nobody else looks at it.
#[map]
pub(crate) static ENTRY: PerCpuArray<CtEntry> = PerCpuArray::with_max_entries(1, 0);
/// Where what is told is put together; nobody else looks at it.
#[map]
pub(crate) static EVENT: PerCpuArray<Closed> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static CONTROL: Array<Control> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_SLOTS, 0);
#[map]
pub(crate) static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(lane::SLOTS, 0);
#[map]
pub(crate) static VERDICT_RING: RingBuf = RingBuf::with_byte_size(4 << 20, 0);
#[map]
pub(crate) static TRACE_RING: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
/// Only the agent reads it; named here so that the object carries its layout.
#[map]
pub(crate) static META: Array<Meta> = Array::with_max_entries(1, 0);
