//! Services in saved state. There can be very many, so only what verdicts depend on is written, in
//! few bytes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::saved::SavedProtocol;
use crate::cluster::event::{
    Endpoint, EndpointSlice, EndpointsFrom, ObjectKey, Service, ServicePort, SessionAffinity,
    SlicePort, TargetPort, TrafficPolicy,
};

/// Name, protocol, number, node port.
type SavedServicePort = (String, SavedProtocol, u16, Option<u16>);
/// Name, protocol, number.
type SavedSlicePort = (String, SavedProtocol, Option<u16>);

#[derive(Serialize, Deserialize)]
pub(super) struct SavedService {
    namespace: String,
    name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cluster: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    external: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    balanced: Vec<IpAddr>,
    ports: Vec<SavedServicePort>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SavedSlice {
    namespace: String,
    name: String,
    service: Option<String>,
    ports: Vec<SavedSlicePort>,
    addresses: Vec<IpAddr>,
}

impl From<&Service> for SavedService {
    fn from(service: &Service) -> Self {
        let Service { key, cluster_ips, external_ips, load_balancer_ips, ports, .. } = service;
        let port = |port: &ServicePort| {
            (port.name.to_string(), port.protocol.into(), port.port, port.node_port)
        };
        Self {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            cluster: cluster_ips.clone(),
            external: external_ips.clone(),
            balanced: load_balancer_ips.clone(),
            ports: ports.iter().map(port).collect(),
        }
    }
}

impl SavedService {
    /// The Service, as far as verdicts depend on it. Headless ones are not saved.
    pub(super) fn service(self) -> Service {
        let Self { namespace, name, cluster, external, balanced, ports } = self;
        let port = |(name, protocol, port, node_port): SavedServicePort| ServicePort {
            name: name.into(),
            protocol: protocol.into(),
            port,
            target: TargetPort::Number(port),
            node_port,
        };
        Service {
            key: ObjectKey { namespace: namespace.into(), name: name.into() },
            cluster_ips: cluster,
            external_ips: external,
            load_balancer_ips: balanced,
            ports: ports.into_iter().map(port).collect(),
            endpoints_from: EndpointsFrom::Elsewhere,
            headless: false,
            affinity: SessionAffinity::None,
            external_traffic: TrafficPolicy::Cluster,
            internal_traffic: TrafficPolicy::Cluster,
        }
    }
}

impl From<&EndpointSlice> for SavedSlice {
    fn from(slice: &EndpointSlice) -> Self {
        let EndpointSlice { key, service, ports, endpoints } = slice;
        let port = |port: &SlicePort| (port.name.to_string(), port.protocol.into(), port.port);
        let addresses = endpoints.iter().filter_map(|endpoint| endpoint.addresses.first());
        Self {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            service: service.as_deref().map(str::to_owned),
            ports: ports.iter().map(port).collect(),
            addresses: addresses.copied().collect(),
        }
    }
}

impl SavedSlice {
    pub(super) fn slice(self) -> EndpointSlice {
        let Self { namespace, name, service, ports, addresses } = self;
        let port = |(name, protocol, port): SavedSlicePort| SlicePort {
            name: name.into(),
            protocol: protocol.into(),
            port,
        };
        let endpoint = |address| Endpoint {
            addresses: vec![address],
            ready: true,
            serving: true,
            terminating: false,
            node: None,
            pod: None,
        };
        EndpointSlice {
            key: ObjectKey { namespace: namespace.into(), name: name.into() },
            service: service.map(Into::into),
            ports: ports.into_iter().map(port).collect(),
            endpoints: addresses.into_iter().map(endpoint).collect(),
        }
    }
}
