//! The objects that verdicts depend on, as their sources told them: kept apart from the index, so
//! that a mistake of the index is none here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use enforcer_reference::Cluster;
use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::{Sample, convert};
use crate::cluster::event::{Event, Labels, Namespace, ObjectKey, Pod, Service};

/// The objects.
#[derive(Debug, Default)]
pub struct Mirror {
    pods: HashMap<ObjectKey, Pod>,
    claims: HashMap<IpAddr, BTreeSet<ObjectKey>>,
    namespaces: HashMap<Arc<str>, Labels>,
    /// By namespace and name.
    policies: HashMap<String, BTreeMap<String, NetworkPolicy>>,
    virtual_addresses: HashMap<ObjectKey, Vec<IpAddr>>,
    /// How many Services have an address.
    virtual_claims: HashMap<IpAddr, usize>,
    node: HashSet<IpAddr>,
}

impl Mirror {
    /// Takes an event in. Whether a verdict can depend on it.
    pub fn apply(&mut self, event: &Event) -> bool {
        match event {
            Event::PodApplied(pod) => self.pod(pod),
            Event::PodDeleted(key) => self.forget_pod(key),
            Event::NamespaceApplied(namespace) => self.namespace(namespace),
            Event::NamespaceDeleted(name) => {
                self.namespaces.remove(name);
            }
            Event::PolicyApplied(policy) => self.policy(policy),
            Event::PolicyDeleted(key) => {
                if let Some(policies) = self.policies.get_mut(&*key.namespace) {
                    policies.remove(&*key.name);
                }
            }
            Event::Relist { pods, namespaces, policies } => {
                (self.pods, self.claims) = Default::default();
                (self.namespaces, self.policies) = Default::default();
                pods.iter().for_each(|pod| self.pod(pod));
                namespaces.iter().for_each(|namespace| self.namespace(namespace));
                policies.iter().for_each(|policy| self.policy(policy));
            }
            Event::ServiceApplied(service) => self.service(service),
            Event::ServiceDeleted(key) => self.forget_service(key),
            Event::NodeAddressesFound(addresses) => {
                self.node = addresses.iter().copied().collect();
            }
            Event::NodeApplied(_)
            | Event::NodeDeleted(_)
            | Event::SliceApplied(_)
            | Event::SliceDeleted(_)
            | Event::ServicesFound(_)
            | Event::ProxiesHadTime
            | Event::InterfaceFound(_)
            | Event::InterfaceAppeared(_)
            | Event::InterfaceAdopted(_)
            | Event::InterfaceLost(_)
            | Event::SandboxFound(_)
            | Event::SandboxLost(_)
            | Event::StartPolicyChanged(_) => return false,
        }
        true
    }

    /// What a sample's verdict depends on, and its pod. `None` if that is another one by now, or the
    /// sample goes to a Service's address.
    pub fn about(&self, sample: &Sample) -> Option<(Cluster, enforcer_reference::Pod)> {
        let subject = self.pods.get(&sample.subject).filter(|pod| *pod.uid == *sample.uid)?;
        let other = sample.other();
        if self.virtual_claims.contains_key(&other) {
            return None;
        }
        let claims = self.claims.get(&other).into_iter().flatten();
        let pods: Vec<&Pod> = claims.filter_map(|key| self.pods.get(key)).collect();
        let namespaces: BTreeSet<&Arc<str>> =
            pods.iter().map(|pod| &pod.key.namespace).chain([&subject.key.namespace]).collect();
        let namespace = |name: &Arc<str>| {
            let labels = self.namespaces.get(name)?.to_map();
            Some(enforcer_reference::Namespace { name: name.to_string(), labels })
        };
        let policies = self.policies.get(&*subject.key.namespace);
        let cluster = Cluster {
            namespaces: namespaces.into_iter().filter_map(namespace).collect(),
            pods: pods.into_iter().map(convert::pod).collect(),
            policies: policies.into_iter().flat_map(BTreeMap::values).cloned().collect(),
            services: Vec::new(),
            node: self.node.iter().copied().collect(),
        };
        // The runtime may know of an address before its object says so.
        let owner = cluster.owner(other).map(|pod| &pod.name);
        if owner != sample.peer.as_ref().map(convert::name).as_ref() {
            return None;
        }
        Some((cluster, convert::pod(subject)))
    }

    fn pod(&mut self, pod: &Pod) {
        self.forget_pod(&pod.key);
        for address in &pod.addresses {
            self.claims.entry(*address).or_default().insert(pod.key.clone());
        }
        self.pods.insert(pod.key.clone(), pod.clone());
    }

    fn forget_pod(&mut self, key: &ObjectKey) {
        for address in self.pods.remove(key).into_iter().flat_map(|pod| pod.addresses) {
            if let Some(claims) = self.claims.get_mut(&address) {
                claims.remove(key);
                if claims.is_empty() {
                    self.claims.remove(&address);
                }
            }
        }
    }

    fn service(&mut self, service: &Service) {
        let Service { key, cluster_ips, external_ips, load_balancer_ips, .. } = service;
        self.forget_service(key);
        let all = [&cluster_ips[..], external_ips, load_balancer_ips].concat();
        for address in &all {
            *self.virtual_claims.entry(*address).or_default() += 1;
        }
        self.virtual_addresses.insert(key.clone(), all);
    }

    fn forget_service(&mut self, key: &ObjectKey) {
        for address in self.virtual_addresses.remove(key).into_iter().flatten() {
            if let Entry::Occupied(mut claims) = self.virtual_claims.entry(address) {
                *claims.get_mut() -= 1;
                if *claims.get() == 0 {
                    claims.remove();
                }
            }
        }
    }

    fn namespace(&mut self, namespace: &Namespace) {
        self.namespaces.insert(Arc::clone(&namespace.name), namespace.labels.clone());
    }

    fn policy(&mut self, policy: &NetworkPolicy) {
        let namespace = policy.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let name = policy.metadata.name.clone().unwrap_or_default();
        self.policies.entry(namespace).or_default().insert(name, policy.clone());
    }
}
