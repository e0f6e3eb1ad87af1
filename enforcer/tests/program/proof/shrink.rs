//! A smaller cluster that still shows the same: whatever can be left out is.

use enforcer_reference::{Cluster, Pod};
use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

/// Leaves out what can be left out while `shows` holds, which it does for `cluster`.
pub(crate) fn shrink(mut cluster: Cluster, mut shows: impl FnMut(&Cluster) -> bool) -> Cluster {
    loop {
        let mut smaller = false;
        let mut at = 0;
        // What is behind a part that has gone moves up into its place.
        while let Some(candidate) = without(&cluster, at) {
            if candidate != cluster && shows(&candidate) {
                cluster = candidate;
                smaller = true;
            } else {
                at += 1;
            }
        }
        if !smaller {
            return cluster;
        }
    }
}

/// The cluster without its part number `at`; `None` behind the last one.
fn without(cluster: &Cluster, at: usize) -> Option<Cluster> {
    let mut cluster = cluster.clone();
    let mut cut = Cut { left: at, done: false };
    cut.cluster(&mut cluster);
    cut.done.then_some(cluster)
}

/// Counts parts, and takes out the one that it has come to.
struct Cut {
    left: usize,
    done: bool,
}

impl Cut {
    /// Whether it is this part's turn.
    fn here(&mut self) -> bool {
        if self.done {
            return false;
        }
        if self.left == 0 {
            self.done = true;
            return true;
        }
        self.left -= 1;
        false
    }

    fn items<T>(&mut self, list: &mut Vec<T>) {
        for at in 0..list.len() {
            if self.here() {
                list.remove(at);
                return;
            }
        }
    }

    fn option<T>(&mut self, value: &mut Option<T>) {
        if value.is_some() && self.here() {
            *value = None;
        }
    }

    fn cluster(&mut self, cluster: &mut Cluster) {
        let Cluster { namespaces, pods, policies, services, node: _ } = cluster;
        self.items(policies);
        self.items(services);
        self.items(pods);
        self.items(namespaces);
        for namespace in namespaces {
            let own = "kubernetes.io/metadata.name";
            let keys: Vec<_> = namespace.labels.keys().filter(|key| *key != own).cloned().collect();
            self.keys(&keys, &mut namespace.labels);
        }
        pods.iter_mut().for_each(|pod| self.pod(pod));
        services.iter_mut().for_each(|service| self.items(&mut service.backends));
        policies.iter_mut().for_each(|policy| self.policy(policy));
    }

    fn keys<V>(&mut self, keys: &[String], map: &mut std::collections::BTreeMap<String, V>) {
        for key in keys {
            if self.here() {
                map.remove(key);
            }
        }
    }

    fn pod(&mut self, pod: &mut Pod) {
        let keys: Vec<_> = pod.labels.keys().cloned().collect();
        self.keys(&keys, &mut pod.labels);
        self.items(&mut pod.ports);
        for flag in [&mut pod.finished, &mut pod.terminating, &mut pod.host_network] {
            if *flag && self.here() {
                *flag = false;
            }
        }
        // What a local pod is known by stays.
        if !pod.name.name.starts_with("local") && pod.addresses.len() > 1 {
            self.items(&mut pod.addresses);
        }
    }

    fn policy(&mut self, policy: &mut NetworkPolicy) {
        let Some(spec) = &mut policy.spec else { return };
        self.option(&mut spec.policy_types);
        self.option(&mut spec.ingress);
        self.option(&mut spec.egress);
        if let Some(selector) = &mut spec.pod_selector {
            self.selector(selector);
        }
        if let Some(rules) = &mut spec.ingress {
            self.items(rules);
            for rule in rules {
                self.peers(&mut rule.from);
                self.ports(&mut rule.ports);
            }
        }
        if let Some(rules) = &mut spec.egress {
            self.items(rules);
            for rule in rules {
                self.peers(&mut rule.to);
                self.ports(&mut rule.ports);
            }
        }
    }

    fn peers(&mut self, peers: &mut Option<Vec<NetworkPolicyPeer>>) {
        self.option(peers);
        let Some(peers) = peers else { return };
        self.items(peers);
        for peer in peers {
            if let Some(block) = &mut peer.ip_block {
                self.option(&mut block.except);
                if let Some(except) = &mut block.except {
                    self.items(except);
                }
            }
            if peer.pod_selector.is_some() && peer.namespace_selector.is_some() {
                self.option(&mut peer.pod_selector);
            }
            if peer.pod_selector.is_some() && peer.namespace_selector.is_some() {
                self.option(&mut peer.namespace_selector);
            }
            let selectors = [&mut peer.pod_selector, &mut peer.namespace_selector];
            selectors.into_iter().flatten().for_each(|selector| self.selector(selector));
        }
    }

    fn ports(&mut self, ports: &mut Option<Vec<NetworkPolicyPort>>) {
        self.option(ports);
        let Some(ports) = ports else { return };
        self.items(ports);
        for port in ports {
            self.option(&mut port.end_port);
            self.option(&mut port.protocol);
            if port.end_port.is_none() {
                self.option(&mut port.port);
            }
        }
    }

    fn selector(&mut self, selector: &mut LabelSelector) {
        self.option(&mut selector.match_labels);
        self.option(&mut selector.match_expressions);
        if let Some(labels) = &mut selector.match_labels {
            let keys: Vec<_> = labels.keys().cloned().collect();
            self.keys(&keys, labels);
        }
        if let Some(expressions) = &mut selector.match_expressions {
            self.items(expressions);
            for values in expressions.iter_mut().filter_map(|one| one.values.as_mut()) {
                if values.len() > 1 {
                    self.items(values);
                }
            }
        }
    }
}
