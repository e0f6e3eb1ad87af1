//! A cluster and a probe as the files that the scenario tests read: a difference that was found can
//! be kept as it is.

use std::{fs, net::IpAddr, path::Path};

use enforcer_reference::{Answer, Cluster, Direction, Name, Packet, Pod, Service, protocol};
use serde_json::{Value, json};

use super::{compare::subject, probe::Probe};

/// The three files of a scenario.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) cluster: String,
    pub(crate) policies: String,
    pub(crate) expect: String,
}

impl Files {
    /// Those of a cluster, and of a probe with what the reference says of it.
    pub(crate) fn of(cluster: &Cluster, probe: &Probe) -> Self {
        let namespaces = cluster.namespaces.iter().map(|one| {
            let metadata = json!({"name": one.name, "labels": one.labels});
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        });
        let pods = cluster.pods.iter().map(pod);
        let services = cluster.services.iter().flat_map(service);
        let policies = cluster.policies.iter().map(|policy| serde_json::to_value(policy).unwrap());
        Self {
            cluster: documents(namespaces.chain(pods).chain(services)),
            policies: documents(policies),
            expect: serde_norway::to_string(&json!([expectation(cluster, probe)])).unwrap(),
        }
    }

    /// Writes them to a folder, by the names that scenarios have.
    pub(crate) fn write(&self, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        for (name, text) in [
            ("cluster.yaml", &self.cluster),
            ("policies.yaml", &self.policies),
            ("expect.yaml", &self.expect),
        ] {
            fs::write(dir.join(name), text).unwrap();
        }
    }
}

impl std::fmt::Display for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cluster, policies, expect } = self;
        write!(f, "# cluster.yaml\n{cluster}\n# policies.yaml\n{policies}\n# expect.yaml\n{expect}")
    }
}

fn documents(values: impl Iterator<Item = Value>) -> String {
    values.map(|value| format!("---\n{}", serde_norway::to_string(&value).unwrap())).collect()
}

fn metadata(name: &Name) -> Value {
    json!({"namespace": name.namespace, "name": name.name})
}

fn pod(pod: &Pod) -> Value {
    let mut metadata = metadata(&pod.name);
    metadata["uid"] = json!(pod.uid);
    metadata["labels"] = json!(pod.labels);
    if pod.terminating {
        metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    // A container each: in one a name may stand once.
    let container = |(at, port): (usize, &enforcer_reference::NamedPort)| {
        let port = json!({"name": port.name, "containerPort": port.number,
                          "protocol": port.protocol.name()});
        json!({"name": format!("c{at}"), "ports": [port]})
    };
    let containers: Vec<Value> = pod.ports.iter().enumerate().map(container).collect();
    let ips: Vec<Value> = pod.addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let phase = if pod.finished { "Succeeded" } else { "Running" };
    let started = jiff::Timestamp::from_second(pod.started).unwrap().to_string();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {"hostNetwork": pod.host_network, "containers": containers},
        "status": {"phase": phase, "startTime": started, "podIPs": ips},
    })
}

fn service(service: &Service) -> [Value; 2] {
    let Service { name, address, port, protocol, backends, target } = service;
    let mut slice = metadata(name);
    slice["labels"] = json!({"kubernetes.io/service-name": name.name});
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let protocol = protocol.name();
    let endpoints: Vec<Value> = backends.iter().map(|ip| json!({"addresses": [ip]})).collect();
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata(name),
            "spec": {"clusterIP": address, "clusterIPs": [address], "selector": {"app": "x"},
                     "ports": [{"port": port, "targetPort": target, "protocol": protocol}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": slice,
            "addressType": family, "endpoints": endpoints,
            "ports": [{"name": "", "port": target, "protocol": protocol}],
        }),
    ]
}

/// Whether policy lets a packet through at both ends, as scenarios count it.
fn passes_both(cluster: &Cluster, probe: &Probe) -> bool {
    let packet = &probe.packet;
    let here = subject(cluster, probe.slot)
        .is_none_or(|pod| cluster.by_policy(pod, packet).allows() || packet.by_node);
    let there = cluster.owner(packet.other()).is_none_or(|pod| {
        let direction = match packet.direction {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        };
        cluster.by_policy(pod, &Packet { direction, ..*packet }).allows()
    });
    here && there
}

fn expectation(cluster: &Cluster, probe: &Probe) -> Value {
    let Packet { direction, source, destination, port, by_node, .. } = probe.packet;
    let place =
        |ip: IpAddr| cluster.owner(ip).map_or_else(|| ip.to_string(), |pod| pod.name.to_string());
    let protocol = protocol(probe.packet.protocol)
        .map_or_else(|| probe.packet.protocol.to_string(), |one| one.name().to_owned());
    let by = subject(cluster, probe.slot).map(|pod| cluster.by_policy(pod, &probe.packet));
    let by = match by {
        None => "nobody's interface".to_owned(),
        Some(Answer::NotIsolated) => "not isolated".to_owned(),
        Some(Answer::Allowed(rules)) => {
            let names = rules.iter().map(|rule| format!("{}[{}]", rule.policy, rule.index));
            format!("allowed by {}", names.collect::<Vec<_>>().join(", "))
        }
        Some(Answer::Denied(policies)) => {
            let names = policies.iter().map(ToString::to_string);
            format!("isolated by {}", names.collect::<Vec<_>>().join(", "))
        }
    };
    let node = if by_node { ", by the node" } else { "" };
    let why =
        format!("{direction:?} of local{}, {source} to {destination}{node}: {by}", probe.slot);
    json!({
        "from": place(source), "to": place(destination), "port": port, "protocol": protocol,
        "allowed": passes_both(cluster, probe), "why": why,
    })
}
