//! NetworkPolicy `networking.k8s.io/v1`, checked as the API server checks it on create.

use ipnet::IpNet;
use k8s_openapi::{
    api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use crate::source::{names, problem::FieldError, validate};

type Errors = Vec<FieldError>;

/// Everything that is wrong with `policy`; empty if it is valid. The name may be checked before
/// or after defaults are applied: an absent namespace is fine.
#[must_use]
pub fn network_policy(policy: &NetworkPolicy) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let meta = &policy.metadata;
    validate::metadata(
        (meta.name.as_deref().unwrap_or_default(), names::dns_subdomain),
        meta.namespace.as_deref().filter(|n| !n.is_empty()),
        meta.labels.as_ref(),
        &mut errors,
    );
    let Some(spec) = &policy.spec else { return errors };
    if let Some(of) = &spec.pod_selector {
        selector("spec.podSelector", of, &mut errors);
    }
    for (i, rule) in spec.ingress.iter().flatten().enumerate() {
        let path = format!("spec.ingress[{i}]");
        ports(&path, rule.ports.as_deref(), &mut errors);
        peers(&format!("{path}.from"), rule.from.as_deref(), &mut errors);
    }
    for (i, rule) in spec.egress.iter().flatten().enumerate() {
        let path = format!("spec.egress[{i}]");
        ports(&path, rule.ports.as_deref(), &mut errors);
        peers(&format!("{path}.to"), rule.to.as_deref(), &mut errors);
    }
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.len() > 2 {
        errors.push(FieldError::new("spec.policyTypes", "may not have more than two entries"));
    }
    for (i, kind) in types.iter().enumerate() {
        if kind != "Ingress" && kind != "Egress" {
            let path = format!("spec.policyTypes[{i}]");
            errors.push(FieldError::value(path, kind, "must be `Ingress` or `Egress`"));
        }
    }
    errors
}

fn ports(rule: &str, ports: Option<&[NetworkPolicyPort]>, errors: &mut Errors) {
    for (i, port) in ports.unwrap_or_default().iter().enumerate() {
        one_port(&format!("{rule}.ports[{i}]"), port, errors);
    }
}

fn one_port(path: &str, port: &NetworkPolicyPort, errors: &mut Errors) {
    if let Some(protocol) = &port.protocol
        && !matches!(protocol.as_str(), "TCP" | "UDP" | "SCTP")
    {
        let reason = "must be `TCP`, `UDP` or `SCTP`";
        errors.push(FieldError::value(format!("{path}.protocol"), protocol, reason));
    }
    let (number, end) = (format!("{path}.port"), format!("{path}.endPort"));
    match (&port.port, port.end_port) {
        (None, Some(last)) => {
            let reason = "may not be given when `port` is not";
            errors.push(FieldError::value(end, last, reason));
        }
        (None, None) => {}
        (Some(IntOrString::Int(first)), last) => {
            port_number(number, *first, errors);
            if let Some(last) = last {
                if last < *first {
                    let reason = format!("must be at least `port` ({first})");
                    errors.push(FieldError::value(end, last, reason));
                } else {
                    port_number(end, last, errors);
                }
            }
        }
        (Some(IntOrString::String(name)), last) => {
            if let Err(rule) = names::port_name(name) {
                errors.push(FieldError::value(number, name, rule));
            }
            if let Some(last) = last {
                let reason = "may not be given when `port` is a name";
                errors.push(FieldError::value(end, last, reason));
            }
        }
    }
}

fn port_number(path: String, port: i32, errors: &mut Errors) {
    if !(1..=65_535).contains(&port) {
        errors.push(FieldError::value(path, port, "must be a port, 1 to 65535"));
    }
}

fn peers(path: &str, peers: Option<&[NetworkPolicyPeer]>, errors: &mut Errors) {
    for (i, peer) in peers.unwrap_or_default().iter().enumerate() {
        one_peer(&format!("{path}[{i}]"), peer, errors);
    }
}

fn one_peer(path: &str, peer: &NetworkPolicyPeer, errors: &mut Errors) {
    let selectors = [
        ("podSelector", peer.pod_selector.as_ref()),
        ("namespaceSelector", peer.namespace_selector.as_ref()),
    ];
    let mut any = false;
    for (name, of) in selectors {
        if let Some(of) = of {
            any = true;
            selector(&format!("{path}.{name}"), of, errors);
        }
    }
    match &peer.ip_block {
        Some(block) => {
            if any {
                let reason = "may not have both `ipBlock` and a selector";
                errors.push(FieldError::new(path, reason));
            }
            ip_block(&format!("{path}.ipBlock"), block, errors);
        }
        None if !any => {
            let reason = "must have `podSelector`, `namespaceSelector` or `ipBlock`";
            errors.push(FieldError::new(path, reason));
        }
        None => {}
    }
}

fn ip_block(path: &str, block: &IPBlock, errors: &mut Errors) {
    let Some(whole) = cidr(format!("{path}.cidr"), &block.cidr, errors) else { return };
    for (i, text) in block.except.iter().flatten().enumerate() {
        let path = format!("{path}.except[{i}]");
        let Some(part) = cidr(path.clone(), text, errors) else { continue };
        if !whole.contains(&part) || part.prefix_len() <= whole.prefix_len() {
            let reason = format!("must be a strict subset of `cidr` ({})", block.cidr);
            errors.push(FieldError::value(path, text, reason));
        }
    }
}

/// Host bits may be set, as in the API: `10.0.0.1/8` is `10.0.0.0/8`.
fn cidr(path: String, text: &str, errors: &mut Errors) -> Option<IpNet> {
    let parsed = text.parse::<IpNet>().ok();
    if text.is_empty() {
        errors.push(FieldError::new(path, "is required"));
    } else if parsed.is_none() {
        let reason = "must be a CIDR such as 10.0.0.0/8 or 2001:db8::/64";
        errors.push(FieldError::value(path, text, reason));
    }
    parsed.map(|net| net.trunc())
}

fn selector(path: &str, of: &LabelSelector, errors: &mut Errors) {
    validate::labels(&format!("{path}.matchLabels"), of.match_labels.iter().flatten(), errors);
    for (i, expression) in of.match_expressions.iter().flatten().enumerate() {
        let path = format!("{path}.matchExpressions[{i}]");
        if let Err(rule) = names::label_key(&expression.key) {
            errors.push(FieldError::value(format!("{path}.key"), &expression.key, rule));
        }
        let operator = expression.operator.as_str();
        let values = expression.values.as_deref().unwrap_or_default();
        match operator {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::new(
                format!("{path}.values"),
                format!("is required when `operator` is `{operator}`"),
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::new(
                format!("{path}.values"),
                format!("may not be given when `operator` is `{operator}`"),
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(FieldError::value(
                format!("{path}.operator"),
                operator,
                "must be `In`, `NotIn`, `Exists` or `DoesNotExist`",
            )),
        }
        for (i, value) in values.iter().enumerate() {
            if let Err(rule) = names::label_value(value) {
                errors.push(FieldError::value(format!("{path}.values[{i}]"), value, rule));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(spec: Value) -> Vec<String> {
        let policy: NetworkPolicy = serde_json::from_value(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "p", "namespace": "n"}, "spec": spec,
        }))
        .unwrap();
        network_policy(&policy)
            .into_iter()
            .map(|e| match e.value {
                Some(value) => format!("{}: {value}: {}", e.field, e.reason),
                None => format!("{}: {}", e.field, e.reason),
            })
            .collect()
    }

    fn port(port: Value) -> Value {
        json!({"ingress": [{}, {"ports": [{"port": 1}, port]}]})
    }

    fn peer(peer: Value) -> Value {
        json!({"egress": [{"to": [peer]}]})
    }

    fn expression(e: Value) -> Value {
        json!({"podSelector": {"matchExpressions": [e]}})
    }

    #[test]
    fn valid_forms_pass() {
        for spec in [
            json!({}),
            json!({"podSelector": {}}),
            json!({"policyTypes": []}),
            json!({"policyTypes": ["Egress", "Ingress"], "ingress": [{}], "egress": []}),
            port(json!({"port": 65535, "protocol": "SCTP"})),
            port(json!({"port": 80, "endPort": 80})),
            port(json!({"port": "dns-tcp", "protocol": "UDP"})),
            port(json!({})),
            peer(json!({"podSelector": {}, "namespaceSelector": {"matchLabels": {"a/b": ""}}})),
            peer(json!({"ipBlock": {"cidr": "10.0.0.7/8", "except": ["10.1.0.0/16"]}})),
            peer(json!({"ipBlock": {"cidr": "::/0", "except": ["fd00::/8"]}})),
            expression(json!({"key": "a", "operator": "NotIn", "values": ["", "b"]})),
            expression(json!({"key": "a", "operator": "DoesNotExist"})),
        ] {
            assert_eq!(check(spec.clone()), Vec::<String>::new(), "{spec}");
        }
    }

    #[test]
    fn every_rule_is_checked() {
        let p = "spec.ingress[1].ports[1]";
        let t = "spec.egress[0].to[0]";
        let e = "spec.podSelector.matchExpressions[0]";
        let table: Vec<(Value, String)> = vec![
            (port(json!({"port": 0})), format!("{p}.port: 0: must be a port, 1 to 65535")),
            (port(json!({"port": 65536})), format!("{p}.port: 65536: must be a port, 1 to 65535")),
            (
                port(json!({"port": 5, "endPort": 65536})),
                format!("{p}.endPort: 65536: must be a port, 1 to 65535"),
            ),
            (
                port(json!({"port": 80, "endPort": 79})),
                format!("{p}.endPort: 79: must be at least `port` (80)"),
            ),
            (
                port(json!({"port": "http", "endPort": 80})),
                format!("{p}.endPort: 80: may not be given when `port` is a name"),
            ),
            (
                port(json!({"endPort": 80})),
                format!("{p}.endPort: 80: may not be given when `port` is not"),
            ),
            (
                port(json!({"port": "80"})),
                format!("{p}.port: 80: {}", names::port_name("80").unwrap_err()),
            ),
            (
                port(json!({"port": 1, "protocol": "tcp"})),
                format!("{p}.protocol: tcp: must be `TCP`, `UDP` or `SCTP`"),
            ),
            (
                peer(json!({})),
                format!("{t}: must have `podSelector`, `namespaceSelector` or `ipBlock`"),
            ),
            (
                peer(json!({"podSelector": {}, "ipBlock": {"cidr": "::/0"}})),
                format!("{t}: may not have both `ipBlock` and a selector"),
            ),
            (
                peer(json!({"ipBlock": {"cidr": "10.0.0.0"}})),
                format!(
                    "{t}.ipBlock.cidr: 10.0.0.0: must be a CIDR such as 10.0.0.0/8 or \
                         2001:db8::/64"
                ),
            ),
            (peer(json!({"ipBlock": {"cidr": ""}})), format!("{t}.ipBlock.cidr: is required")),
            (
                peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/33"]}})),
                format!(
                    "{t}.ipBlock.except[0]: 10.0.0.0/33: must be a CIDR such as 10.0.0.0/8 \
                         or 2001:db8::/64"
                ),
            ),
            (
                peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}})),
                format!(
                    "{t}.ipBlock.except[0]: 11.0.0.0/9: must be a strict subset of `cidr` \
                         (10.0.0.0/8)"
                ),
            ),
            (
                peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}})),
                format!(
                    "{t}.ipBlock.except[0]: 10.0.0.0/8: must be a strict subset of `cidr` \
                         (10.0.0.0/8)"
                ),
            ),
            (
                peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["fd00::/64"]}})),
                format!(
                    "{t}.ipBlock.except[0]: fd00::/64: must be a strict subset of `cidr` \
                         (10.0.0.0/8)"
                ),
            ),
            (
                peer(json!({"namespaceSelector": {"matchLabels": {"a b": "x"}}})),
                format!(
                    "{t}.namespaceSelector.matchLabels: a b: {}",
                    names::label_key("a b").unwrap_err()
                ),
            ),
            (
                peer(json!({"podSelector": {"matchLabels": {"a": "x y"}}})),
                format!(
                    "{t}.podSelector.matchLabels[a]: x y: {}",
                    names::label_value("x y").unwrap_err()
                ),
            ),
            (
                expression(json!({"key": "a", "operator": "In"})),
                format!("{e}.values: is required when `operator` is `In`"),
            ),
            (
                expression(json!({"key": "a", "operator": "NotIn", "values": []})),
                format!("{e}.values: is required when `operator` is `NotIn`"),
            ),
            (
                expression(json!({"key": "a", "operator": "Exists", "values": ["b"]})),
                format!("{e}.values: may not be given when `operator` is `Exists`"),
            ),
            (
                expression(json!({"key": "a", "operator": "DoesNotExist", "values": ["b"]})),
                format!("{e}.values: may not be given when `operator` is `DoesNotExist`"),
            ),
            (
                expression(json!({"key": "a", "operator": "Gt", "values": ["1"]})),
                format!("{e}.operator: Gt: must be `In`, `NotIn`, `Exists` or `DoesNotExist`"),
            ),
            (
                expression(json!({"operator": "Exists"})),
                format!("{e}.key: : {}", names::label_key("").unwrap_err()),
            ),
            (
                expression(json!({"key": "a", "operator": "In", "values": ["b", "-"]})),
                format!("{e}.values[1]: -: {}", names::label_value("-").unwrap_err()),
            ),
            (
                json!({"policyTypes": ["ingress"]}),
                "spec.policyTypes[0]: ingress: must be `Ingress` or `Egress`".to_owned(),
            ),
            (
                json!({"policyTypes": ["Ingress", "Egress", "Ingress"]}),
                "spec.policyTypes: may not have more than two entries".to_owned(),
            ),
        ];
        for (spec, expected) in table {
            assert_eq!(check(spec.clone()), [expected], "{spec}");
        }
    }

    #[test]
    fn names_and_labels_of_the_object_are_checked() {
        for (meta, expected) in [
            (json!({}), "metadata.name"),
            (json!({"name": "A"}), "metadata.name"),
            (json!({"name": "a", "namespace": "a.b"}), "metadata.namespace"),
            (json!({"name": "a", "labels": {"-": ""}}), "metadata.labels"),
            (json!({"name": "a", "labels": {"a": "-"}}), "metadata.labels[a]"),
        ] {
            let policy = NetworkPolicy {
                metadata: serde_json::from_value(meta.clone()).unwrap(),
                spec: None,
            };
            let fields: Vec<_> = network_policy(&policy).into_iter().map(|e| e.field).collect();
            assert_eq!(fields, [expected], "{meta}");
        }
    }
}
