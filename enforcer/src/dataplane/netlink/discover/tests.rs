//! Discovery against the kernel.

use std::{future::Future, time::Duration};

use super::*;
use crate::dataplane::netlink::testing::{Namespace, block_on, keep_only_net_admin, sh};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, future).await.expect("in time")
}

/// Events up to the first that `last` accepts.
async fn until(
    discovery: &mut Discovery,
    last: impl Fn(&DiscoveryEvent) -> bool,
) -> Vec<DiscoveryEvent> {
    let mut all = Vec::new();
    within(Duration::from_secs(10), async {
        loop {
            all.push(discovery.next().await.unwrap());
            if all.last().is_some_and(&last) {
                return;
            }
        }
    })
    .await;
    all
}

fn has(event: &DiscoveryEvent, name: &str, addresses: &[&str]) -> bool {
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| ip(address)).collect();
    matches!(event, DiscoveryEvent::Found(found)
        if &*found.name == name && found.peer_addresses == addresses)
}

fn is_complete(event: &DiscoveryEvent) -> bool {
    *event == DiscoveryEvent::FirstComplete
}

#[test]
fn what_is_there_comes_first_and_then_what_changes() {
    let (node, pod) = (Namespace::new(), Namespace::new());
    let thread = pod.thread;
    pod.run(move || sh("true"));
    node.run(move || {
        sh(&format!("ip link add h0 type veth peer name eth0 netns {thread}"));
        sh("ip link set h0 up; ip addr add 192.0.2.1/24 dev h0; ip addr add 10.5.5.5/32 dev lo");
        sh("ip link add quiet type bridge; ip addr add fe80::7/64 dev quiet nodad");
    });
    pod.run(|| sh("ip addr add 10.0.0.5/32 dev eth0; ip link set eth0 up"));
    let pod_run = move |commands: &'static str| pod.run(move || sh(commands));
    node.run(move || {
        keep_only_net_admin();
        block_on(async {
            let mut discovery = Discovery::open().unwrap();
            let first = until(&mut discovery, is_complete).await;
            assert!(first.iter().any(|event| has(event, "h0", &["10.0.0.5"])), "{first:?}");
            let told = first.iter().find_map(|event| match event {
                DiscoveryEvent::NodeAddresses(addresses) => Some(addresses.clone()),
                _ => None,
            });
            let told = told.unwrap();
            for address in ["192.0.2.1", "10.5.5.5", "fe80::7"] {
                assert!(told.contains(&ip(address)), "{address} in {told:?}");
            }
            assert!(!told.contains(&ip("127.0.0.1")) && !told.contains(&ip("::1")));

            // A second address at the other end, of which nothing is told here.
            pod_run("ip addr add fd00::5/64 dev eth0 nodad");
            let start = Instant::now();
            until(&mut discovery, |event| has(event, "h0", &["10.0.0.5", "fd00::5"])).await;
            assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        });
    });
}

#[test]
fn a_new_pod_is_found_soon_after_it_has_its_address() {
    let (node, pod) = (Namespace::new(), Namespace::new());
    let thread = pod.thread;
    node.run(move || {
        block_on(async {
            let mut discovery = Discovery::open().unwrap();
            until(&mut discovery, is_complete).await;
            // The order of many plugins: made here, moved, addressed, set up.
            sh("ip link add h0 type veth peer name p0");
            sh(&format!("ip link set p0 netns {thread}"));
            let events = until(&mut discovery, |event| has(event, "h0", &[])).await;
            assert!(!events.iter().any(|event| matches!(event, DiscoveryEvent::Lost(_))));
            pod.run(|| sh("ip addr add 10.0.0.6/32 dev p0"));
            let addressed = Instant::now();
            until(&mut discovery, |event| has(event, "h0", &["10.0.0.6"])).await;
            assert!(addressed.elapsed() < Duration::from_secs(1), "{:?}", addressed.elapsed());

            // It is gone with its pod.
            drop(pod);
            let events =
                until(&mut discovery, |event| matches!(event, DiscoveryEvent::Lost(_))).await;
            assert!(events.len() <= 2, "{events:?}");
        });
    });
}

#[test]
fn an_interface_that_moves_away_is_lost_and_its_index_can_come_again() {
    let (node, pod, other) = (Namespace::new(), Namespace::new(), Namespace::new());
    let (thread, elsewhere) = (pod.thread, other.thread);
    node.run(move || {
        block_on(async {
            let mut discovery = Discovery::open().unwrap();
            let pair = |host: &str, peer: &str| {
                sh(&format!(
                    "ip link add {host} index 77 type veth peer name {peer} netns {thread}"
                ));
            };
            pair("h0", "a0");
            until(&mut discovery, |event| has(event, "h0", &[])).await;
            sh(&format!("ip link set h0 netns {elsewhere}"));
            pair("h1", "a1");
            let events = until(&mut discovery, |event| has(event, "h1", &[])).await;
            let lost = events.iter().position(|event| *event == DiscoveryEvent::Lost(77)).unwrap();
            assert!(events[lost + 1..].iter().all(|event| !has(event, "h0", &[])), "{events:?}");
            sh("ip link del h1");
            until(&mut discovery, |event| *event == DiscoveryEvent::Lost(77)).await;
        });
    });
}

#[test]
fn node_addresses_follow_the_interfaces() {
    Namespace::new().run(|| {
        block_on(async {
            let mut discovery = Discovery::open().unwrap();
            until(&mut discovery, is_complete).await;
            let told = |wanted: &'static [&str]| {
                let wanted: Vec<IpAddr> = wanted.iter().map(|address| ip(address)).collect();
                move |event: &DiscoveryEvent| {
                    *event == DiscoveryEvent::NodeAddresses(wanted.clone())
                }
            };
            sh("ip link add d0 type bridge; ip addr add 10.1.0.1/24 dev d0");
            sh("ip addr add 10.1.0.1/16 dev d0; ip addr add 10.1.0.2/24 dev d0");
            until(&mut discovery, told(&["10.1.0.1", "10.1.0.2"])).await;
            sh("ip addr del 10.1.0.2/24 dev d0");
            until(&mut discovery, told(&["10.1.0.1"])).await;
            sh("ip link del d0");
            until(&mut discovery, told(&[])).await;
        });
    });
}

#[test]
fn a_rescan_knows_what_was_there_before_it() {
    let (node, pod) = (Namespace::new(), Namespace::new());
    let thread = pod.thread;
    node.run(move || {
        block_on(async {
            let mut discovery = Discovery::open().unwrap();
            until(&mut discovery, is_complete).await;
            sh(&format!("ip link add h0 up type veth peer name eth0 netns {thread}"));
            pod.run(|| sh("ip addr add 10.0.0.8/32 dev eth0"));
            let events = discovery.rescan().unwrap();
            assert!(events.iter().any(|event| has(event, "h0", &["10.0.0.8"])), "{events:?}");
            let outlet = |events: &[DiscoveryEvent]| match events.last() {
                Some(DiscoveryEvent::Outlets(all)) => all.values().any(|name| &**name == "h0"),
                other => panic!("{other:?}"),
            };
            assert!(outlet(&events));
            sh("ip link del h0");
            let events = discovery.rescan().unwrap();
            assert!(matches!(events[0], DiscoveryEvent::Lost(_)), "{events:?}");
            assert!(!outlet(&events));
            assert_eq!(discovery.rescan().unwrap(), []);
        });
    });
}

#[test]
fn lost_changes_are_made_good() {
    let (node, pod) = (Namespace::new(), Namespace::new());
    let thread = pod.thread;
    node.run(move || {
        block_on(async {
            let mut discovery = Discovery::open().unwrap();
            sh(&format!("ip link add h0 type veth peer name eth0 netns {thread}"));
            let first = until(&mut discovery, is_complete).await;
            assert!(first.iter().any(|event| has(event, "h0", &[])));
            // What an overflow leaves: nothing read, and the word that something was missed.
            sh(&format!("ip link del h0; ip link add h1 type veth peer name eth0 netns {thread}"));
            discovery.changes.waiting().unwrap();
            discovery.apply(vec![Changed::Overflow]);
            let events = until(&mut discovery, |event| has(event, "h1", &[])).await;
            assert!(matches!(events[0], DiscoveryEvent::Lost(_)), "{events:?}");
        });
    });
}

#[test]
fn nothing_to_do_costs_nothing() {
    Namespace::new().run(|| {
        sh("ip link add d0 type bridge; ip link add b0 type bridge");
        block_on(async {
            let mut discovery = Discovery::open().unwrap();
            until(&mut discovery, is_complete).await;
            let idle = tokio::time::timeout(Duration::from_millis(300), discovery.next()).await;
            assert!(idle.is_err(), "{idle:?}");
            assert_eq!(discovery.table.next_look(), None);
        });
    });
}
