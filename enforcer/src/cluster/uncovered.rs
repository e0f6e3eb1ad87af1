//! Pods of this node whose interface is not known: nothing is enforced on them.

use std::sync::Arc;

use super::{
    binding::Binding,
    event::{ObjectKey, Pod},
    index::Index,
    objects::is_on_pod_network,
};

impl Index {
    /// Notes whether a pod is this node's.
    pub(super) fn note_here(&mut self, key: &ObjectKey, pod: Option<&Arc<Pod>>) {
        let node = self.node.as_deref();
        match pod.filter(|pod| node.is_some() && pod.node.as_deref() == node) {
            Some(pod) => self.here.insert(key.clone(), Arc::clone(pod)),
            None => self.here.remove(key),
        };
    }

    /// Pods that run on this node by their objects, where these name it; whether an interface is
    /// known to be of each. One that is named with an interface elsewhere (because nothing can be
    /// enforced on it, or it is not clear whose it is) counts as known.
    pub fn covered(&self) -> impl Iterator<Item = (&Arc<Pod>, bool)> {
        let runs = |pod: &&Arc<Pod>| {
            is_on_pod_network(pod) && !pod.terminating && !pod.addresses.is_empty()
        };
        self.here.values().filter(runs).map(|pod| (pod, self.has_interface(pod)))
    }

    fn has_interface(&self, pod: &Pod) -> bool {
        // A node has a hundred pods or two.
        self.interfaces.entries.values().any(|entry| match &entry.binding {
            Binding::Bound { pod: owner, .. } => owner.key == pod.key && owner.uid == pod.uid,
            _ => {
                let claims = self.sandboxes.claims(entry);
                entry.deciding.iter().any(|address| pod.addresses.contains(address))
                    || claims.iter().any(|sandbox| *sandbox.uid == *pod.uid)
            }
        })
    }
}
