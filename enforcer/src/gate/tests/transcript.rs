//! What a real containerd sent, byte for byte: the answer to the registration, the configuration,
//! one sandbox that runs, two new ones, and a third in the node's network.
//!
//! Recorded on the NRI socket of Debian's containerd 2.1.9 with runc and a dual-stack bridge.

use super::*;
use crate::gate::protocol::{Ask, Protocol};

const CONTAINERD: &[u8] = include_bytes!("containerd-2.1.9.bin");

/// What the gate is asked when the recording arrives in pieces, and how much it answers.
fn replay(piece: usize) -> (Vec<Ask>, usize) {
    let mut protocol = Protocol::new("enforcer", "00");
    let registration = protocol.output();
    assert!(registration.starts_with(b"\0\0\0\x02"));
    let asks = CONTAINERD.chunks(piece).flat_map(|bytes| protocol.receive(bytes).unwrap());
    (asks.collect(), protocol.output().len())
}

fn sandbox(name: &str, id: &str, netns: &str, host: u8) -> Sandbox {
    Sandbox {
        id: id.into(),
        pod: crate::cluster::event::ObjectKey { namespace: "shop".into(), name: name.into() },
        uid: format!("uid-{name}"),
        addresses: vec![
            format!("10.99.0.{host}").parse().unwrap(),
            format!("fd99::{host}").parse().unwrap(),
        ],
        network: Network::Namespace(format!("/var/run/netns/cni-{netns}").into()),
    }
}

#[test]
fn containerd_is_understood() {
    let hold = |stream, name: &str, id: &str, netns: &str, host| Ask::Hold {
        stream,
        sandbox: sandbox(name, id, netns, host),
        timeout: Some(Duration::ZERO),
    };
    let expected = [
        Ask::Joined {
            runtime: "containerd 2.1.9+unknown".into(),
            running: vec![sandbox(
                "before-0",
                "bf2e10bf2d9208eb5055999a8f491566ffa359c007ce239f3c647eb283f8f476",
                "dde9b79f-539a-4e2d-fdf8-967985729d7b",
                2,
            )],
        },
        hold(
            5,
            "web-0",
            "f50b50040cd97cfa4f978d352e10863fbeaa9a1c7343ade07f5a3fab2774c678",
            "1d595d05-79b1-531a-522a-dd2e0995236f",
            3,
        ),
        hold(
            7,
            "web-300",
            "3b90ee8adb8b7e2174a71fa35553215c2222b7c426f27a98939dce29542d1d5d",
            "f589ede1-4211-4848-c6ac-a2bb96879d96",
            4,
        ),
    ];
    for piece in [CONTAINERD.len(), 4096, 100, 7, 1] {
        let (mut asks, answered) = replay(piece);
        for ask in &mut asks {
            if let Ask::Hold { timeout, .. } = ask {
                let given = timeout.take().unwrap();
                let near_two_seconds = Duration::from_millis(1900)..=Duration::from_secs(2);
                assert!(near_two_seconds.contains(&given), "{given:?}");
                *timeout = Some(Duration::ZERO);
            }
        }
        assert_eq!(asks, expected, "in pieces of {piece}");
        // Configured (8 + 10 + 10 bytes), synchronized, and the node's own let go (8 + 10 each).
        assert_eq!(answered, 28 + 18 + 18);
    }
}
