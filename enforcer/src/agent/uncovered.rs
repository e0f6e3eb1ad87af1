//! Pods of this node on which nothing is enforced because their interface cannot be seen: named,
//! once it is clear that it does not only come late.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::api::NotEnforced;
use crate::cluster::event::{ObjectKey, Pod};

/// An interface is there before its pod's object has an address; what tells of it may be late.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why, for who reads status and events.
pub(super) const REASON: &str = "no interface on this node is known to be its own, so nothing is \
                                 enforced on it: macvlan, ipvlan and SR-IOV interfaces cannot be \
                                 seen from the node";

/// Pods by whether they were ever seen behind an interface.
#[derive(Debug, Default)]
pub(super) struct Uncovered {
    /// Those that have one, or had: one without it any more is at its end.
    covered: HashSet<Arc<str>>,
    /// Since when others have none.
    since: HashMap<Arc<str>, (ObjectKey, Instant)>,
}

impl Uncovered {
    /// Takes in this node's pods, each with whether an interface is known to be of it.
    pub(super) fn look<'a>(
        &mut self,
        pods: impl Iterator<Item = (&'a Arc<Pod>, bool)>,
        now: Instant,
    ) {
        let before = std::mem::take(self);
        for (pod, covered) in pods {
            let uid = Arc::clone(&pod.uid);
            if covered || before.covered.contains(&uid) {
                self.covered.insert(uid);
            } else {
                let since = before.since.get(&uid).map_or(now, |(_, since)| *since);
                self.since.insert(uid, (pod.key.clone(), since));
            }
        }
    }

    /// Those that have none for long enough: who, with its UID, in the order of names.
    pub(super) fn named(&self, now: Instant) -> Vec<(&ObjectKey, &Arc<str>)> {
        let is_clear = |since: &Instant| now.saturating_duration_since(*since) >= PATIENCE;
        let named = self.since.iter().filter(|(_, (_, since))| is_clear(since));
        let mut named: Vec<_> = named.map(|(uid, (key, _))| (key, uid)).collect();
        named.sort_unstable();
        named
    }

    /// The same for status.
    pub(super) fn report(&self, now: Instant) -> impl Iterator<Item = NotEnforced> {
        self.named(now).into_iter().map(|(key, _)| NotEnforced {
            interface: format!("pod {}/{}", key.namespace, key.name),
            reason: REASON.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::cluster::event::Labels;

    fn pod(name: &str) -> Arc<Pod> {
        let key = ObjectKey { namespace: "n".into(), name: name.into() };
        Arc::new(Pod {
            key,
            uid: format!("uid-{name}").into(),
            labels: Labels::new(),
            addresses: vec![IpAddr::from([10, 0, 0, 1])],
            host_network: false,
            finished: false,
            terminating: false,
            started: 0,
            containers_started: None,
            ports: Vec::new(),
            node: None,
            workload: None,
        })
    }

    #[test]
    fn a_pod_is_named_when_its_interface_does_not_only_come_late() {
        let (late, never, ends) = (pod("late"), pod("never"), pod("ends"));
        let mut uncovered = Uncovered::default();
        let start = Instant::now();
        let mut at = |seconds: u64, pods: &[(&Arc<Pod>, bool)]| {
            let now = start + Duration::from_secs(seconds);
            uncovered.look(pods.iter().copied(), now);
            let named = uncovered.report(now).map(|one| one.interface).collect::<Vec<_>>();
            named.join(", ")
        };
        assert_eq!(at(0, &[(&late, false), (&never, false), (&ends, true)]), "");
        assert_eq!(at(9, &[(&late, true), (&never, false), (&ends, true)]), "");
        assert_eq!(at(10, &[(&late, true), (&never, false), (&ends, false)]), "pod n/never");
        assert_eq!(at(30, &[(&late, true), (&never, false), (&ends, false)]), "pod n/never");
        assert_eq!(at(31, &[(&late, true)]), "", "it is gone");
        assert_eq!(at(32, &[(&never, false)]), "", "and another time begins anew");
    }
}
