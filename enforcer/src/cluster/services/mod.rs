//! Nodes, Services and endpoint slices as they were last heard of: stores to look things up in,
//! names for their addresses in flows, and what the kernel must know of virtual addresses.
//!
//! ```text
//! Service, EndpointSlice -> targets -> Group { backends by class } -> entry of SERVICES
//! ```

mod claims;
mod frontends;
mod own;
mod settle;
mod status;
mod targets;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use enforcer_common::abi;
use ipnet::IpNet;

use self::{claims::Claims, frontends::Frontends, own::Own};
pub use self::{
    own::{NodeAddress, NodePortAddresses},
    status::ServiceStatus,
};
use super::{
    event::{EndpointSlice, Node, ObjectKey, Service},
    interfaces::canonical,
    plan::NameChange,
};

/// The stores.
#[derive(Debug, Default)]
pub struct Services {
    nodes: BTreeMap<Arc<str>, Node>,
    services: BTreeMap<ObjectKey, Service>,
    slices: BTreeMap<ObjectKey, EndpointSlice>,
    /// Slices by the Service that they name.
    by_service: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    node_addresses: Claims<Arc<str>>,
    service_addresses: Claims<ObjectKey>,
    frontends: Frontends,
    own: Own,
    /// Services whose addresses or backends may be others now.
    dirty: BTreeSet<ObjectKey>,
}

impl Services {
    /// Nothing is known. `node` is this node's name, where objects tell.
    pub(super) fn new(node: Option<Arc<str>>, serving: NodePortAddresses) -> Self {
        Self { own: Own::new(node, serving), ..Self::default() }
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

    /// How many those are.
    pub(super) fn entries(&self) -> usize {
        self.frontends.len()
    }

    /// Whether the next plan has nothing of Services to look at, their names included.
    pub(super) fn is_settled(&self) -> bool {
        self.dirty.is_empty()
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
        for key in std::mem::take(&mut self.dirty) {
            let wanted = match self.services.get(&key) {
                Some(service) => {
                    let slices: Vec<_> = self.slices_of(&key).collect();
                    targets::wanted(service, &slices)
                }
                None => Vec::new(),
            };
            self.frontends.set_service(&key, wanted);
        }
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
