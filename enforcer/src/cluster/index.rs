//! The index: takes events, keeps what depends on what, and knows what a plan must look at.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use enforcer_common::abi::{ClassId, TableId};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::{
    atom::Atoms,
    binding::{Binding, BoundBy, Knowledge},
    class::Classes,
    enforcement::Enforcement,
    event::{Event, Labels, Namespace, ObjectKey, Pod, StartPolicy},
    interfaces::{Arrival, Installed, Interfaces, canonical},
    objects::{Objects, PodChange},
    rules::Rules,
    sandboxes::{self, Sandboxes},
    services::{NodeAddress, NodePortAddresses, Services},
    start::Start,
    table::Tables,
};
use crate::policy::{compile, rule::Policy};

/// What the index must be told.
#[derive(Clone, Debug, Default)]
pub struct IndexConfig {
    /// Key of the classes' hash; the same over restarts, and not known to who names labels.
    pub class_key: [u64; 2],
    /// First number for tables: those below are in the kernel already.
    pub first_table: TableId,
    /// This node's name where pods' objects say which node they are on, as the API server's do:
    /// then only this node's pods can have an interface here.
    pub node: Option<Arc<str>>,
    /// What a pod may do whose policy is not in force yet.
    pub start: StartPolicy,
    /// What holds for pods whose namespace says nothing, and for interfaces of nobody.
    pub enforcement: Enforcement,
    /// Which of this node's addresses serve node ports.
    pub node_ports: NodePortAddresses,
    /// Virtual addresses and ports of Services that the kernel has room for; `None` for any number.
    pub service_entries: Option<u32>,
}

/// Everything that is known, and what follows from it. See the module's documentation.
#[derive(Debug)]
pub struct Index {
    pub(super) objects: Objects,
    pub(super) interfaces: Interfaces,
    pub(super) atoms: Atoms,
    pub(super) classes: Classes,
    pub(super) rules: Rules,
    pub(super) services: Services,
    pub(super) tables: Tables,
    /// Prefixes that the last plan left in the kernel.
    pub(super) prefixes: BTreeMap<IpNet, ClassId>,
    pub(super) enforcement: Enforcement,
    pub(super) revision: u64,
    /// What events since the last plan may have changed.
    pub(super) dirty: Dirty,
    pub(super) sandboxes: Sandboxes,
    pub(super) start: Start,
    pub(super) node: Option<Arc<str>>,
    /// This node's pods, where objects name the node.
    pub(super) here: HashMap<ObjectKey, Arc<Pod>>,
    /// Addresses in the objects of the pods that have more from the runtime.
    reported: HashMap<ObjectKey, Vec<IpAddr>>,
}

/// What the next plan must look at.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) prefixes: BTreeSet<IpNet>,
    pub(super) endpoints: BTreeSet<u32>,
    /// Interfaces of the last plan that are gone.
    pub(super) gone: BTreeMap<u32, Installed>,
}

impl Dirty {
    pub(super) fn is_empty(&self) -> bool {
        let Self { addresses, prefixes, endpoints, gone } = self;
        addresses.is_empty() && prefixes.is_empty() && endpoints.is_empty() && gone.is_empty()
    }
}

impl Index {
    /// An index that knows nothing yet.
    #[must_use]
    pub fn new(config: IndexConfig) -> Self {
        let IndexConfig { class_key, first_table, node, start, .. } = config;
        let IndexConfig { enforcement, node_ports, service_entries, .. } = config;
        Self {
            objects: Objects::default(),
            interfaces: Interfaces::default(),
            atoms: Atoms::default(),
            classes: Classes::new(class_key),
            rules: Rules::default(),
            services: Services::new(node.clone(), node_ports, service_entries),
            tables: Tables::new(first_table),
            prefixes: BTreeMap::new(),
            enforcement,
            revision: 0,
            dirty: Dirty::default(),
            sandboxes: Sandboxes::default(),
            start: Start::new(start),
            node,
            here: HashMap::new(),
            reported: HashMap::new(),
        }
    }

    /// Nodes, Services and their endpoints.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// What each of the node's own addresses is for, if that may have changed since the last call:
    /// all that the kernel must hold of them.
    #[must_use]
    pub fn take_node_addresses(&mut self) -> Option<BTreeMap<IpAddr, NodeAddress>> {
        self.services.take_own_addresses()
    }

    /// Takes an event. What follows from it is in the next plan; whose an interface is, is
    /// decided here, because that depends on what was known when.
    pub fn apply(&mut self, event: Event) {
        // Interfaces whose owner may be another one now. Decided after the whole event.
        let mut undecided = BTreeSet::new();
        match event {
            Event::PodApplied(pod) => {
                self.set_pod(&pod.key.clone(), Some(pod), &mut undecided);
            }
            Event::PodDeleted(key) => self.set_pod(&key, None, &mut undecided),
            Event::NamespaceApplied(namespace) => {
                self.set_namespace(&namespace.name, Some(namespace.labels));
            }
            Event::NamespaceDeleted(name) => self.set_namespace(&name, None),
            Event::PolicyApplied(object) => {
                self.set_policy(&compile::key(&object), Some(compile::network_policy(&object)));
            }
            Event::PolicyDeleted(key) => self.set_policy(&key, None),
            Event::Relist { pods, namespaces, policies } => {
                self.relist_namespaces(namespaces);
                self.relist_policies(&policies);
                self.relist_pods(pods, &mut undecided);
            }
            Event::NodeApplied(node) => self.services.set_node(node),
            Event::NodeDeleted(name) => self.services.remove_node(&name),
            Event::ServiceApplied(service) => self.services.set_service(*service),
            Event::ServiceDeleted(key) => self.services.remove_service(&key),
            Event::SliceApplied(slice) => self.services.set_slice(slice),
            Event::SliceDeleted(key) => self.services.remove_slice(&key),
            Event::ServicesFound(found) => self.services.set_found(found),
            Event::ProxiesHadTime => self.services.age(),
            Event::NodeAddressesFound(addresses) => self.services.set_own_addresses(&addresses),
            Event::InterfaceFound(interface) => {
                self.dirty.endpoints.insert(interface.ifindex);
                undecided = self.interfaces.found(interface, Arrival::Older);
            }
            Event::InterfaceAppeared(interface) => {
                self.dirty.endpoints.insert(interface.ifindex);
                undecided = self.interfaces.found(interface, Arrival::Younger);
            }
            Event::InterfaceAdopted(adopted) => {
                self.dirty.endpoints.insert(adopted.interface.ifindex);
                undecided = self.interfaces.adopted(adopted);
            }
            Event::InterfaceLost(ifindex) => self.interface_lost(ifindex, &mut undecided),
            Event::SandboxFound(sandbox) => {
                let id = Arc::clone(&sandbox.id);
                let before = self.sandboxes.found(sandbox);
                for sandbox in before.iter().chain(self.sandboxes.get(&id)) {
                    undecided.extend(sandboxes::concerned(sandbox, &self.interfaces));
                }
            }
            Event::SandboxLost(id) => {
                if let Some(sandbox) = self.sandboxes.lost(&id) {
                    undecided = sandboxes::concerned(&sandbox, &self.interfaces);
                }
            }
            Event::StartPolicyChanged(policy) => self.set_start(policy),
        }
        self.decide(undecided);
    }

    fn decide(&mut self, mut undecided: BTreeSet<u32>) {
        while let Some(ifindex) = undecided.pop_first() {
            let knowledge = Knowledge {
                objects: &self.objects,
                sandboxes: &self.sandboxes,
                start: &self.start,
                node: self.node.as_deref(),
            };
            let before = self.interfaces.by_sandbox(ifindex);
            if !self.interfaces.decide(ifindex, &knowledge) {
                continue;
            }
            self.dirty.endpoints.insert(ifindex);
            // What the runtime gave a pod is the pod's, also before its object says so.
            for key in before.into_iter().chain(self.interfaces.by_sandbox(ifindex)) {
                self.set_again(&key, &mut undecided);
            }
        }
    }

    fn interface_lost(&mut self, ifindex: u32, undecided: &mut BTreeSet<u32>) {
        let Some((entry, concerned)) = self.interfaces.lost(ifindex) else { return };
        undecided.extend(concerned);
        if let Some(installed) = entry.installed {
            self.dirty.gone.insert(ifindex, installed);
        }
        if let Binding::Bound { pod, by: BoundBy::Sandbox { .. }, .. } = &entry.binding {
            self.set_again(&pod.key, undecided);
        }
    }

    /// A pod's addresses from the runtime may have changed: its object counts anew.
    fn set_again(&mut self, key: &ObjectKey, undecided: &mut BTreeSet<u32>) {
        let Some(pod) = self.objects.pod(key) else { return };
        let mut pod = Pod::clone(pod);
        if let Some(reported) = self.reported.get(key) {
            pod.addresses.clone_from(reported);
        }
        self.set_pod(key, Some(pod), undecided);
    }

    fn set_pod(&mut self, key: &ObjectKey, pod: Option<Pod>, undecided: &mut BTreeSet<u32>) {
        if pod.is_none() {
            self.reported.remove(key);
        }
        let mut given = Vec::new();
        let pod = pod.map(|mut pod| {
            pod.addresses = canonical(&pod.addresses);
            given = self.add_given(&mut pod);
            pod.ports.sort_unstable();
            pod.ports.dedup();
            pod
        });
        let Some(PodChange { old, new }) = self.objects.set_pod(key, pod, given) else { return };
        self.note_here(key, new.as_ref());
        for pod in old.iter().chain(&new) {
            self.dirty.addresses.extend(&pod.addresses);
            undecided.extend(self.interfaces.sharing(&pod.addresses));
        }
        for sandbox in self.sandboxes.of(key) {
            undecided.extend(sandboxes::concerned(sandbox, &self.interfaces));
        }
        // A pod that is gone stays what it last was for as long as its interface is there.
        if let Some(new) = &new {
            self.dirty.endpoints.extend(self.interfaces.update_pod(new));
        }
    }

    /// Adds the addresses that the runtime gave a pod to those that its object has. Returns them.
    fn add_given(&mut self, pod: &mut Pod) -> Vec<IpAddr> {
        let given = self.interfaces.given(&pod.key, &pod.uid);
        if given.is_empty() {
            self.reported.remove(&pod.key);
            return given;
        }
        self.reported.insert(pod.key.clone(), pod.addresses.clone());
        pod.addresses.extend(&given);
        pod.addresses = canonical(&pod.addresses);
        given
    }

    fn set_namespace(&mut self, name: &Arc<str>, labels: Option<Labels>) {
        let audited = self.audits(name);
        if !self.objects.set_namespace(name, labels) {
            return;
        }
        if audited != self.audits(name) {
            self.enforcement_changed(name);
        }
        if let Some(namespace) = self.objects.namespaces.get(name) {
            for pod in namespace.pods.values() {
                self.dirty.addresses.extend(&pod.addresses);
                // Their names say the labels.
                let interfaces = self.interfaces.of_pod(&pod.key).map(|(ifindex, _)| ifindex);
                self.dirty.endpoints.extend(interfaces);
            }
        }
    }

    fn set_policy(&mut self, key: &ObjectKey, policy: Option<Policy>) {
        let new = policy.clone();
        let Some(old) = self.objects.set_policy(key, policy) else { return };
        let subjects: Vec<_> = old
            .iter()
            .map(|policy| &**policy)
            .chain(&new)
            .filter_map(|p| p.subject.as_ref())
            .collect();
        for (ifindex, entry) in &self.interfaces.entries {
            if let Binding::Bound { pod, .. } = &entry.binding
                && pod.key.namespace == key.namespace
                && subjects.iter().any(|subject| subject.matches(&pod.labels))
            {
                self.dirty.endpoints.insert(*ifindex);
            }
        }
    }

    fn relist_namespaces(&mut self, namespaces: Vec<Namespace>) {
        let listed: HashSet<Arc<str>> = namespaces.iter().map(|n| Arc::clone(&n.name)).collect();
        let known = self.objects.namespaces.iter().filter(|(_, namespace)| namespace.known);
        let gone: Vec<_> =
            known.map(|(name, _)| name).filter(|name| !listed.contains(*name)).cloned().collect();
        for name in gone {
            self.set_namespace(&name, None);
        }
        for namespace in namespaces {
            self.set_namespace(&namespace.name, Some(namespace.labels));
        }
    }

    fn relist_policies(&mut self, policies: &[NetworkPolicy]) {
        let listed: HashSet<ObjectKey> = policies.iter().map(compile::key).collect();
        let known =
            self.objects.namespaces.values().flat_map(|n| n.policies.values()).map(|p| &p.key);
        let gone: Vec<_> = known.filter(|key| !listed.contains(*key)).cloned().collect();
        for key in gone {
            self.set_policy(&key, None);
        }
        for object in policies {
            self.set_policy(&compile::key(object), Some(compile::network_policy(object)));
        }
    }

    fn relist_pods(&mut self, pods: Vec<Pod>, undecided: &mut BTreeSet<u32>) {
        let listed: HashSet<ObjectKey> = pods.iter().map(|pod| pod.key.clone()).collect();
        let known = self.objects.namespaces.values().flat_map(|n| n.pods.values()).map(|p| &p.key);
        let gone: Vec<_> = known.filter(|key| !listed.contains(*key)).cloned().collect();
        for key in gone {
            self.set_pod(&key, None, undecided);
        }
        for pod in pods {
            self.set_pod(&pod.key.clone(), Some(pod), undecided);
        }
    }
}
