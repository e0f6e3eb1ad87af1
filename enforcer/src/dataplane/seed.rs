//! Connections that were there before the agent, taken from the node's own conntrack.

use std::{collections::BTreeSet, net::IpAddr};

use aya::maps::MapError;
use enforcer_common::{
    abi::{CT_ESTABLISHED, CT_FROM_NODE, CT_FROM_POD, CT_HAIRPIN, CtEntry, CtKey4, CtKey6, rule},
    conntrack::{ACK, SEEN, SYN},
    verdict::proto::TCP,
};

use super::{
    maps::{Maps, addr},
    netlink::conntrack::{KernelFlow, PodFlow, pod_views},
    sys,
};

/// Writes the flows that the node knows of a pod's addresses.
///
/// They are judged by policy at their next packet: the generation they carry is one that the
/// endpoint does not have.
pub(super) fn seed(
    maps: &mut Maps,
    flows: &[KernelFlow],
    node: &BTreeSet<IpAddr>,
    to: &Target<'_>,
) -> Result<(), MapError> {
    let now = sys::monotonic();
    for address in to.addresses {
        for flow in flows {
            for view in pod_views(flow, *address) {
                let flags = origin(&view, flow, node);
                insert(maps, &view, to.ifindex, entry(&view, flow, flags, now, to))?;
            }
        }
    }
    Ok(())
}

/// The endpoint that is seeded.
pub(super) struct Target<'a> {
    pub(super) addresses: &'a [IpAddr],
    pub(super) ifindex: u32,
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// Who opened the flow, as `CT_…` bits. The original source tells the node and the pod itself
/// apart from whoever else is behind the node's address: both are allowed whatever policy says.
fn origin(view: &PodFlow, flow: &KernelFlow, node: &BTreeSet<IpAddr>) -> u8 {
    let source = flow.orig.source;
    if view.from_pod {
        CT_FROM_POD
    } else if source == view.local {
        CT_HAIRPIN
    } else if source.is_loopback() || node.contains(&source) {
        CT_FROM_NODE
    } else {
        0
    }
}

fn entry(view: &PodFlow, flow: &KernelFlow, flags: u8, now: u64, to: &Target<'_>) -> CtEntry {
    let tcp = view.proto == TCP;
    let opened = if tcp { SEEN | SYN | ACK } else { SEEN };
    CtEntry {
        last_seen: now,
        created: now,
        generation: to.generation.wrapping_sub(1),
        rule: rule::NONE,
        slot: u16::try_from(to.slot).unwrap_or(0),
        // Counted by the next sweep.
        flags: flags | if flow.seen_reply { CT_ESTABLISHED } else { 0 },
        seen_origin: opened,
        seen_reply: if flow.seen_reply { opened } else { 0 },
        _pad: 0,
        hidden_slot: 0,
    }
}

fn insert(maps: &mut Maps, view: &PodFlow, ifindex: u32, entry: CtEntry) -> Result<(), MapError> {
    let (local, remote) = (addr(view.local), addr(view.remote));
    let (local_port, remote_port) = (view.local_port, view.remote_port);
    let proto = u32::from(view.proto);
    if local.is_v4() {
        let ([.., local], [.., remote]) = (local.0, remote.0);
        let key = CtKey4 { ifindex, local, remote, local_port, remote_port, proto };
        maps.ct4.insert(key, entry, 0)
    } else {
        let (local, remote) = (local.0, remote.0);
        let key = CtKey6 { ifindex, local, remote, local_port, remote_port, proto };
        maps.ct6.insert(key, entry, 0)
    }
}
