//! What a source would tell of a cluster, and of the way from one cluster to another: in any order,
//! with repetitions, with versions in between, or as a list.

use std::net::IpAddr;

use enforcer::cluster::event::{
    self, Endpoint, EndpointSlice, EndpointsFrom, Event, Interface, ObjectKey, ServicePort,
    SessionAffinity, SlicePort, TargetPort, TrafficPolicy,
};
use enforcer_reference::{Cluster, Name, NamedPort, Namespace, Pod, Protocol, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::{generate, random::Random};

/// All that is told of a cluster to who knows nothing.
pub(crate) fn all(cluster: &Cluster) -> Vec<Event> {
    let mut events = vec![Event::NodeAddressesFound(cluster.node.clone())];
    events.extend(changes(&Cluster::default(), cluster).into_iter().flatten());
    events
}

/// What is told when one cluster becomes another: for each object that differs, its events.
pub(crate) fn changes(from: &Cluster, to: &Cluster) -> Vec<Vec<Event>> {
    let mut changes = Vec::new();
    each(
        &from.namespaces,
        &to.namespaces,
        |a, b| a.name == b.name,
        |old, new| {
            changes.push(vec![match (old, new) {
                (_, Some(new)) => Event::NamespaceApplied(namespace(new)),
                (Some(old), None) => Event::NamespaceDeleted(old.name.as_str().into()),
                (None, None) => return,
            }]);
        },
    );
    each(
        &from.pods,
        &to.pods,
        |a, b| a.name == b.name,
        |old, new| {
            changes.push(vec![match (old, new) {
                (_, Some(new)) => Event::PodApplied(pod(new)),
                (Some(old), None) => Event::PodDeleted(key(&old.name)),
                (None, None) => return,
            }]);
        },
    );
    each(
        &from.policies,
        &to.policies,
        |a, b| policy_key(a) == policy_key(b),
        |old, new| {
            changes.push(vec![match (old, new) {
                (_, Some(new)) => Event::PolicyApplied(Box::new(new.clone())),
                (Some(old), None) => Event::PolicyDeleted(policy_key(old)),
                (None, None) => return,
            }]);
        },
    );
    each(
        &from.services,
        &to.services,
        |a, b| a.name == b.name,
        |old, new| {
            changes.push(match (old, new) {
                (_, Some(new)) => {
                    vec![
                        Event::SliceApplied(slice(new)),
                        Event::ServiceApplied(Box::new(service(new))),
                    ]
                }
                (Some(old), None) => {
                    let key = key(&old.name);
                    vec![Event::ServiceDeleted(key.clone()), Event::SliceDeleted(key)]
                }
                (None, None) => return,
            });
        },
    );
    changes
}

fn each<T: PartialEq>(
    from: &[T],
    to: &[T],
    same: impl Fn(&T, &T) -> bool,
    mut tell: impl FnMut(Option<&T>, Option<&T>),
) {
    for old in from {
        if !to.iter().any(|new| same(old, new)) {
            tell(Some(old), None);
        }
    }
    for new in to {
        let old = from.iter().find(|old| same(old, new));
        if old != Some(new) {
            tell(old, Some(new));
        }
    }
}

/// The whole of a cluster as a list. It says nothing of Services.
pub(crate) fn relist(cluster: &Cluster) -> Event {
    Event::Relist {
        pods: cluster.pods.iter().map(pod).collect(),
        namespaces: cluster.namespaces.iter().map(namespace).collect(),
        policies: cluster.policies.clone(),
    }
}

/// The way from one cluster to another as a stream of events. It may lead past clusters that are
/// neither.
pub(crate) fn stream(random: &mut Random, from: &Cluster, to: &Cluster) -> Vec<Event> {
    let mut events = Vec::new();
    let mut at = from.clone();
    for _ in 0..random.below(3) {
        // The local pods are as in both: another one of the name is another pod.
        let mut aside = at.clone();
        generate::change(random, &mut aside);
        events.extend(shuffled(random, changes(&at, &aside)));
        at = aside;
    }
    if random.chance(20) {
        let services = Cluster { services: to.services.clone(), ..at.clone() };
        events.extend(shuffled(random, changes(&at, &services)));
        events.push(relist(to));
    } else {
        events.extend(shuffled(random, changes(&at, to)));
    }
    if random.chance(10) {
        events.push(relist(to));
    }
    events
}

/// Has an interface go and one of its name and index come, somewhere in a stream.
pub(crate) fn lose_and_find(random: &mut Random, interface: Interface, events: &mut Vec<Event>) {
    let found = random.below(events.len() + 1);
    let lost = random.below(found + 1);
    let ifindex = interface.ifindex;
    events.insert(found, Event::InterfaceFound(interface));
    events.insert(lost, Event::InterfaceLost(ifindex));
}

/// Objects in any order, each object's events in theirs; some are told twice.
fn shuffled(random: &mut Random, mut changes: Vec<Vec<Event>>) -> Vec<Event> {
    random.shuffle(&mut changes);
    let mut events: Vec<Event> = Vec::new();
    for change in changes {
        for event in change {
            if random.chance(15) {
                events.push(event.clone());
            }
            events.push(event);
        }
    }
    events
}

pub(crate) fn key(name: &Name) -> ObjectKey {
    ObjectKey { namespace: name.namespace.as_str().into(), name: name.name.as_str().into() }
}

fn policy_key(policy: &NetworkPolicy) -> ObjectKey {
    enforcer::policy::compile::key(policy)
}

fn protocol(protocol: Protocol) -> event::Protocol {
    match protocol {
        Protocol::Tcp => event::Protocol::Tcp,
        Protocol::Udp => event::Protocol::Udp,
        Protocol::Sctp => event::Protocol::Sctp,
    }
}

fn namespace(namespace: &Namespace) -> event::Namespace {
    let Namespace { name, labels } = namespace;
    event::Namespace {
        name: name.as_str().into(),
        labels: labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
    }
}

fn pod(pod: &Pod) -> event::Pod {
    let port = |port: &NamedPort| event::NamedPort {
        name: port.name.as_str().into(),
        protocol: protocol(port.protocol),
        number: port.number,
    };
    event::Pod {
        key: key(&pod.name),
        uid: pod.uid.as_str().into(),
        labels: pod.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
        addresses: pod.addresses.clone(),
        host_network: pod.host_network,
        finished: pod.finished,
        terminating: pod.terminating,
        started: pod.started,
        containers_started: None,
        ports: pod.ports.iter().map(port).collect(),
        node: None,
        workload: None,
    }
}

fn service(service: &Service) -> event::Service {
    event::Service {
        key: key(&service.name),
        cluster_ips: vec![service.address],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        ports: vec![ServicePort {
            name: "".into(),
            protocol: protocol(service.protocol),
            port: service.port,
            target: TargetPort::Number(service.target),
            node_port: None,
        }],
        endpoints_from: EndpointsFrom::Selector,
        headless: false,
        affinity: SessionAffinity::None,
        external_traffic: TrafficPolicy::Cluster,
        internal_traffic: TrafficPolicy::Cluster,
    }
}

fn slice(service: &Service) -> EndpointSlice {
    let endpoint = |address: &IpAddr| Endpoint {
        addresses: vec![*address],
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        pod: None,
    };
    EndpointSlice {
        key: key(&service.name),
        service: Some(service.name.name.as_str().into()),
        ports: vec![SlicePort {
            name: "".into(),
            protocol: protocol(service.protocol),
            port: Some(service.target),
        }],
        endpoints: service.backends.iter().map(endpoint).collect(),
    }
}
