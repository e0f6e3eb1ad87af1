//! Connections that were there before the agent, taken from the node's own conntrack.

use std::net::IpAddr;

use aya::maps::MapError;
use enforcer_common::{
    abi::{CT_ESTABLISHED, CT_FROM_POD, CtEntry, CtKey4, CtKey6, rule},
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
    addresses: &[IpAddr],
    ifindex: u32,
    slot: u32,
    generation: u32,
) -> Result<(), MapError> {
    let now = sys::monotonic();
    for address in addresses {
        for flow in flows {
            for view in pod_views(flow, *address) {
                let entry = entry(&view, flow, now, slot, generation);
                insert(maps, &view, ifindex, entry)?;
            }
        }
    }
    Ok(())
}

fn entry(view: &PodFlow, flow: &KernelFlow, now: u64, slot: u32, generation: u32) -> CtEntry {
    let tcp = view.proto == TCP;
    let opened = if tcp { SEEN | SYN | ACK } else { SEEN };
    CtEntry {
        last_seen: now,
        created: now,
        generation: generation.wrapping_sub(1),
        rule: rule::NONE,
        slot: u16::try_from(slot).unwrap_or(0),
        // Counted by the next sweep.
        flags: if view.from_pod { CT_FROM_POD } else { 0 }
            | if flow.seen_reply { CT_ESTABLISHED } else { 0 },
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
