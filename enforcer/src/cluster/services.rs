//! Nodes, Services and endpoint slices as they were last heard of: stores to look things up in, and
//! names for their addresses in flows. They change no verdict.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
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
}

impl Services {
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

    /// Whether [`Self::take_names`] has something to tell.
    pub(super) fn has_renamed(&self) -> bool {
        !self.node_addresses.touched.is_empty() || !self.service_addresses.touched.is_empty()
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
        let name = Arc::clone(&node.name);
        let addresses = node.addresses.clone();
        let old = self.nodes.insert(Arc::clone(&name), node);
        self.node_addresses.change(&name, old.map(|old| old.addresses), addresses);
    }

    pub(super) fn remove_node(&mut self, name: &Arc<str>) {
        let old = self.nodes.remove(name);
        self.node_addresses.change(name, old.map(|old| old.addresses), Vec::new());
    }

    pub(super) fn set_service(&mut self, service: Service) {
        let key = service.key.clone();
        let addresses = addresses(&service);
        let old = self.services.insert(key.clone(), service);
        self.service_addresses.change(&key, old.as_ref().map(self::addresses), addresses);
    }

    pub(super) fn remove_service(&mut self, key: &ObjectKey) {
        let old = self.services.remove(key);
        self.service_addresses.change(key, old.as_ref().map(addresses), Vec::new());
    }

    pub(super) fn set_slice(&mut self, slice: EndpointSlice) {
        let key = slice.key.clone();
        self.remove_slice(&key);
        if let Some(service) = service_of(&slice) {
            self.by_service.entry(service).or_default().insert(key.clone());
        }
        self.slices.insert(key, slice);
    }

    pub(super) fn remove_slice(&mut self, key: &ObjectKey) {
        let Some(service) = self.slices.remove(key).as_ref().and_then(service_of) else { return };
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

/// Who claims an address; of several the first in order gives the name.
#[derive(Debug)]
struct Claims<T> {
    claims: HashMap<IpAddr, BTreeSet<T>>,
    /// Addresses with other claims than at the last [`Self::take`], and their name then.
    touched: BTreeMap<IpAddr, Option<T>>,
}

impl<T> Default for Claims<T> {
    fn default() -> Self {
        Self { claims: HashMap::new(), touched: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> Claims<T> {
    fn name(&self, address: IpAddr) -> Option<&T> {
        self.claims.get(&address)?.first()
    }

    fn change(&mut self, who: &T, old: Option<Vec<IpAddr>>, new: Vec<IpAddr>) {
        let old = old.unwrap_or_default();
        for address in old.iter().filter(|address| !new.contains(address)) {
            self.touch(*address);
            if let Some(claims) = self.claims.get_mut(address) {
                claims.remove(who);
                if claims.is_empty() {
                    self.claims.remove(address);
                }
            }
        }
        for address in new.into_iter().filter(|address| !old.contains(address)) {
            self.touch(address);
            self.claims.entry(address).or_default().insert(who.clone());
        }
    }

    fn touch(&mut self, address: IpAddr) {
        let before = self.name(address).cloned();
        self.touched.entry(address).or_insert(before);
    }

    fn take(
        &mut self,
        named: impl Fn(IpAddr, T) -> NameChange,
        gone: impl Fn(IpAddr) -> NameChange,
    ) -> Vec<NameChange> {
        let touched = std::mem::take(&mut self.touched).into_iter();
        touched
            .filter_map(|(address, before)| match self.name(address) {
                now if now == before.as_ref() => None,
                Some(now) => Some(named(address, now.clone())),
                None => Some(gone(address)),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{
        Index, IndexConfig,
        event::{EndpointsFrom, Event, SessionAffinity, TrafficPolicy},
    };

    fn key(name: &str) -> ObjectKey {
        ObjectKey { namespace: "n".into(), name: name.into() }
    }

    fn ip(last: u8) -> IpAddr {
        [10, 96, 0, last].into()
    }

    fn service(name: &str, cluster: &[u8], external: &[u8]) -> Event {
        Event::ServiceApplied(Box::new(Service {
            key: key(name),
            cluster_ips: cluster.iter().map(|last| ip(*last)).collect(),
            external_ips: external.iter().map(|last| ip(*last)).collect(),
            load_balancer_ips: Vec::new(),
            ports: Vec::new(),
            endpoints_from: EndpointsFrom::Selector,
            headless: false,
            affinity: SessionAffinity::None,
            external_traffic: TrafficPolicy::Cluster,
            internal_traffic: TrafficPolicy::Cluster,
        }))
    }

    fn slice(name: &str, of: Option<&str>) -> Event {
        Event::SliceApplied(EndpointSlice {
            key: key(name),
            service: of.map(Into::into),
            ports: Vec::new(),
            endpoints: Vec::new(),
        })
    }

    fn node(name: &str, last: &[u8]) -> Event {
        let addresses = last.iter().map(|last| ip(*last)).collect();
        Event::NodeApplied(Node { name: name.into(), addresses })
    }

    fn index() -> Index {
        Index::new(IndexConfig { class_key: [1, 2], first_table: 1, ..IndexConfig::default() })
    }

    fn names(index: &mut Index, events: impl IntoIterator<Item = Event>) -> Vec<NameChange> {
        events.into_iter().for_each(|event| index.apply(event));
        let plan = index.take_plan();
        assert!(index.take_plan().is_empty());
        plan.names
    }

    #[test]
    fn addresses_are_named_and_what_is_shared_keeps_a_name() {
        let mut index = index();
        let named = names(&mut index, [service("a", &[1], &[9]), service("b", &[2], &[9])]);
        let expected = [(1, "a"), (2, "b"), (9, "a")]
            .map(|(i, name)| NameChange::Service(ip(i), key(name).into()));
        assert_eq!(named, expected);
        let named = names(&mut index, [Event::ServiceDeleted(key("a"))]);
        let expected =
            [NameChange::ServiceGone(ip(1)), NameChange::Service(ip(9), key("b").into())];
        assert_eq!(named, expected);
        assert!(names(&mut index, [service("b", &[2], &[9])]).is_empty());
    }

    #[test]
    fn a_node_that_changes_its_address_is_named_anew() {
        let mut index = index();
        assert_eq!(names(&mut index, [node("w1", &[1])]), [NameChange::Node(ip(1), "w1".into())]);
        assert_eq!(
            names(&mut index, [node("w1", &[2])]),
            [NameChange::NodeGone(ip(1)), NameChange::Node(ip(2), "w1".into())]
        );
        // What comes and goes between two plans was never there.
        let events = [node("w2", &[3]), Event::NodeDeleted("w2".into())];
        assert!(names(&mut index, events).is_empty());
        assert_eq!(index.services().nodes().count(), 1);
    }

    #[test]
    fn slices_are_found_by_their_service() {
        let mut index = index();
        let events = [slice("a-1", Some("a")), slice("a-2", Some("a")), slice("x", None)];
        names(&mut index, events);
        let of = |index: &Index, service: &str| {
            let key = key(service);
            let found = index.services().slices_of(&key);
            found.map(|slice| slice.key.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of(&index, "a"), ["a-1", "a-2"]);
        names(&mut index, [slice("a-1", Some("b")), Event::SliceDeleted(key("a-2"))]);
        assert_eq!((of(&index, "a"), of(&index, "b")), (vec![], vec!["a-1".to_owned()]));
    }
}
