//! The contract between the kernel half and the host half: map names, keys, values, events.
//!
//! Every struct is `repr(C)` without implicit padding (checked at compile time below), so that a
//! byte image of it is the same on both sides. Addresses are in network byte order as they stand
//! in the packet; ports are host order. Any change of a layout or of a number's meaning moves
//! [`ABI_VERSION`], which is part of the pin path: an agent never opens maps of another version.

pub use crate::{
    drops::{
        DROP_COARSE_SLOTS, DROP_FINE_SLOTS, DROP_REGION, DROP_SLOTS, DROP_WAYS, DropSlot,
        TELL_AGAIN, TELL_SPARED_AGAIN, drop_state,
    },
    entry::{
        CT_AUDITED, CT_ESTABLISHED, CT_FROM_NODE, CT_FROM_POD, CT_HAIRPIN, CT_MASQUERADED,
        CT_REVOKED, CT_SERVICE, CT_SERVICE_LOCAL, CT_SERVICE_NODE, CT_UNKNOWN_ORIGIN, CtEntry,
        CtEntryV1, CtKey4, CtKey6, Traffic,
    },
    event::{
        Closed, EVENT_AUDIT, EVENT_DISABLED, EVENT_MASQUERADED, EVENT_REPLY, EVENT_REVOKED,
        EVENT_TRANSLATED, EVENT_UNPARSED, Event, Totals, event_kind,
    },
    service::{
        ANY_NODE_ADDRESS, Backend, ClassPort, MARK_JUDGE, MARK_SERVICE, MARK_SLOT, MARK_TELL,
        NODE_BACKENDS, NODE_SERVES_PORTS, NodeBackend, REST_OF_SERVICES, SERVICE_PAIRS, SVC_GONE,
        SVC_NODE_MANY, SVC_OTHERS, Service, ServiceKey,
    },
    word::{PolicyWord, TABLE_MASK},
};

/// Version of everything in this module.
pub const ABI_VERSION: u32 = 2;

/// Slots in [`MAP_ENDPOINTS`]. An endpoint's slot is its number in `skb->tc_index` (16 bits) and
/// slot 0 is never used, because 0 is what an untouched `tc_index` holds.
pub const ENDPOINT_SLOTS: u32 = 4096;
/// Addresses that the node itself can have: a proxy may give it every virtual address of Services.
pub const NODE_ADDRESSES: u32 = 65_536;
/// Intervals that all rows together can have.
pub const INTERVAL_SLOTS: u32 = 1 << 19;
/// Most intervals one row can have: every port of three protocols alone, and the rest.
pub const MAX_ROW_INTERVALS: u32 = 1 << 18;

/// Array of [`Endpoint`], memory-mapped by the agent so that one store switches a table.
pub const MAP_ENDPOINTS: &str = "ENDPOINTS";
/// Array of [`EndpointState`], parallel to [`MAP_ENDPOINTS`], written by the programs.
pub const MAP_ENDPOINT_STATE: &str = "ENDPOINT_STATE";
/// Hash from interface index (u32) to slot (u32), for indices whose natural slot is taken.
pub const MAP_IFINDEX_SLOT: &str = "IFINDEX_SLOT";
/// Hash from [`AddrKey`] to `u8` (1): a pod's addresses beyond the two in [`Endpoint`].
pub const MAP_POD_ADDRS: &str = "POD_ADDRS";
/// Hash from [`Addr`] to `u8` (1, and [`NODE_SERVES_PORTS`] where it applies): the node's own
/// addresses.
pub const MAP_NODE_ADDRS: &str = "NODE_ADDRS";
/// Hash from [`Addr`] to [`Peer`]: pods' addresses.
pub const MAP_PEERS: &str = "PEERS";
/// Hash from [`ServiceKey`] to [`Service`].
pub const MAP_SERVICES: &str = "SERVICES";
/// Hash from [`CtKey6`] (IPv4 addresses as in [`Addr`]) to [`Backend`].
pub const MAP_BACKENDS: &str = "BACKENDS";
/// LPM trie from IPv4 prefix to [`ClassId`].
pub const MAP_CIDRS4: &str = "CIDRS4";
/// LPM trie from IPv6 prefix to [`ClassId`].
pub const MAP_CIDRS6: &str = "CIDRS6";
/// Hash from [`RowKey`] to [`Row`].
pub const MAP_ROWS: &str = "ROWS";
/// Array of [`Interval`].
pub const MAP_INTERVALS: &str = "INTERVALS";
/// Hash from [`CtKey4`] to [`CtEntry`].
pub const MAP_CT4: &str = "CT4";
/// Hash from [`CtKey6`] to [`CtEntry`].
pub const MAP_CT6: &str = "CT6";
/// LRU hash from [`FragKey`] to [`FragEntry`].
pub const MAP_FRAGMENTS: &str = "FRAGMENTS";
/// Array of [`DropSlot`], memory-mapped: drops by tuple, so that a storm of them is few events.
pub const MAP_DROPS: &str = "DROPS";
/// Array of one [`Control`], memory-mapped.
pub const MAP_CONTROL: &str = "CONTROL";
/// Per-CPU array of `u64`, indexed by [`counter_index`] and [`Spared::counter_index`].
pub const MAP_COUNTERS: &str = "COUNTERS";
/// Per-CPU array of `u64`: events lost because a ring was full by [`lane`], then those that were
/// not told because nobody wants them ([`lane::UNTOLD`]).
pub const MAP_LOST: &str = "LOST";
/// Ring of [`Event`]: verdicts and drops.
pub const MAP_VERDICT_RING: &str = "VERDICT_RING";
/// Ring of [`Event`] and [`Closed`]: replies seen, connections closing and flows that are over.
pub const MAP_TRACE_RING: &str = "TRACE_RING";
/// Array of one [`Meta`].
pub const MAP_META: &str = "META";

/// Program on a host-side interface's TC ingress: what the pod sends.
pub const PROG_POD_EGRESS: &str = "pod_egress";
/// Program on a host-side interface's TC egress: what the pod receives.
pub const PROG_POD_INGRESS: &str = "pod_ingress";
/// Program on the TC egress of every other interface: what can only be judged after translation.
pub const PROG_NODE_EGRESS: &str = "node_egress";
/// Program of netfilter where the node takes packets in for itself: the same for its processes.
pub const PROG_NODE_INPUT: &str = "node_input";

/// An address class: a hash of the set of selectors and CIDRs that an address matches. 0 is the
/// class of an address that matches none, and the key of a table's fallback row.
pub type ClassId = u64;
/// A verdict table: one pod's whole policy, both directions. Not reused while referenced; 30 bits.
pub type TableId = u32;
/// A rule, for attribution. Small numbers are [`rule`]'s.
pub type RuleId = u32;
/// A slot in [`MAP_ENDPOINTS`].
pub type EndpointId = u16;

/// Rule numbers that belong to no policy object.
pub mod rule {
    use super::RuleId;

    /// No rule.
    pub const NONE: RuleId = 0;
    /// No policy isolates the pod in this direction.
    pub const NOT_ISOLATED: RuleId = 1;
    /// The pod's own node is always allowed in.
    pub const FROM_NODE: RuleId = 2;
    /// A pod reaches itself.
    pub const HAIRPIN: RuleId = 3;
    /// Default deny: a policy isolates the pod and no rule allows.
    pub const DEFAULT_DENY: RuleId = 4;
    /// First number given to rules of policies.
    pub const FIRST_DYNAMIC: RuleId = 16;
}

/// Direction of a packet as seen from the pod.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Direction {
    /// Towards the pod.
    Ingress = 0,
    /// From the pod.
    Egress = 1,
}

impl Direction {
    /// Both, in the order of their numbers.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The other one.
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Self::Ingress => Self::Egress,
            Self::Egress => Self::Ingress,
        }
    }
}

/// Index into [`MAP_COUNTERS`] for a reason and a direction.
#[must_use]
pub const fn counter_index(reason: u8, direction: Direction) -> u32 {
    (reason as u32) * 2 + (direction as u32)
}

/// Counters of one block of [`MAP_COUNTERS`]: a reason and a direction each.
const COUNTER_BLOCK: u32 = crate::reason::REASON_SLOTS * 2;

/// Entries of [`MAP_COUNTERS`]: what happened to packets, then what would have happened to those
/// that were [`Spared`].
pub const COUNTER_SLOTS: u32 = COUNTER_BLOCK * 3;

/// Why a packet passed that would have been dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Spared {
    /// The endpoint is in audit.
    Audit = 1,
    /// Enforcement is switched off for a time.
    Disabled = 2,
}

impl Spared {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Audit, Self::Disabled];

    /// Index into [`MAP_COUNTERS`] for the reason for which a packet would have been dropped.
    #[must_use]
    #[inline(always)]
    pub const fn counter_index(self, reason: u8, direction: Direction) -> u32 {
        COUNTER_BLOCK * (self as u32) + counter_index(reason, direction)
    }
}

/// Lane numbers of [`MAP_LOST`].
pub mod lane {
    /// Verdicts and drops.
    pub const VERDICT: u32 = 0;
    /// Traces.
    pub const TRACE: u32 = 1;
    /// Number of lanes.
    pub const COUNT: u32 = 2;
    /// Added to a lane: its events that were not told, by [`super::Control`]'s wish.
    pub const UNTOLD: u32 = COUNT;
    /// Entries of [`super::MAP_LOST`].
    pub const SLOTS: u32 = COUNT * 2;
}

/// [`Endpoint::flags`]: `addr4` holds an address.
pub const EP_ADDR4: u32 = 1;
/// [`Endpoint::flags`]: `addr6` holds an address.
pub const EP_ADDR6: u32 = 2;
/// [`Endpoint::flags`]: more addresses are in [`MAP_POD_ADDRS`].
pub const EP_MORE_ADDRS: u32 = 4;
/// [`Endpoint::flags`]: the plan could not be written whole; isolated directions take no new flow.
pub const EP_LOCKED: u32 = 8;

/// [`Endpoint::flags`]: nothing is dropped; what would be is counted and told as audited.
pub const EP_AUDIT: u32 = 16;
/// [`Endpoint::flags`]: the programs of the version before still enforce on this interface; ours
/// keep flows, drop nothing and tell no drop.
pub const EP_SHADOW: u32 = 32;
/// [`Endpoint::flags`]: the pod's policy is not known yet, and its addresses may not be either: until
/// they are, it may find its neighbours all the same.
pub const EP_STARTING: u32 = 64;

/// What the programs know of one local pod interface. Written by the agent only, but for
/// `disabled_until`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Endpoint {
    /// The policy in force; see [`PolicyWord`].
    pub policy: u64,
    /// Host-side interface index; 0 means that the slot is free.
    pub ifindex: u32,
    /// `EP_…` bits.
    pub flags: u32,
    /// The pod's first IPv4 address, network byte order.
    pub addr4: u32,
    /// Half-open and one-way flows the endpoint may have at once.
    pub quota_half: u32,
    /// The pod's first IPv6 address, network byte order.
    pub addr6: [u32; 4],
    /// Until then (`CLOCK_MONOTONIC`, ns) replies of connections older than the agent are
    /// accepted; 0 for never.
    pub pickup_until: u64,
    /// Established flows the endpoint may have at once.
    pub quota_established: u32,
    /// Zero.
    pub _pad: u32,
    /// Until then (`CLOCK_MONOTONIC`, ns) nothing is dropped: enforcement is switched off for this
    /// endpoint. 0 for never. Written by whoever switches it off; the agent only clears it for a
    /// new pod.
    pub disabled_until: u64,
}

/// What holds for the whole node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Control {
    /// Until then (`CLOCK_MONOTONIC`, ns) nothing is dropped on this node; 0 for never. Not the
    /// agent's to write.
    pub disabled_until: u64,
    /// `CONTROL_…` bits, written by the agent.
    pub flags: u32,
    /// One of so many allowed flows is told ([`crate::sample`]); 0 and 1 mean all.
    pub sampling: u32,
}

/// [`Control::flags`]: interfaces without an endpoint are in audit.
pub const CONTROL_AUDIT: u32 = 1;
/// [`Control::flags`]: a plan is not in the maps whole yet. For the agent only: one that finds it was
/// preceded by one that died in the middle.
pub const CONTROL_WRITING: u32 = 2;
/// [`Control::flags`]: packets may leave by an interface without [`PROG_NODE_EGRESS`].
pub const CONTROL_UNCOVERED: u32 = 4;
/// [`Control::flags`]: there is, or was a moment ago, an entry [`REST_OF_SERVICES`].
pub const CONTROL_REST: u32 = 8;
/// [`Control::flags`]: replies, closing connections and flows that are over are not told.
pub const CONTROL_NO_TRACES: u32 = 16;
/// [`Control::flags`]: allowed flows are not told.
pub const CONTROL_NO_VERDICTS: u32 = 32;
/// [`Control::flags`]: drops are not told.
pub const CONTROL_NO_DROPS: u32 = 64;

/// What the programs write about one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct EndpointState {
    /// Half-open and one-way flows now (kept exact by the agent's sweep).
    pub half: i64,
    /// Established flows now.
    pub established: i64,
    /// Last packet towards the pod, to about a second (`CLOCK_MONOTONIC`, ns).
    pub last_ingress: u64,
    /// Last packet from the pod, likewise.
    pub last_egress: u64,
}

/// An address of either family; IPv4 as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2). Network byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Addr(pub [u32; 4]);

impl Addr {
    /// The third word of every IPv4 address in this form.
    pub const V4_PREFIX: u32 = u32::from_be(0xffff);

    /// From an IPv4 address in network byte order.
    #[must_use]
    #[inline(always)]
    pub const fn v4(addr: u32) -> Self {
        Self([0, 0, Self::V4_PREFIX, addr])
    }

    /// From the 16 bytes of an IPv6 address.
    #[must_use]
    pub const fn from_octets(o: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
            u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
            u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
            u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
        ])
    }

    /// The 16 bytes in network order.
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        let (a, b, c, d) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes(), d.to_ne_bytes());
        [
            a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1],
            d[2], d[3],
        ]
    }

    /// Whether it is an IPv4 address.
    #[must_use]
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == Self::V4_PREFIX
    }
}

/// Key of [`MAP_POD_ADDRS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct AddrKey {
    /// Slot of the endpoint.
    pub slot: u32,
    /// The address.
    pub addr: Addr,
}

/// Key of [`MAP_ROWS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct RowKey {
    /// Class of the other address; 0 for the table's fallback row.
    pub class: ClassId,
    /// The table.
    pub table: TableId,
    /// [`Direction`] as a number.
    pub direction: u32,
}

/// Where a row's intervals are in [`MAP_INTERVALS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct RowRef {
    /// Index of the first interval.
    pub first: u32,
    /// Number of intervals, at least 1.
    pub count: u32,
}

/// A pod's address and its class.
///
/// Values of hash maps that verdicts hang on carry their key: an element that is deleted may serve
/// another key at once (`kernel/bpf/memalloc.c`), while a program that has just looked it up is
/// held up before it reads. Reading the value first and its key after shows that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct Peer {
    /// The class.
    pub class: ClassId,
    /// The key under which this value stands.
    pub addr: Addr,
}

/// A row, with its key for the reason that [`Peer`] has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct Row {
    /// Where its intervals are.
    pub place: RowRef,
    /// The key under which this value stands.
    pub key: RowKey,
}

/// [`Interval::action`]: drop.
pub const ACTION_DENY: u8 = 0;
/// [`Interval::action`]: pass.
pub const ACTION_ALLOW: u8 = 1;

/// One step of a row: from `start` on (see [`crate::verdict::port_key`]) this verdict holds.
///
/// A row's intervals are sorted by `start`, and the first starts at 0, so that the search always
/// finds one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Interval {
    /// First key of the interval.
    pub start: u32,
    /// The rule that decides.
    pub rule: RuleId,
    /// `ACTION_…`.
    pub action: u8,
    /// Zero.
    pub _pad: u8,
    /// Where a redirecting rule sends the connection; 0 as long as no rule redirects.
    pub proxy_port: u16,
}

/// Key of [`MAP_FRAGMENTS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragKey {
    /// Host-side interface.
    pub ifindex: u32,
    /// [`Direction`] as a number.
    pub direction: u32,
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Identification of the datagram.
    pub id: u32,
    /// IPv4: protocol number (RFC 791). IPv6: 0 (RFC 8200, 4.5 leaves it out).
    pub proto: u32,
}

/// The first fragment of a datagram that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct FragEntry {
    /// When it passed (`CLOCK_MONOTONIC`, ns).
    pub seen: u64,
    /// Where its payload ends, in bytes from the start of the datagram's payload.
    pub first_end: u32,
    /// Generation of the endpoint's policy at that moment.
    pub generation: u32,
}

/// What pinned maps say of themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Meta {
    /// [`ABI_VERSION`].
    pub abi: u32,
    /// 1 once an agent has brought a complete plan into force.
    pub armed: u32,
    /// Key of the hash that makes [`ClassId`]s: random, chosen when the maps are made, so that
    /// nobody who writes labels can aim for a collision.
    pub class_key: [u64; 2],
}

/// LPM key data of an IPv4 prefix: the address in network byte order.
pub type Cidr4 = [u8; 4];
/// LPM key data of an IPv6 prefix.
pub type Cidr6 = [u8; 16];

/// Fails to compile when a struct has padding: its size is not the sum of its fields'.
macro_rules! no_padding {
    ($($t:ty = $($f:ty),+;)*) => { $(
        const _: () = assert!(size_of::<$t>() == 0 $(+ size_of::<$f>())+, "padding");
    )* };
}

no_padding! {
    Endpoint = u64, u32, u32, u32, u32, [u32; 4], u64, u32, u32, u64;
    Control = u64, u32, u32;
    EndpointState = i64, i64, u64, u64;
    AddrKey = u32, Addr;
    RowKey = u64, u32, u32;
    RowRef = u32, u32;
    Peer = u64, Addr;
    Row = RowRef, RowKey;
    Interval = u32, u32, u8, u8, u16;
    CtKey4 = u32, u32, u32, u16, u16, u32;
    CtKey6 = u32, [u32; 4], [u32; 4], u16, u16, u32;
    Traffic = u64, u64;
    CtEntry = u64, u64, u32, u32, u16, u8, u8, u8, u8, u16, u32, u32, u64, Traffic, Traffic;
    CtEntryV1 = u64, u64, u32, u32, u16, u8, u8, u8, u8, u16;
    FragKey = u32, u32, Addr, Addr, u32, u32;
    FragEntry = u64, u32, u32;
    ServiceKey = Addr, u16, u8, u8;
    ClassPort = u64, u16, [u16; 3];
    NodeBackend = Addr, u16, u16;
    Backend = u64, Addr, u16, [u16; 3], CtKey6, u32;
    Service = [ClassPort; SERVICE_PAIRS], ServiceKey, [NodeBackend; NODE_BACKENDS], u8, u8, u16;
    DropSlot = u64, u64, u64, u64, Event;
    Event =
        u64, Addr, Addr, u32, u32, u32, u32, u16, u16, u16, u16, u8, u8, u8, u8, u8, u8, u16, u32,
        u32;
    Totals = Traffic, Traffic, u64;
    Closed = Event, Totals;
    Meta = u32, u32, [u64; 2];
}

// An endpoint is one cache line: the fast path touches no second one for it.
const _: () = assert!(size_of::<Endpoint>() == 64);

#[cfg(feature = "user")]
macro_rules! pod {
    ($($t:ty),+) => { $(
        // SAFETY: repr(C), no padding (asserted above), every bit pattern is a value.
        unsafe impl aya::Pod for $t {}
    )+ };
}

#[cfg(feature = "user")]
pod!(
    Endpoint,
    Control,
    DropSlot,
    EndpointState,
    Addr,
    AddrKey,
    RowKey,
    RowRef,
    Peer,
    Row,
    Interval,
    CtKey4,
    CtKey6,
    CtEntry,
    CtEntryV1,
    FragKey,
    FragEntry,
    ServiceKey,
    Service,
    Backend,
    Event,
    Closed,
    Meta
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_network_order() {
        let v4 = Addr::v4(u32::from_ne_bytes([10, 0, 0, 1]));
        assert_eq!(v4.octets(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
        assert!(v4.is_v4());
        let v6 = Addr::from_octets([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!(v6.octets()[15], 9);
        assert!(!v6.is_v4());
    }
    #[test]
    fn an_address_is_ipv4_by_all_of_its_prefix() {
        let v4 = Addr::v4(1).octets();
        for byte in 0..12 {
            let mut other = v4;
            other[byte] ^= 1;
            assert!(!Addr::from_octets(other).is_v4(), "byte {byte}");
        }
    }

    #[test]
    fn every_outcome_has_a_counter_of_its_own() {
        let mut counters = Vec::new();
        for reason in 0..crate::reason::REASON_SLOTS as u8 {
            for direction in Direction::BOTH {
                counters.push(counter_index(reason, direction));
                counters.extend(Spared::ALL.map(|why| why.counter_index(reason, direction)));
            }
        }
        counters.sort_unstable();
        assert_eq!(counters, (0..COUNTER_SLOTS).collect::<Vec<_>>());
        assert_eq!(
            Direction::BOTH.map(Direction::reverse),
            [Direction::Egress, Direction::Ingress]
        );
    }

    #[test]
    fn the_longest_row_has_room_beside_the_one_that_it_replaces() {
        assert_eq!(INTERVAL_SLOTS / MAX_ROW_INTERVALS, 2);
    }

    #[test]
    fn every_lane_has_two_counters() {
        let mut all = [lane::VERDICT, lane::TRACE].map(|lane| [lane, lane + lane::UNTOLD]).concat();
        all.sort_unstable();
        assert_eq!(all, (0..lane::SLOTS).collect::<Vec<_>>());
    }
}
