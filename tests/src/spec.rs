//! A pod as a test describes it, and its manifest.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::{Value, json};

/// A pod: who it is and what its addresses are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSpec {
    /// `namespace/name`.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Addresses, the first of each family being the one that probes use.
    pub addresses: Vec<IpAddr>,
    /// Named TCP ports.
    pub ports: BTreeMap<String, u16>,
}

impl PodSpec {
    /// A pod `namespace/name` with these addresses.
    #[must_use]
    pub fn new(name: &str, addresses: &[IpAddr]) -> Self {
        Self {
            name: name.into(),
            labels: BTreeMap::new(),
            addresses: addresses.to_vec(),
            ports: BTreeMap::new(),
        }
    }

    /// A pod with the addresses `10.244.1.<n>` and `fd10:244::1:<n>` (both by number).
    #[must_use]
    pub fn numbered(name: &str, number: u8) -> Self {
        let v6 = u16::from(number);
        Self::new(
            name,
            &[IpAddr::from([10, 244, 1, number]), IpAddr::from([0xfd10, 0x244, 0, 0, 0, 0, 1, v6])],
        )
    }

    /// The same with one label more, or another value of it.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// The same with a named TCP port.
    #[must_use]
    pub fn port(mut self, name: &str, number: u16) -> Self {
        self.ports.insert(name.into(), number);
        self
    }

    /// The namespace in [`Self::name`].
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.name.split_once('/').map_or("default", |(namespace, _)| namespace)
    }

    /// The object, as a manifest. JSON is YAML, too.
    #[must_use]
    pub fn manifest(&self) -> String {
        let name = self.name.split_once('/').map_or(self.name.as_str(), |(_, name)| name);
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|(name, port)| json!({"name": name, "containerPort": port, "protocol": "TCP"}))
            .collect();
        let addresses: Vec<Value> =
            self.addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": self.namespace(), "name": name, "labels": self.labels},
            "spec": {"containers": [{"name": "main", "image": "example/main", "ports": ports}]},
            "status": {"phase": "Running", "podIPs": addresses},
        })
        .to_string()
    }
}

/// The manifest of a namespace with no labels of its own.
#[must_use]
pub fn namespace_manifest(name: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_says_what_the_pod_is() {
        let pod = PodSpec::numbered("shop/web", 7).label("app", "web").port("http", 8080);
        let value: Value = serde_json::from_str(&pod.manifest()).unwrap();
        assert_eq!(value["metadata"]["namespace"], "shop");
        assert_eq!(value["metadata"]["labels"]["app"], "web");
        assert_eq!(value["status"]["podIPs"][1]["ip"], "fd10:244::1:7");
        assert_eq!(value["spec"]["containers"][0]["ports"][0]["containerPort"], 8080);
    }
}
