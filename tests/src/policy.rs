//! Policies as the tests need them, as manifests. JSON is YAML, too.

use serde_json::{Value, json};

use crate::Protocol;

/// A label, `key=value`; empty for every pod.
fn selector(label: &str) -> Value {
    match label.split_once('=') {
        Some((key, value)) => json!({"matchLabels": {key: value}}),
        None => json!({}),
    }
}

fn policy(name: &str, pods: &str, types: &[&str], rules: Value) -> Value {
    let mut spec = rules;
    spec["podSelector"] = selector(pods);
    spec["policyTypes"] = types.into();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": name},
        "spec": spec,
    })
}

fn ports(ports: &[(Protocol, u16)]) -> Value {
    ports.iter().map(|(protocol, port)| json!({"protocol": protocol, "port": port})).collect()
}

/// Closes the pods with this label in namespace `shop`, in these directions (`Ingress`, `Egress`).
#[must_use]
pub fn deny(pods: &str, types: &[&str]) -> String {
    policy("deny", pods, types, json!({})).to_string()
}

/// Lets pods with the label `from` in to pods with the label `to`; no ports for every packet.
#[must_use]
pub fn allow_in(name: &str, to: &str, from: &str, on: &[(Protocol, u16)]) -> String {
    let mut rule = json!({"from": [{"podSelector": selector(from)}]});
    if !on.is_empty() {
        rule["ports"] = ports(on);
    }
    policy(name, to, &["Ingress"], json!({"ingress": [rule]})).to_string()
}

/// Lets pods with this label out to a prefix.
#[must_use]
pub fn allow_out(name: &str, pods: &str, cidr: &str, on: &[(Protocol, u16)]) -> String {
    let rule = json!({"to": [{"ipBlock": {"cidr": cidr}}], "ports": ports(on)});
    policy(name, pods, &["Egress"], json!({"egress": [rule]})).to_string()
}

/// Lets pods with this label out to pods with the label `to`.
#[must_use]
pub fn allow_to(name: &str, pods: &str, to: &str, on: &[(Protocol, u16)]) -> String {
    let rule = json!({"to": [{"podSelector": selector(to)}], "ports": ports(on)});
    policy(name, pods, &["Egress"], json!({"egress": [rule]})).to_string()
}

/// Lets pods with this label out to the named port of pods with the label `to`.
#[must_use]
pub fn allow_to_named(name: &str, pods: &str, to: &str, port: &str) -> String {
    let rule = json!({"to": [{"podSelector": selector(to)}], "ports": [{"port": port}]});
    policy(name, pods, &["Egress"], json!({"egress": [rule]})).to_string()
}

/// Several objects as one file.
#[must_use]
pub fn all(objects: &[String]) -> String {
    objects.join("\n---\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_say_what_they_are_asked_to() {
        let text = allow_in("web", "app=web", "role=client", &[(Protocol::Udp, 53)]);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["spec"]["podSelector"]["matchLabels"]["app"], "web");
        assert_eq!(value["spec"]["ingress"][0]["ports"][0]["protocol"], "UDP");
        assert_eq!(value["spec"]["policyTypes"], json!(["Ingress"]));
        let value: Value = serde_json::from_str(&deny("", &["Egress"])).unwrap();
        assert_eq!(value["spec"]["podSelector"], json!({}));
    }
}
