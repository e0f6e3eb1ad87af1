//! The fields in use of Nodes, Services and EndpointSlices. What the API server has taken is right:
//! what does not fit here (a protocol that came later) is left out of the object.

use std::{net::IpAddr, sync::Arc};

use serde::Deserialize;

use crate::{
    cluster::event::{
        self, EndpointsFrom, Labels, ObjectKey, Protocol, ServicePort, SessionAffinity, SlicePort,
        TargetPort, TrafficPolicy,
    },
    source::pod,
};

/// The label that names a slice's Service (`discovery.k8s.io` `LabelServiceName`).
const SERVICE_NAME: &str = "kubernetes.io/service-name";

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Node {
    pub(super) metadata: pod::Meta,
    status: NodeStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeStatus {
    addresses: Option<Vec<NodeAddress>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeAddress {
    address: String,
}

impl Node {
    pub(super) fn read(self, key: ObjectKey) -> event::Node {
        // Host names are among them.
        let texts = self.status.addresses.iter().flatten().map(|of| &of.address);
        let addresses = texts.filter_map(|text| text.parse().ok()).collect();
        event::Node { name: key.name, addresses }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Service {
    pub(super) metadata: pod::Meta,
    spec: ServiceSpec,
    status: ServiceStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    ports: Option<Vec<RawServicePort>>,
    selector: Option<Labels>,
    session_affinity: Option<String>,
    external_traffic_policy: Option<String>,
    internal_traffic_policy: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawServicePort {
    name: Option<String>,
    protocol: Option<String>,
    port: u16,
    target_port: Option<Target>,
    node_port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Target {
    Number(u16),
    Name(String),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServiceStatus {
    load_balancer: Option<LoadBalancer>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LoadBalancer {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Ingress {
    ip: Option<String>,
}

fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

fn traffic(policy: Option<&str>) -> TrafficPolicy {
    if policy == Some("Local") { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
}

impl Service {
    pub(super) fn read(self, key: ObjectKey) -> event::Service {
        let Self { metadata: _, spec, status } = self;
        // The list counts; servers before 1.20 have only the one.
        let cluster = spec.cluster_ips.filter(|all| !all.is_empty());
        let cluster = cluster.unwrap_or_else(|| spec.cluster_ip.into_iter().collect());
        let balancer = status.load_balancer.unwrap_or_default().ingress.unwrap_or_default();
        let ports = spec.ports.unwrap_or_default().into_iter();
        event::Service {
            key,
            cluster_ips: addresses(&cluster),
            external_ips: addresses(spec.external_ips.iter().flatten()),
            load_balancer_ips: addresses(balancer.iter().filter_map(|one| one.ip.as_ref())),
            ports: ports.filter_map(service_port).collect(),
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
pub(super) struct EndpointSlice {
    pub(super) metadata: pod::Meta,
    address_type: String,
    ports: Option<Vec<RawSlicePort>>,
    endpoints: Option<Vec<RawEndpoint>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawSlicePort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawEndpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<Conditions>,
    node_name: Option<String>,
    target_ref: Option<Reference>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Reference {
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

impl EndpointSlice {
    pub(super) fn read(
        self,
        key: ObjectKey,
        shared: &mut dyn FnMut(&str) -> Arc<str>,
    ) -> event::EndpointSlice {
        let Self { metadata, address_type, ports, endpoints } = self;
        let labels = metadata.labels.unwrap_or_default();
        let endpoints = endpoints.unwrap_or_default().into_iter();
        // Addresses of type FQDN are names.
        let endpoints = endpoints.filter(|_| address_type != "FQDN");
        event::EndpointSlice {
            key,
            service: labels.get(SERVICE_NAME).map(|name| name.as_str().into()),
            ports: ports.unwrap_or_default().into_iter().filter_map(slice_port).collect(),
            endpoints: endpoints.map(|raw| endpoint(raw, shared)).collect(),
        }
    }
}

fn slice_port(raw: RawSlicePort) -> Option<SlicePort> {
    let protocol: Protocol = pod::protocol(raw.protocol.as_deref())?;
    Some(SlicePort { name: raw.name.unwrap_or_default().into(), protocol, port: raw.port })
}

fn endpoint(raw: RawEndpoint, shared: &mut dyn FnMut(&str) -> Arc<str>) -> event::Endpoint {
    let conditions = raw.conditions.unwrap_or_default();
    // What is not said counts as ready (`discovery/v1` `EndpointConditions`).
    let ready = conditions.ready.unwrap_or(true);
    let pod = raw.target_ref.filter(|of| of.kind.as_deref() == Some("Pod")).and_then(|of| {
        let namespace = shared(of.namespace.as_deref()?);
        Some(ObjectKey { namespace, name: of.name?.into() })
    });
    event::Endpoint {
        addresses: addresses(raw.addresses.iter().flatten()),
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        node: raw.node_name.as_deref().map(&mut *shared),
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
                    {"port": 10, "protocol": "LATER"}],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}, {"hostname": "x"}]}},
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
        let name = of(json!({"type": "ExternalName", "externalName": "x.example"}));
        assert!(!name.headless && name.cluster_ips.is_empty());
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
        let slice = slice.read(key(), &mut |text| text.into());
        assert_eq!(slice.service.as_deref(), Some("web"));
        assert_eq!((slice.ports[0].port, slice.ports[1].port), (Some(8080), None));
        let [first, second] = &slice.endpoints[..] else { panic!("{slice:?}") };
        assert!(first.ready && first.serving && !first.terminating);
        assert_eq!(first.pod.as_ref().map(|pod| &*pod.name), Some("p"));
        assert!(!second.ready && second.serving && second.terminating);
        let named: EndpointSlice =
            typed(json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.b"]}]}));
        assert!(named.read(key(), &mut |text| text.into()).endpoints.is_empty());
    }
}
