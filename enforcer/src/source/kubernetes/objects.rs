//! The fields in use of Nodes, Services and EndpointSlices. What the API server has taken is right:
//! what does not fit here (a protocol that came later) is left out of the object.

use std::net::IpAddr;

use serde::Deserialize;

use crate::{
    cluster::event::{
        self, EndpointsFrom, ObjectKey, Protocol, ServicePort, SessionAffinity, SlicePort,
        TargetPort, TrafficPolicy,
    },
    source::{pod, shared::Shared},
};

/// The label that names a slice's Service (`discovery.k8s.io` `LabelServiceName`).
const SERVICE_NAME: &str = "kubernetes.io/service-name";

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::source) struct Node {
    pub(in crate::source) metadata: pod::Meta,
    pub(in crate::source) status: NodeStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(in crate::source) struct NodeStatus {
    pub(in crate::source) addresses: Option<Vec<NodeAddress>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(in crate::source) struct NodeAddress {
    #[serde(rename = "type")]
    pub(in crate::source) kind: String,
    pub(in crate::source) address: String,
}

impl Node {
    pub(in crate::source) fn read(self, key: ObjectKey) -> event::Node {
        // Host names are among them.
        let listed = self.status.addresses.unwrap_or_default();
        let of_kind = |kind: Option<&str>| -> Vec<IpAddr> {
            let listed = listed.iter().filter(|one| kind.is_none_or(|kind| one.kind == kind));
            addresses(listed.map(|one| &one.address))
        };
        // As kube-proxy chooses (`component-helpers/node/util` `GetNodeHostIPs`).
        let hosts = ["InternalIP", "ExternalIP"].into_iter().flat_map(|kind| of_kind(Some(kind)));
        let mut primary: Vec<IpAddr> = Vec::new();
        for address in hosts {
            if primary.iter().all(|other| other.is_ipv4() != address.is_ipv4()) {
                primary.push(address);
            }
        }
        event::Node { name: key.name, addresses: of_kind(None), primary }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(in crate::source) struct Service {
    pub(in crate::source) metadata: pod::Meta,
    pub(in crate::source) spec: ServiceSpec,
    pub(in crate::source) status: ServiceStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::source) struct ServiceSpec {
    #[serde(rename = "type")]
    pub(in crate::source) kind: Option<String>,
    #[serde(rename = "clusterIP")]
    pub(in crate::source) cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    pub(in crate::source) cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    pub(in crate::source) external_ips: Option<Vec<String>>,
    pub(in crate::source) ports: Option<Vec<RawServicePort>>,
    pub(in crate::source) selector: Option<pod::RawLabels>,
    pub(in crate::source) session_affinity: Option<String>,
    pub(in crate::source) external_traffic_policy: Option<String>,
    pub(in crate::source) internal_traffic_policy: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::source) struct RawServicePort {
    pub(in crate::source) name: Option<String>,
    pub(in crate::source) protocol: Option<String>,
    pub(in crate::source) port: u16,
    pub(in crate::source) target_port: Option<Target>,
    pub(in crate::source) node_port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(in crate::source) enum Target {
    Number(u16),
    Name(String),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::source) struct ServiceStatus {
    pub(in crate::source) load_balancer: Option<LoadBalancer>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(in crate::source) struct LoadBalancer {
    pub(in crate::source) ingress: Option<Vec<Ingress>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::source) struct Ingress {
    pub(in crate::source) ip: Option<String>,
    pub(in crate::source) ip_mode: Option<String>,
}

fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    exact(texts.into_iter().filter_map(|text| text.parse().ok()))
}

/// Without spare room, and without what a list was collected in before: it stays as it is for long,
/// and there are very many.
fn exact<T>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = items.collect();
    all.shrink_to_fit();
    all
}

fn traffic(policy: Option<&str>) -> TrafficPolicy {
    if policy == Some("Local") { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
}

impl Service {
    pub(in crate::source) fn read(self, key: ObjectKey) -> event::Service {
        let Self { metadata: _, mut spec, mut status } = self;
        if spec.kind.as_deref() == Some("ExternalName") {
            // It is a name for something else, whatever remains of an earlier type.
            let kind = spec.kind.take();
            spec = ServiceSpec { kind, ..ServiceSpec::default() };
            status = ServiceStatus::default();
        }
        // The list counts; servers before 1.20 have only the one.
        let cluster = spec.cluster_ips.filter(|all| !all.is_empty());
        let cluster = cluster.unwrap_or_else(|| spec.cluster_ip.into_iter().collect());
        let balancer = status.load_balancer.unwrap_or_default().ingress.unwrap_or_default();
        let ports = spec.ports.unwrap_or_default().into_iter();
        event::Service {
            key,
            cluster_ips: addresses(&cluster),
            external_ips: addresses(spec.external_ips.iter().flatten()),
            load_balancer_ips: addresses(
                // What goes to the others leaves the node as it is.
                balancer
                    .iter()
                    .filter(|one| one.ip_mode.as_deref() != Some("Proxy"))
                    .filter_map(|one| one.ip.as_ref()),
            ),
            ports: exact(ports.filter_map(service_port)),
            endpoints_from: match spec.selector {
                Some(selector) if !selector.is_empty() => EndpointsFrom::Selector,
                _ => EndpointsFrom::Elsewhere,
            },
            headless: cluster.iter().any(|text| text == "None"),
            affinity: match spec.session_affinity.as_deref() {
                Some("ClientIP") => SessionAffinity::ClientIp,
                _ => SessionAffinity::None,
            },
            external_traffic: traffic(spec.external_traffic_policy.as_deref()),
            internal_traffic: traffic(spec.internal_traffic_policy.as_deref()),
        }
    }
}

fn service_port(raw: RawServicePort) -> Option<ServicePort> {
    let RawServicePort { name, protocol, port, target_port, node_port } = raw;
    if port == 0 {
        return None;
    }
    Some(ServicePort {
        name: name.unwrap_or_default().into(),
        protocol: pod::protocol(protocol.as_deref())?,
        port,
        target: match target_port {
            None | Some(Target::Number(0)) => TargetPort::Number(port),
            Some(Target::Number(number)) => TargetPort::Number(number),
            Some(Target::Name(name)) => TargetPort::Name(name.into()),
        },
        node_port: node_port.filter(|port| *port != 0),
    })
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::source) struct EndpointSlice {
    pub(in crate::source) metadata: pod::Meta,
    pub(in crate::source) address_type: String,
    pub(in crate::source) ports: Option<Vec<RawSlicePort>>,
    pub(in crate::source) endpoints: Option<Vec<RawEndpoint>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(in crate::source) struct RawSlicePort {
    pub(in crate::source) name: Option<String>,
    pub(in crate::source) protocol: Option<String>,
    pub(in crate::source) port: Option<u16>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::source) struct RawEndpoint {
    pub(in crate::source) addresses: Option<Vec<String>>,
    pub(in crate::source) conditions: Option<Conditions>,
    pub(in crate::source) node_name: Option<String>,
    pub(in crate::source) target_ref: Option<Reference>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(in crate::source) struct Conditions {
    pub(in crate::source) ready: Option<bool>,
    pub(in crate::source) serving: Option<bool>,
    pub(in crate::source) terminating: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(in crate::source) struct Reference {
    pub(in crate::source) kind: Option<String>,
    pub(in crate::source) namespace: Option<String>,
    pub(in crate::source) name: Option<String>,
}

impl EndpointSlice {
    pub(in crate::source) fn read(
        self,
        key: ObjectKey,
        shared: &mut Shared,
    ) -> event::EndpointSlice {
        let Self { metadata, address_type, ports, endpoints } = self;
        let labels = metadata.labels.unwrap_or_default();
        let endpoints = endpoints.unwrap_or_default().into_iter();
        // Addresses of type FQDN are names.
        let endpoints = endpoints.filter(|_| address_type != "FQDN");
        event::EndpointSlice {
            key,
            service: labels.get(SERVICE_NAME).map(|name| name.as_str().into()),
            ports: exact(ports.unwrap_or_default().into_iter().filter_map(slice_port)),
            endpoints: exact(endpoints.map(|raw| endpoint(raw, shared))),
        }
    }
}

fn slice_port(raw: RawSlicePort) -> Option<SlicePort> {
    let protocol: Protocol = pod::protocol(raw.protocol.as_deref())?;
    Some(SlicePort { name: raw.name.unwrap_or_default().into(), protocol, port: raw.port })
}

fn endpoint(raw: RawEndpoint, shared: &mut Shared) -> event::Endpoint {
    let conditions = raw.conditions.unwrap_or_default();
    // What is not said counts as ready (`discovery/v1` `EndpointConditions`).
    let ready = conditions.ready.unwrap_or(true);
    let pod = raw.target_ref.filter(|of| of.kind.as_deref() == Some("Pod")).and_then(|of| {
        let namespace = shared.text(of.namespace.as_deref()?);
        Some(ObjectKey { namespace, name: of.name?.into() })
    });
    event::Endpoint {
        addresses: addresses(raw.addresses.iter().flatten()),
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        node: raw.node_name.as_deref().map(|name| shared.text(name)),
        pod,
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn key() -> ObjectKey {
        ObjectKey { namespace: "n".into(), name: "a".into() }
    }

    fn typed<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn texts(addresses: &[IpAddr]) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_node_has_those_addresses_that_are_addresses() {
        let node: Node = typed(json!({"status": {"addresses": [
            {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "InternalIP", "address": "fd00::1"},
            {"type": "Hostname", "address": "w1"}]}}));
        assert_eq!(texts(&node.read(key()).addresses), ["10.0.0.1", "fd00::1"]);
        let node: Node = typed(json!({"status": {"addresses": [
            {"type": "ExternalIP", "address": "192.0.2.1"}, {"type": "ExternalIP", "address": "fd00::1"},
            {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "InternalIP", "address": "10.0.0.2"}]}}));
        let node = node.read(key());
        assert_eq!(texts(&node.primary), ["10.0.0.1", "fd00::1"]);
        assert_eq!(node.addresses.len(), 4);
        assert!(typed::<Node>(json!({"metadata": {}})).read(key()).addresses.is_empty());
    }

    #[test]
    fn a_service_is_read_with_its_defaults() {
        let service: Service = typed(json!({
            "spec": {
                "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
                "externalIPs": ["192.0.2.1"], "selector": {"a": "b"},
                "sessionAffinity": "ClientIP", "internalTrafficPolicy": "Local",
                "externalTrafficPolicy": "Cluster", "type": "LoadBalancer",
                "ports": [
                    {"port": 80, "targetPort": "http", "nodePort": 30080, "name": "web"},
                    {"port": 53, "targetPort": 0, "protocol": "UDP"},
                    {"port": 9, "targetPort": 99, "protocol": "SCTP"},
                    {"port": 10, "protocol": "LATER"}, {"nodePort": 30081}],
            },
            "status": {"loadBalancer": {"ingress": [
                {"ip": "192.0.2.9", "ipMode": "VIP"}, {"hostname": "x"},
                {"ip": "192.0.2.10", "ipMode": "Proxy"}]}},
        }));
        let service = service.read(key());
        assert_eq!(texts(&service.cluster_ips), ["10.96.0.1", "fd00::1"]);
        assert_eq!(texts(&service.external_ips), ["192.0.2.1"]);
        assert_eq!(texts(&service.load_balancer_ips), ["192.0.2.9"]);
        let ports: Vec<_> =
            service.ports.iter().map(|p| (p.port, p.target.clone(), p.node_port)).collect();
        assert_eq!(
            ports,
            [
                (80, TargetPort::Name("http".into()), Some(30080)),
                (53, TargetPort::Number(53), None),
                (9, TargetPort::Number(99), None),
            ]
        );
        assert_eq!(service.endpoints_from, EndpointsFrom::Selector);
        assert_eq!(service.affinity, SessionAffinity::ClientIp);
        assert_eq!(service.internal_traffic, TrafficPolicy::Local);
        assert_eq!(service.external_traffic, TrafficPolicy::Cluster);
        assert!(!service.headless);
    }

    #[test]
    fn headless_and_nameless_services_have_no_addresses() {
        let of = |spec: Value| typed::<Service>(json!({"spec": spec})).read(key());
        let headless = of(json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {}}));
        assert!(headless.headless && headless.cluster_ips.is_empty());
        assert_eq!(headless.endpoints_from, EndpointsFrom::Elsewhere);
        let name = of(json!({"type": "ExternalName", "externalName": "x.example",
                             "clusterIP": "10.0.0.1", "externalIPs": ["192.0.2.1"],
                             "ports": [{"port": 80, "nodePort": 30080}]}));
        assert!(!name.headless && name.cluster_ips.is_empty() && name.external_ips.is_empty());
        assert!(name.ports.is_empty());
        assert_eq!(texts(&of(json!({"clusterIP": "10.0.0.1"})).cluster_ips), ["10.0.0.1"]);
    }

    #[test]
    fn a_slice_names_its_service_and_its_endpoints_pods() {
        let slice: EndpointSlice = typed(json!({
            "metadata": {"labels": {SERVICE_NAME: "web"}}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}, {"name": "all", "protocol": "UDP"}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "nodeName": "w1",
                 "targetRef": {"kind": "Pod", "namespace": "n", "name": "p"}},
                {"addresses": ["10.0.0.2"],
                 "conditions": {"ready": false, "serving": true, "terminating": true}}],
        }));
        let slice = slice.read(key(), &mut Shared::default());
        assert_eq!(slice.service.as_deref(), Some("web"));
        assert_eq!((slice.ports[0].port, slice.ports[1].port), (Some(8080), None));
        let [first, second] = &slice.endpoints[..] else { panic!("{slice:?}") };
        assert!(first.ready && first.serving && !first.terminating);
        assert_eq!(first.pod.as_ref().map(|pod| &*pod.name), Some("p"));
        assert!(!second.ready && second.serving && second.terminating);
        let named: EndpointSlice =
            typed(json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.b"]}]}));
        assert!(named.read(key(), &mut Shared::default()).endpoints.is_empty());
    }
}
