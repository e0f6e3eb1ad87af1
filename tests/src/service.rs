//! A Service as a test describes it, and the manifests that announce it.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::{Place, PodSpec, Protocol};

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Transport protocol.
    pub protocol: Protocol,
    /// The port at the Service's addresses.
    pub number: u16,
    /// The port at the node's addresses.
    pub node_port: Option<u16>,
}

/// An endpoint's condition, as EndpointSlices have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It gets connections.
    Ready,
    /// It is not ready yet, or not any more.
    NotReady,
    /// It is being deleted and still answers.
    Terminating,
}

/// One endpoint of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its addresses, of one family each.
    pub addresses: Vec<IpAddr>,
    /// Where it listens, for every port of the Service.
    pub port: u16,
    /// Who listens there.
    pub place: Place,
    /// Whether it gets connections.
    pub condition: Condition,
}

impl Backend {
    /// A pod of the laboratory.
    #[must_use]
    pub fn pod(pod: &PodSpec, port: u16) -> Self {
        Self::at(Place::pod(&pod.name), &pod.addresses, port)
    }

    /// A pod of another node: its addresses are outside.
    #[must_use]
    pub fn far(pod: &PodSpec, port: u16) -> Self {
        let first = pod.addresses.first().copied().unwrap_or(IpAddr::from([0; 4]));
        Self::at(Place::Outside(first), &pod.addresses, port)
    }

    /// Any place, by these of its addresses.
    #[must_use]
    pub fn at(place: Place, addresses: &[IpAddr], port: u16) -> Self {
        Self { addresses: addresses.to_vec(), port, place, condition: Condition::Ready }
    }

    /// The same in this condition.
    #[must_use]
    pub fn condition(mut self, condition: Condition) -> Self {
        self.condition = condition;
        self
    }

    /// The place behind one of its addresses.
    #[must_use]
    pub fn place_of(&self, address: IpAddr) -> Place {
        match self.place {
            Place::Outside(_) => Place::Outside(address),
            Place::Node | Place::NodeAddress(_) => Place::NodeAddress(address),
            ref place => place.clone(),
        }
    }
}

/// A Service: its addresses and what stands behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `namespace/name`.
    pub name: String,
    /// Cluster addresses; none makes it headless.
    pub cluster_ips: Vec<IpAddr>,
    /// External addresses.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of its load balancer.
    pub load_balancer: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// What stands behind it.
    pub backends: Vec<Backend>,
}

impl Service {
    /// A Service `namespace/name` with the cluster addresses `10.96.0.<n>` and `fd10:96::<n>` (by
    /// number), with TCP and UDP port 80.
    #[must_use]
    pub fn numbered(name: &str, number: u8) -> Self {
        let v6 = u16::from(number);
        let addresses =
            [IpAddr::from([10, 96, 0, number]), IpAddr::from([0xfd10, 0x96, 0, 0, 0, 0, 0, v6])];
        Self::new(name, &addresses).port(Protocol::Tcp, 80).port(Protocol::Udp, 80)
    }

    /// A Service without ports.
    #[must_use]
    pub fn new(name: &str, cluster_ips: &[IpAddr]) -> Self {
        Self {
            name: name.to_owned(),
            cluster_ips: cluster_ips.to_vec(),
            external_ips: Vec::new(),
            load_balancer: Vec::new(),
            ports: Vec::new(),
            backends: Vec::new(),
        }
    }

    /// The same with one port more.
    #[must_use]
    pub fn port(mut self, protocol: Protocol, number: u16) -> Self {
        self.ports.push(ServicePort { protocol, number, node_port: None });
        self
    }

    /// The same with all ports at the node's addresses, too, from this one on.
    #[must_use]
    pub fn node_port(mut self, first: u16) -> Self {
        for (port, number) in self.ports.iter_mut().zip(first..) {
            port.node_port = Some(number);
        }
        self
    }

    /// The same with an external address more.
    #[must_use]
    pub fn external(mut self, address: IpAddr) -> Self {
        self.external_ips.push(address);
        self
    }

    /// The same with one address more at its load balancer.
    #[must_use]
    pub fn balanced(mut self, address: IpAddr) -> Self {
        self.load_balancer.push(address);
        self
    }

    /// The same with these backends instead.
    #[must_use]
    pub fn with(mut self, backends: &[Backend]) -> Self {
        self.backends = backends.to_vec();
        self
    }

    /// Its cluster address of a family, as a place.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    #[track_caller]
    pub fn place(&self, v6: bool) -> Place {
        let found = self.cluster_ips.iter().find(|ip| ip.is_ipv6() == v6);
        Place::Virtual(*found.expect("a cluster address of the family"))
    }

    /// All its virtual addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [&self.cluster_ips, &self.external_ips, &self.load_balancer]
            .into_iter()
            .flat_map(|some| some.iter().copied())
    }

    fn metadata(&self, suffix: &str) -> Value {
        let (namespace, name) = self.name.split_once('/').unwrap_or(("default", &self.name));
        json!({
            "namespace": namespace,
            "name": format!("{name}{suffix}"),
            "labels": {"kubernetes.io/service-name": name},
        })
    }

    /// Name of the file with [`Self::manifest`].
    #[must_use]
    pub fn file(&self) -> String {
        format!("service-{}.yaml", self.name.replace('/', "-"))
    }

    /// Name of the file with [`Self::slices`].
    #[must_use]
    pub fn slices_file(&self) -> String {
        format!("slices-{}.yaml", self.name.replace('/', "-"))
    }

    /// The Service object.
    #[must_use]
    pub fn manifest(&self) -> String {
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|port| {
                let mut value = json!({
                    "name": port_name(port),
                    "protocol": port.protocol,
                    "port": port.number,
                });
                if let Some(number) = port.node_port {
                    value["nodePort"] = number.into();
                }
                value
            })
            .collect();
        let kind = if !self.load_balancer.is_empty() {
            "LoadBalancer"
        } else if self.ports.iter().any(|port| port.node_port.is_some()) {
            "NodePort"
        } else {
            "ClusterIP"
        };
        let mut spec = json!({"type": kind, "ports": ports, "externalIPs": self.external_ips});
        match self.cluster_ips.first() {
            Some(first) => {
                spec["clusterIP"] = json!(first);
                spec["clusterIPs"] = json!(self.cluster_ips);
            }
            None => spec["clusterIP"] = "None".into(),
        }
        let ingress: Vec<Value> = self.load_balancer.iter().map(|ip| json!({"ip": ip})).collect();
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(""),
            "spec": spec,
            "status": {"loadBalancer": {"ingress": ingress}},
        })
        .to_string()
    }

    /// Its EndpointSlices: one for each family and target port.
    #[must_use]
    pub fn slices(&self) -> String {
        let mut slices = Vec::new();
        for (v6, family) in [(false, "IPv4"), (true, "IPv6")] {
            let mut targets: Vec<u16> = self.backends.iter().map(|one| one.port).collect();
            targets.sort_unstable();
            targets.dedup();
            for target in targets {
                let endpoints: Vec<Value> = self
                    .backends
                    .iter()
                    .filter(|backend| backend.port == target)
                    .filter_map(|backend| endpoint(backend, v6))
                    .collect();
                let ports: Vec<Value> = self
                    .ports
                    .iter()
                    .map(|port| {
                        json!({"name": port_name(port), "protocol": port.protocol, "port": target})
                    })
                    .collect();
                slices.push(
                    json!({
                        "apiVersion": "discovery.k8s.io/v1",
                        "kind": "EndpointSlice",
                        "metadata": self.metadata(&format!("-{}-{target}", family.to_lowercase())),
                        "addressType": family,
                        "endpoints": endpoints,
                        "ports": ports,
                    })
                    .to_string(),
                );
            }
        }
        slices.join("\n---\n")
    }
}

fn port_name(port: &ServicePort) -> String {
    format!("{}-{}", port.protocol.to_string().to_lowercase(), port.number)
}

fn endpoint(backend: &Backend, v6: bool) -> Option<Value> {
    let address = backend.addresses.iter().find(|ip| ip.is_ipv6() == v6)?;
    let (ready, serving, terminating) = match backend.condition {
        Condition::Ready => (true, true, false),
        Condition::NotReady => (false, false, false),
        Condition::Terminating => (false, true, true),
    };
    let conditions = json!({"ready": ready, "serving": serving, "terminating": terminating});
    Some(json!({"addresses": [address], "conditions": conditions}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifests_say_what_the_service_is() {
        let pod = PodSpec::numbered("shop/web", 7);
        let service = Service::numbered("shop/web", 9)
            .node_port(30_080)
            .external("203.0.113.9".parse().unwrap())
            .with(&[Backend::pod(&pod, 8080).condition(Condition::Terminating)]);
        let object: Value = serde_json::from_str(&service.manifest()).unwrap();
        assert_eq!(object["spec"]["type"], "NodePort");
        assert_eq!(object["spec"]["clusterIPs"], json!(["10.96.0.9", "fd10:96::9"]));
        assert_eq!(object["spec"]["ports"][1]["nodePort"], 30_081);
        assert_eq!(object["spec"]["externalIPs"][0], "203.0.113.9");
        let text = service.slices();
        let slices: Vec<Value> =
            text.split("\n---\n").map(|one| serde_json::from_str(one).unwrap()).collect();
        assert_eq!(slices.len(), 2);
        assert_eq!(slices[1]["addressType"], "IPv6");
        assert_eq!(slices[1]["endpoints"][0]["addresses"], json!(["fd10:244::1:7"]));
        assert_eq!(slices[0]["endpoints"][0]["conditions"]["terminating"], true);
        assert_eq!(slices[0]["ports"][0]["port"], 8080);
        let label = &slices[0]["metadata"]["labels"]["kubernetes.io/service-name"];
        assert_eq!(label, "web");
        assert_ne!(slices[0]["metadata"]["name"], slices[1]["metadata"]["name"]);
    }

    #[test]
    fn a_service_without_addresses_is_headless() {
        let object = Service::new("shop/db", &[]).port(Protocol::Tcp, 80).manifest();
        let object: Value = serde_json::from_str(&object).unwrap();
        assert_eq!(object["spec"]["clusterIP"], "None");
        assert!(object["spec"]["clusterIPs"].is_null());
    }
}
