//! What an event costs in a large cluster: a share of what it touches, not of the cluster.

use std::time::{Duration, Instant};

use super::{
    apply_pod, drain, index, namespace, pod, policy,
    services::{service, slice},
    veth,
};
use crate::cluster::{
    Index,
    event::{EndpointSlice, Event},
};

struct Size {
    namespaces: usize,
    pods: usize,
    policies: usize,
    local: usize,
}

fn pod_at(number: usize, size: &Size, of: &str) -> crate::cluster::event::Pod {
    let app = number % 50;
    pod(
        &format!("n{}/p{number}", number % size.namespaces),
        &format!("app=a{app},tier=t{}{of}", app % 3),
        &format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255),
    )
}

fn large(size: &Size) -> Index {
    let mut index = index();
    for number in 0..size.local {
        let address = format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
        index.apply(Event::InterfaceFound(veth(10 + u32::try_from(number).unwrap(), &address)));
    }
    let policies = (0..size.policies).map(|number| {
        let at = number % size.namespaces;
        let (app, peer) = (number / size.namespaces % 50, number % 50);
        let spec = format!(
            "podSelector: {{matchLabels: {{app: a{app}}}}}, ingress: [{{from: [{{podSelector: \
             {{matchLabels: {{app: a{peer}}}}}}}, {{namespaceSelector: {{matchLabels: {{team: \
             x{}}}}}}}], ports: [{{port: 80}}]}}, {{from: [{{ipBlock: {{cidr: 10.0.0.0/8, except: \
             [10.{}.0.0/16]}}}}], ports: [{{port: 443}}]}}]",
            at % 10,
            number % 200
        );
        policy(&format!("n{at}/np{number}"), &spec)
    });
    index.apply(Event::Relist {
        pods: (0..size.pods).map(|number| pod_at(number, size, "")).collect(),
        namespaces: (0..size.namespaces)
            .map(|at| namespace(&format!("n{at}"), &format!("team=x{}", at % 10)))
            .collect(),
        policies: policies.collect(),
    });
    index
}

/// The median time of an event and its plans, pods relabelled and back in turn.
fn pod_event(index: &mut Index, size: &Size) -> Duration {
    let mut times: Vec<_> = (0..200)
        .map(|turn| {
            let label = if turn % 2 == 0 { ",app=a1" } else { "" };
            let changed = pod_at(size.pods / 2 + turn / 2 * 7, size, label);
            let start = Instant::now();
            apply_pod(index, changed);
            drain(index);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn a_pod_event_costs_less_than_a_millisecond() {
    let size = Size { namespaces: 100, pods: 20_000, policies: 1_000, local: 50 };
    let mut index = large(&size);
    drain(&mut index);
    assert!(index.status().counts.classes > 10 && index.status().counts.peers > 1000);
    let median = pod_event(&mut index, &size);
    assert!(median < Duration::from_millis(1), "{median:?}");
}

#[test]
fn what_changes_behind_a_service_costs_what_it_touches() {
    let size = Size { namespaces: 100, pods: 20_000, policies: 1_000, local: 50 };
    let mut index = large(&size);
    let address =
        |number: usize| format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
    for number in 0..2_000 {
        let name = format!("n{}/s{number}", number % size.namespaces);
        let cluster_ip = format!("10.96.{}.{}", number >> 8, number & 255);
        let of = service(&name, &cluster_ip, "web:80,dns:53/udp");
        index.apply(Event::ServiceApplied(Box::new(of)));
        let backends: Vec<_> = (0..10).map(|turn| address(number * 10 + turn)).collect();
        let slice = small(number, &size, &backends.join(","));
        index.apply(Event::SliceApplied(slice));
    }
    // One has every second pod behind it.
    index.apply(Event::ServiceApplied(Box::new(service("n0/all", "10.96.200.1", ":80"))));
    for part in 0..100 {
        let backends: Vec<_> = (0..100).map(|turn| address(part * 200 + turn * 2)).collect();
        let slice = slice(&format!("n0/all-{part}"), "all", ":80", &backends.join(","));
        index.apply(Event::SliceApplied(slice));
    }
    drain(&mut index);
    assert_eq!(index.status().counts.services, 4_001);
    let median = pod_event(&mut index, &size);
    assert!(median < Duration::from_millis(1), "a pod: {median:?}");
    let mut times: Vec<_> = (0..200)
        .map(|turn| {
            let backends: Vec<_> = (turn..turn + 10).map(address).collect();
            let start = Instant::now();
            index.apply(Event::SliceApplied(small(turn, &size, &backends.join(","))));
            drain(&mut index);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    assert!(times[100] < Duration::from_millis(1), "a slice: {:?}", times[100]);
}

fn small(number: usize, size: &Size, backends: &str) -> EndpointSlice {
    let name = format!("n{}/s{number}-x", number % size.namespaces);
    slice(&name, &format!("s{number}"), "web:8080,dns:53/udp", backends)
}
