//! Which series a flow counts in, by metric: Hubble's own labels.

use std::{net::IpAddr, sync::Arc, time::Duration};

use enforcer_common::{abi::Direction, reason::Reason};
use enforcer_hubble::flow::DropReason;

use super::{
    config::{MetricKind, MetricSpec, Side},
    context::{Owner, Value, is_world, word, workload_name},
};
use crate::{
    flow::{
        decode::{EventKind, RawFlow, ReasonCode},
        event::{Flow, Verdict, connection_direction},
        matched::Matched,
        names::{self, Icmp, proto},
    },
    insight::Contacts,
};

/// Flags of [`names::TCP_FLAGS`] that open and end connections.
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// Hubble's number for what policy denies.
const POLICY_DENIED: u32 = 133;

/// Name and help of a metric.
pub(super) const fn described(kind: MetricKind) -> (&'static str, &'static str) {
    match kind {
        MetricKind::Drop => ("drop", "Packets that were dropped"),
        MetricKind::Flow => ("flows_processed", "Flows"),
        MetricKind::FlowsToWorld => ("flows_to_world", "Flows to addresses outside the cluster"),
        MetricKind::Icmp => ("icmp", "ICMP messages"),
        MetricKind::NewDenied => (
            "new_denied_destinations",
            "Destinations that were denied to a workload for the first time, some an hour at most",
        ),
        MetricKind::Policy => ("policy_verdicts", "Verdicts of policy"),
        MetricKind::PortDistribution => ("port_distribution", "Flows by destination port"),
        MetricKind::Traffic => ("workload_traffic", "Shown as several metrics"),
        MetricKind::Tcp => ("tcp_flags", "TCP flags that open and end connections"),
    }
}

/// Names of a metric's own labels.
pub(super) const fn labels(spec: &MetricSpec) -> &'static [&'static str] {
    match spec.kind {
        MetricKind::Drop => &["reason", "protocol"],
        MetricKind::Flow => &["protocol", "type", "subtype", "verdict"],
        MetricKind::FlowsToWorld if spec.port => &["protocol", "verdict", "port"],
        MetricKind::FlowsToWorld => &["protocol", "verdict"],
        MetricKind::Icmp => &["family", "type"],
        MetricKind::NewDenied => &["namespace", "workload"],
        MetricKind::Policy => &["direction", "match", "action"],
        MetricKind::PortDistribution => &["protocol", "port"],
        MetricKind::Tcp => &["flag", "family"],
        MetricKind::Traffic => &[],
    }
}

/// Hands the series that a flow counts in to `count`, each with the number of its values that come
/// of closed sets.
pub(super) fn rows(spec: &MetricSpec, flow: &Flow, count: &mut impl FnMut(&[Value], usize)) {
    let raw = &flow.raw;
    let verdict = flow.verdict();
    let protocol = Value::Word(protocol(raw));
    match spec.kind {
        MetricKind::Flow => {
            let (kind, subtype) = kind(flow);
            let [kind, subtype, verdict] = [kind, subtype, verdict.name()].map(Value::Word);
            count(&[protocol, kind, subtype, verdict], 4);
        }
        MetricKind::Drop if verdict == Verdict::Dropped => {
            let reason = drop_reason(raw.reason.hubble_code());
            count(&[Value::Word(reason), protocol], 2);
        }
        // Hubble leaves out the node itself, which may always.
        MetricKind::Policy if is_verdict(flow) && !is_from_node(raw) => {
            let Some(direction) = connection_direction(raw) else { return };
            let action = match verdict {
                Verdict::Forwarded => "forwarded",
                Verdict::Dropped => "dropped",
                Verdict::Audit => "audit",
            };
            let matched = Matched::of(flow).word();
            count(&[word(direction), matched, action].map(Value::Word), 3);
        }
        MetricKind::Icmp => {
            let (family, v6) = match raw.proto {
                proto::ICMP => ("IPv4", false),
                proto::ICMPV6 => ("IPv6", true),
                _ => return,
            };
            let message = names::icmp(raw, v6);
            let closed = if matches!(message, Icmp::Named(_)) { 2 } else { 1 };
            count(&[Value::Word(family), Value::Icmp(message)], closed);
        }
        MetricKind::Tcp if verdict == Verdict::Forwarded && raw.proto == proto::TCP => {
            let Some(family) = family(raw) else { return };
            let opens = if raw.tcp_flags & ACK == 0 { "SYN" } else { "SYN-ACK" };
            for (bit, name) in [(FIN, "FIN"), (SYN, opens), (RST, "RST")] {
                if raw.tcp_flags & bit != 0 {
                    count(&[name, family].map(Value::Word), 2);
                }
            }
        }
        MetricKind::PortDistribution
            if verdict == Verdict::Forwarded && !raw.reply && has_l4(raw) =>
        {
            count(&[protocol, Value::Number(port(raw).unwrap_or(0))], 1);
        }
        MetricKind::FlowsToWorld if to_world(spec, flow) => {
            let verdict = Value::Word(verdict.name());
            if spec.port {
                let port = port(raw).map_or(Value::NONE, Value::Number);
                count(&[protocol, verdict, port], 2);
            } else {
                count(&[protocol, verdict], 2);
            }
        }
        _ => {}
    }
}

/// Hubble's name of a reason.
fn drop_reason(code: u32) -> &'static str {
    let known = i32::try_from(code).ok().and_then(|code| DropReason::try_from(code).ok());
    known.unwrap_or(DropReason::Unknown).as_str_name()
}

/// Hubble's words for a protocol.
const fn protocol(raw: &RawFlow) -> &'static str {
    match raw.proto {
        _ if raw.src.is_none() => "Unknown L4",
        proto::TCP => "TCP",
        proto::UDP => "UDP",
        proto::SCTP => "SCTP",
        proto::ICMP => "ICMPv4",
        proto::ICMPV6 => "ICMPv6",
        _ => "Unknown L4",
    }
}

/// Whether the transport header is one that Hubble knows.
const fn has_l4(raw: &RawFlow) -> bool {
    let known =
        matches!(raw.proto, proto::TCP | proto::UDP | proto::SCTP | proto::ICMP | proto::ICMPV6);
    raw.src.is_some() && known
}

fn family(raw: &RawFlow) -> Option<&'static str> {
    raw.src.map(|address| if address.is_ipv4() { "IPv4" } else { "IPv6" })
}

fn port(raw: &RawFlow) -> Option<u16> {
    match raw.proto {
        proto::TCP | proto::UDP | proto::SCTP => Some(raw.dst_port),
        _ => None,
    }
}

/// Hubble's words for what the event is.
fn kind(flow: &Flow) -> (&'static str, &'static str) {
    match flow.raw.kind {
        _ if flow.verdict() == Verdict::Audit => ("PolicyVerdict", ""),
        EventKind::Trace | EventKind::Close => match flow.raw.direction {
            Some(Direction::Ingress) => ("Trace", "to-endpoint"),
            _ => ("Trace", "from-endpoint"),
        },
        EventKind::Drop => ("Drop", ""),
        EventKind::Verdict | EventKind::Pending | EventKind::Unknown(_) => ("PolicyVerdict", ""),
    }
}

fn is_verdict(flow: &Flow) -> bool {
    kind(flow).0 == "PolicyVerdict"
}

fn is_from_node(raw: &RawFlow) -> bool {
    raw.reason == ReasonCode::Known(Reason::FromNode)
}

fn to_world(spec: &MetricSpec, flow: &Flow) -> bool {
    let raw = &flow.raw;
    let counts = match flow.verdict() {
        Verdict::Dropped => spec.any_drop || raw.reason.hubble_code() == POLICY_DENIED,
        Verdict::Forwarded | Verdict::Audit => !raw.reply,
    };
    let opens = raw.proto == proto::TCP && raw.tcp_flags & SYN != 0 && !raw.reply;
    counts && has_l4(raw) && (!spec.syn_only || opens) && is_world(flow, Side::Destination)
}

/// Whether policy denies it, though it may pass because the pod is only audited.
fn is_denied(flow: &Flow) -> bool {
    flow.raw.reason.is_drop() && is_verdict(flow)
}

/// Destinations that were denied, by workload: what is new is told, what was there when the agent
/// began is learned first.
#[derive(Debug)]
pub(super) struct NewDenied {
    seen: Contacts<Workload, (IpAddr, u16)>,
    learning: Duration,
    began: Option<i64>,
}

type Workload = (Arc<str>, Arc<str>);

impl NewDenied {
    pub(super) fn new(learning: Duration) -> Self {
        Self { seen: Contacts::default(), learning, began: None }
    }

    /// Hands the series to `count` if the flow is news.
    pub(super) fn row(
        &mut self,
        flow: &Flow,
        count: &mut impl FnMut(&[Value], usize, Option<Owner>),
    ) {
        let began = *self.began.get_or_insert(flow.time);
        let (Some(pod), Some(to)) = (flow.source.as_deref(), flow.raw.dst) else { return };
        if flow.raw.reply || !is_denied(flow) {
            return;
        }
        let (namespace, name) = (Arc::clone(&pod.key.namespace), workload_name(pod));
        let workload = (Arc::clone(&namespace), Arc::clone(&name));
        let port = port(&flow.raw).unwrap_or(0);
        if !self.seen.is_new(workload, (to, port), flow.time) {
            return;
        }
        let age = Duration::from_nanos(u64::try_from(flow.time - began).unwrap_or(0));
        if age >= self.learning {
            let owner = Owner::Workload(Arc::clone(&namespace), Arc::clone(&name));
            count(&[namespace, name].map(Value::Name), 0, Some(owner));
        }
    }
}
