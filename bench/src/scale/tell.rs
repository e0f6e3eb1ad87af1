//! A generated cluster as the events that a source tells the index.

use std::sync::Arc;

use enforcer::{
    cluster::event::{
        self, Endpoint, EndpointSlice, EndpointsFrom, Event, NamedPort, ObjectKey, Protocol,
        SessionAffinity, SlicePort, TargetPort, TrafficPolicy, Workload,
    },
    source::shared::Shared,
};

use super::cluster::{Cluster, ENDPOINTS_A_SLICE, Namespace, Pod, Service};

/// Everything as the API server's source tells it at first: one list, then what it knows of
/// Services.
pub(super) fn first(cluster: &Cluster) -> Result<Vec<Event>, serde_json::Error> {
    let mut shared = Shared::default();
    let policies =
        cluster.policies.iter().cloned().map(serde_json::from_value).collect::<Result<_, _>>()?;
    let relist = Event::Relist {
        pods: cluster.pods.iter().map(|of| pod(of, &mut shared)).collect(),
        namespaces: cluster.namespaces.iter().map(namespace).collect(),
        policies,
    };
    let services = cluster.services.iter().flat_map(service);
    Ok(std::iter::once(relist).chain(services).collect())
}

pub(super) fn namespace(of: &Namespace) -> event::Namespace {
    event::Namespace {
        name: of.name.as_str().into(),
        labels: of.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
    }
}

/// What many have in common is kept once, as the sources do.
pub(super) fn pod(of: &Pod, shared: &mut Shared) -> event::Pod {
    event::Pod {
        key: ObjectKey { namespace: shared.text(&of.namespace), name: of.name.as_str().into() },
        uid: of.uid.as_str().into(),
        labels: shared.labels(&of.labels),
        addresses: vec![of.address],
        host_network: of.host_network,
        finished: false,
        terminating: false,
        started: 1,
        containers_started: Some(2),
        ports: of
            .ports
            .iter()
            .map(|(name, number)| NamedPort {
                name: shared.text(name),
                protocol: Protocol::Tcp,
                number: *number,
            })
            .collect(),
        node: Some(shared.text(&of.node)),
        workload: Some(Workload { kind: shared.text("Deployment"), name: shared.text(&of.app) }),
    }
}

/// The endpoints first, as where they come by two watches nothing says which is faster.
pub(super) fn service(of: &Service) -> impl Iterator<Item = Event> {
    let slices = (0u32..).zip(of.endpoints.chunks(ENDPOINTS_A_SLICE)).map(|(number, part)| {
        Event::SliceApplied(EndpointSlice {
            key: key(&of.namespace, &format!("{}-{number}", of.name)),
            service: Some(of.name.as_str().into()),
            ports: vec![SlicePort {
                name: "http".into(),
                protocol: Protocol::Tcp,
                port: Some(8080),
            }],
            endpoints: part
                .iter()
                .map(|(address, node, pod)| Endpoint {
                    addresses: vec![*address],
                    ready: true,
                    serving: true,
                    terminating: false,
                    node: Some(node.as_str().into()),
                    pod: Some(key(&of.namespace, pod)),
                })
                .collect(),
        })
    });
    let service = event::Service {
        key: key(&of.namespace, &of.name),
        cluster_ips: vec![of.address],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        ports: vec![event::ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: of.port,
            target: TargetPort::Name("http".into()),
            node_port: None,
        }],
        endpoints_from: EndpointsFrom::Selector,
        headless: false,
        affinity: SessionAffinity::None,
        external_traffic: TrafficPolicy::Cluster,
        internal_traffic: TrafficPolicy::Cluster,
    };
    slices.chain(std::iter::once(Event::ServiceApplied(Box::new(service))))
}

pub(super) fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey { namespace: Arc::from(namespace), name: Arc::from(name) }
}
