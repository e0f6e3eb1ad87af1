//! What others are told of the agent's own doing.

use std::{
    collections::{HashMap, HashSet},
    hash::Hasher as _,
    sync::Arc,
};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use siphasher::sip::SipHasher13;
use tokio::sync::watch;

use super::core::Core;
use crate::{
    cluster::{
        event::{Event, ObjectKey},
        plan::{NameChange, PodIdentity},
    },
    flow::nodes::PeerNodes,
    hubble::events::{AgentEvent, EndpointChange, EventRing, PolicyChange},
};

/// Kind of the objects.
const KIND: &str = "NetworkPolicy";

/// The events, and what must be known to tell changes from repetitions.
#[derive(Debug)]
pub(super) struct Told {
    events: EventRing,
    policies: HashMap<ObjectKey, Known>,
    endpoints: HashMap<u32, Arc<PodIdentity>>,
}

/// A policy that was told of.
#[derive(Debug)]
struct Known {
    content: u64,
    rules: usize,
}

impl Default for Told {
    fn default() -> Self {
        let events = EventRing::default();
        events.push(AgentEvent::Started);
        Self { events, policies: HashMap::new(), endpoints: HashMap::new() }
    }
}

impl Core {
    /// What is told of the agent, for those who show it.
    pub(super) fn events(&self) -> EventRing {
        self.told.events.clone()
    }

    /// The nodes of the cluster, now and whenever they change.
    pub(super) fn nodes(&self) -> watch::Receiver<PeerNodes> {
        self.nodes.watch()
    }
}

impl Told {
    /// Tells what these events change of policies; `revision` is that of the plan by now.
    pub(super) fn objects(&mut self, events: &[Event], revision: u64) {
        for event in events {
            match event {
                Event::PolicyApplied(policy) => {
                    self.applied(policy, revision);
                }
                Event::PolicyDeleted(key) => self.deleted(key, revision),
                Event::Relist { policies, .. } => {
                    let listed: HashSet<_> =
                        policies.iter().map(|policy| self.applied(policy, revision)).collect();
                    let gone = self.policies.keys().filter(|key| !listed.contains(*key));
                    for key in gone.cloned().collect::<Vec<_>>() {
                        self.deleted(&key, revision);
                    }
                }
                _ => {}
            }
        }
    }

    fn applied(&mut self, policy: &NetworkPolicy, revision: u64) -> ObjectKey {
        let name = |name: &Option<String>| name.as_deref().unwrap_or_default().into();
        let metadata = &policy.metadata;
        let key = ObjectKey { namespace: name(&metadata.namespace), name: name(&metadata.name) };
        let spec = policy.spec.as_ref();
        let rules = spec.map_or(0, |spec| {
            spec.ingress.as_ref().map_or(0, Vec::len) + spec.egress.as_ref().map_or(0, Vec::len)
        });
        let mut hasher = SipHasher13::new();
        hasher.write(&serde_json::to_vec(&spec).unwrap_or_default());
        let content = hasher.finish();
        let before = self.policies.insert(key.clone(), Known { content, rules });
        if before.is_none_or(|before| before.content != content) {
            let change = PolicyChange { kind: KIND, key: key.clone(), revision, rules };
            self.events.push(AgentEvent::PolicyUpdated(change));
        }
        key
    }

    fn deleted(&mut self, key: &ObjectKey, revision: u64) {
        if let Some(Known { rules, .. }) = self.policies.remove(key) {
            let change = PolicyChange { kind: KIND, key: key.clone(), revision, rules };
            self.events.push(AgentEvent::PolicyDeleted(change));
        }
    }

    /// Tells what a plan changed of endpoints; `failure` is what of it could not be written.
    pub(super) fn names(&mut self, names: &[NameChange], failure: Option<&str>) {
        for name in names {
            match name {
                NameChange::Endpoint(ifindex, _, pod, _) => {
                    let change = EndpointChange { ifindex: *ifindex, pod: Arc::clone(pod) };
                    let before = self.endpoints.insert(*ifindex, Arc::clone(pod));
                    let is_same = before.is_some_and(|before| before.key == pod.key);
                    let written = failure.map_or(Ok(()), |failure| Err(failure.to_owned()));
                    if !is_same {
                        self.events.push(AgentEvent::EndpointCreated(change.clone()));
                    }
                    if is_same || written.is_err() {
                        self.events.push(AgentEvent::EndpointRegenerated(change, written));
                    }
                }
                NameChange::EndpointGone(ifindex) => {
                    if let Some(pod) = self.endpoints.remove(ifindex) {
                        let change = EndpointChange { ifindex: *ifindex, pod };
                        self.events.push(AgentEvent::EndpointDeleted(change));
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1::{NetworkPolicyIngressRule, NetworkPolicySpec};

    use super::*;
    use crate::{
        flow::event::tests::{key, pod},
        policy::rule::Isolating,
    };

    fn policy(name: &str, rules: usize) -> NetworkPolicy {
        let mut policy = NetworkPolicy::default();
        policy.metadata.namespace = Some("shop".into());
        policy.metadata.name = Some(name.into());
        let ingress = Some(vec![NetworkPolicyIngressRule::default(); rules]);
        policy.spec = Some(NetworkPolicySpec { ingress, ..NetworkPolicySpec::default() });
        policy
    }

    fn said(told: &Told) -> Vec<String> {
        let (events, _) = told.events.read(1);
        let one = |event: &AgentEvent| match event {
            AgentEvent::PolicyUpdated(change) => format!("+{} {}", change.key.name, change.rules),
            AgentEvent::PolicyDeleted(change) => format!("-{} {}", change.key.name, change.rules),
            AgentEvent::EndpointCreated(change) => format!("+{}", change.pod.key.name),
            AgentEvent::EndpointDeleted(change) => format!("-{}", change.pod.key.name),
            AgentEvent::EndpointRegenerated(change, result) => {
                format!("~{} {}", change.pod.key.name, result.as_ref().err().map_or("", |e| e))
            }
            other => format!("{other:?}"),
        };
        events.iter().map(|stamped| one(&stamped.event)).collect()
    }

    #[test]
    fn only_changes_of_policies_are_told() {
        let mut told = Told::default();
        let apply = |name, rules| Event::PolicyApplied(Box::new(policy(name, rules)));
        told.objects(&[apply("a", 1), apply("b", 2), apply("a", 1)], 0);
        told.objects(&[apply("a", 3), Event::PolicyDeleted(key("shop", "x"))], 0);
        let policies = vec![policy("a", 3), policy("c", 1)];
        told.objects(&[Event::Relist { pods: Vec::new(), namespaces: Vec::new(), policies }], 0);
        assert_eq!(said(&told), ["+a 1", "+b 2", "+a 3", "+c 1", "-b 2"]);
        assert!(matches!(told.events.read(0).0[0].event, AgentEvent::Started));
    }

    #[test]
    fn endpoints_come_change_and_go() {
        let mut told = Told::default();
        let isolating = <[Isolating; 2]>::default;
        let set = |name| NameChange::Endpoint(5, "veth5".into(), pod("shop", name), isolating());
        told.names(&[set("web")], None);
        told.names(&[set("web")], None);
        told.names(&[set("db")], Some("map is full"));
        told.names(&[NameChange::EndpointGone(5), NameChange::EndpointGone(5)], None);
        assert_eq!(said(&told), ["+web", "~web ", "+db", "~db map is full", "-db"]);
    }
}
