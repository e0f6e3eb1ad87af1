//! What the maps mean, whatever numbers their tables have.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use enforcer::cluster::{KernelState, plan::EndpointPlan};
use enforcer_common::abi::{ClassId, Interval, Service, ServiceKey, TableId};
use ipnet::IpNet;

/// A table's rows by direction and class.
type Content = BTreeMap<(u32, ClassId), Arc<[Interval]>>;

/// The maps without numbers of tables.
#[derive(Debug, PartialEq)]
pub(crate) struct Meaning {
    endpoints: BTreeMap<u32, (EndpointPlan, Content)>,
    cidrs: BTreeMap<IpNet, ClassId>,
    peers: BTreeMap<IpAddr, ClassId>,
    services: BTreeMap<ServiceKey, Service>,
    /// Tables that no endpoint uses: there are none.
    unused: BTreeSet<TableId>,
}

impl Meaning {
    pub(crate) fn of(state: &KernelState) -> Self {
        let KernelState { rows, cidrs, peers, services, endpoints } = state;
        let used: BTreeSet<TableId> = endpoints.values().map(|endpoint| endpoint.table).collect();
        let content = |endpoint: &EndpointPlan| {
            let own = rows.iter().filter(|(key, _)| key.table == endpoint.table);
            let own = own.map(|(key, row)| ((key.direction, key.class), Arc::clone(row))).collect();
            (EndpointPlan { table: 0, ..endpoint.clone() }, own)
        };
        Self {
            endpoints: endpoints.iter().map(|(ifindex, one)| (*ifindex, content(one))).collect(),
            cidrs: cidrs.clone(),
            peers: peers.clone(),
            services: services.clone(),
            unused: rows.keys().map(|key| key.table).filter(|id| !used.contains(id)).collect(),
        }
    }
}
