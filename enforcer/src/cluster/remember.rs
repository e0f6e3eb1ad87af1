//! What must survive a reboot: enough to enforce the policies of this node's pods before the
//! cluster can be asked again.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    binding::Binding,
    event::{EndpointSlice, Labels, ObjectKey, Pod, Service},
    index::Index,
};

/// What of the cluster this node's policies depend on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remembered {
    /// Namespaces and their labels.
    pub namespaces: Vec<(Arc<str>, Arc<Labels>)>,
    /// Pods of the node.
    pub local: Vec<Arc<Pod>>,
    /// Other pods that policies of this node refer to.
    pub remote: Vec<Arc<Pod>>,
    /// Services with an address or node port: what goes to them is judged behind the translation,
    /// for which their endpoints need not be known.
    pub services: Vec<Service>,
    /// But for those that are processes of this node, of which these slices consist.
    pub slices: Vec<EndpointSlice>,
}

impl Index {
    /// The pod that an address is of.
    #[must_use]
    pub fn pod_at(&self, address: IpAddr) -> Option<&Arc<Pod>> {
        self.objects.owner(&address)
    }

    /// The pod that an interface is bound to.
    #[must_use]
    pub fn pod_behind(&self, ifindex: u32) -> Option<&Arc<Pod>> {
        match &self.interfaces.entries.get(&ifindex)?.binding {
            Binding::Bound { pod, .. } => Some(pod),
            _ => None,
        }
    }

    /// A pod as it was last heard of, with the addresses that the runtime gave it.
    #[must_use]
    pub fn pod(&self, key: &ObjectKey) -> Option<&Arc<Pod>> {
        self.objects.pod(key)
    }

    /// The UID of a pod's object.
    #[must_use]
    pub fn pod_uid(&self, key: &ObjectKey) -> Option<Arc<str>> {
        self.objects.pod(key).map(|pod| Arc::clone(&pod.uid))
    }

    /// What must survive a reboot of `node`, as of the last plan.
    #[must_use]
    pub fn remembered(&self, node: &str) -> Remembered {
        let known = self.objects.namespaces.iter().filter(|(_, namespace)| namespace.known);
        let mut namespaces: Vec<_> =
            known.map(|(name, of)| (Arc::clone(name), Arc::clone(&of.labels))).collect();
        namespaces.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let is_local = |pod: &Pod| pod.node.as_deref() == Some(node);
        let pods = self.objects.namespaces.values().flat_map(|namespace| namespace.pods.values());
        let mut local: Vec<_> =
            pods.filter(|pod| is_local(pod) && !pod.finished).cloned().collect();
        local.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let referred = self.objects.addresses.values().filter(|entry| entry.class.is_some());
        let remote: BTreeMap<&ObjectKey, &Arc<Pod>> = referred
            .filter_map(|entry| entry.owner.as_ref())
            .filter(|pod| !is_local(pod))
            .map(|pod| (&pod.key, pod))
            .collect();
        let services = self.services.services().filter(|service| !service.headless);
        Remembered {
            namespaces,
            local,
            remote: remote.into_values().cloned().collect(),
            services: services.cloned().collect(),
            slices: self.services.slices_on_node().collect(),
        }
    }
}
