//! What is not NRI ends the connection, never the gate.

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::gate::{mux::Channel, protocol::Protocol, sandbox::tests::pod, ttrpc::Frame};

/// A frame of the trunk around bytes.
fn trunk(connection: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&connection.to_be_bytes()[..], &length.to_be_bytes(), payload].concat()
}

/// A ttrpc message in the trunk.
fn message(connection: u32, stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let frame = Frame { stream, kind, flags: 0, payload: payload.to_vec() };
    trunk(connection, &frame.to_bytes())
}

#[tokio::test]
async fn garbage_ends_the_connection_and_the_gate_comes_back() {
    let cases: [(Vec<u8>, &str); 8] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "the unknown connection 1213486160"),
        (trunk(0, b""), "the unknown connection 0"),
        (trunk(3, b"x"), "the unknown connection 3"),
        ([1_u32.to_be_bytes(), u32::MAX.to_be_bytes()].concat(), "a frame of 4294967295 bytes"),
        (trunk(1, b"\x00\x40\x00\x01\0\0\0\x63\x01\0"), "a frame of 4194305 bytes"),
        (message(1, 98, 1, b""), "stream 98, which is even"),
        (message(1, 99, 3, b""), "stream data for stream 99"),
        (message(1, 99, 1, b"\xff\xff"), "no ttrpc message"),
    ];
    let (mut lab, mut talk) = Lab::joined(Duration::from_secs(5)).await;
    for (bytes, complaint) in cases {
        talk.trunk.write_all(&bytes).await.unwrap();
        talk.closed().await;
        let status = lab.until("lost", |status| !status.connected).await;
        let error = status.last_error.unwrap();
        assert!(error.starts_with("what the container runtime sent is not NRI"), "{error}");
        assert!(error.contains(complaint), "{error} should say {complaint}");
        talk = lab.runtime.accept().await;
        talk.take_in().await;
        lab.until("connected", |status| status.connected).await;
    }
}

#[tokio::test]
async fn a_stream_is_used_once() {
    let (mut lab, mut talk) = Lab::joined(Duration::from_secs(5)).await;
    // Registration took the streams 1 and 3.
    talk.trunk.write_all(&message(1, 3, 1, b"")).await.unwrap();
    talk.closed().await;
    let status = lab.until("lost", |status| !status.connected).await;
    assert!(status.last_error.unwrap().contains("stream 3"));
}

#[tokio::test]
async fn what_the_protocol_may_add_is_passed_over() {
    let (mut lab, mut talk) = Lab::joined(Duration::from_secs(5)).await;
    for odd in [message(1, 99, 7, b"x"), message(2, 9, 2, b"x"), message(2, 1, 3, b"x")] {
        talk.trunk.write_all(&odd).await.unwrap();
    }
    let stream = talk.start(pod("web", &[], &[("network", "/n")])).await;
    lab.question().await.answer.send(Held::Armed).unwrap();
    talk.agreed(stream).await;
}

#[tokio::test]
async fn a_call_that_cannot_be_read_is_refused_and_others_go_on() {
    let (_lab, mut talk) = Lab::joined(Duration::from_secs(5)).await;
    // Field 2 of an event is a pod, not a number.
    let odd = proto::ConfigureResponse { events: 1, failure_policy: None };
    let stream = talk.call("StateChange", &odd).await;
    let (code, text) = talk.refused(stream).await;
    assert_eq!(code, 3);
    assert!(text.starts_with("the request cannot be read: "), "{text}");
    let proxy = talk.start(pod("proxy", &[], &[("pid", "")])).await;
    talk.agreed(proxy).await;
}

#[tokio::test]
async fn a_runtime_that_reads_no_answers_is_left() {
    let (mut lab, mut talk) = Lab::joined(Duration::from_secs(5)).await;
    let asking = tokio::spawn(async move {
        let mut bytes = Vec::new();
        for n in 0..100_000_u32 {
            bytes.extend(message(1, 101 + 2 * n, 1, b""));
        }
        // Fails when the gate hangs up.
        let _failed = talk.trunk.write_all(&bytes).await;
        talk
    });
    let status = lab.until("lost", |status| !status.connected).await;
    let error = status.last_error.unwrap();
    assert_eq!(error, "the container runtime does not read what the plugin answers");
    timeout(LONG, asking).await.unwrap().unwrap();
}

/// Bytes that are often nearly right.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => 0_u8..4, 1 => any::<u8>()];
    let bytes = prop::collection::vec(byte, 0..60);
    let method =
        prop::sample::select(vec!["Configure", "Synchronize", "StateChange", "RunPodSandbox"]);
    let call = (method, bytes.clone(), any::<i64>()).prop_map(|(method, payload, timeout_nano)| {
        let service = "nri.pkg.api.v1alpha1.Plugin".to_owned();
        let method = method.to_owned();
        ttrpc::Request { service, method, payload, timeout_nano }
    });
    prop_oneof![
        bytes.clone(),
        (0_u32..3, 0_u32..9, 0_u8..5, bytes).prop_map(|(connection, stream, kind, payload)| {
            message(connection, stream, kind, &payload)
        }),
        (0_u32..9, call).prop_map(|(half, call)| {
            let mut out = Vec::new();
            let frame = Frame::request(2 * half + 1, &call);
            mux::write(Channel::Plugin, &frame.to_bytes(), &mut out);
            out
        }),
    ]
}

proptest! {
    #[test]
    fn nothing_that_comes_panics(
        parts in prop::collection::vec(nearly(), 0..12),
        piece in 1_usize..100,
    ) {
        let mut protocol = Protocol::new("enforcer", "00");
        let stream = parts.concat();
        for bytes in stream.chunks(piece) {
            if protocol.receive(bytes).is_err() {
                break;
            }
        }
    }
}
