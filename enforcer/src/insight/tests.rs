//! Each insight provoked, and normal load that provokes none.

use std::time::Duration;

use enforcer_common::{
    abi::{Direction, Event, Totals, Traffic, event_kind, rule},
    reason::Reason,
};

use super::*;
use crate::flow::event::tests::{addr, flow, key, pod};

const SECOND: u64 = 1_000_000_000;

fn insights() -> Insights {
    // What it learns at first is another test's.
    Insights::new(InsightConfig { learning: Duration::ZERO, ..InsightConfig::default() })
}

/// What flows make known, as `kind subject: text`.
fn told(insights: &mut Insights, flows: impl IntoIterator<Item = Flow>) -> Vec<String> {
    let mut told = Vec::new();
    for flow in flows {
        insights.look(&flow, &mut |one| {
            told.push(format!("{} {}: {}", one.kind.name(), one.subject, one.text));
        });
    }
    told
}

/// `shop/web-1` opens a flow to 10.0.0.`to` and is allowed, at its own hook.
fn allowed(to: u8, port: u16, seconds: u64) -> Event {
    Event {
        time: seconds * SECOND,
        src: addr(1),
        dst: addr(to),
        ifindex: 5,
        len: 60,
        src_port: 40_000,
        dst_port: port,
        kind: event_kind::VERDICT,
        reason: Reason::Allowed as u8,
        direction: Direction::Egress as u8,
        proto: 6,
        tcp_flags: 2,
        ..Event::default()
    }
}

fn denied(to: u8, port: u16, seconds: u64) -> Event {
    let (rule, reason) = (rule::DEFAULT_DENY, Reason::PolicyDenied as u8);
    Event { rule, reason, ..allowed(to, port, seconds) }
}

fn to(address: [u8; 4], event: Event) -> Event {
    Event { dst: enforcer_common::abi::Addr::v4(u32::from_ne_bytes(address)), ..event }
}

#[test]
fn a_scan_of_ports_is_told_once() {
    let mut i = insights();
    let scan = (1..=100).map(|port| flow(&denied(2, port, 1)));
    let text = "PortScan shop/web-1: tried 20 ports of 10.0.0.2:20 in vain within 60 s";
    assert_eq!(told(&mut i, scan), [text]);
}

#[test]
fn a_scan_that_policy_lets_through_shows_by_its_refusals() {
    let mut i = insights();
    // The other side answers with RST and ACK, at once or after some packets.
    let scan = |answers: u64| {
        (1..=30).map(move |port| {
            let kind = event_kind::CLOSE;
            let mut closed = flow(&Event { kind, tcp_flags: 0x14, ..allowed(2, port, 1) });
            let reply = Traffic { packets: answers, bytes: 40 * answers };
            closed.raw.totals = Some(Totals { reply, ..Totals::default() });
            closed
        })
    };
    assert!(told(&mut i, scan(2)).is_empty(), "these were connections");
    assert_eq!(told(&mut i, scan(1)).len(), 1);
}

#[test]
fn a_scan_from_outside_is_told_by_its_address() {
    let mut i = insights();
    let scan = (1..=30).map(|port| {
        let event =
            Event { src: addr(99), direction: Direction::Ingress as u8, ..denied(1, port, 1) };
        flow(&event)
    });
    assert_eq!(
        told(&mut i, scan),
        ["PortScan 10.0.0.99: tried 20 ports of 10.0.0.1:20 in vain within 60 s"]
    );
}

#[test]
fn many_denied_peers_are_told_for_a_pod_and_not_for_the_world() {
    let mut i = insights();
    let sweep = |from: u8, ifindex: u32| {
        (10..60).map(move |n| flow(&Event { src: addr(from), ifindex, ..denied(n, 22, 1) }))
    };
    let text = "DeniedPeers shop/web-1: was denied 20 peers within 60 s, 10.0.0.29:22 last";
    assert_eq!(told(&mut i, sweep(1, 5)), [text]);
    assert!(told(&mut i, sweep(99, 77)).is_empty());
}

#[test]
fn the_first_contact_outside_is_told_and_others_inside_are_not() {
    let mut i = insights();
    let outside = |port| flow(&to([93, 184, 215, 14], allowed(0, port, 1)));
    assert_eq!(
        told(&mut i, [outside(443), outside(80)]),
        [
            "FirstOutsideContact shop/web-1: first contact with 93.184.215.14:443 outside the cluster"
        ]
    );
    // A pod, a node, a Service, a group, and what was dropped.
    let inside = [2, 7, 8].map(|last| flow(&allowed(last, 80, 1)));
    assert!(told(&mut i, inside).is_empty());
    let nowhere = [
        flow(&to([224, 0, 0, 251], allowed(0, 5353, 1))),
        flow(&to([203, 0, 113, 9], denied(0, 443, 1))),
    ];
    assert!(told(&mut i, nowhere).is_empty());
}

#[test]
fn contacts_while_learning_are_no_news() {
    let config = InsightConfig { learning: Duration::from_secs(10), ..InsightConfig::default() };
    let mut i = Insights::new(config);
    let outside = |last, seconds| flow(&to([93, 184, 215, last], allowed(0, 443, seconds)));
    assert!(told(&mut i, [outside(1, 0), outside(2, 9), outside(1, 20)]).is_empty());
    assert_eq!(told(&mut i, [outside(3, 20)]).len(), 1);
}

#[test]
fn the_metadata_address_is_told_whether_it_was_reached_or_not() {
    for (event, what) in [(allowed(0, 80, 1), "reached"), (denied(0, 80, 1), "tried to reach")] {
        let mut i = insights();
        let asked = flow(&to([169, 254, 169, 254], event));
        let text = format!(
            "MetadataAccess shop/web-1: {what} the cloud's metadata address 169.254.169.254"
        );
        assert_eq!(told(&mut i, [asked.clone(), asked]), [text]);
    }
}

#[test]
fn the_api_server_is_told_by_its_service_behind_an_address_or_a_backend() {
    let server = Arc::new(key("default", "kubernetes"));
    let mut by_address = flow(&allowed(9, 443, 1));
    by_address.destination_place = Some(Place::Service(Arc::clone(&server)));
    let mut by_backend = flow(&allowed(7, 6443, 1));
    by_backend.service = Some(server);
    for one in [by_address, by_backend] {
        let told = told(&mut insights(), [one.clone(), one]);
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("FirstApiServerContact shop/web-1: first contact"), "{told:?}");
    }
    assert!(told(&mut insights(), [flow(&allowed(8, 443, 1))]).is_empty(), "another Service");
}

#[test]
fn normal_load_is_quiet() {
    let mut i = insights();
    // A thousand clients of one port, a crawler of nineteen denied ports, replies, and retries of
    // one denied connection.
    let clients = (0..1000_u16).map(|n| {
        let web = Event {
            ifindex: 6,
            dst: addr(2),
            direction: Direction::Ingress as u8,
            ..allowed(1, 5432, 1)
        };
        flow(&Event { src_port: 30_000 + n, src: addr(u8::try_from(n % 200).unwrap()), ..web })
    });
    assert!(told(&mut i, clients).is_empty());
    assert!(told(&mut i, (1..20).map(|port| flow(&denied(2, port, 1)))).is_empty());
    assert!(told(&mut i, (0..500).map(|_| flow(&denied(3, 80, 1)))).is_empty());
    // The same twenty ports over half an hour.
    let mut slow = insights();
    let ports = (1..=20).map(|port| flow(&denied(2, port, u64::from(port) * 90)));
    assert!(told(&mut slow, ports).is_empty());
}

#[test]
fn what_is_switched_off_is_never_told() {
    let off = Rate { count: 0, within: Duration::from_secs(60) };
    let mut i = Insights::new(InsightConfig {
        port_scan: off,
        denied_peers: off,
        first_outside: false,
        metadata: false,
        first_api_server: false,
        learning: Duration::ZERO,
    });
    let flows = (1..100)
        .flat_map(|n| [denied(2, n, 1), denied(100, n, 1)])
        .map(|event| flow(&event))
        .chain([flow(&to([169, 254, 169, 254], allowed(0, 80, 1)))]);
    assert!(told(&mut i, flows).is_empty());
}

#[test]
fn a_pod_made_anew_under_its_name_has_a_spread_of_its_own() {
    let mut i = insights();
    let by = |uid: &str| {
        let mut identity = (*pod("shop", "web-1")).clone();
        identity.uid = uid.into();
        Arc::new(identity)
    };
    let scan = |uid: &str, ports: std::ops::Range<u16>| {
        let pod = by(uid);
        ports.map(move |port| Flow { source: Some(Arc::clone(&pod)), ..flow(&denied(2, port, 1)) })
    };
    assert!(told(&mut i, scan("a", 1..15)).is_empty());
    assert!(told(&mut i, scan("b", 15..30)).is_empty());
}

#[test]
fn contacts_belong_to_the_workload_and_pods_made_anew_have_them() {
    let mut i = insights();
    let part = |name: &str, workload: Option<&str>| {
        let mut pod = PodIdentity::clone(&pod("shop", name));
        let kind = || "Deployment".into();
        pod.workload = workload.map(|name| Workload { kind: kind(), name: name.into() });
        let mut flow = flow(&to([198, 51, 100, 7], allowed(9, 443, 1)));
        flow.source = Some(Arc::new(pod));
        flow
    };
    let first = part("web-1", Some("web"));
    assert_eq!(told(&mut i, [first]).len(), 1);
    assert_eq!(told(&mut i, [part("web-2", Some("web"))]), Vec::<String>::new());
    assert_eq!(told(&mut i, [part("api-1", Some("api"))]).len(), 1);
    // A pod by itself is no Deployment of the same name.
    assert_eq!(told(&mut i, [part("web", None)]).len(), 1);
    assert_eq!(told(&mut i, [part("web", None)]), Vec::<String>::new());
}
