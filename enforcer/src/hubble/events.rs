//! What the agent did: a closed list, and a ring of the last of it.

use std::sync::Arc;

use enforcer_hubble::{
    flow::{
        AgentEvent as Proto, AgentEventType, AgentEventUnknown, EndpointRegenNotification,
        EndpointUpdateNotification, PolicyUpdateNotification, TimeNotification,
        agent_event::Notification,
    },
    observer::GetAgentEventsResponse,
};

use super::{
    convert::{NAMESPACE_LABEL, timestamp},
    origin::Origin,
};
use crate::{
    cluster::{event::ObjectKey, plan::PodIdentity},
    flow::ring::Ring,
};

/// Events that are kept.
pub const KEPT: usize = 4096;

/// Something that the agent did or noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentEvent {
    /// It started to look after the node.
    Started,
    /// A policy is new or changed.
    PolicyUpdated(PolicyChange),
    /// A policy is gone.
    PolicyDeleted(PolicyChange),
    /// An interface is a pod's, and enforced on.
    EndpointCreated(EndpointChange),
    /// An interface is gone.
    EndpointDeleted(EndpointChange),
    /// Another policy is in force for a pod; or it could not be written, and why.
    EndpointRegenerated(EndpointChange, Result<(), String>),
    /// Something in the flows that a person should look at.
    Insight {
        /// Its kind, a word that can be counted: `PortScan`.
        kind: &'static str,
        /// What was seen.
        text: String,
    },
}

/// A policy of which something is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyChange {
    /// Kind of the object.
    pub kind: &'static str,
    /// The object.
    pub key: ObjectKey,
    /// Revision of the plan by then.
    pub revision: u64,
    /// Rules in it.
    pub rules: usize,
}

/// An endpoint of which something is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointChange {
    /// Host-side interface index.
    pub ifindex: u32,
    /// The pod.
    pub pod: Arc<PodIdentity>,
}

/// An event and when it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// Ns since the epoch.
    pub time: i64,
    /// What happened.
    pub event: AgentEvent,
}

/// An event as a line of the stream.
#[must_use]
pub fn response(stamped: &Stamped, origin: &Origin) -> GetAgentEventsResponse {
    GetAgentEventsResponse {
        agent_event: Some(proto(stamped)),
        node_name: origin.name().to_owned(),
        time: Some(timestamp(stamped.time)),
    }
}

/// An event in Hubble's form.
#[must_use]
pub fn proto(stamped: &Stamped) -> Proto {
    use AgentEventType as Type;
    let (r#type, notification) = match &stamped.event {
        AgentEvent::Started => {
            let start = TimeNotification { time: Some(timestamp(stamped.time)) };
            (Type::AgentStarted, Notification::AgentStart(start))
        }
        AgentEvent::PolicyUpdated(policy) => (Type::PolicyUpdated, policy.proto()),
        AgentEvent::PolicyDeleted(policy) => (Type::PolicyDeleted, policy.proto()),
        AgentEvent::EndpointCreated(endpoint) => (Type::EndpointCreated, endpoint.update()),
        AgentEvent::EndpointDeleted(endpoint) => (Type::EndpointDeleted, endpoint.update()),
        AgentEvent::EndpointRegenerated(endpoint, Ok(())) => {
            (Type::EndpointRegenerateSuccess, endpoint.regenerated(""))
        }
        AgentEvent::EndpointRegenerated(endpoint, Err(why)) => {
            (Type::EndpointRegenerateFailure, endpoint.regenerated(why))
        }
        AgentEvent::Insight { kind, text } => {
            let r#type = format!("enforcer.io/{kind}");
            let unknown = AgentEventUnknown { r#type, notification: text.clone() };
            (Type::AgentEventUnknown, Notification::Unknown(unknown))
        }
    };
    Proto { r#type: r#type.into(), notification: Some(notification) }
}

impl PolicyChange {
    fn proto(&self) -> Notification {
        // As Cilium labels what it makes of an object.
        let label = |name: &str, value: &str| format!("k8s:io.cilium.k8s.policy.{name}={value}");
        Notification::PolicyUpdate(PolicyUpdateNotification {
            labels: vec![
                label("derived-from", self.kind),
                label("name", &self.key.name),
                label("namespace", &self.key.namespace),
            ],
            revision: self.revision,
            rule_count: i64::try_from(self.rules).unwrap_or(i64::MAX),
        })
    }
}

impl EndpointChange {
    fn labels(&self) -> Vec<String> {
        let own = self.pod.labels.iter().map(|(key, value)| format!("k8s:{key}={value}"));
        let namespace = format!("k8s:{NAMESPACE_LABEL}={}", self.pod.key.namespace);
        own.chain([namespace]).collect()
    }

    fn update(&self) -> Notification {
        Notification::EndpointUpdate(EndpointUpdateNotification {
            id: self.ifindex.into(),
            labels: self.labels(),
            error: String::new(),
            pod_name: self.pod.key.name.to_string(),
            namespace: self.pod.key.namespace.to_string(),
        })
    }

    fn regenerated(&self, error: &str) -> Notification {
        Notification::EndpointRegenerate(EndpointRegenNotification {
            id: self.ifindex.into(),
            labels: self.labels(),
            error: error.to_owned(),
        })
    }
}

/// The last events; clones are handles to the same ring.
#[derive(Clone, Debug)]
pub struct EventRing(Ring<Stamped>);

impl Default for EventRing {
    fn default() -> Self {
        Self(Ring::new(KEPT))
    }
}

impl EventRing {
    /// Appends an event of this moment and forgets the oldest if the ring is full.
    pub fn push(&self, event: AgentEvent) {
        self.push_at(super::server::now(), event);
    }

    /// Appends an event of another moment, ns since the epoch.
    pub fn push_at(&self, time: i64, event: AgentEvent) {
        self.0.push(Stamped { time, event });
    }

    /// Number that the next event will have.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.0.next()
    }

    /// The events that are kept from number `from` on, and the number to read on from.
    #[must_use]
    pub fn read(&self, from: u64) -> (Vec<Arc<Stamped>>, u64) {
        let (mut events, mut next) = (Vec::new(), from);
        loop {
            let batch = self.0.read(next, KEPT);
            next = batch.next;
            if batch.kept.is_empty() {
                return (events, next);
            }
            events.extend(batch.kept);
        }
    }

    /// Waits until there is an event with number `from`.
    pub async fn appended(&self, from: u64) {
        self.0.appended(from).await;
    }
}

#[cfg(test)]
mod tests {
    use enforcer_hubble::json;

    use super::*;
    use crate::flow::event::tests::{key, pod};

    #[test]
    fn events_have_hubbles_json() {
        let origin = Origin::new("default", "w1");
        let change =
            PolicyChange { kind: "NetworkPolicy", key: key("shop", "deny"), revision: 7, rules: 2 };
        let endpoint = EndpointChange { ifindex: 5, pod: pod("shop", "web") };
        let labels = r#"["k8s:app=web","k8s:io.kubernetes.pod.namespace=shop"]"#;
        for (event, expected) in [
            (
                AgentEvent::Started,
                r#""type":"AGENT_STARTED","agent_start":{"time":"1970-01-01T00:00:01Z"}"#.to_owned(),
            ),
            (
                AgentEvent::PolicyDeleted(change),
                r#""type":"POLICY_DELETED","policy_update":{"labels":["k8s:io.cilium.k8s.policy.derived-from=NetworkPolicy","k8s:io.cilium.k8s.policy.name=deny","k8s:io.cilium.k8s.policy.namespace=shop"],"revision":"7","rule_count":"2"}"#.to_owned(),
            ),
            (
                AgentEvent::EndpointCreated(endpoint.clone()),
                format!(r#""type":"ENDPOINT_CREATED","endpoint_update":{{"id":"5","labels":{labels},"pod_name":"web","namespace":"shop"}}"#),
            ),
            (
                AgentEvent::EndpointRegenerated(endpoint, Err("full".into())),
                format!(r#""type":"ENDPOINT_REGENERATE_FAILURE","endpoint_regenerate":{{"id":"5","labels":{labels},"error":"full"}}"#),
            ),
            (
                AgentEvent::Insight { kind: "PortScan", text: "shop/web tried 100 ports".into() },
                r#""unknown":{"type":"enforcer.io/PortScan","notification":"shop/web tried 100 ports"}"#.to_owned(),
            ),
        ] {
            let stamped = Stamped { time: 1_000_000_000, event };
            let text = json::to_string(&response(&stamped, &origin)).unwrap();
            let rest = r#""node_name":"default/w1","time":"1970-01-01T00:00:01Z""#;
            assert_eq!(text, format!("{{\"agent_event\":{{{expected}}},{rest}}}"));
        }
    }

    #[test]
    fn the_last_events_are_kept() {
        let ring = EventRing::default();
        assert_eq!(ring.read(0), (Vec::new(), 0));
        for time in 0..KEPT as i64 + 2 {
            ring.push_at(time, AgentEvent::Started);
        }
        let (events, next) = ring.read(0);
        assert_eq!((events.len(), events[0].time, next), (KEPT, 2, KEPT as u64 + 2));
        assert_eq!(ring.read(next - 1).0.len(), 1);
        // A number of the future waits for it.
        assert_eq!(ring.read(u64::MAX), (Vec::new(), next));
    }
}
