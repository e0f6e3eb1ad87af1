//! Services, EndpointSlices and Nodes of manifests: checked as the API server checks what is read
//! of them (`pkg/apis/core/validation`, `pkg/apis/discovery/validation`).

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use crate::{
    cluster::event::{EndpointSlice, Node, ObjectKey, Service},
    source::{
        kubernetes::objects::{self, Target},
        names,
        pod::{self, Meta},
        problem::FieldError,
        shared::Shared,
        typed,
        validate::{self, NameRule},
    },
};

type Errors = Vec<FieldError>;

/// Reads a Service with the API server's defaults. Addresses are not given out here: one without a
/// `clusterIP` has none.
pub(super) fn service(value: &Value) -> Result<Service, Errors> {
    let raw: objects::Service = typed(value)?;
    let mut errors = Errors::new();
    let key = identity(&raw.metadata, names::dns_label, &mut errors);
    let spec = &raw.spec;
    if let Some(kind) = spec.kind.as_deref().filter(|kind| !SERVICE_TYPES.contains(kind)) {
        let reason = format!("must be one of {}", SERVICE_TYPES.join(", "));
        errors.push(FieldError::value("spec.type", kind, reason));
    }
    let is_name = spec.kind.as_deref() == Some("ExternalName");
    let is_headless = cluster_ips(spec, &mut errors);
    for (i, text) in spec.external_ips.iter().flatten().enumerate() {
        ip(&format!("spec.externalIPs[{i}]"), text, &mut errors);
    }
    let balancer = raw.status.load_balancer.as_ref();
    for (i, one) in balancer.iter().filter_map(|of| of.ingress.as_ref()).flatten().enumerate() {
        let path = format!("status.loadBalancer.ingress[{i}]");
        if let Some(text) = &one.ip {
            ip(&format!("{path}.ip"), text, &mut errors);
        }
        if let Some(mode) = one.ip_mode.as_deref().filter(|mode| !["VIP", "Proxy"].contains(mode)) {
            let reason = "must be `VIP` or `Proxy`";
            errors.push(FieldError::value(format!("{path}.ipMode"), mode, reason));
        }
    }
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && !is_headless && !is_name {
        errors.push(FieldError::new("spec.ports", "is required"));
    }
    service_ports(ports, &mut errors);
    if errors.is_empty() { Ok(raw.read(key)) } else { Err(errors) }
}

const SERVICE_TYPES: [&str; 4] = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];

/// Checks the cluster addresses; whether there are none because it is headless.
fn cluster_ips(spec: &objects::ServiceSpec, errors: &mut Errors) -> bool {
    let one = spec.cluster_ip.as_deref().filter(|text| !text.is_empty());
    let list = spec.cluster_ips.as_deref().unwrap_or_default();
    if let (Some(one), Some(first)) = (one, list.first())
        && one != first
    {
        errors.push(FieldError::value("spec.clusterIP", one, "must be the first of `clusterIPs`"));
    }
    let mut texts: Vec<(String, &str)> = list
        .iter()
        .enumerate()
        .map(|(i, text)| (format!("spec.clusterIPs[{i}]"), text.as_str()))
        .collect();
    if texts.is_empty() {
        texts.extend(one.map(|one| ("spec.clusterIP".to_owned(), one)));
    }
    if texts.first().is_some_and(|(_, text)| *text == "None") {
        for (path, text) in texts.iter().skip(1) {
            errors.push(FieldError::value(path, text, "must not be there beside `None`"));
        }
        return true;
    }
    let mut families = BTreeSet::new();
    for (path, text) in &texts {
        if let Some(ip) = ip(path, text, errors)
            && !families.insert(ip.is_ipv4())
        {
            errors.push(FieldError::value(path, text, "must be of another family than the first"));
        }
    }
    false
}

fn service_ports(ports: &[objects::RawServicePort], errors: &mut Errors) {
    let (mut names_seen, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (i, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        let name = port.name.as_deref().unwrap_or_default();
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::new(format!("{path}.name"), "is required with several ports"));
        } else {
            port_name(&path, name, &mut names_seen, errors);
        }
        let protocol = protocol(&path, port.protocol.as_deref(), errors);
        if port.port == 0 {
            errors.push(FieldError::value(format!("{path}.port"), 0, "must be a port, 1 to 65535"));
        } else if !seen.insert((protocol, port.port)) {
            let reason = "is there already with the same protocol";
            errors.push(FieldError::value(format!("{path}.port"), port.port, reason));
        }
        if let Some(Target::Name(name)) = &port.target_port
            && let Err(rule) = names::port_name(name)
        {
            errors.push(FieldError::value(format!("{path}.targetPort"), name, rule));
        }
    }
}

/// Reads an EndpointSlice with the API server's defaults.
pub(super) fn slice(value: &Value, shared: &mut Shared) -> Result<EndpointSlice, Errors> {
    let raw: objects::EndpointSlice = typed(value)?;
    let mut errors = Errors::new();
    let key = identity(&raw.metadata, names::dns_subdomain, &mut errors);
    let kind = raw.address_type.as_str();
    if !["IPv4", "IPv6", "FQDN"].contains(&kind) {
        let reason = "must be `IPv4`, `IPv6` or `FQDN`";
        errors.push(FieldError::value("addressType", kind, reason));
    }
    for (i, endpoint) in raw.endpoints.iter().flatten().enumerate() {
        let path = format!("endpoints[{i}].addresses");
        let addresses = endpoint.addresses.as_deref().unwrap_or_default();
        if addresses.is_empty() {
            errors.push(FieldError::new(&path, "is required"));
        }
        for (j, text) in addresses.iter().enumerate().filter(|_| kind != "FQDN") {
            let path = format!("{path}[{j}]");
            if ip(&path, text, &mut errors).is_some_and(|ip| ip.is_ipv4() == (kind == "IPv6")) {
                errors.push(FieldError::value(path, text, format!("must be of type {kind}")));
            }
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in raw.ports.iter().flatten().enumerate() {
        let path = format!("ports[{i}]");
        port_name(&path, port.name.as_deref().unwrap_or_default(), &mut seen, &mut errors);
        protocol(&path, port.protocol.as_deref(), &mut errors);
        if port.port == Some(0) {
            errors.push(FieldError::value(format!("{path}.port"), 0, "must be a port, 1 to 65535"));
        }
    }
    if errors.is_empty() { Ok(raw.read(key, shared)) } else { Err(errors) }
}

/// Reads a Node.
pub(super) fn node(value: &Value) -> Result<Node, Errors> {
    let raw: objects::Node = typed(value)?;
    let mut errors = Errors::new();
    let name = raw.metadata.name.as_deref().unwrap_or_default();
    let labels = raw.metadata.labels.as_ref();
    validate::metadata((name, names::dns_subdomain), None, labels, &mut errors);
    for (i, one) in raw.status.addresses.iter().flatten().enumerate() {
        if ["InternalIP", "ExternalIP"].contains(&one.kind.as_str()) {
            ip(&format!("status.addresses[{i}].address"), &one.address, &mut errors);
        }
    }
    let key = ObjectKey { namespace: "".into(), name: name.into() };
    if errors.is_empty() { Ok(raw.read(key)) } else { Err(errors) }
}

fn identity(meta: &Meta, rule: NameRule, errors: &mut Errors) -> ObjectKey {
    let name = meta.name.as_deref().unwrap_or_default();
    let namespace = meta.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    validate::metadata((name, rule), namespace, meta.labels.as_ref(), errors);
    ObjectKey { namespace: namespace.unwrap_or("default").into(), name: name.into() }
}

/// An address that can be a Service's or an endpoint's.
fn ip(path: &str, text: &str, errors: &mut Errors) -> Option<IpAddr> {
    let Ok(ip) = text.parse::<IpAddr>() else {
        errors.push(FieldError::value(path, text, "must be an IP address"));
        return None;
    };
    let is_special = match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if is_special || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
        errors.push(FieldError::value(path, text, "is no address that can be reached from a pod"));
        return None;
    }
    Some(ip.to_canonical())
}

fn port_name<'a>(path: &str, name: &'a str, seen: &mut BTreeSet<&'a str>, errors: &mut Errors) {
    let path = format!("{path}.name");
    if !seen.insert(name) {
        errors.push(FieldError::value(path, name, "is there already"));
    } else if !name.is_empty()
        && let Err(rule) = names::dns_label(name)
    {
        errors.push(FieldError::value(path, name, rule));
    }
}

fn protocol<'a>(path: &str, name: Option<&'a str>, errors: &mut Errors) -> &'a str {
    let name = name.filter(|name| !name.is_empty()).unwrap_or("TCP");
    if pod::protocol(Some(name)).is_none() {
        let reason = "must be `TCP`, `UDP` or `SCTP`";
        errors.push(FieldError::value(format!("{path}.protocol"), name, reason));
    }
    name
}

#[cfg(test)]
#[path = "services_tests.rs"]
mod tests;
