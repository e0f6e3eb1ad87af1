//! Flows of every kind, and what Hubble's fields say of them.

use enforcer_common::{
    abi::{EVENT_AUDIT, EVENT_DISABLED, EVENT_REPLY, EVENT_REVOKED, Event, event_kind},
    reason::Reason,
};
use enforcer_hubble::json::{self, Unknown};
use serde_json::{Value, json};

use super::*;
use crate::flow::event::tests::{addr, allowed, denied, flow};

fn origin() -> Origin {
    Origin::new("default", "w1")
}

fn value_of(flow: &Flow) -> Value {
    let mut response = response(flow, &origin());
    let text = json::to_string(&response).unwrap();
    let mut read: GetFlowsResponse = json::from_str(&text, Unknown::Refuse).unwrap();
    // The details have no order of their own in bytes.
    let details = [&mut response, &mut read].map(|response| match &mut response.response_types {
        Some(ResponseTypes::Flow(flow)) => {
            flow.extensions.take().map(|any| Details::from_any(&any).unwrap())
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(read, response);
    assert_eq!(details, [Some(Details::of(flow)), Some(Details::of(flow))]);
    serde_json::from_str(&text).unwrap()
}

fn value(event: &Event) -> Value {
    value_of(&flow(event))
}

#[test]
fn an_allowed_flow_has_hubbles_form() {
    let flow = flow(&Event { slot: 3, ..allowed() });
    let pod = |name: &str, pod: &crate::cluster::plan::PodIdentity| {
        json!({
            "identity": of_pod(pod),
            "cluster_name": "default",
            "namespace": "shop",
            "pod_name": name,
            "labels": [format!("k8s:app={name}"), "k8s:io.kubernetes.pod.namespace=shop"],
        })
    };
    let mut destination = pod("db-0", flow.destination.as_ref().unwrap());
    destination["ID"] = json!(3);
    assert_eq!(
        value_of(&flow),
        json!({
            "flow": {
                "time": "2023-11-14T22:13:21.500Z",
                "uuid": Uuid::of(&flow).to_string(),
                "verdict": "FORWARDED",
                "IP": {"source": "10.0.0.1", "destination": "10.0.0.2", "ipVersion": "IPv4"},
                "l4": {"TCP": {"source_port": 40000, "destination_port": 5432,
                               "flags": {"SYN": true}}},
                "source": pod("web-1", flow.source.as_ref().unwrap()),
                "destination": destination,
                "Type": "L3_L4",
                "node_name": "default/w1",
                "event_type": {"type": 5},
                "traffic_direction": "INGRESS",
                "policy_match_type": 2,
                "is_reply": false,
                "interface": {"index": 6, "name": "veth6"},
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
            "node_name": "default/w1",
            "time": "2023-11-14T22:13:21.500Z",
        })
    );
}

#[test]
fn what_is_no_pod_is_named_by_its_place() {
    let flow = &value(&Event { src: addr(7), dst: addr(8), ifindex: 0, ..allowed() })["flow"];
    let service = json!({"name": "front", "namespace": "shop"});
    assert_eq!((&flow["destination_service"], flow.get("source_service")), (&service, None));
    assert_eq!(flow["source"], json!({"identity": 6, "labels": ["reserved:remote-node"]}));
    // Whose a Service's address is, is decided behind it.
    assert_eq!(flow["destination"], json!({}));
    assert_eq!(flow["extensions"]["value"]["source_node"], "w2");
    assert!(flow["extensions"]["value"].get("destination_node").is_none());
    let flow = &value(&Event { src: addr(99), ..allowed() })["flow"];
    assert_eq!(flow["source"], json!({"identity": 2, "labels": ["reserved:world"]}));
}

#[test]
fn a_default_deny_names_the_isolating_policies() {
    let flow = &value(&Event { flags: EVENT_REVOKED, ..denied() })["flow"];
    assert_eq!(
        (&flow["verdict"], &flow["drop_reason_desc"]),
        (&json!("DROPPED"), &json!("POLICY_DENIED"))
    );
    assert_eq!((&flow["drop_reason"], &flow["event_type"]["sub_type"]), (&json!(133), &json!(133)));
    let names: Vec<_> =
        flow["ingress_denied_by"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
    assert_eq!(names, ["deny", "zone"]);
    let details = &flow["extensions"]["value"];
    assert_eq!((&details["default_deny"], &details["revoked"]), (&json!(true), &json!(true)));
    assert!(flow.get("ingress_allowed_by").is_none());
    // No rule matched.
    assert!(flow.get("policy_match_type").is_none());
}

#[test]
fn what_was_audited_names_what_would_have_dropped_it() {
    let flow = &value(&Event { flags: EVENT_AUDIT, ..denied() })["flow"];
    assert_eq!((&flow["verdict"], &flow["event_type"]), (&json!("AUDIT"), &json!({"type": 5})));
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
    assert_eq!((&flow["is_reply"], &flow["traffic_direction"]), (&json!(true), &json!("INGRESS")));
    assert_eq!(flow["reply"], true);
    assert_eq!(flow["event_type"], json!({"type": 4, "sub_type": 5}));
    assert_eq!(flow["trace_observation_point"], "FROM_ENDPOINT");
    assert_eq!(flow["trace_reason"], "REPLY");
    assert_eq!(flow["Summary"], "TCP Flags: SYN, ACK");
    let to = Event { direction: Direction::Ingress as u8, ..event };
    let flow = &value(&to)["flow"];
    assert_eq!(flow["trace_observation_point"], "TO_ENDPOINT");
    assert_eq!(flow["event_type"], json!({"type": 4}));
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
    for absent in ["IP", "l4", "is_reply", "source"] {
        assert!(flow.get(absent).is_none(), "{absent}");
    }
    let event = Event { proto: 1, src_port: 8, dst_port: 0, ..allowed() };
    let flow = &value(&event)["flow"];
    assert_eq!(flow["l4"], json!({"ICMPv4": {"type": 8}}));
    assert_eq!(flow["Summary"], "ICMPv4 EchoRequest");
}

#[test]
fn what_matched_is_told_as_cilium_numbers_it() {
    for (reason, rule, expected) in [
        (Reason::NotIsolated, 1, Some(4)),
        (Reason::FromNode, 1, Some(1)),
        (Reason::Discovery, 1, None),
    ] {
        let flow = &value(&Event { reason: reason as u8, rule, ..allowed() })["flow"];
        assert_eq!(flow.get("policy_match_type").and_then(Value::as_u64), expected, "{reason:?}");
    }
}

#[test]
fn every_reason_that_drops_has_hubbles_name() {
    for reason in Reason::ALL.iter().filter(|reason| reason.is_drop()) {
        let flow = flow(&Event { reason: *reason as u8, ..denied() });
        let flow = super::flow(&flow, &origin());
        assert_ne!(flow.drop_reason_desc(), proto::DropReason::Unknown, "{reason:?}");
        assert_eq!(u32::try_from(flow.drop_reason_desc), Ok(flow.drop_reason));
    }
}

#[test]
fn a_loss_is_a_line_of_its_own() {
    let loss =
        Loss { source: LostEventSource::HubbleRingBuffer, count: 7, first: 0, last: 1_000_000_000 };
    assert_eq!(
        json::to_string(&lost(&loss, &origin())).unwrap(),
        "{\"lost_events\":{\"source\":\"HUBBLE_RING_BUFFER\",\"num_events_lost\":\"7\",\
         \"first\":\"1970-01-01T00:00:00Z\",\"last\":\"1970-01-01T00:00:01Z\"},\
         \"node_name\":\"default/w1\",\"time\":\"1970-01-01T00:00:01Z\"}"
    );
}

#[test]
fn times_survive_whatever_they_are() {
    for ns in [0, 1, -1, 1_500_000_000, i64::MAX, i64::MIN + 1_000_000_000] {
        let time = timestamp(ns);
        assert!((0..1_000_000_000).contains(&time.nanos));
        assert_eq!(nanoseconds(&time), ns);
    }
    let far = Timestamp { seconds: i64::MAX, nanos: 999_999_999 };
    assert_eq!(nanoseconds(&far), i64::MAX);
}
