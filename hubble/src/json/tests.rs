//! Messages to JSON and back, as Hubble writes it.

use std::collections::BTreeMap;

use prost_types::{Any, Struct, Timestamp, value::Kind as StructKind};
use serde_json::json;

use super::*;
use crate::{
    flow::{
        AgentEvent, CiliumEventType, Ip, LostEvent, PolicyUpdateNotification,
        agent_event::Notification,
    },
    observer::{export_event, get_flows_response::ResponseTypes},
};

fn details() -> Any {
    let text = prost_types::Value { kind: Some(StructKind::StringValue("PolicyDenied".into())) };
    let number = |number| prost_types::Value { kind: Some(StructKind::NumberValue(number)) };
    let details = Struct {
        fields: BTreeMap::from([
            ("reason".to_owned(), text),
            ("bytes".to_owned(), number(60.0)),
            ("rtt".to_owned(), number(0.5)),
            ("large".to_owned(), number(1e300)),
        ]),
    };
    Any {
        type_url: "type.googleapis.com/google.protobuf.Struct".into(),
        value: details.encode_to_vec(),
    }
}

fn flow() -> Flow {
    Flow {
        time: Some(Timestamp { seconds: 1_700_000_001, nanos: 500_000_000 }),
        verdict: 2,
        ip: Some(Ip { ip_version: 1, source: "10.0.0.1".into(), ..Ip::default() }),
        r#type: 1,
        event_type: Some(CiliumEventType { r#type: 5, sub_type: 0 }),
        is_reply: Some(false),
        socket_cookie: u64::MAX,
        drop_reason_desc: 206,
        summary: "TCP Flags: SYN".into(),
        extensions: Some(details()),
        ..Flow::default()
    }
}

fn response() -> GetFlowsResponse {
    GetFlowsResponse {
        response_types: Some(ResponseTypes::Flow(Box::new(flow()))),
        node_name: "default/w1".into(),
        time: Some(Timestamp { seconds: 1_700_000_001, nanos: 0 }),
    }
}

#[test]
fn a_flow_has_hubbles_json() {
    let text = to_string(&response()).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let expected = json!({
        "flow": {
            "time": "2023-11-14T22:13:21.500Z",
            "verdict": "DROPPED",
            "IP": {"source": "10.0.0.1", "ipVersion": "IPv4"},
            "Type": "L3_L4",
            "event_type": {"type": 5},
            "is_reply": false,
            "socket_cookie": "18446744073709551615",
            "drop_reason_desc": 206,
            "Summary": "TCP Flags: SYN",
            "extensions": {
                "@type": "type.googleapis.com/google.protobuf.Struct",
                "value": {"reason": "PolicyDenied", "bytes": 60, "rtt": 0.5, "large": 1e300},
            },
        },
        "node_name": "default/w1",
        "time": "2023-11-14T22:13:21Z",
    });
    assert_eq!(value, expected);
    assert!(!text.contains('\n'));
}

#[test]
fn what_is_written_is_read_again() {
    // Details have no order of their own in bytes, so the texts are compared.
    let value = |response: &GetFlowsResponse| -> Value {
        serde_json::from_str(&to_string(response).unwrap()).unwrap()
    };
    let text = to_string(&response()).unwrap();
    let read = from_str::<GetFlowsResponse>(&text, Unknown::Refuse).unwrap();
    assert_eq!(value(&read), value(&response()));
    let lost = LostEvent { source: 3, num_events_lost: 7, ..LostEvent::default() };
    let event = ExportEvent {
        response_types: Some(export_event::ResponseTypes::LostEvents(lost)),
        ..ExportEvent::default()
    };
    let text = to_string(&event).unwrap();
    assert_eq!(text, r#"{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"7"}}"#);
    assert_eq!(from_str::<ExportEvent>(&text, Unknown::Refuse).unwrap(), event);
    let update = PolicyUpdateNotification { revision: 3, ..PolicyUpdateNotification::default() };
    let event = GetAgentEventsResponse {
        agent_event: Some(AgentEvent {
            r#type: 3,
            notification: Some(Notification::PolicyUpdate(update)),
        }),
        ..GetAgentEventsResponse::default()
    };
    let text = to_string(&event).unwrap();
    assert_eq!(
        text,
        r#"{"agent_event":{"type":"POLICY_UPDATED","policy_update":{"revision":"3"}}}"#
    );
    assert_eq!(from_str::<GetAgentEventsResponse>(&text, Unknown::Refuse).unwrap(), event);
}

#[test]
fn a_filter_may_be_written_with_either_name() {
    let own = r#"{"source_pod":["shop/web"],"verdict":["DROPPED",1],"event_type":[{"type":4}]}"#;
    let filter: FlowFilter = from_str(own, Unknown::Refuse).unwrap();
    assert_eq!(
        (&filter.source_pod[..], &filter.verdict[..]),
        (&["shop/web".to_owned()][..], &[2, 1][..])
    );
    let camel = r#"{"sourcePod":["shop/web"],"verdict":["DROPPED",1],"eventType":[{"type":4}]}"#;
    assert_eq!(from_str::<FlowFilter>(camel, Unknown::Refuse).unwrap(), filter);
}

#[test]
fn unknown_names_are_refused_with_the_near_one_or_passed_over() {
    for (text, expected) in [
        (
            r#"{"source_pot":[]}"#,
            "flow.FlowFilter has no field \"source_pot\" (did you mean source_pod?)",
        ),
        (r#"{"verdict":["DROPED"]}"#, "verdict cannot be \"DROPED\" (did you mean DROPPED?)"),
        (r#"{"event_type":[{"sort":1}]}"#, "flow.EventTypeFilter has no field \"sort\""),
        (r#"{"source_pod":[1]}"#, "not understood as flow.FlowFilter"),
        ("[]", "not understood as flow.FlowFilter"),
        ("{} {}", "not understood as flow.FlowFilter"),
        ("", "not understood as flow.FlowFilter"),
    ] {
        let error = from_str::<FlowFilter>(text, Unknown::Refuse).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
    let newer = r#"{"flow":{"verdict":"DROPPED","of_tomorrow":{"a":[1]}},"node_name":"n"}"#;
    let read: GetFlowsResponse = from_str(newer, Unknown::Skip).unwrap();
    assert_eq!(read.node_name, "n");
    assert!(from_str::<GetFlowsResponse>(newer, Unknown::Refuse).is_err());
}

#[test]
fn details_of_an_unknown_type_are_an_error() {
    let strange = Any { type_url: "type.googleapis.com/x.Y".into(), value: vec![1] };
    let flow = Flow { extensions: Some(strange), ..Flow::default() };
    assert!(to_string(&flow).is_err());
}

#[test]
fn fields_come_in_hubbles_order() {
    let text = to_string(&response()).unwrap();
    let place = |name: &str| text.find(&format!("\"{name}\":")).unwrap();
    let order = ["time", "verdict", "IP", "Type", "event_type", "drop_reason_desc", "is_reply"];
    assert!(order.is_sorted_by_key(|name| place(name)), "{text}");
    assert!(place("socket_cookie") < place("Summary") && place("Summary") < place("extensions"));
}
