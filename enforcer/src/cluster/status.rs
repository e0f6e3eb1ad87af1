//! What is enforced, and what is not and why, for `enforcer status`.

use std::{collections::BTreeSet, net::IpAddr};

use enforcer_common::abi::{Direction, TableId};
use serde::{Deserialize, Serialize};

use super::{binding::Binding, event::ObjectKey, index::Index, interfaces::Entry};

/// An object's name in status.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ObjectName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl From<&ObjectKey> for ObjectName {
    fn from(key: &ObjectKey) -> Self {
        Self { namespace: key.namespace.to_string(), name: key.name.to_string() }
    }
}

/// A local pod's interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Host-side interface index.
    pub ifindex: u32,
    /// Host-side interface name.
    pub interface: String,
    /// The pod.
    pub pod: ObjectName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Isolated for ingress, for egress.
    pub isolated: [bool; 2],
    /// Policies that isolate it, for ingress and for egress.
    pub isolating: [Vec<ObjectName>; 2],
    /// Nothing is dropped, only audited.
    pub audit: bool,
    /// Verdict table.
    pub table: TableId,
    /// Why it is closed, while the pod's policy is not known yet.
    pub starting: Option<String>,
}

/// A policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// The object.
    pub policy: ObjectName,
    /// Local pods that it selects.
    pub local_pods: usize,
    /// What of it is malformed and matches nothing.
    pub problems: Vec<String>,
}

/// A policy with ipBlocks that can match nothing, because they are meant for Services.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BlockStatus {
    /// The policy.
    pub policy: ObjectName,
    /// The blocks' CIDRs.
    pub blocks: Vec<String>,
}

/// How far the interfaces of a sandbox are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SandboxState {
    /// None is known.
    Unknown,
    /// Closed until the pod's object comes.
    Starting,
    /// The pod's policy is in the plan.
    Bound,
    /// Nothing can be enforced on one of them, for this reason.
    Unenforceable(String),
}

/// Why an interface is not a pod's endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InterfaceState {
    /// No pod object has any of its addresses.
    Unbound,
    /// Younger than the agent, and its pod's policy is not known yet: closed.
    Starting,
    /// It cannot be told whose it is: closed.
    Ambiguous,
    /// A pod's, and nothing can be enforced on it.
    Unenforceable,
}

/// An interface that is not a pod's endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Host-side interface index.
    pub ifindex: u32,
    /// Host-side interface name.
    pub interface: String,
    /// Kind as netlink names it.
    pub kind: String,
    /// Addresses of its peer, or those that it was armed with.
    pub addresses: Vec<IpAddr>,
    /// What it is instead.
    pub state: InterfaceState,
    /// Why, for the reader.
    pub reason: String,
}

/// How much there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Pod objects known.
    pub pods: usize,
    /// Namespace objects known.
    pub namespaces: usize,
    /// Policies known.
    pub policies: usize,
    /// Address classes.
    pub classes: usize,
    /// Rows in the kernel.
    pub rows: usize,
    /// Pod addresses with an entry in the kernel.
    pub peers: usize,
    /// Prefixes in the kernel.
    pub cidrs: usize,
    /// Verdict tables.
    pub tables: usize,
    /// Virtual addresses and ports of Services in the kernel.
    pub services: usize,
}

/// What [`Index::status`] says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IndexStatus {
    /// The last plan taken.
    pub revision: u64,
    /// Local pods' interfaces, by index.
    pub endpoints: Vec<EndpointStatus>,
    /// Policies, by namespace and name.
    pub policies: Vec<PolicyStatus>,
    /// Interfaces that are no endpoints, by index.
    pub interfaces: Vec<InterfaceStatus>,
    /// Sizes.
    pub counts: Counts,
}

impl Index {
    /// The state after the plans taken so far.
    #[must_use]
    pub fn status(&self) -> IndexStatus {
        IndexStatus {
            revision: self.revision,
            endpoints: self
                .interfaces
                .entries
                .iter()
                .filter_map(|(ifindex, entry)| self.endpoint_status(*ifindex, entry))
                .collect(),
            policies: self.policy_status(),
            interfaces: self.interfaces.entries.values().filter_map(interface_status).collect(),
            counts: self.counts(),
        }
    }

    /// The interfaces of a pod's sandbox, by the pod's UID, and how far they are.
    #[must_use]
    pub fn sandbox_state(&self, uid: &str) -> (SandboxState, Vec<u32>) {
        let mut state = SandboxState::Unknown;
        let mut interfaces = Vec::new();
        for (ifindex, entry) in &self.interfaces.entries {
            let now = match &entry.binding {
                Binding::Bound { pod, .. } if *pod.uid == *uid => SandboxState::Bound,
                Binding::Starting { sandbox: Some(sandbox), .. } if *sandbox.uid == *uid => {
                    SandboxState::Starting
                }
                Binding::Unenforceable { reason } if self.is_sandboxs(entry, uid) => {
                    SandboxState::Unenforceable(reason.clone())
                }
                _ => continue,
            };
            interfaces.push(*ifindex);
            // One that is not ready keeps the whole waiting.
            if state == SandboxState::Unknown || now != SandboxState::Bound {
                state = now;
            }
        }
        (state, interfaces)
    }

    fn is_sandboxs(&self, entry: &Entry, uid: &str) -> bool {
        self.sandboxes.claims(entry).iter().any(|sandbox| *sandbox.uid == *uid)
    }

    fn endpoint_status(&self, ifindex: u32, entry: &Entry) -> Option<EndpointStatus> {
        let (Some(installed), Some(named)) = (&entry.installed, &entry.named) else { return None };
        let isolating = Direction::BOTH
            .map(|d| named.isolating[d as usize].iter().map(ObjectName::from).collect());
        Some(EndpointStatus {
            ifindex,
            interface: installed.name.to_string(),
            pod: ObjectName::from(&named.pod.key),
            addresses: installed.addresses.clone(),
            isolated: self.tables.get(installed.table)?.isolated(),
            isolating,
            audit: installed.audit,
            table: installed.table,
            starting: match &entry.binding {
                Binding::Starting { reason, .. } => Some(reason.clone()),
                _ => None,
            },
        })
    }

    fn policy_status(&self) -> Vec<PolicyStatus> {
        let local = || {
            self.interfaces.entries.values().filter_map(|entry| match &entry.binding {
                Binding::Bound { pod, .. } => Some(pod),
                Binding::Waiting
                | Binding::Starting { .. }
                | Binding::Closed { .. }
                | Binding::Unenforceable { .. } => None,
            })
        };
        let policies = self.objects.namespaces.values().flat_map(|n| n.policies.values());
        let mut list: Vec<_> = policies.collect();
        list.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        list.into_iter()
            .map(|policy| {
                let selected = local().filter(|pod| {
                    pod.key.namespace == policy.key.namespace
                        && policy.subject.as_ref().is_some_and(|s| s.matches(&pod.labels))
                });
                // A pod with several interfaces is one pod.
                let pods: BTreeSet<_> = selected.map(|pod| (&pod.key, &pod.uid)).collect();
                PolicyStatus {
                    policy: ObjectName::from(&policy.key),
                    local_pods: pods.len(),
                    problems: policy.problems.clone(),
                }
            })
            .collect()
    }

    fn counts(&self) -> Counts {
        Counts {
            pods: self.objects.pods,
            namespaces: self.objects.namespaces.values().filter(|n| n.known).count(),
            policies: self.objects.policies,
            classes: self.classes.len(),
            rows: self.tables.iter().map(|(_, t)| t.rows[0].len() + t.rows[1].len()).sum(),
            peers: self.objects.addresses.values().filter(|entry| entry.class.is_some()).count(),
            cidrs: self.prefixes.len(),
            tables: self.tables.iter().count(),
            services: self.services.entries(),
        }
    }
}

fn interface_status(entry: &Entry) -> Option<InterfaceStatus> {
    let (state, reason) = match &entry.binding {
        Binding::Bound { .. } => return None,
        Binding::Waiting => (InterfaceState::Unbound, "no pod object has any of its addresses"),
        Binding::Starting { reason, .. } => (InterfaceState::Starting, reason.as_str()),
        Binding::Closed { reason, .. } => (InterfaceState::Ambiguous, reason.as_str()),
        Binding::Unenforceable { reason } => (InterfaceState::Unenforceable, reason.as_str()),
    };
    Some(InterfaceStatus {
        ifindex: entry.interface.ifindex,
        interface: entry.interface.name.to_string(),
        kind: entry.interface.kind.to_string(),
        addresses: entry.deciding.clone(),
        state,
        reason: reason.to_owned(),
    })
}
