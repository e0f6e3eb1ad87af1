//! Nodes, Services and endpoint slices as they were last heard of: stores to look things up in,
//! names for their addresses in flows, and what the kernel must know of virtual addresses.
//!
//! ```text
//! Service, EndpointSlice -> targets -> Group { backends by class } -> entry of SERVICES
//! ```

mod claims;
mod few;
mod frontends;
mod own;
mod remains;
mod settle;
mod share;
mod status;
mod targets;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use enforcer_common::abi;
use ipnet::IpNet;

use self::{claims::Claims, few::Few, frontends::Frontends, own::Own, share::Share};
pub use self::{
    own::{NodeAddress, NodePortAddresses},
    status::ServiceStatus,
};
use super::{
    event::{Endpoint, EndpointSlice, Node, ObjectKey, Service},
    interfaces::canonical,
    plan::NameChange,
};

/// This part of the kernel's map is kept free.
const MARGIN: u32 = 16;

/// Ports times endpoints of a Service, at most: the API bounds neither, the agent's memory does.
const MOST_TARGETS: usize = 1 << 18;

/// The stores.
#[derive(Debug, Default)]
pub struct Services {
    nodes: BTreeMap<Arc<str>, Node>,
    services: BTreeMap<ObjectKey, Service>,
    slices: BTreeMap<ObjectKey, EndpointSlice>,
    /// Slices by the Service that they name.
    by_service: HashMap<ObjectKey, Few<ObjectKey>>,
    node_addresses: Claims<Arc<str>>,
    service_addresses: Claims<ObjectKey>,
    frontends: Frontends,
    own: Own,
    /// Services whose addresses or backends may be others now.
    dirty: BTreeSet<ObjectKey>,
    share: Share,
    /// What was in the kernel before this agent, until the next plan.
    found: BTreeMap<abi::ServiceKey, abi::Service>,
}

impl Services {
    /// Nothing is known. `node` is this node's name, where objects tell; the kernel has room for so
    /// many virtual addresses and ports.
    pub(super) fn new(
        node: Option<Arc<str>>,
        serving: NodePortAddresses,
        room: Option<u32>,
    ) -> Self {
        // While one plan is being written, what is new and what goes are both there.
        let most = room.map(|room| (room - room / MARGIN).saturating_sub(1) as usize);
        Self {
            own: Own::new(node, serving),
            share: Share::new(most),
            frontends: Frontends::new(most),
            ..Self::default()
        }
    }

    /// A node.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// A Service.
    #[must_use]
    pub fn service(&self, key: &ObjectKey) -> Option<&Service> {
        self.services.get(key)
    }

    /// All Services, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// The slices of a Service, by name.
    pub fn slices_of(&self, service: &ObjectKey) -> impl Iterator<Item = &EndpointSlice> {
        let keys = self.by_service.get(service).into_iter().flatten();
        keys.filter_map(|key| self.slices.get(key))
    }

    /// Slices with endpoints that are processes of this node, and only those endpoints.
    pub(super) fn slices_on_node(&self) -> impl Iterator<Item = EndpointSlice> {
        let is_here = |endpoint: &&Endpoint| {
            endpoint.addresses.first().is_some_and(|address| self.own.has(address.to_canonical()))
        };
        self.slices.values().filter_map(move |slice| {
            let endpoints: Vec<_> = slice.endpoints.iter().filter(is_here).cloned().collect();
            let EndpointSlice { key, service, ports, .. } = slice;
            let (key, service, ports) = (key.clone(), service.clone(), ports.clone());
            (!endpoints.is_empty()).then_some(EndpointSlice { key, service, ports, endpoints })
        })
    }

    /// What each of this node's own addresses is for, if that may have changed since the last call.
    pub(super) fn take_own_addresses(&mut self) -> Option<BTreeMap<IpAddr, NodeAddress>> {
        let node = self.own.node.as_ref().and_then(|name| self.nodes.get(name));
        let primary = node.map(|node| node.primary.as_slice());
        self.own.take_changed().then(|| self.own.purposes(primary))
    }

    /// The entries of the kernel's map when every plan so far is in force.
    pub(super) fn written(&self) -> impl Iterator<Item = (abi::ServiceKey, abi::Service)> {
        self.frontends.written()
    }

    /// Whether there are entries for which no object speaks, because one that did is gone: what
    /// [`Event::ProxiesHadTime`](super::event::Event::ProxiesHadTime) is about.
    #[must_use]
    pub fn lingers(&self) -> bool {
        self.frontends.lingers()
    }

    /// Proxies have had time to notice what went before the last call.
    pub(super) fn age(&mut self) {
        self.frontends.age();
    }

    /// This is what an earlier agent left in the kernel.
    pub(super) fn set_found(&mut self, found: BTreeMap<abi::ServiceKey, abi::Service>) {
        self.found = found;
    }

    /// How many those are.
    pub(super) fn entries(&self) -> usize {
        self.frontends.len()
    }

    /// Whether the next plan has nothing of Services to look at, their names included.
    pub(super) fn is_settled(&self) -> bool {
        self.dirty.is_empty()
            && self.found.is_empty()
            && self.frontends.is_settled()
            && !self.node_addresses.has_changed()
            && !self.service_addresses.has_changed()
    }

    /// An address may be of another class now.
    pub(super) fn class_changed(&mut self, address: IpAddr) {
        self.frontends.look_at(address);
    }

    /// Every address in a prefix likewise.
    pub(super) fn classes_changed(&mut self, net: &IpNet) {
        self.frontends.look_within(net);
    }

    /// These are the node's own addresses now.
    pub(super) fn set_own_addresses(&mut self, addresses: &[IpAddr]) {
        for address in self.own.set(canonical(addresses).into_iter().collect()) {
            self.frontends.look_at(address);
        }
    }

    /// Brings virtual addresses and backends in line with the objects.
    fn regroup(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in &dirty {
            self.share.ask(key, self.demand(key));
        }
        dirty.extend(self.share.settle());
        for key in dirty {
            let wanted = match self.services.get(&key) {
                None => Vec::new(),
                Some(service) => {
                    let slices: Vec<_> = self.slices_of(&key).collect();
                    if self.share.refuses(&key) {
                        vec![targets::rest(&slices)]
                    } else {
                        targets::wanted(service, &slices)
                    }
                }
            };
            self.frontends.set_service(&key, wanted);
        }
        // What objects speak for is known by now.
        self.frontends.adopt(std::mem::take(&mut self.found));
    }

    /// How many entries a Service would have.
    fn demand(&self, key: &ObjectKey) -> share::Demand {
        let Some(service) = self.services.get(key) else { return Some(0) };
        let endpoints: usize = self.slices_of(key).map(|slice| slice.endpoints.len()).sum();
        let targets = service.ports.len().saturating_mul(endpoints);
        (targets <= MOST_TARGETS).then(|| targets::count(service))
    }

    /// Addresses that have another name than at the last call.
    pub(super) fn take_names(&mut self) -> Vec<NameChange> {
        let nodes = self.node_addresses.take(NameChange::Node, NameChange::NodeGone);
        let services = self.service_addresses.take(
            |address, key| NameChange::Service(address, Arc::new(key)),
            NameChange::ServiceGone,
        );
        nodes.into_iter().chain(services).collect()
    }

    pub(super) fn set_node(&mut self, mut node: Node) {
        node.addresses = canonical(&node.addresses);
        node.primary = canonical(&node.primary);
        self.own.node_changed(&node.name);
        let name = Arc::clone(&node.name);
        let addresses = node.addresses.clone();
        let old = self.nodes.insert(Arc::clone(&name), node);
        self.node_addresses.change(&name, old.map(|old| old.addresses), addresses);
    }

    pub(super) fn remove_node(&mut self, name: &Arc<str>) {
        let old = self.nodes.remove(name);
        self.own.node_changed(name);
        self.node_addresses.change(name, old.map(|old| old.addresses), Vec::new());
    }

    pub(super) fn set_service(&mut self, service: Service) {
        let key = service.key.clone();
        if self.services.get(&key) == Some(&service) {
            return;
        }
        self.dirty.insert(key.clone());
        let addresses = addresses(&service);
        let old = self.services.insert(key.clone(), service);
        self.service_addresses.change(&key, old.as_ref().map(self::addresses), addresses);
    }

    pub(super) fn remove_service(&mut self, key: &ObjectKey) {
        let old = self.services.remove(key);
        self.dirty.extend(old.is_some().then(|| key.clone()));
        self.service_addresses.change(key, old.as_ref().map(addresses), Vec::new());
    }

    pub(super) fn set_slice(&mut self, slice: EndpointSlice) {
        let key = slice.key.clone();
        if self.slices.get(&key) == Some(&slice) {
            return;
        }
        self.remove_slice(&key);
        if let Some(service) = service_of(&slice) {
            self.dirty.insert(service.clone());
            self.by_service.entry(service).or_default().insert(key.clone());
        }
        self.slices.insert(key, slice);
    }

    pub(super) fn remove_slice(&mut self, key: &ObjectKey) {
        let Some(service) = self.slices.remove(key).as_ref().and_then(service_of) else { return };
        self.dirty.insert(service.clone());
        if let Some(keys) = self.by_service.get_mut(&service) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_service.remove(&service);
            }
        }
    }
}

/// A slice's Service is in its own namespace.
fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = Arc::clone(slice.service.as_ref()?);
    Some(ObjectKey { namespace: Arc::clone(&slice.key.namespace), name })
}

fn addresses(service: &Service) -> Vec<IpAddr> {
    let Service { cluster_ips, external_ips, load_balancer_ips, .. } = service;
    let all = [cluster_ips, external_ips, load_balancer_ips].into_iter().flatten();
    canonical(&all.copied().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
