//! Flows to their outward form.

use enforcer_common::abi::{Direction, Spared};
use jiff::{Timestamp, tz::Offset};

use super::{
    Details, Emitter, Endpoint, EventType, Extensions, FlowJson, Icmp, Ip, Layer4, LostEvent,
    NetworkInterface, Policy, Ports, Response, ServiceName, TYPE_DROP, TYPE_POLICY_VERDICT,
    TYPE_TRACE, TcpFlags, What,
};
use crate::{
    cluster::{event::ObjectKey, plan::PodIdentity},
    flow::{
        decode::{EventKind, RawFlow},
        directory::Place,
        event::{DecidedBy, Flow, Verdict, connection_direction},
        names::{self, proto},
    },
};

/// RFC 3339 in UTC with all nine digits, so that lines sort as text.
#[must_use]
pub fn timestamp(ns: i64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    let t = Offset::UTC.to_datetime(time);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        t.year(),
        t.month(),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        t.subsec_nanosecond()
    )
}

/// A flow as a line of the stream.
#[must_use]
pub fn response(flow: &Flow, node: &str) -> Response {
    Response {
        what: What::Flow(Box::new(json(flow, node))),
        node_name: node.to_owned(),
        time: timestamp(flow.time),
    }
}

/// A loss as a line of the stream. `now` is ns since the epoch.
#[must_use]
pub fn lost(count: u64, node: &str, now: i64) -> Response {
    let lost =
        LostEvent { source: "HUBBLE_RING_BUFFER".into(), num_events_lost: count.to_string() };
    Response { what: What::LostEvents(lost), node_name: node.to_owned(), time: timestamp(now) }
}

fn json(flow: &Flow, node: &str) -> FlowJson {
    let raw = &flow.raw;
    let verdict = flow.verdict();
    let dropped = verdict == Verdict::Dropped;
    let code = raw.reason.hubble_code();
    let trace = matches!(raw.kind, EventKind::Trace | EventKind::Close);
    let (kind, sub_type) = match raw.kind {
        _ if verdict == Verdict::Audit => (TYPE_POLICY_VERDICT, 0),
        EventKind::Trace | EventKind::Close => (TYPE_TRACE, if is_ingress(raw) { 0 } else { 5 }),
        EventKind::Drop => (TYPE_DROP, i32::try_from(code).unwrap_or(0)),
        EventKind::Verdict | EventKind::Pending | EventKind::Unknown(_) => {
            (TYPE_POLICY_VERDICT, i32::try_from(code).unwrap_or(0))
        }
    };
    let mut out = FlowJson {
        time: timestamp(flow.time),
        verdict: verdict.name().to_owned(),
        drop_reason: dropped.then_some(code),
        drop_reason_desc: dropped.then(|| names::drop_reason(code).to_owned()),
        ip: ip(raw),
        l4: l4(raw),
        source: endpoint(flow.source.as_deref()),
        destination: endpoint(flow.destination.as_deref()),
        kind: "L3_L4".to_owned(),
        node_name: node.to_owned(),
        event_type: EventType { kind, sub_type },
        traffic_direction: connection_direction(raw).map(|d| direction(d).to_owned()),
        trace_observation_point: trace
            .then(|| if is_ingress(raw) { "TO_ENDPOINT" } else { "FROM_ENDPOINT" }.to_owned()),
        is_reply: (kind != TYPE_DROP).then_some(raw.reply),
        source_service: service(flow.source_place.as_ref()),
        destination_service: match &flow.service {
            Some(key) => Some(named(key)),
            None => service(flow.destination_place.as_ref()),
        },
        interface: (raw.ifindex != 0).then_some(NetworkInterface { index: raw.ifindex }),
        emitter: Emitter {
            name: "enforcer".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        summary: summary(raw),
        extensions: Extensions {
            kind: "type.googleapis.com/google.protobuf.Struct".to_owned(),
            value: details(flow),
        },
        ..FlowJson::default()
    };
    let (at, policies) = match &flow.decided_by {
        DecidedBy::Nothing => return out,
        DecidedBy::Rule(rule) => {
            let policy = policy(&rule.policy, rule.kind);
            (Some(rule.direction), vec![policy])
        }
        DecidedBy::Isolation(keys) => {
            let policies = keys.iter().map(|key| policy(key, "NetworkPolicy")).collect();
            (connection_direction(raw), policies)
        }
    };
    *match (at, verdict != Verdict::Forwarded) {
        (Some(Direction::Ingress), false) => &mut out.ingress_allowed_by,
        (Some(Direction::Ingress), true) => &mut out.ingress_denied_by,
        (_, false) => &mut out.egress_allowed_by,
        (_, true) => &mut out.egress_denied_by,
    } = policies;
    out
}

fn is_ingress(raw: &RawFlow) -> bool {
    raw.direction == Some(Direction::Ingress)
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "INGRESS",
        Direction::Egress => "EGRESS",
    }
}

fn policy(key: &ObjectKey, kind: &str) -> Policy {
    Policy { name: key.name.to_string(), namespace: key.namespace.to_string(), kind: kind.into() }
}

fn endpoint(pod: Option<&PodIdentity>) -> Endpoint {
    pod.map_or_else(Endpoint::default, |pod| Endpoint {
        namespace: pod.key.namespace.to_string(),
        labels: pod.labels.iter().map(|label| format!("k8s:{label}")).collect(),
        pod_name: pod.key.name.to_string(),
    })
}

fn service(place: Option<&Place>) -> Option<ServiceName> {
    let Some(Place::Service(key)) = place else { return None };
    Some(named(key))
}

fn named(key: &ObjectKey) -> ServiceName {
    ServiceName { name: key.name.to_string(), namespace: key.namespace.to_string() }
}

fn node(place: Option<&Place>) -> Option<String> {
    let Some(Place::Node(name)) = place else { return None };
    Some(name.to_string())
}

fn ip(raw: &RawFlow) -> Option<Ip> {
    let (source, destination) = (raw.src?, raw.dst?);
    Some(Ip {
        source: source.to_string(),
        destination: destination.to_string(),
        ip_version: if source.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
    })
}

fn l4(raw: &RawFlow) -> Option<Layer4> {
    raw.src?;
    let (source_port, destination_port) = (raw.src_port, raw.dst_port);
    let ports = Ports { source_port, destination_port };
    let icmp = Icmp { kind: source_port, code: destination_port };
    Some(match raw.proto {
        proto::TCP => {
            let set = names::TCP_FLAGS.iter().filter(|(bit, _)| raw.tcp_flags & bit != 0);
            let flags = TcpFlags(set.map(|(_, name)| ((*name).to_owned(), true)).collect());
            Layer4::Tcp { source_port, destination_port, flags }
        }
        proto::UDP => Layer4::Udp(ports),
        proto::SCTP => Layer4::Sctp(ports),
        proto::ICMP => Layer4::ICMPv4(icmp),
        proto::ICMPV6 => Layer4::ICMPv6(icmp),
        _ => return None,
    })
}

fn summary(raw: &RawFlow) -> String {
    if let Some(ethertype) = raw.ethertype {
        return format!("frame type {ethertype:#06x}");
    }
    let icmp = |v6: bool, name: &str| match names::icmp_type(v6, raw.src_port) {
        Some(kind) => format!("{name} {kind}"),
        None => format!("{name} type {} code {}", raw.src_port, raw.dst_port),
    };
    match raw.proto {
        _ if raw.src.is_none() => "not understood".to_owned(),
        proto::TCP => {
            let set = names::TCP_FLAGS.iter().filter(|(bit, _)| raw.tcp_flags & bit != 0);
            let flags: Vec<&str> = set.map(|(_, name)| *name).collect();
            format!("TCP Flags: {}", flags.join(", "))
        }
        proto::UDP => "UDP".to_owned(),
        proto::SCTP => "SCTP".to_owned(),
        proto::ICMP => icmp(false, "ICMPv4"),
        proto::ICMPV6 => icmp(true, "ICMPv6"),
        other => format!("IP protocol {other}"),
    }
}

fn details(flow: &Flow) -> Details {
    let raw = &flow.raw;
    let rule = match &flow.decided_by {
        DecidedBy::Rule(rule) => {
            let list = if rule.direction == Direction::Ingress { "ingress" } else { "egress" };
            Some(format!("spec.{list}[{}]", rule.index))
        }
        _ => None,
    };
    Details {
        reason: raw.reason.name().to_owned(),
        reason_text: raw.reason.text().to_owned(),
        rule,
        default_deny: raw.rule == enforcer_common::abi::rule::DEFAULT_DENY,
        revoked: raw.revoked,
        masqueraded: raw.masqueraded,
        disabled: raw.spared == Some(Spared::Disabled),
        source_node: node(flow.source_place.as_ref()),
        destination_node: node(flow.destination_place.as_ref()),
        ethertype: raw.ethertype.map(|e| format!("{e:#06x}")),
        protocol: raw.proto,
        length: raw.len,
        generation: raw.generation,
    }
}

#[cfg(test)]
mod tests {
    use enforcer_common::{
        abi::{EVENT_AUDIT, EVENT_DISABLED, EVENT_REPLY, EVENT_REVOKED, Event, event_kind},
        reason::Reason,
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::flow::event::tests::{addr, allowed, denied, flow};

    fn value(event: &Event) -> Value {
        let response = response(&flow(event), "w1");
        let value = serde_json::to_value(&response).unwrap();
        assert_eq!(serde_json::from_value::<Response>(value.clone()).unwrap(), response);
        value
    }

    #[test]
    fn nodes_and_services_are_named_where_no_pod_is() {
        let event = Event { src: addr(7), dst: addr(8), ifindex: 0, ..allowed() };
        let flow = &value(&event)["flow"];
        let service = json!({"name": "front", "namespace": "shop"});
        assert_eq!((&flow["destination_service"], flow.get("source_service")), (&service, None));
        assert_eq!(flow["extensions"]["value"]["source_node"], "w2");
        assert!(flow["extensions"]["value"].get("destination_node").is_none());
    }

    #[test]
    fn an_allowed_flow_has_hubbles_form() {
        let pod = |name: &str| json!({"namespace": "shop", "pod_name": name, "labels": [format!("k8s:app={name}")]});
        assert_eq!(
            value(&allowed()),
            json!({
                "flow": {
                    "time": "2023-11-14T22:13:21.500000000Z",
                    "verdict": "FORWARDED",
                    "IP": {"source": "10.0.0.1", "destination": "10.0.0.2", "ipVersion": "IPv4"},
                    "l4": {"TCP": {"source_port": 40000, "destination_port": 5432,
                                   "flags": {"SYN": true}}},
                    "source": pod("web-1"),
                    "destination": pod("db-0"),
                    "Type": "L3_L4",
                    "node_name": "w1",
                    "event_type": {"type": 5},
                    "traffic_direction": "INGRESS",
                    "is_reply": false,
                    "interface": {"index": 6},
                    "ingress_allowed_by":
                        [{"name": "db-in", "namespace": "shop", "kind": "NetworkPolicy"}],
                    "emitter": {"name": "enforcer", "version": env!("CARGO_PKG_VERSION")},
                    "Summary": "TCP Flags: SYN",
                    "extensions": {
                        "@type": "type.googleapis.com/google.protobuf.Struct",
                        "value": {"reason": "Allowed", "reason_text": "allowed by a rule",
                                  "rule": "spec.ingress[1]", "protocol": 6, "length": 60,
                                  "generation": 0},
                    },
                },
                "node_name": "w1",
                "time": "2023-11-14T22:13:21.500000000Z",
            })
        );
    }

    #[test]
    fn a_default_deny_names_the_isolating_policies() {
        let flow = &value(&Event { flags: EVENT_REVOKED, ..denied() })["flow"];
        assert_eq!(flow["verdict"], "DROPPED");
        assert_eq!(flow["drop_reason_desc"], "POLICY_DENIED");
        assert_eq!(
            (&flow["drop_reason"], &flow["event_type"]["sub_type"]),
            (&json!(133), &json!(133))
        );
        let names: Vec<_> =
            flow["ingress_denied_by"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
        assert_eq!(names, ["deny", "zone"]);
        let details = &flow["extensions"]["value"];
        assert_eq!((&details["default_deny"], &details["revoked"]), (&json!(true), &json!(true)));
        assert!(flow.get("ingress_allowed_by").is_none());
    }

    #[test]
    fn what_was_audited_names_what_would_have_dropped_it() {
        let flow = &value(&Event { flags: EVENT_AUDIT, ..denied() })["flow"];
        assert_eq!(flow["verdict"], "AUDIT");
        assert_eq!(flow["event_type"], json!({"type": 5}));
        assert_eq!(flow["ingress_denied_by"][0]["name"], "deny");
        assert!(flow.get("drop_reason").is_none() && flow.get("ingress_allowed_by").is_none());
        let details = &flow["extensions"]["value"];
        assert_eq!((&details["reason"], details.get("disabled")), (&json!("PolicyDenied"), None));
        let flow = &value(&Event { flags: EVENT_DISABLED, ..denied() })["flow"];
        assert_eq!(flow["verdict"], "AUDIT");
        assert_eq!(flow["extensions"]["value"]["disabled"], json!(true));
    }

    #[test]
    fn a_reply_counts_to_its_connections_direction() {
        let event = Event {
            kind: event_kind::TRACE,
            direction: Direction::Egress as u8,
            flags: EVENT_REPLY,
            tcp_flags: 0x12,
            ..allowed()
        };
        let flow = &value(&event)["flow"];
        assert_eq!(
            (&flow["is_reply"], &flow["traffic_direction"]),
            (&json!(true), &json!("INGRESS"))
        );
        assert_eq!(flow["event_type"], json!({"type": 4, "sub_type": 5}));
        assert_eq!(flow["trace_observation_point"], "FROM_ENDPOINT");
        assert_eq!(flow["Summary"], "TCP Flags: SYN, ACK");
    }

    #[test]
    fn drops_and_frames_without_addresses_have_a_summary() {
        let event = Event {
            kind: event_kind::DROP,
            reason: Reason::UnknownEthertype as u8,
            ethertype: 0x88cc,
            rule: 0,
            ..allowed()
        };
        let flow = &value(&event)["flow"];
        assert_eq!(flow["Summary"], "frame type 0x88cc");
        assert_eq!(flow["event_type"], json!({"type": 1, "sub_type": 139}));
        assert!(
            flow.get("IP").is_none() && flow.get("l4").is_none() && flow.get("is_reply").is_none()
        );
        let event = Event { proto: 1, src_port: 8, dst_port: 0, ..allowed() };
        let flow = &value(&event)["flow"];
        assert_eq!(flow["l4"], json!({"ICMPv4": {"type": 8, "code": 0}}));
        assert_eq!(flow["Summary"], "ICMPv4 EchoRequest");
    }

    #[test]
    fn a_loss_is_a_line_of_its_own() {
        let value = serde_json::to_value(lost(7, "w1", 0)).unwrap();
        assert_eq!(
            value,
            json!({
                "lost_events": {"source": "HUBBLE_RING_BUFFER", "num_events_lost": "7"},
                "node_name": "w1", "time": "1970-01-01T00:00:00.000000000Z",
            })
        );
    }
}
