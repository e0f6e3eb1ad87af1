//! What goes over the agent's socket: the client sends one line of JSON, a [`Request`]; the agent
//! answers with another, a [`Reply`]. Flows go over the socket of [`crate::hubble::server`].

use serde::{Deserialize, Serialize};

use crate::source::{manifests::Ignored, problem::Problem, report::SourceReport};

/// Name of the socket in the run directory.
pub const SOCKET_NAME: &str = "enforcer.sock";

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// What is enforced.
    Status(StatusRequest),
    /// Another agent is ready to look after the node.
    GiveWay {},
}

/// What to wait for before the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatusRequest {
    /// Read the sources again and wait, for at most so many seconds, until all of it is in force.
    pub wait_seconds: Option<u64>,
    /// Ask about this policy only: `policy/NAMESPACE/NAME`.
    #[serde(rename = "for")]
    pub only: Option<String>,
    /// Interfaces that cannot be enforced on are no failure.
    pub ignore_unenforceable: bool,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The request was not understood or cannot be served.
    Error(String),
    /// To [`Request::Status`].
    Status(Box<StatusReply>),
    /// To [`Request::GiveWay`]: the lock will be free in a moment.
    GivingWay {},
}

/// The answer to [`Request::Status`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusReply {
    /// Why the answer is no (time-out, interfaces that cannot be enforced on, state from disk);
    /// `None` for yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The state.
    pub report: StatusReport,
}

/// What is enforced, what is not, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusReport {
    /// The agent.
    pub agent: AgentReport,
    /// Where objects come from.
    pub source: SourceReport,
    /// Local pod interfaces.
    pub endpoints: Vec<EndpointReport>,
    /// Policies, with how far they are enforced.
    pub policies: Vec<PolicyReport>,
    /// Interfaces without enforcement.
    pub not_enforced: Vec<NotEnforced>,
    /// Pods that started while no agent was there, `namespace/name`: armed late.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unguarded: Vec<String>,
    /// Other enforcers, and network plugins that could be some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rivals: Vec<RivalReport>,
    /// The gate, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateReport>,
    /// What is wrong with the server of flows, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub observer: Vec<String>,
    /// What is wrong with the objects.
    pub problems: Vec<Problem>,
    /// Kinds that mean nothing here.
    pub ignored: Vec<Ignored>,
    /// How full the kernel's maps are.
    pub maps: Vec<MapReport>,
    /// Packets by reason, those that occurred.
    pub counters: Vec<CounterReport>,
    /// Packets that passed and would have been dropped, by reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spared: Vec<SparedReport>,
    /// Events lost because a ring was full.
    pub lost_events: LostEvents,
}

/// Another enforcer on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RivalReport {
    /// Its name.
    pub name: String,
    /// Whether it enforces policy, as far as its signs tell.
    pub enforces: bool,
    /// What was found.
    pub evidence: Vec<String>,
}

/// The gate that holds starting pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GateReport {
    /// The runtime asks it.
    pub connected: bool,
    /// Name and version of the runtime.
    pub runtime: Option<String>,
    /// Sandboxes let go, armed.
    pub held: u64,
    /// Sandboxes refused.
    pub refused: u64,
    /// Sandboxes whose runtime went while they were held.
    pub abandoned: u64,
    /// Why it was last not connected, or refused a sandbox.
    pub last_error: Option<String>,
}

/// The agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentReport {
    /// Version.
    pub version: String,
    /// Node.
    pub node: String,
    /// Which of several agents this is (`--instance`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Process id.
    pub pid: u32,
    /// Start, RFC 3339.
    pub started: String,
    /// Revision of the plan in force.
    pub revision: u64,
    /// Whether a complete plan is in force.
    pub armed: bool,
    /// Until when enforcement is switched off on the node, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled_until: Option<String>,
}

/// How far an interface is enforced on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// Policy is in force.
    #[default]
    Enforced,
    /// Nothing passes until policy is in force.
    Closed,
    /// The plan could not be written whole: new flows are closed.
    Locked,
}

/// A local pod interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointReport {
    /// `namespace/name`, if known.
    pub pod: Option<String>,
    /// Host-side interface.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// The pod's addresses.
    pub addresses: Vec<String>,
    /// Some policy isolates the pod for ingress.
    pub isolated_ingress: bool,
    /// Some policy isolates the pod for egress.
    pub isolated_egress: bool,
    /// Policies that isolate it for ingress, `namespace/name`.
    pub ingress_policies: Vec<String>,
    /// Policies that isolate it for egress, `namespace/name`.
    pub egress_policies: Vec<String>,
    /// Nothing is dropped, only audited.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub audit: bool,
    /// Until when enforcement is switched off for it, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled_until: Option<String>,
    /// How far it is enforced on.
    pub state: EndpointState,
    /// Why not wholly.
    pub reason: Option<String>,
}

/// A policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyReport {
    /// `namespace/name`.
    pub policy: String,
    /// Local pods that it selects.
    pub selected: usize,
    /// Of these, pods on which it is in force.
    pub enforced: usize,
    /// `enforced`, `partly` or `pending`.
    pub state: String,
}

/// An interface without enforcement, or a pod whose interface is not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NotEnforced {
    /// Its name, or `pod NAMESPACE/NAME`.
    pub interface: String,
    /// Why.
    pub reason: String,
}

/// A map in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MapReport {
    /// Name.
    pub name: String,
    /// Entries in use.
    pub entries: u64,
    /// Entries there can be.
    pub max: u64,
}

/// Packets with one outcome.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CounterReport {
    /// [`enforcer_common::reason::Reason::name`].
    pub reason: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// Packets since the maps were made.
    pub packets: u64,
}

/// Packets that passed and would have been dropped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SparedReport {
    /// `audit`, or `disabled` while enforcement was switched off.
    pub why: String,
    /// [`enforcer_common::reason::Reason::name`] of what they would have been dropped for.
    pub reason: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// Packets since the maps were made.
    pub packets: u64,
}

/// Events lost by lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LostEvents {
    /// Verdicts and drops.
    pub verdict: u64,
    /// Traces.
    pub trace: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_have_the_form_that_clients_write() {
        let request: Request = serde_json::from_value(json!({"status": {"wait_seconds": 3,
            "for": "policy/a/b"}}))
        .unwrap();
        let expected = StatusRequest {
            wait_seconds: Some(3),
            only: Some("policy/a/b".into()),
            ignore_unenforceable: false,
        };
        assert_eq!(request, Request::Status(expected));
        assert!(serde_json::from_value::<Request>(json!({"status": {"wait": 3}})).is_err());
    }

    #[test]
    fn the_report_has_stable_names() {
        let report = StatusReport {
            endpoints: vec![EndpointReport { state: EndpointState::Locked, ..Default::default() }],
            ..StatusReport::default()
        };
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!(value["endpoints"][0]["state"], "locked");
        assert_eq!(value["lost_events"], json!({"verdict": 0, "trace": 0}));
        assert_eq!(serde_json::from_value::<StatusReport>(value).unwrap(), report);
    }
}
