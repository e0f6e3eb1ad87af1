//! Connections that were there before the agent, taken from the node's own conntrack.

use std::{collections::BTreeMap, net::IpAddr};

use aya::maps::MapError;
use enforcer_common::{
    abi::{
        CT_ESTABLISHED, CT_FROM_NODE, CT_FROM_POD, CT_HAIRPIN, CT_SERVICE, CT_SERVICE_LOCAL,
        CtEntry, CtKey4, CtKey6, rule,
    },
    conntrack::{ACK, FIN, SEEN, SYN, established},
    verdict::proto::TCP,
};

use super::{
    backends::noted,
    maps::{Maps, addr},
    netlink::conntrack::{KernelFlow, PodFlow, pod_views},
    sys,
};
use crate::cluster::NodeAddress;

/// An endpoint to seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed<'a> {
    pub(super) addresses: &'a [IpAddr],
    pub(super) ifindex: u32,
    pub(super) slot: u32,
    pub(super) generation: u32,
    /// The node's own addresses.
    pub(super) node: &'a BTreeMap<IpAddr, NodeAddress>,
}

/// Writes the flows that the node knows of a pod's addresses.
///
/// They are judged by policy at their next packet: the generation they carry is one that the
/// endpoint does not have.
pub(super) fn seed(maps: &mut Maps, flows: &[KernelFlow], seed: &Seed<'_>) -> Result<(), MapError> {
    let now = sys::monotonic();
    // Zones are other networks with the same addresses.
    for flow in flows.iter().filter(|flow| flow.zone == 0) {
        for address in seed.addresses {
            for view in pod_views(flow, *address) {
                if let Some(mut entry) = entry(&view, flow, seed, now) {
                    let backend = backend(&view, flow);
                    entry.service = service(backend, seed.node);
                    insert(maps, &view, seed.ifindex, entry, backend)?;
                }
            }
        }
    }
    Ok(())
}

/// `enum tcp_conntrack` (`include/uapi/linux/netfilter/nf_conntrack_tcp.h`).
const TCP_ESTABLISHED: u8 = 3;
const TCP_LAST_ACK: u8 = 6;

/// The entry of a flow; `None` for a connection that is over.
fn entry(view: &PodFlow, flow: &KernelFlow, seed: &Seed<'_>, now: u64) -> Option<CtEntry> {
    let (seen_origin, seen_reply) = match flow.tcp_state.filter(|_| view.proto == TCP) {
        None => (SEEN, if flow.seen_reply { SEEN } else { 0 }),
        Some(state) if state < TCP_ESTABLISHED => {
            (SEEN | SYN, if flow.seen_reply { SEEN | SYN | ACK } else { 0 })
        }
        Some(TCP_ESTABLISHED) => (SEEN | SYN | ACK, SEEN | SYN | ACK),
        // One side has closed, which one is not told: half-closed is as good as either.
        Some(state) if state <= TCP_LAST_ACK => (SEEN | SYN | ACK | FIN, SEEN | SYN | ACK),
        Some(_) => return None,
    };
    let mut flags = origin(view, flow, seed.node);
    if established(view.proto, seen_origin, seen_reply) {
        flags |= CT_ESTABLISHED;
    }
    Some(CtEntry {
        last_seen: now,
        created: now,
        generation: seed.generation.wrapping_sub(1),
        rule: rule::NONE,
        slot: u16::try_from(seed.slot).unwrap_or(0),
        // Counted by the next sweep.
        flags,
        seen_origin,
        seen_reply,
        service: 0,
        hidden_slot: 0,
        // What it has carried is counted from now on.
        ..CtEntry::default()
    })
}

/// Where the node sends what the pod sent to another address.
fn backend(view: &PodFlow, flow: &KernelFlow) -> Option<(IpAddr, u16)> {
    let (to, from) = (&flow.orig, &flow.reply);
    let same = to.destination == from.source && to.destination_port == from.source_port;
    (view.from_pod && from.icmp.is_none() && !same).then_some((from.source, from.source_port))
}

/// `CT_SERVICE…` bits of a flow with this backend.
fn service(backend: Option<(IpAddr, u16)>, node: &BTreeMap<IpAddr, NodeAddress>) -> u8 {
    match backend {
        None => 0,
        Some((address, _)) if node.contains_key(&address) => CT_SERVICE | CT_SERVICE_LOCAL,
        Some(_) => CT_SERVICE,
    }
}

/// Who opened the flow, as `CT_…` bits. The original source tells the node and the pod itself
/// apart from whoever else is behind the node's address: both are allowed whatever policy says.
fn origin(view: &PodFlow, flow: &KernelFlow, node: &BTreeMap<IpAddr, NodeAddress>) -> u8 {
    let source = flow.orig.source;
    if view.from_pod {
        CT_FROM_POD
    } else if source == view.local {
        CT_HAIRPIN
    } else if source.is_loopback() || node.contains_key(&source) {
        CT_FROM_NODE
    } else {
        0
    }
}

fn insert(
    maps: &mut Maps,
    view: &PodFlow,
    ifindex: u32,
    entry: CtEntry,
    backend: Option<(IpAddr, u16)>,
) -> Result<(), MapError> {
    let (local, remote) = (addr(view.local), addr(view.remote));
    let (local_port, remote_port) = (view.local_port, view.remote_port);
    let proto = u32::from(view.proto);
    let key = CtKey6 { ifindex, local: local.0, remote: remote.0, local_port, remote_port, proto };
    if let Some((address, port)) = backend {
        // Without it the flow is judged behind the translation.
        let _unnoted = maps.backends.insert(key, noted(key, entry.created, address, port), 0);
    }
    if local.is_v4() {
        let ([.., local], [.., remote]) = (local.0, remote.0);
        let key = CtKey4 { ifindex, local, remote, local_port, remote_port, proto };
        maps.ct4.insert(key, entry, 0)
    } else {
        maps.ct6.insert(key, entry, 0)
    }
}
