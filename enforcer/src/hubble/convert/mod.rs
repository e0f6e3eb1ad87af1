//! Flows to `flow.Flow`: everything that Hubble's printers look at, and our details beside it.

mod details;
mod identity;
mod l4;
mod uuid;

use enforcer_common::abi::Direction;
use enforcer_hubble::{
    flow::{
        self as proto, CiliumEventType, Emitter, Endpoint, FlowType, Ip, IpVersion, LostEvent,
        LostEventSource, NetworkInterface, Policy, Service, TraceObservationPoint, TraceReason,
        TrafficDirection, Workload,
    },
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
};
use prost_types::Timestamp;

use super::origin::{EMITTER, Origin, VERSION};
use crate::{
    cluster::event::{self, ObjectKey},
    flow::{
        decode::{EventKind, RawFlow},
        directory::Place,
        event::{DecidedBy, Flow, Verdict, connection_direction},
        matched::Matched,
    },
};

pub use self::{
    details::Details,
    identity::{Reserved, Side, Who, of_pod, who},
    uuid::Uuid,
};

/// Event type of a drop.
pub const TYPE_DROP: i32 = 1;
/// Event type of a trace.
pub const TYPE_TRACE: i32 = 4;
/// Event type of a policy verdict.
pub const TYPE_POLICY_VERDICT: i32 = 5;
/// Event type of an application's message.
pub const TYPE_L7: i32 = 129;
/// The label that says a pod's namespace, as Cilium names it.
pub const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";

/// A time, ns since the epoch.
#[must_use]
pub fn timestamp(ns: i64) -> Timestamp {
    let second = 1_000_000_000;
    let nanos = i32::try_from(ns.rem_euclid(second)).expect("less than a second");
    Timestamp { seconds: ns.div_euclid(second), nanos }
}

/// Ns since the epoch; the nearest there is.
#[must_use]
pub fn nanoseconds(time: &Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000_000_000).saturating_add(time.nanos.into())
}

/// A flow as a line of the stream.
#[must_use]
pub fn response(flow: &Flow, origin: &Origin) -> GetFlowsResponse {
    GetFlowsResponse {
        response_types: Some(ResponseTypes::Flow(Box::new(self::flow(flow, origin)))),
        node_name: origin.name().to_owned(),
        time: Some(timestamp(flow.time)),
    }
}

/// Flows that a reader will never see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where they were lost.
    pub source: LostEventSource,
    /// How many.
    pub count: u64,
    /// When the first was noticed, ns since the epoch.
    pub first: i64,
    /// When the last was noticed, ns since the epoch.
    pub last: i64,
}

/// A loss as a line of the stream.
#[must_use]
pub fn lost(loss: &Loss, origin: &Origin) -> GetFlowsResponse {
    let lost = LostEvent {
        source: loss.source.into(),
        num_events_lost: loss.count,
        cpu: None,
        first: Some(timestamp(loss.first)),
        last: Some(timestamp(loss.last)),
    };
    GetFlowsResponse {
        response_types: Some(ResponseTypes::LostEvents(lost)),
        node_name: origin.name().to_owned(),
        time: Some(timestamp(loss.last)),
    }
}

/// A flow as Hubble knows it.
#[must_use]
pub fn flow(flow: &Flow, origin: &Origin) -> proto::Flow {
    let raw = &flow.raw;
    let verdict = flow.verdict();
    let dropped = verdict == Verdict::Dropped;
    let code = raw.reason.hubble_code();
    let event_type = event_type(flow);
    let trace = event_type.r#type == TYPE_TRACE;
    let is_reply = is_reply(flow);
    let mut out = proto::Flow {
        time: Some(timestamp(flow.time)),
        uuid: Uuid::of(flow).to_string(),
        verdict: proto_verdict(verdict).into(),
        drop_reason: if dropped { code } else { 0 },
        drop_reason_desc: if dropped { i32::try_from(code).unwrap_or(0) } else { 0 },
        ip: ip(raw),
        l4: l4::layer4(raw),
        source: endpoint(flow, Side::Source, origin),
        destination: endpoint(flow, Side::Destination, origin),
        r#type: FlowType::L3L4.into(),
        node_name: origin.name().to_owned(),
        event_type: Some(event_type),
        traffic_direction: direction(raw).into(),
        policy_match_type: if event_type.r#type == TYPE_POLICY_VERDICT {
            Matched::of(flow).number()
        } else {
            0
        },
        trace_observation_point: if trace { observation_point(raw).into() } else { 0 },
        trace_reason: if trace { trace_reason(raw).into() } else { 0 },
        reply: is_reply.unwrap_or(false),
        is_reply,
        source_service: service(flow, Side::Source).map(named),
        destination_service: service(flow, Side::Destination).map(named),
        interface: interface(flow),
        emitter: Some(Emitter { name: EMITTER.to_owned(), version: VERSION.to_owned() }),
        summary: l4::summary(raw),
        extensions: Some(Details::of(flow).to_any()),
        ..proto::Flow::default()
    };
    name_policies(&mut out, flow);
    out
}

/// Which policies decided, in the field for the direction and the verdict.
fn name_policies(out: &mut proto::Flow, flow: &Flow) {
    let (at, policies) = match &flow.decided_by {
        DecidedBy::Nothing => return,
        DecidedBy::Rule(rule) => (Some(rule.direction), vec![policy(&rule.policy, rule.kind)]),
        DecidedBy::Isolation(keys) => {
            let policies = keys.iter().map(|key| policy(key, "NetworkPolicy")).collect();
            (connection_direction(&flow.raw), policies)
        }
    };
    *match (at, flow.verdict() != Verdict::Forwarded) {
        (Some(Direction::Ingress), false) => &mut out.ingress_allowed_by,
        (Some(Direction::Ingress), true) => &mut out.ingress_denied_by,
        (_, false) => &mut out.egress_allowed_by,
        (_, true) => &mut out.egress_denied_by,
    } = policies;
}

fn policy(key: &ObjectKey, kind: &str) -> Policy {
    Policy {
        name: key.name.to_string(),
        namespace: key.namespace.to_string(),
        kind: kind.to_owned(),
        ..Policy::default()
    }
}

/// Hubble's verdict.
#[must_use]
pub const fn proto_verdict(verdict: Verdict) -> proto::Verdict {
    match verdict {
        Verdict::Forwarded => proto::Verdict::Forwarded,
        Verdict::Dropped => proto::Verdict::Dropped,
        Verdict::Audit => proto::Verdict::Audit,
    }
}

/// What kind of event Hubble would call it.
#[must_use]
pub fn event_type(flow: &Flow) -> CiliumEventType {
    let raw = &flow.raw;
    let code = i32::try_from(raw.reason.hubble_code()).unwrap_or(0);
    let (r#type, sub_type) = match raw.kind {
        _ if flow.verdict() == Verdict::Audit => (TYPE_POLICY_VERDICT, 0),
        EventKind::Trace | EventKind::Close => (TYPE_TRACE, if is_ingress(raw) { 0 } else { 5 }),
        EventKind::Drop => (TYPE_DROP, code),
        EventKind::Verdict | EventKind::Pending | EventKind::Unknown(_) => {
            (TYPE_POLICY_VERDICT, code)
        }
    };
    CiliumEventType { r#type, sub_type }
}

/// Whether the packet goes against its connection; `None` where that is not known.
#[must_use]
pub fn is_reply(flow: &Flow) -> Option<bool> {
    (event_type(flow).r#type != TYPE_DROP).then_some(flow.raw.reply)
}

/// The connection's direction.
#[must_use]
pub fn direction(raw: &RawFlow) -> TrafficDirection {
    match connection_direction(raw) {
        None => TrafficDirection::Unknown,
        Some(Direction::Ingress) => TrafficDirection::Ingress,
        Some(Direction::Egress) => TrafficDirection::Egress,
    }
}

fn is_ingress(raw: &RawFlow) -> bool {
    raw.direction == Some(Direction::Ingress)
}

fn observation_point(raw: &RawFlow) -> TraceObservationPoint {
    if is_ingress(raw) {
        TraceObservationPoint::ToEndpoint
    } else {
        TraceObservationPoint::FromEndpoint
    }
}

fn trace_reason(raw: &RawFlow) -> TraceReason {
    if raw.reply { TraceReason::Reply } else { TraceReason::Established }
}

/// The host-side interface.
fn interface(flow: &Flow) -> Option<NetworkInterface> {
    let index = flow.raw.ifindex;
    let name = flow.interface.as_deref().unwrap_or_default().to_owned();
    (index != 0).then_some(NetworkInterface { index, name })
}

/// The Service at one end of the flow.
#[must_use]
pub fn service(flow: &Flow, side: Side) -> Option<&ObjectKey> {
    let place = match side {
        Side::Source => &flow.source_place,
        Side::Destination => {
            if let Some(key) = &flow.service {
                return Some(key);
            }
            &flow.destination_place
        }
    };
    match place {
        Some(Place::Service(key)) => Some(key),
        Some(Place::Node(_)) | None => None,
    }
}

fn named(key: &ObjectKey) -> Service {
    Service { name: key.name.to_string(), namespace: key.namespace.to_string() }
}

fn ip(raw: &RawFlow) -> Option<Ip> {
    let (source, destination) = (raw.src?, raw.dst?);
    let version = if source.is_ipv4() { IpVersion::IPv4 } else { IpVersion::IPv6 };
    Some(Ip {
        source: source.to_string(),
        destination: destination.to_string(),
        ip_version: version.into(),
        ..Ip::default()
    })
}

fn workload(of: &event::Workload) -> Workload {
    Workload { name: of.name.to_string(), kind: of.kind.to_string() }
}

fn endpoint(flow: &Flow, side: Side, origin: &Origin) -> Option<Endpoint> {
    let who = who(flow, side, origin.node());
    let identity = who.identity()?;
    Some(match who {
        Who::Nobody => return None,
        Who::Reserved(reserved) => Endpoint {
            identity,
            labels: reserved.label().map(|label| format!("reserved:{label}")).into_iter().collect(),
            ..Endpoint::default()
        },
        Who::Pod(pod) => {
            let mut labels: Vec<_> =
                pod.labels.iter().map(|(key, value)| format!("k8s:{key}={value}")).collect();
            labels.push(format!("k8s:{NAMESPACE_LABEL}={}", pod.key.namespace));
            labels.sort_unstable();
            Endpoint {
                id: local_id(&flow.raw, side),
                identity,
                cluster_name: origin.cluster().to_owned(),
                namespace: pod.key.namespace.to_string(),
                labels,
                pod_name: pod.key.name.to_string(),
                workloads: pod.workload.iter().map(workload).collect(),
            }
        }
    })
}

/// The number of the endpoint at whose interface this was seen, at that end; 0 at the other.
fn local_id(raw: &RawFlow, side: Side) -> u32 {
    match (raw.direction, side) {
        (Some(Direction::Egress), Side::Source) | (Some(Direction::Ingress), Side::Destination) => {
            raw.slot.into()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
