//! What can be told of the flows as a whole.

use std::collections::BTreeSet;

use enforcer_hubble::{
    observer::{
        GetNamespacesResponse, GetNodesResponse, Namespace, Node, ServerStatusResponse, Tls,
    },
    relay::NodeState,
};

use super::{Shared, now};
use crate::{
    flow::ring::FlowRing,
    hubble::{
        origin::{EMITTER, VERSION},
        peers,
    },
};

/// Flows looked at without giving way to other clients.
const BATCH: usize = 1024;
/// Over how long the rate of flows is told, ns.
const RATE_OVER: i64 = 60_000_000_000;

pub(super) async fn server_status(shared: &Shared) -> ServerStatusResponse {
    let ring = &shared.observed.flows;
    let seen = ring.next();
    ServerStatusResponse {
        num_flows: seen - ring.oldest().min(seen),
        max_flows: ring.capacity() as u64,
        seen_flows: seen,
        uptime_ns: uptime(shared),
        version: version(),
        flows_rate: rate(ring, now()).await,
        // These are a relay's.
        num_connected_nodes: None,
        num_unavailable_nodes: None,
        unavailable_nodes: Vec::new(),
    }
}

/// `enforcer v1.2.3`
fn version() -> String {
    format!("{EMITTER} v{VERSION}")
}

fn uptime(shared: &Shared) -> u64 {
    u64::try_from(shared.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Flows a second over the last minute, or over what is kept if that is less.
async fn rate(ring: &FlowRing, now: i64) -> f64 {
    let mut at = ring.next();
    let mut count = 0_u32;
    let mut oldest = now - RATE_OVER;
    loop {
        let start = at.saturating_sub(BATCH as u64).max(ring.oldest());
        let batch = ring.read(start, usize::try_from(at.saturating_sub(start)).unwrap_or(BATCH));
        let Some(first) = batch.kept.first() else {
            break;
        };
        let within = batch.kept.iter().filter(|flow| flow.time >= now - RATE_OVER).count();
        count = count.saturating_add(u32::try_from(within).unwrap_or(u32::MAX));
        if within < batch.kept.len() {
            break;
        }
        at = start;
        if at <= ring.oldest() && at > 0 {
            // What was before is overwritten.
            oldest = first.time;
        }
        tokio::task::yield_now().await;
    }
    let seconds = std::time::Duration::from_nanos(u64::try_from(now - oldest).unwrap_or(0));
    if seconds.is_zero() { 0.0 } else { f64::from(count) / seconds.as_secs_f64() }
}

/// The namespaces of the flows that are kept.
pub(super) async fn namespaces(shared: &Shared) -> GetNamespacesResponse {
    let ring = &shared.observed.flows;
    let mut names = BTreeSet::new();
    let (mut next, end) = (ring.oldest(), ring.next());
    while next < end {
        let batch = ring.read(next, BATCH);
        for flow in &batch.kept {
            for pod in [&flow.source, &flow.destination].into_iter().flatten() {
                if !names.contains(&pod.key.namespace) {
                    names.insert(pod.key.namespace.clone());
                }
            }
        }
        next = batch.next;
        tokio::task::yield_now().await;
    }
    let cluster = shared.observed.origin.cluster();
    let namespace =
        |name: &_| Namespace { cluster: cluster.to_owned(), namespace: format!("{name}") };
    GetNamespacesResponse { namespaces: names.iter().map(namespace).collect() }
}

/// The nodes that can be asked. Only of this one is known how it does.
pub(super) fn nodes(shared: &Shared) -> GetNodesResponse {
    let origin = &shared.observed.origin;
    let ring = &shared.observed.flows;
    let known = shared.observed.nodes.borrow().clone();
    let here = origin.peer_name(origin.node());
    let mut nodes = Vec::new();
    for peer in peers::peers(&known, origin, &shared.reach) {
        let is_here = peer.name == here;
        let tls = Tls { enabled: peer.tls.is_some(), server_name: peer.tls.unwrap_or_default() };
        let mut node = Node {
            name: peer.name,
            address: peer.address,
            state: NodeState::UnknownNodeState.into(),
            tls: Some(tls),
            ..Node::default()
        };
        if is_here {
            let seen = ring.next();
            node.state = NodeState::NodeConnected.into();
            node.version = version();
            node.uptime_ns = uptime(shared);
            node.num_flows = seen - ring.oldest().min(seen);
            node.max_flows = ring.capacity() as u64;
            node.seen_flows = seen;
        }
        nodes.push(node);
    }
    GetNodesResponse { nodes }
}
