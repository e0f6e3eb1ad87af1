//! The index against the API's semantics, against itself made afresh, and halfway through plans.

mod binding;
mod enforcement;
mod kernel;
mod names;
mod random;
mod reference;
mod remembering;
mod reuse;
mod scale;
mod scenarios;
mod semantics;
mod service_room;
mod service_status;
mod services;
mod start_streams;
mod starting;
mod streams;
mod transitions;

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::{
    BadEnforcement, ENFORCEMENT_LABEL, Enforcement, Index, IndexConfig,
    event::{Event, Interface, Labels, NamedPort, Namespace, ObjectKey, Pod, Protocol},
    plan::Plan,
};

fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey { namespace: namespace.into(), name: name.into() }
}

fn labels(text: &str) -> Labels {
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').expect("key=value");
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

/// `name` is `namespace/name`, `of` is `key=value,…`, `addresses` is `a,b,…`.
fn pod(name: &str, of: &str, addresses: &str) -> Pod {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    Pod {
        key: key(namespace, name),
        uid: "".into(),
        labels: labels(of),
        addresses: addresses.split(',').filter(|a| !a.is_empty()).map(address).collect(),
        host_network: false,
        finished: false,
        terminating: false,
        started: 0,
        containers_started: None,
        ports: Vec::new(),
        node: None,
        workload: None,
    }
}

fn named_port(name: &str, protocol: Protocol, number: u16) -> NamedPort {
    NamedPort { name: name.into(), protocol, number }
}

fn namespace(name: &str, of: &str) -> Namespace {
    Namespace { name: name.into(), labels: labels(of).with("kubernetes.io/metadata.name", name) }
}

fn policy(name: &str, spec: &str) -> NetworkPolicy {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    let yaml = format!("{{metadata: {{namespace: {namespace}, name: {name}}}, spec: {{{spec}}}}}");
    serde_norway::from_str(&yaml).expect("a NetworkPolicy")
}

fn veth(ifindex: u32, addresses: &str) -> Interface {
    Interface {
        ifindex,
        name: Arc::from(format!("veth{ifindex}")),
        peer_addresses: addresses.split(',').filter(|a| !a.is_empty()).map(address).collect(),
        kind: "veth".into(),
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn index() -> Index {
    Index::new(IndexConfig { class_key: [1, 2], first_table: 1, ..IndexConfig::default() })
}

/// All plans until nothing is left to do.
fn drain(index: &mut Index) -> Vec<Plan> {
    let mut plans = Vec::new();
    loop {
        let plan = index.take_plan();
        if plan.is_empty() {
            return plans;
        }
        plans.push(plan);
        assert!(plans.len() < 4, "plans without end");
    }
}

fn apply_pod(index: &mut Index, pod: Pod) {
    index.apply(Event::PodApplied(pod));
}

fn apply_policy(index: &mut Index, policy: NetworkPolicy) {
    index.apply(Event::PolicyApplied(Box::new(policy)));
}

fn apply_veth(index: &mut Index, ifindex: u32, addresses: &str) {
    index.apply(Event::InterfaceFound(veth(ifindex, addresses)));
}
