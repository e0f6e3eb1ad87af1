//! The few fields of a Pod and a Namespace that policy needs, read without the rest: a pod is not
//! refused for a field that has nothing to do with the network.
//!
//! What a manifest says of names and labels is checked as the API server checks it. What the API
//! server says of them is so, by whatever rules it has by now.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::{names, owner, problem::FieldError, shared::Shared, typed, validate};
use crate::cluster::event::{NamedPort, Namespace, ObjectKey, Pod, Protocol};

/// The label that the API server puts on every namespace.
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Labels as they are written.
pub(super) type RawLabels = BTreeMap<String, String>;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta {
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
    uid: Option<String>,
    pub(super) labels: Option<RawLabels>,
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<IgnoredAny>,
    owner_references: Option<Vec<owner::Reference>>,
    pub(super) resource_version: Option<String>,
}

/// A Pod as it is written.
#[derive(Deserialize)]
pub(super) struct RawPod {
    pub(super) metadata: Option<Meta>,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Spec {
    host_network: Option<bool>,
    node_name: Option<String>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    restart_policy: Option<String>,
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: Option<String>,
    container_port: Option<i64>,
    protocol: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
    start_time: Option<String>,
    container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Deserialize)]
struct ContainerStatus {
    state: Option<ContainerState>,
}

#[derive(Deserialize)]
struct ContainerState {
    running: Option<Running>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Running {
    started_at: Option<String>,
}

impl Status {
    /// When the first container that runs was started. Not worth refusing a pod for.
    fn containers_started(&self) -> Option<i64> {
        let states = self.container_statuses.iter().flatten().filter_map(|one| one.state.as_ref());
        let started = states.filter_map(|state| state.running.as_ref()?.started_at.as_deref());
        let times = started.filter_map(|text| text.parse::<jiff::Timestamp>().ok());
        times.map(jiff::Timestamp::as_second).min()
    }
}

#[derive(Deserialize)]
struct PodIp {
    ip: Option<String>,
}

/// A Namespace as it is written.
#[derive(Deserialize)]
pub(super) struct RawNamespace {
    pub(super) metadata: Option<Meta>,
}

/// Reads a Pod of a manifest with the API server's defaults.
pub(super) fn pod(value: &Value, shared: &mut Shared) -> Result<Pod, Vec<FieldError>> {
    let raw: RawPod = typed(value)?;
    let mut errors = Vec::new();
    if let Some(meta) = &raw.metadata {
        let name = meta.name.as_deref().unwrap_or_default();
        let namespace = meta.namespace.as_deref().filter(|n| !n.is_empty());
        let labels = meta.labels.as_ref();
        validate::metadata((name, names::dns_subdomain), namespace, labels, &mut errors);
    }
    match read_pod(raw, shared) {
        Ok(pod) if errors.is_empty() => Ok(pod),
        Ok(_) => Err(errors),
        Err(mut more) => {
            more.retain(|error| !errors.contains(error));
            errors.extend(more);
            Err(errors)
        }
    }
}

/// What policy needs of a Pod whose name and labels are right.
pub(super) fn read_pod(raw: RawPod, shared: &mut Shared) -> Result<Pod, Vec<FieldError>> {
    let meta = raw.metadata.unwrap_or_default();
    let spec = raw.spec.unwrap_or_default();
    let status = raw.status.unwrap_or_default();
    let mut errors = Vec::new();
    let name = meta.name.unwrap_or_default();
    if name.is_empty() {
        errors.push(FieldError::new("metadata.name", "is required"));
    }
    let namespace = meta.namespace.filter(|n| !n.is_empty()).unwrap_or("default".into());
    let labels = meta.labels.unwrap_or_default();
    let started = [
        ("status.startTime", status.start_time.as_deref()),
        ("metadata.creationTimestamp", meta.creation_timestamp.as_deref()),
    ];
    let started = started
        .into_iter()
        .filter_map(|(path, text)| seconds(path, text?, &mut errors))
        .next()
        .unwrap_or(0);
    let created = meta.creation_timestamp.as_deref();
    let created = created.and_then(|text| Some(text.parse::<jiff::Timestamp>().ok()?.as_second()));
    let of = owner::Controlled { pod: &name, labels: &labels, created };
    let workload = owner::workload(&of, meta.owner_references.as_deref(), shared);
    let addresses = addresses(&status, &mut errors);
    let containers = spec.containers.unwrap_or_default();
    let mut ports = Vec::new();
    named_ports("spec.containers", &containers, |_| true, (&mut ports, shared), &mut errors);
    let init = spec.init_containers.unwrap_or_default();
    // Other init containers have ended before the pod's ports mean anything.
    let restarts = |c: &Container| c.restart_policy.as_deref() == Some("Always");
    named_ports("spec.initContainers", &init, restarts, (&mut ports, shared), &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    ports.shrink_to_fit();
    Ok(Pod {
        key: ObjectKey { namespace: shared.text(&namespace), name: name.into() },
        uid: meta.uid.unwrap_or_default().into(),
        labels: shared.labels(&labels),
        addresses,
        host_network: spec.host_network.unwrap_or(false),
        terminating: meta.deletion_timestamp.is_some(),
        finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        started,
        containers_started: status.containers_started(),
        ports,
        node: spec.node_name.filter(|n| !n.is_empty()).map(|name| shared.text(&name)),
        workload: Some(workload),
    })
}

/// Reads a Namespace of a manifest.
pub(super) fn namespace(value: &Value) -> Result<Namespace, Vec<FieldError>> {
    let raw: RawNamespace = typed(value)?;
    let meta = raw.metadata.as_ref();
    let name = meta.and_then(|meta| meta.name.as_deref()).unwrap_or_default();
    let labels = meta.and_then(|meta| meta.labels.as_ref());
    let mut errors = Vec::new();
    validate::metadata((name, names::dns_label), None, labels, &mut errors);
    if errors.is_empty() { Ok(read_namespace(raw)) } else { Err(errors) }
}

/// A Namespace with the label that the API server gives it.
pub(super) fn read_namespace(raw: RawNamespace) -> Namespace {
    let meta = raw.metadata.unwrap_or_default();
    let name = meta.name.unwrap_or_default();
    let mut labels = meta.labels.unwrap_or_default();
    labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.clone());
    Namespace { name: name.into(), labels: labels.into_iter().collect() }
}

pub(super) fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

fn seconds(path: &str, text: &str, errors: &mut Vec<FieldError>) -> Option<i64> {
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Some(time.as_second()),
        Err(_) => {
            errors.push(FieldError::value(path, text, "must be a time as in RFC 3339"));
            None
        }
    }
}

fn addresses(status: &Status, errors: &mut Vec<FieldError>) -> Vec<IpAddr> {
    let listed = status.pod_ips.as_deref().unwrap_or_default();
    let mut texts: Vec<(String, &str)> = listed
        .iter()
        .enumerate()
        .map(|(i, of)| (format!("status.podIPs[{i}].ip"), of.ip.as_deref().unwrap_or_default()))
        .collect();
    if texts.is_empty()
        && let Some(ip) = status.pod_ip.as_deref().filter(|ip| !ip.is_empty())
    {
        texts.push(("status.podIP".to_owned(), ip));
    }
    let mut addresses = Vec::new();
    for (path, text) in texts {
        match text.parse::<IpAddr>() {
            // One address in both notations is one address.
            Ok(ip) if ip.is_unspecified() || ip.is_multicast() => {
                errors.push(FieldError::value(path, text, "is no address that a pod can have"));
            }
            Ok(ip) if !addresses.contains(&ip.to_canonical()) => addresses.push(ip.to_canonical()),
            Ok(_) => {}
            Err(_) => errors.push(FieldError::value(path, text, "must be an IP address")),
        }
    }
    addresses
}

fn named_ports(
    path: &str,
    containers: &[Container],
    counts: impl Fn(&Container) -> bool,
    (named, shared): (&mut Vec<NamedPort>, &mut Shared),
    errors: &mut Vec<FieldError>,
) {
    for (i, container) in containers.iter().enumerate().filter(|(_, c)| counts(c)) {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let path = format!("{path}[{i}].ports[{j}]");
            let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) else { continue };
            let before = errors.len();
            if let Err(rule) = names::port_name(name) {
                errors.push(FieldError::value(format!("{path}.name"), name, rule));
            }
            let number = port.container_port.unwrap_or(0);
            let number = u16::try_from(number).ok().filter(|n| *n != 0);
            if number.is_none() {
                let path = format!("{path}.containerPort");
                let value = port.container_port.unwrap_or(0);
                errors.push(FieldError::value(path, value, "must be a port, 1 to 65535"));
            }
            let Some(protocol) = protocol(port.protocol.as_deref()) else {
                let (path, other) = (format!("{path}.protocol"), port.protocol.as_deref());
                let reason = "must be `TCP`, `UDP` or `SCTP`";
                errors.push(FieldError::value(path, other.unwrap_or_default(), reason));
                continue;
            };
            if let (Some(number), true) = (number, errors.len() == before) {
                named.push(NamedPort { name: shared.text(name), protocol, number });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<Pod, Vec<FieldError>> {
        pod(value, &mut Shared::default())
    }

    #[test]
    fn a_pod_gets_its_defaults() {
        let pod = read(&json!({"metadata": {"name": "a"}})).unwrap();
        assert_eq!(&*pod.key.namespace, "default");
        assert!(!pod.finished && !pod.host_network && pod.addresses.is_empty());
        assert_eq!((pod.started, pod.uid.as_ref(), pod.node), (0, "", None));
    }

    #[test]
    fn a_full_pod_is_read() {
        let pod = read(&json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "labels": {"k": "v"},
                         "creationTimestamp": "1970-01-01T00:00:05Z", "other": [1],
                         "ownerReferences": [{"kind": "ReplicaSet", "name": "a-77",
                                              "controller": true, "uid": "r"}]},
            "spec": {
                "nodeName": "w1", "hostNetwork": true, "unknown": {"x": 1},
                "containers": [{"ports": [
                    {"name": "http", "containerPort": 80},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                    {"containerPort": 99}]}, {}],
                "initContainers": [
                    {"ports": [{"name": "setup", "containerPort": 1}]},
                    {"restartPolicy": "Always", "ports": [{"name": "mesh", "containerPort": 15}]}],
            },
            "status": {"phase": "Failed", "podIP": "9.9.9.9",
                       "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}, {"ip": "10.0.0.1"}],
                       "startTime": "1970-01-01T00:00:09Z"},
        }))
        .unwrap();
        let ports: Vec<_> = pod.ports.iter().map(|p| (&*p.name, p.number)).collect();
        assert_eq!(ports, [("http", 80), ("dns", 53), ("mesh", 15)]);
        assert_eq!(pod.ports[1].protocol, Protocol::Udp);
        let addresses: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.1", "fd00::1"]);
        let workload = pod.workload.map(|one| format!("{}/{}", one.kind, one.name));
        assert_eq!(workload.as_deref(), Some("ReplicaSet/a-77"));
        assert!(pod.finished && pod.host_network);
        assert_eq!((pod.started, pod.node.as_deref()), (9, Some("w1")));
        assert!(!pod.terminating);
    }

    #[test]
    fn the_single_address_and_the_creation_time_are_second_choice() {
        let pod = read(&json!({
            "metadata": {"name": "a", "creationTimestamp": "1970-01-01T00:00:05Z",
                         "deletionTimestamp": "1970-01-01T00:00:07Z"},
            "status": {"podIP": "10.0.0.1"},
        }))
        .unwrap();
        assert!(pod.terminating);
        assert_eq!(pod.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(pod.started, 5);
    }

    #[test]
    fn what_is_wrong_with_a_pod_is_named() {
        let long = "x".repeat(16);
        for (patch, field) in [
            (json!({"metadata": {}}), "metadata.name"),
            (json!({"metadata": {"name": "A"}}), "metadata.name"),
            (json!({"metadata": {"name": "a", "labels": {"a": "-"}}}), "metadata.labels[a]"),
            (json!({"metadata": {"name": "a", "labels": {"a": 1}}}), "metadata.labels.a"),
            (
                json!({"metadata": {"name": "a", "creationTimestamp": "now"}}),
                "metadata.creationTimestamp",
            ),
            (
                json!({"metadata": {"name": "a"}, "status": {"podIPs": [{"ip": "1.2.3"}]}}),
                "status.podIPs[0].ip",
            ),
            (json!({"metadata": {"name": "a"}, "status": {"podIPs": [{}]}}), "status.podIPs[0].ip"),
            (json!({"metadata": {"name": "a"}, "status": {"podIP": "0.0.0.0"}}), "status.podIP"),
            (
                json!({"metadata": {"name": "a"}, "spec": {"hostNetwork": "yes"}}),
                "spec.hostNetwork",
            ),
            (
                json!({"metadata": {"name": "a"},
                    "spec": {"containers": [{"ports": [{"name": "a", "containerPort": 70000}]}]}}),
                "spec.containers[0].ports[0].containerPort",
            ),
            (
                json!({"metadata": {"name": "a"},
                    "spec": {"containers": [{"ports": [{"name": long, "containerPort": 7}]}]}}),
                "spec.containers[0].ports[0].name",
            ),
            (
                json!({"metadata": {"name": "a"}, "spec": {"containers": [{"ports": [
                {"name": "a", "containerPort": 7, "protocol": "tcp"}]}]}}),
                "spec.containers[0].ports[0].protocol",
            ),
        ] {
            let fields: Vec<_> = read(&patch).unwrap_err().into_iter().map(|e| e.field).collect();
            assert_eq!(fields, [field], "{patch}");
        }
    }

    #[test]
    fn a_namespace_carries_its_name_as_label() {
        let ns = namespace(&json!({
            "metadata": {"name": "shop", "labels": {NAMESPACE_NAME_LABEL: "forged", "a": "b"}}
        }))
        .unwrap();
        assert_eq!(ns.labels.get(NAMESPACE_NAME_LABEL), Some("shop"));
        assert_eq!(ns.labels.len(), 2);
        assert!(namespace(&json!({"metadata": {"name": "a.b"}})).is_err());
    }
}
