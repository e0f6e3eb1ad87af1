//! Services as the programs see them: virtual addresses, and the mark that a packet to one carries
//! across the translation; part of the ABI.
//!
//! The hook at the sender sees the virtual address, and who gets the packet is decided behind it.
//! So the sender's hook leaves the sender's slot and these bits in `skb->tc_index`, which survives
//! translation, routing, bridging and masquerade; the next hook, at the receiving pod or where the
//! packet leaves the node, judges the sender's egress for the real destination.

use crate::abi::{Addr, ClassId, CtKey6};

/// `tc_index`: the sender's slot.
pub const MARK_SLOT: u32 = 0x0fff;
/// `tc_index`: the packet was sent to a Service's address.
pub const MARK_SERVICE: u32 = 0x8000;
/// `tc_index`: the sender's egress is to be judged for the destination behind the translation.
pub const MARK_JUDGE: u32 = 0x4000;
/// `tc_index`: it is the first packet of its flow, so what allows it is told.
pub const MARK_TELL: u32 = 0x2000;

/// Most pairs that a [`Service`] holds.
pub const SERVICE_PAIRS: usize = 4;
/// Most backends on this node that a [`Service`] holds.
pub const NODE_BACKENDS: usize = 2;

/// [`ServiceKey::addr`] of a node port: every address of this node that node ports are served on.
pub const ANY_NODE_ADDRESS: Addr = Addr([0; 4]);

/// Value in [`crate::abi::MAP_NODE_ADDRS`]: node ports are served on this address.
pub const NODE_SERVES_PORTS: u8 = 2;

/// Key of [`crate::abi::MAP_SERVICES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct ServiceKey {
    /// The virtual address, or [`ANY_NODE_ADDRESS`].
    pub addr: Addr,
    /// The port, host order.
    pub port: u16,
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub _pad: u8,
}

/// Key of what stands for every virtual address that is not in the map by itself: those of Services
/// that take more than their share of it, and those that went lately and no longer have a place.
pub const REST_OF_SERVICES: ServiceKey =
    ServiceKey { addr: ANY_NODE_ADDRESS, port: 0, proto: 0, _pad: 0 };

/// Backends of one class and target port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct ClassPort {
    /// Class of their addresses.
    pub class: ClassId,
    /// Target port, host order.
    pub port: u16,
    /// Zero.
    pub _pad: [u16; 3],
}

/// A backend that is a process of this node: behind the translation there is no hook any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct NodeBackend {
    /// Its address, one of the node's.
    pub addr: Addr,
    /// Target port, host order.
    pub port: u16,
    /// Zero.
    pub _pad: u16,
}

/// [`Service::flags`]: there are backends beside those that are processes of this node.
pub const SVC_OTHERS: u16 = 1;
/// [`Service::flags`]: more backends are processes of this node than are listed.
pub const SVC_NODE_MANY: u16 = 2;
/// [`Service::flags`]: no Service has the address and port any more. What leaves the node
/// untranslated is for the address itself.
pub const SVC_GONE: u16 = 4;

/// What stands behind a virtual address and port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct Service {
    /// Classes and target ports of all backends that are no processes of this node, if they are
    /// known and few enough: if a pod may reach none of them, its packet need not go on.
    pub pairs: [ClassPort; SERVICE_PAIRS],
    /// The key under which this value stands (see [`crate::abi::Peer`]).
    pub key: ServiceKey,
    /// Backends that are processes of this node.
    pub node: [NodeBackend; NODE_BACKENDS],
    /// How many of `pairs` count; 0 leaves everything to the hook behind the translation.
    pub pair_count: u8,
    /// How many of `node` count.
    pub node_count: u8,
    /// `SVC_…` bits.
    pub flags: u16,
}

/// The backend that a flow to a Service has, as the node's connection tracking says. Written by the
/// agent for flows that live on, so that a changed policy can be asked about it at the sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct Backend {
    /// [`crate::abi::CtEntry::created`] of the flow: one that comes after it under the same key may
    /// have another backend.
    pub created: u64,
    /// Its address.
    pub addr: Addr,
    /// Its port, host order.
    pub port: u16,
    /// Zero.
    pub _pad: [u16; 3],
    /// The key under which this value stands (see [`crate::abi::Peer`]).
    pub key: CtKey6,
    /// Zero.
    pub _end: u32,
}
