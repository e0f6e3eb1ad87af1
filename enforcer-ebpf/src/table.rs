//! The verdict of a table for an address, protocol and port.

use aya_ebpf::maps::lpm_trie::Key;
use enforcer_common::{
    abi::{
        ACTION_ALLOW, Addr, Cidr4, Cidr6, ClassId, Direction, EP_LOCKED, EP_STARTING, Interval,
        PolicyWord, RowKey, RowRef, rule,
    },
    reason::Reason,
    verdict::{SEARCH_STEPS, port_key, probe},
};

use crate::{
    hook,
    maps::{CIDRS4, CIDRS6, INTERVALS, PEERS, ROWS},
    state::{Judged, State},
};

/// A question to the tables.
#[repr(C)]
pub(crate) struct Query {
    /// The other address.
    pub(crate) remote: Addr,
    /// The policy word to judge by.
    pub(crate) word: u64,
    /// Protocol and port, see `verdict::port_key`.
    pub(crate) key: u32,
    /// Direction, as a number.
    pub(crate) direction: u32,
    /// Slot of the endpoint.
    pub(crate) slot: u32,
    /// How to class `remote`: 0, or [`PREFIX_ONLY`] or [`BY_CLASS`].
    pub(crate) by: u32,
}

impl Query {
    /// Whether the pod may send to the other end of the packet in hand.
    #[inline(always)]
    pub(crate) fn out(state: &State) -> Self {
        Self {
            remote: *state.remote(),
            word: state.word,
            key: port_key(state.packet.proto, state.remote_port),
            direction: Direction::Egress as u32,
            slot: state.slot,
            by: 0,
        }
    }
}

/// [`Query::by`]: the address is known to be no pod's own: only prefixes can match.
pub(crate) const PREFIX_ONLY: u32 = 1;
/// [`Query::by`]: the class is known: it stands in the first two words of `remote`.
pub(crate) const BY_CLASS: u32 = 2;

const DENIED: u64 = Judged::new(Reason::PolicyDenied, rule::DEFAULT_DENY).0;

/// What isolation and the table say: a [`Judged`].
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn look_up(query: *const Query) -> u64 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `Query`.
    let Some(query) = (unsafe { query.as_ref() }) else {
        return DENIED;
    };
    let direction = query.direction & 1;
    if query.word & (1 << direction) == 0 {
        return Judged::new(Reason::NotIsolated, rule::NOT_ISOLATED).0;
    }
    let flags = hook::at(query.slot).map_or(EP_LOCKED, |endpoint| endpoint.flags);
    if flags & EP_LOCKED != 0 {
        return Judged::new(Reason::Locked, rule::NONE).0;
    }
    let denied =
        if flags & EP_STARTING != 0 { Reason::EndpointNotReady } else { Reason::PolicyDenied };
    let class = if query.by == BY_CLASS {
        ClassId::from(query.remote.0[0]) | ClassId::from(query.remote.0[1]) << 32
    } else {
        class_of(&query.remote, query.by == PREFIX_ONLY)
    };
    let table = PolicyWord(query.word).table();
    let mut key = RowKey { class, table, direction };
    let mut row = place(&key);
    if row.count == 0 && class != 0 {
        key.class = 0;
        row = place(&key);
    }
    if row.count == 0 {
        return Judged::new(denied, rule::DEFAULT_DENY).0;
    }
    let mut low = row.first;
    let mut high = row.first + row.count;
    let mut steps = SEARCH_STEPS;
    // The last interval that starts at or before the key; the first always does.
    while steps > 0 && high - low > 1 {
        steps -= 1;
        let middle = probe(low, high);
        let Some(interval) = interval(middle) else {
            return DENIED;
        };
        if interval.start <= query.key {
            low = middle;
        } else {
            high = middle;
        }
    }
    match interval(low) {
        Some(found) if found.action == ACTION_ALLOW => Judged::new(Reason::Allowed, found.rule).0,
        Some(found) => Judged::new(denied, found.rule).0,
        None => DENIED,
    }
}

#[inline(always)]
fn interval(index: u32) -> Option<&'static Interval> {
    // SAFETY: array elements live as long as the map; a row in force is never overwritten.
    INTERVALS.get_ptr(index).map(|interval| unsafe { &*interval })
}

/// Where a row is; of length 0 if there is none.
#[inline(always)]
fn place(key: &RowKey) -> RowRef {
    let mut tries = TRIES;
    while tries > 0 {
        tries -= 1;
        let Some(row) = ROWS.get_ptr(key) else {
            break;
        };
        // SAFETY: the element stays mapped (RCU).
        let row = unsafe { &*row };
        let (place, found) = in_order(&row.place, &row.key);
        if found == *key {
            return place;
        }
    }
    RowRef { first: 0, count: 0 }
}

/// Reads a value and then the key that stands with it; see `abi::Peer` for what the order is for.
#[inline(always)]
fn in_order<V: Copy, K: Copy>(value: &V, key: &K) -> (V, K) {
    let (value, key) = (&raw const *value, &raw const *key);
    // SAFETY: from a reference; volatile, so that it is read here and once.
    let value = unsafe { value.read_volatile() };
    // SAFETY: as above, and after it.
    let key = unsafe { key.read_volatile() };
    (value, key)
}

/// Look-ups of a key whose element came to serve another one under the reader's hand.
const TRIES: u32 = 2;

/// An address as the prefixes' look-up takes it, and in it the address as the peers' does.
#[repr(C)]
struct AddressKey {
    bits: u32,
    addr: Addr,
}

/// The class of an address.
///
/// All look-ups share a key on the stack, and nothing but the key is compared: the calls that lead
/// here leave no room for more, and before 6.2 the verifier takes no key that lies in an argument of
/// a global function.
#[inline(always)]
fn class_of(remote: &Addr, prefix_only: bool) -> ClassId {
    let mut key = AddressKey { bits: 128, addr: *remote };
    let mut tries = if prefix_only { 0 } else { TRIES };
    while tries > 0 {
        tries -= 1;
        let addr = &key.addr;
        let Some(peer) = PEERS.get_ptr(addr) else {
            break;
        };
        // SAFETY: the element stays mapped (RCU).
        let peer = unsafe { &*peer };
        let (class, found) = in_order(&peer.class, &peer.addr);
        if found == key.addr {
            return class;
        }
    }
    // The library's keys have the same fields at the same places, and need no alignment.
    if key.addr.is_v4() {
        (key.bits, key.addr.0[0]) = (32, key.addr.0[3]);
        // SAFETY: see above; of the address it has the first word.
        CIDRS4.get(unsafe { &*(&raw const key).cast::<Key<Cidr4>>() }).copied().unwrap_or(0)
    } else {
        // SAFETY: see above.
        CIDRS6.get(unsafe { &*(&raw const key).cast::<Key<Cidr6>>() }).copied().unwrap_or(0)
    }
}

/// The same for who has no room on the stack for the key.
#[inline(never)]
pub(crate) fn class_apart(remote: &Addr) -> ClassId {
    class_of(remote, false)
}
