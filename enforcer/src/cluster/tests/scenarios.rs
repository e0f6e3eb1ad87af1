//! Real policy sets with expected verdicts, where a folder with them lies beside the repository.
//! Without the folder there is nothing to look at, and the reading is still tried on one of here.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use enforcer_common::{
    abi::Direction,
    verdict::proto::{SCTP, TCP, UDP},
};
use k8s_openapi::api::{core::v1 as core, networking::v1::NetworkPolicy};
use serde::Deserialize;

use super::{
    address, drain, index,
    kernel::{Probe, verdict},
    key, veth,
};
use crate::cluster::event::{Event, Labels, NamedPort, Namespace, ObjectKey, Pod, Protocol};

#[derive(Deserialize)]
#[serde(untagged)]
enum PortOrName {
    Port(u16),
    Name(String),
}

#[derive(Deserialize)]
struct Expectation {
    from: String,
    to: String,
    port: PortOrName,
    protocol: String,
    allowed: bool,
    why: String,
}

#[derive(Default)]
struct Scenario {
    pods: Vec<Pod>,
    namespaces: Vec<Namespace>,
    policies: Vec<NetworkPolicy>,
}

fn protocol(name: Option<&str>) -> Protocol {
    match name {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

fn pod(object: core::Pod) -> Pod {
    let name = object.metadata.name.unwrap_or_default();
    let spec = object.spec.unwrap_or_default();
    let status = object.status.unwrap_or_default();
    let mut addresses: Vec<IpAddr> =
        status.pod_ips.iter().flatten().map(|ip| address(&ip.ip)).collect();
    if addresses.is_empty() {
        addresses.extend(status.pod_ip.as_deref().map(address));
    }
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    Pod {
        key: key(object.metadata.namespace.as_deref().unwrap_or("default"), &name),
        uid: "".into(),
        labels: object.metadata.labels.into_iter().flatten().collect(),
        addresses,
        host_network: spec.host_network == Some(true),
        finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        terminating: object.metadata.deletion_timestamp.is_some(),
        started: 0,
        containers_started: None,
        ports: ports
            .filter_map(|port| {
                Some(NamedPort {
                    name: port.name.as_deref()?.into(),
                    protocol: protocol(port.protocol.as_deref()),
                    number: u16::try_from(port.container_port).ok()?,
                })
            })
            .collect(),
        node: None,
        workload: None,
    }
}

impl Scenario {
    fn read(&mut self, text: &str) {
        for document in serde_norway::Deserializer::from_str(text) {
            let value = serde_norway::Value::deserialize(document).unwrap();
            match value.get("kind").and_then(|kind| kind.as_str()) {
                Some("Pod") => self.pods.push(pod(serde_norway::from_value(value).unwrap())),
                Some("NetworkPolicy") => {
                    self.policies.push(serde_norway::from_value(value).unwrap());
                }
                Some("Namespace") => {
                    let object: core::Namespace = serde_norway::from_value(value).unwrap();
                    let name = object.metadata.name.unwrap();
                    let labels: Labels = object.metadata.labels.into_iter().flatten().collect();
                    let labels = labels.with("kubernetes.io/metadata.name", &name);
                    self.namespaces.push(Namespace { name: Arc::from(name), labels });
                }
                _ => {}
            }
        }
    }

    /// Every pod is on this node; both ends of a probe are judged, those that are pods.
    fn check(self, title: &str, expectations: &[Expectation]) {
        let pods = self.pods.clone();
        let mut index = index();
        for (ifindex, pod) in (1..).zip(pods.iter().filter(|pod| !pod.host_network)) {
            let addresses: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
            index.apply(Event::InterfaceFound(veth(ifindex, &addresses.join(","))));
        }
        let Self { pods: list, namespaces, policies } = self;
        index.apply(Event::Relist { pods: list, namespaces, policies });
        drain(&mut index);
        let state = index.snapshot();
        let endpoint = |name: &ObjectKey| {
            let pods = (1..).zip(pods.iter().filter(|pod| !pod.host_network));
            pods.into_iter().find(|(_, pod)| pod.key == *name).map(|(ifindex, _)| ifindex)
        };
        let side = |text: &str| match text.split_once('/') {
            Some((namespace, name)) => {
                let name = key(namespace, name);
                let pod = pods.iter().find(|pod| pod.key == name);
                let pod = pod.unwrap_or_else(|| panic!("{title}: no pod {text}"));
                (pod.addresses.clone(), endpoint(&name), Some(pod))
            }
            None => (vec![address(text)], None, None),
        };
        for Expectation { from, to, port, protocol: name, allowed, why } in expectations {
            let (from_addresses, from_endpoint, _) = side(from);
            let (to_addresses, to_endpoint, to_pod) = side(to);
            let port = match port {
                PortOrName::Port(port) => *port,
                PortOrName::Name(port) => {
                    let mut ports = to_pod.unwrap().ports.iter();
                    ports.find(|own| *own.name == **port).unwrap().number
                }
            };
            let protocol = match protocol(Some(name)) {
                Protocol::Tcp => TCP,
                Protocol::Udp => UDP,
                Protocol::Sctp => SCTP,
            };
            let judge = |ifindex: Option<u32>, direction, other| {
                ifindex.is_none_or(|ifindex| {
                    let probe = Probe { ifindex, direction, other, protocol, port };
                    verdict(&state, &probe).expect("an endpoint")
                })
            };
            let mut pairs = 0;
            for source in &from_addresses {
                for destination in to_addresses.iter().filter(|d| d.is_ipv4() == source.is_ipv4()) {
                    let found = judge(from_endpoint, Direction::Egress, *destination)
                        && judge(to_endpoint, Direction::Ingress, *source);
                    assert_eq!(
                        found, *allowed,
                        "{title}: {from} ({source}) to {to} ({destination}) {name} {port}: {why}"
                    );
                    pairs += 1;
                }
            }
            // A pod without IPv6 and an IPv6 address: only the pod's own side says something.
            if pairs == 0 {
                for destination in &to_addresses {
                    assert_eq!(
                        judge(from_endpoint, Direction::Egress, *destination),
                        *allowed,
                        "{why}"
                    );
                }
            }
        }
    }
}

fn folder() -> Option<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    Some(repository.parent()?.join("shared/scenarios")).filter(|folder| folder.is_dir())
}

fn texts(folder: &Path) -> Vec<String> {
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn whole_scenarios_have_the_expected_verdicts() {
    let mut own = Scenario::default();
    own.read(include_str!("scenario.yaml"));
    own.check(
        "own",
        &serde_norway::from_str::<Vec<Expectation>>(include_str!("expect.yaml")).unwrap(),
    );
    for name in ["kaapana", "abcdesktop", "abcdesktop-manual"] {
        let Some(folder) = folder().map(|folder| folder.join(name)) else { return };
        let mut scenario = Scenario::default();
        scenario.read(&fs::read_to_string(folder.join("cluster.yaml")).unwrap());
        texts(&folder.join("policies")).iter().for_each(|text| scenario.read(text));
        let expect = fs::read_to_string(folder.join("expect.yaml")).unwrap();
        let expectations: Vec<Expectation> = serde_norway::from_str(&expect).unwrap();
        assert!(scenario.policies.len() > 3 && expectations.len() > 15, "{name}");
        scenario.check(name, &expectations);
    }
}
