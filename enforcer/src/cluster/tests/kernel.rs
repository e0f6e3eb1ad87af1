//! The kernel half of a verdict, over a model of the maps; and plans written store by store.

use std::{collections::BTreeMap, net::IpAddr};

use enforcer_common::abi::{ACTION_ALLOW, Addr, ClassId, Direction, Service, ServiceKey};
use ipnet::IpNet;

use crate::cluster::{
    KernelState,
    plan::{EndpointPlan, Plan},
};

/// A packet of a new flow at one interface.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Probe {
    pub(super) ifindex: u32,
    pub(super) direction: Direction,
    pub(super) other: IpAddr,
    pub(super) protocol: u8,
    pub(super) port: u16,
}

/// Whether the maps let the probe pass, judged by this endpoint's word.
pub(super) fn judge(state: &KernelState, endpoint: &EndpointPlan, probe: &Probe) -> bool {
    let class = state.class(probe.other);
    allows(state, endpoint, probe.direction, class, (probe.protocol, probe.port))
}

fn allows(
    state: &KernelState,
    endpoint: &EndpointPlan,
    direction: Direction,
    class: ClassId,
    (protocol, port): (u8, u16),
) -> bool {
    if !endpoint.isolated[direction as usize] {
        return true;
    }
    let found = state.interval(endpoint.table, direction, class, (protocol, port));
    found.is_some_and(|interval| interval.action == ACTION_ALLOW)
}

/// What the maps say of a new flow to a Service, judged by this endpoint's word: for each backend on
/// this node whether it is allowed, and whether some other backend may be.
pub(super) fn ask(
    state: &KernelState,
    endpoint: &EndpointPlan,
    key: &ServiceKey,
) -> Option<(Vec<bool>, bool)> {
    let service = state.services.get(key)?;
    let of = |class, port| allows(state, endpoint, Direction::Egress, class, (key.proto, port));
    let node = service.node.iter().take(service.node_count.into());
    let address = |addr: Addr| IpAddr::from(addr.octets()).to_canonical();
    let node = node.map(|one| of(state.class(address(one.addr)), one.port)).collect();
    let mut pairs = service.pairs.iter().take(service.pair_count.into());
    let others = service.pair_count == 0 || pairs.any(|pair| of(pair.class, pair.port));
    Some((node, others))
}

/// The same by the endpoint that is there now; `None` if there is none.
pub(super) fn verdict(state: &KernelState, probe: &Probe) -> Option<bool> {
    Some(judge(state, state.endpoints.get(&probe.ifindex)?, probe))
}

/// Where in a plan a store is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub(super) enum Stage {
    /// Rows, prefixes and addresses.
    Before,
    /// Endpoints.
    Switching,
    /// After the grace period.
    Removing,
}

/// Applies a plan in its order, and shows the state after every store.
pub(super) fn apply(
    state: &mut KernelState,
    plan: &Plan,
    mut seen: impl FnMut(Stage, &KernelState),
) {
    for (key, row) in &plan.rows_added {
        assert!(state.rows.insert(*key, row.clone()).is_none(), "a row in force is overwritten");
        assert_eq!(row.first().map(|interval| interval.start), Some(0), "a row begins at 0");
        seen(Stage::Before, state);
    }
    for (prefix, class) in &plan.cidrs_set {
        assert_ne!(state.cidrs.insert(*prefix, *class), Some(*class), "{prefix} set to what it is");
        seen(Stage::Before, state);
    }
    for (address, class) in &plan.peers_set {
        assert_ne!(state.peers.insert(*address, *class), Some(*class), "{address} likewise");
        seen(Stage::Before, state);
    }
    for address in &plan.peers_removed {
        assert!(state.peers.remove(address).is_some(), "{address} is not there");
        seen(Stage::Before, state);
    }
    for (key, service) in &plan.services_set {
        assert_eq!(service.key, *key);
        assert_ne!(state.services.insert(*key, *service), Some(*service), "{key:?} likewise");
        seen(Stage::Before, state);
    }
    for endpoint in &plan.endpoints_set {
        let endpoint = EndpointPlan { rejudge: false, ..endpoint.clone() };
        state.endpoints.insert(endpoint.ifindex, endpoint);
        seen(Stage::Switching, state);
    }
    for ifindex in &plan.endpoints_removed {
        assert!(state.endpoints.remove(ifindex).is_some(), "{ifindex} is not there");
        seen(Stage::Switching, state);
    }
    for prefix in &plan.cidrs_removed {
        assert!(state.cidrs.remove(prefix).is_some(), "{prefix} is not there");
        seen(Stage::Removing, state);
    }
    for key in &plan.services_removed {
        assert!(state.services.remove(key).is_some(), "{key:?} is not there");
        seen(Stage::Removing, state);
    }
    for key in &plan.rows_removed {
        assert!(state.rows.remove(key).is_some(), "{key:?} is not there");
        seen(Stage::Removing, state);
    }
}

/// What an endpoint's word says, and its table's rows by direction and class.
type EndpointMeaning = (EndpointPlan, Vec<(u32, ClassId, String)>);

/// The state without table numbers: what each endpoint's table says.
#[derive(Debug, PartialEq)]
pub(super) struct Meaning {
    pub(super) endpoints: BTreeMap<u32, EndpointMeaning>,
    cidrs: BTreeMap<IpNet, ClassId>,
    peers: BTreeMap<IpAddr, ClassId>,
    services: BTreeMap<ServiceKey, Service>,
}

/// What a state means, and that no row in it is without an endpoint.
pub(super) fn meaning(state: &KernelState) -> Meaning {
    let used: Vec<_> = state.endpoints.values().map(|endpoint| endpoint.table).collect();
    for key in state.rows.keys() {
        assert!(used.contains(&key.table), "{key:?} is of no endpoint");
    }
    let endpoint = |endpoint: &EndpointPlan| {
        let rows = state.rows.iter().filter(|(key, _)| key.table == endpoint.table);
        let rows = rows.map(|(key, row)| (key.direction, key.class, format!("{row:?}"))).collect();
        (EndpointPlan { table: 0, ..endpoint.clone() }, rows)
    };
    Meaning {
        endpoints: state.endpoints.iter().map(|(i, plan)| (*i, endpoint(plan))).collect(),
        cidrs: state.cidrs.clone(),
        peers: state.peers.clone(),
        services: state.services.clone(),
    }
}
