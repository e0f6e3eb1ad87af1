//! Masks against a reference that prunes message by message.

use proptest::prelude::*;
use prost::Message;
use prost_reflect::{DynamicMessage, ReflectMessage, Value};

use super::*;
use crate::flow::{Endpoint, Flow, Ip, Layer4, Policy, Tcp, TcpFlags, layer4::Protocol};

fn flow() -> Flow {
    Flow {
        verdict: 2,
        ip: Some(Ip { source: "10.0.0.1".into(), ..Ip::default() }),
        l4: Some(Layer4 {
            protocol: Some(Protocol::Tcp(Tcp {
                source_port: 1,
                destination_port: 2,
                flags: Some(TcpFlags { syn: true, ..TcpFlags::default() }),
            })),
        }),
        source: Some(Endpoint {
            identity: 7,
            namespace: "shop".into(),
            pod_name: "web".into(),
            labels: vec!["k8s:a=b".into(), "k8s:c=d".into()],
            ..Endpoint::default()
        }),
        r#type: 1,
        ingress_denied_by: vec![Policy { name: "deny".into(), ..Policy::default() }],
        summary: "TCP Flags: SYN".into(),
        ..Flow::default()
    }
}

fn pruned(paths: &[&str]) -> Flow {
    let mask = FieldMask::of_flow(paths).unwrap();
    Flow::decode(&*mask.prune(&flow().encode_to_vec()).unwrap()).unwrap()
}

/// What the Hubble CLI asks for in compact form.
const DEFAULT: [&str; 20] = [
    "time",
    "verdict",
    "ethernet",
    "IP",
    "l4",
    "source.identity",
    "source.namespace",
    "source.pod_name",
    "destination.identity",
    "destination.namespace",
    "destination.pod_name",
    "Type",
    "node_name",
    "l7",
    "event_type",
    "source_service",
    "destination_service",
    "is_reply",
    "Summary",
    "ip_trace_id",
];

#[test]
fn the_mask_of_the_hubble_cli_takes_labels_and_policies_away() {
    let mut expected = flow();
    expected.source.as_mut().unwrap().labels.clear();
    expected.ingress_denied_by.clear();
    assert_eq!(pruned(&DEFAULT), expected);
}

#[test]
fn nothing_asked_for_is_everything() {
    assert!(FieldMask::of_flow::<&str>(&[]).unwrap().is_all());
    assert_eq!(pruned(&[]), flow());
}

#[test]
fn paths_lead_into_messages_and_choices() {
    let ports = pruned(&["l4.TCP.destination_port", "l4.UDP"]).l4.unwrap().protocol;
    assert_eq!(ports, Some(Protocol::Tcp(Tcp { destination_port: 2, ..Tcp::default() })));
    let capitals = pruned(&["IP.source", "Type", "Summary"]);
    assert_eq!((capitals.r#type, &*capitals.summary), (1, "TCP Flags: SYN"));
    assert_eq!(capitals.ip.unwrap().source, "10.0.0.1");
    // A list is wanted or not as a whole.
    assert_eq!(pruned(&["ingress_denied_by"]).ingress_denied_by, flow().ingress_denied_by);
    assert_eq!(pruned(&["source.labels"]).source.unwrap().labels.len(), 2);
}

#[test]
fn what_is_wanted_as_a_whole_stays_whole_in_any_order() {
    for paths in [["source", "source.identity"], ["source.identity", "source"]] {
        assert_eq!(pruned(&paths).source, flow().source);
    }
    // The rest of such a path is checked nevertheless.
    FieldMask::of_flow(&["source", "source.x"]).unwrap_err();
}

#[test]
fn a_path_that_leads_nowhere_names_the_near_field() {
    for (path, expected) in [
        (
            "sumary",
            "field mask: flow.Flow has no field \"sumary\" (in \"sumary\") \
                    (did you mean Summary?)",
        ),
        (
            "source.podname",
            "field mask: flow.Endpoint has no field \"podname\" \
                            (in \"source.podname\") (did you mean pod_name?)",
        ),
        ("", "field mask: flow.Flow has no field \"\" (in \"\")"),
        ("ip", "field mask: flow.Flow has no field \"ip\" (in \"ip\") (did you mean IP?)"),
        ("verdict.name", "field mask: \"verdict\" (in \"verdict.name\") has no fields of its own"),
        (
            "ingress_denied_by.name",
            "field mask: \"ingress_denied_by\" (in \
                                    \"ingress_denied_by.name\") has no fields of its own",
        ),
    ] {
        assert_eq!(FieldMask::of_flow(&[path]).unwrap_err().to_string(), expected);
    }
}

#[test]
fn bytes_that_are_no_message_are_an_error() {
    let mask = FieldMask::of_flow(&["source.identity", "verdict"]).unwrap();
    for bytes in
        [&[0x42, 0x05, 0x01][..], &[0x42], &[0x07], &[0x08], &[0xff; 11], &[0x42, 0xff, 0xff]]
    {
        assert!(mask.prune(bytes).is_err(), "{bytes:x?}");
    }
}

/// The same by way of a message whose fields are known by name only.
fn reference(paths: &[String], message: &mut DynamicMessage) {
    let fields: Vec<_> = message.fields().map(|(field, _)| field).collect();
    for field in fields {
        if paths.iter().any(|path| path == field.name()) {
            continue;
        }
        let inner: Vec<String> = paths
            .iter()
            .filter_map(|path| path.strip_prefix(field.name())?.strip_prefix('.'))
            .map(str::to_owned)
            .collect();
        match message.get_field_mut(&field) {
            Value::Message(of) if !inner.is_empty() => reference(&inner, of),
            _ => message.clear_field(&field),
        }
    }
}

fn flows() -> impl Strategy<Value = Flow> {
    let endpoint = || {
        proptest::option::of(
            (any::<u32>(), "[a-z]{0,3}", proptest::collection::vec("[a-z]{0,3}", 0..3)).prop_map(
                |(identity, namespace, labels)| Endpoint {
                    identity,
                    namespace,
                    labels,
                    ..Endpoint::default()
                },
            ),
        )
    };
    let l4 = proptest::option::of((any::<u16>(), any::<bool>(), any::<bool>()).prop_map(
        |(port, flags, syn)| Layer4 {
            protocol: Some(Protocol::Tcp(Tcp {
                destination_port: port.into(),
                flags: flags.then(|| TcpFlags { syn, ..TcpFlags::default() }),
                ..Tcp::default()
            })),
        },
    ));
    (any::<i32>(), endpoint(), endpoint(), l4, "[a-z]{0,9}").prop_map(
        |(verdict, source, destination, l4, summary)| Flow {
            verdict,
            source,
            destination,
            l4,
            summary,
            ..Flow::default()
        },
    )
}

proptest! {
    #[test]
    fn pruning_bytes_is_pruning_the_message(
        flow in flows(),
        paths in proptest::sample::subsequence(
            vec!["verdict", "source", "source.identity", "source.labels", "destination.namespace",
                 "l4.TCP.flags.SYN", "l4.TCP.destination_port", "l4.UDP.source_port", "Summary",
                 "is_reply"], 1..=10),
    ) {
        let encoded = flow.encode_to_vec();
        let descriptor = descriptors().get_message_by_name("flow.Flow").unwrap();
        let mut expected = DynamicMessage::decode(descriptor, &*encoded).unwrap();
        let owned: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        reference(&owned, &mut expected);
        let pruned = FieldMask::of_flow(&paths).unwrap().prune(&encoded).unwrap();
        let pruned = DynamicMessage::decode(expected.descriptor(), &*pruned).unwrap();
        prop_assert_eq!(pruned, expected);
    }

    #[test]
    fn any_bytes_are_pruned_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mask = FieldMask::of_flow(&["source.identity", "l4.TCP.flags", "time"]).unwrap();
        // What decodes is pruned; nothing panics.
        let pruned = mask.prune(&bytes);
        if Flow::decode(&*bytes).is_ok() {
            prop_assert!(pruned.is_ok());
        }
    }
}
