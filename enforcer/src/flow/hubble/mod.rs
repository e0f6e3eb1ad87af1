//! The form in which flows leave: the JSON of Hubble's `GetFlowsResponse`, with the field names of
//! its protobuf messages (version 1.19) and, as in its JSON, nothing where a field has its default.
//! What Hubble has no field for is a `google.protobuf.Struct` under `extensions`.

mod convert;

use serde::{Deserialize, Serialize};

pub use self::convert::{lost, response, timestamp};

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// A flow, or what was lost.
    #[serde(flatten)]
    pub what: What,
    /// The node that saw it.
    pub node_name: String,
    /// RFC 3339, ns, UTC.
    pub time: String,
}

/// The choice within a [`Response`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A flow.
    Flow(Box<FlowJson>),
    /// Flows that the reader will never see.
    LostEvents(LostEvent),
}

/// `flow.LostEvent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostEvent {
    /// Where they were lost: `HUBBLE_RING_BUFFER` or `PERF_EVENT_RING_BUFFER`.
    pub source: String,
    /// How many; a 64-bit number is a text in protobuf's JSON.
    pub num_events_lost: String,
}

/// `flow.Flow`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowJson {
    /// RFC 3339, ns, UTC.
    pub time: String,
    /// `FORWARDED`, `DROPPED` or `AUDIT`.
    pub verdict: String,
    /// Number of the drop reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_reason: Option<u32>,
    /// Addresses, if the packet has any.
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ip>,
    /// Transport header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l4: Option<Layer4>,
    /// Who sent it.
    #[serde(skip_serializing_if = "Endpoint::is_unknown")]
    pub source: Endpoint,
    /// Whom it is for.
    #[serde(skip_serializing_if = "Endpoint::is_unknown")]
    pub destination: Endpoint,
    /// `L3_L4`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// The node that saw it.
    pub node_name: String,
    /// Type and sub-type of the event.
    pub event_type: EventType,
    /// `INGRESS` or `EGRESS`: the connection's, seen from the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic_direction: Option<String>,
    /// Where a trace was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_observation_point: Option<String>,
    /// Name of the drop reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_reason_desc: Option<String>,
    /// Whether the packet goes against the connection; absent if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_reply: Option<bool>,
    /// The Service whose address the source is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_service: Option<ServiceName>,
    /// The Service whose address the destination is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_service: Option<ServiceName>,
    /// The host-side interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<NetworkInterface>,
    /// Policies that allowed it at the sender.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_allowed_by: Vec<Policy>,
    /// Policies that allowed it at the receiver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress_allowed_by: Vec<Policy>,
    /// Policies that denied it at the sender.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_denied_by: Vec<Policy>,
    /// Policies that denied it at the receiver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress_denied_by: Vec<Policy>,
    /// Who reports.
    pub emitter: Emitter,
    /// One line on the transport header.
    #[serde(rename = "Summary", skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// What Hubble has no field for.
    pub extensions: Extensions,
}

/// `flow.IP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// Source address.
    pub source: String,
    /// Destination address.
    pub destination: String,
    /// `IPv4` or `IPv6`.
    #[serde(rename = "ipVersion")]
    pub ip_version: String,
}

/// `flow.Layer4`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layer4 {
    /// TCP.
    #[serde(rename = "TCP")]
    Tcp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
        /// Flags that are set.
        #[serde(default)]
        flags: TcpFlags,
    },
    /// UDP.
    #[serde(rename = "UDP")]
    Udp(Ports),
    /// SCTP.
    #[serde(rename = "SCTP")]
    Sctp(Ports),
    /// ICMP for IPv4.
    ICMPv4(Icmp),
    /// ICMP for IPv6.
    ICMPv6(Icmp),
}

/// Ports of UDP and SCTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

/// `flow.ICMPv4` and `flow.ICMPv6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Icmp {
    /// Type.
    #[serde(rename = "type")]
    pub kind: u16,
    /// Code.
    pub code: u16,
}

/// `flow.TCPFlags`: the names of those that are set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TcpFlags(pub std::collections::BTreeMap<String, bool>);

/// `flow.Endpoint`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Labels as `k8s:key=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Name of the pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_name: String,
}

impl Endpoint {
    /// Whether no pod is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.pod_name.is_empty()
    }
}

/// `flow.CiliumEventType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventType {
    /// 1 drop, 4 trace, 5 policy verdict.
    #[serde(rename = "type")]
    pub kind: i32,
    /// Drop reason, or observation point.
    #[serde(skip_serializing_if = "is_zero")]
    pub sub_type: i32,
}

/// [`EventType::kind`] of a drop.
pub const TYPE_DROP: i32 = 1;
/// [`EventType::kind`] of a trace.
pub const TYPE_TRACE: i32 = 4;
/// [`EventType::kind`] of a policy verdict.
pub const TYPE_POLICY_VERDICT: i32 = 5;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde wants")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// `flow.NetworkInterface`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    /// Index on the node.
    pub index: u32,
}

/// `flow.Policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Kind.
    pub kind: String,
}

/// `flow.Emitter`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emitter {
    /// `enforcer`.
    pub name: String,
    /// Version of this build.
    pub version: String,
}

/// A `google.protobuf.Any` with a Struct in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extensions {
    /// The type of what follows.
    #[serde(rename = "@type")]
    pub kind: String,
    /// What Hubble has no field for.
    pub value: Details,
}

/// What Hubble has no field for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// Machine name of the reason, also of those that pass.
    pub reason: String,
    /// The reason for people.
    pub reason_text: String,
    /// Field of the rule that decided: `spec.ingress[0]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// No rule allows it; the denying policies are those that isolate the pod.
    #[serde(skip_serializing_if = "is_false")]
    pub default_deny: bool,
    /// An established connection that is no longer allowed.
    #[serde(skip_serializing_if = "is_false")]
    pub revoked: bool,
    /// The source is hidden by masquerade.
    #[serde(skip_serializing_if = "is_false")]
    pub masqueraded: bool,
    /// It passed because enforcement is switched off for a time.
    #[serde(skip_serializing_if = "is_false")]
    pub disabled: bool,
    /// The node whose address the source is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_node: Option<String>,
    /// The node whose address the destination is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_node: Option<String>,
    /// Frame type of a frame that is not IP, such as `0x88cc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ethertype: Option<String>,
    /// IP protocol number.
    pub protocol: u8,
    /// Length of the packet, bytes.
    pub length: u32,
    /// Generation of the pod's policy.
    pub generation: u32,
}

/// A Service (`flow.Service`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceName {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde wants")]
fn is_false(b: &bool) -> bool {
    !*b
}
