//! The policy that every variant enforces: both pods isolated in both directions, and so many peers
//! that may be reached, and may come, at so many ports, each port a rule of its own.

use std::{net::Ipv4Addr, ops::Range};

use enforcer_tests::{PodSpec, spec::namespace_manifest};
use serde_json::json;

/// The pod that opens connections.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
/// The pod that is connected to.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 2);
/// Where the peers that are elsewhere begin.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
/// Port of the first rule.
const FIRST_PORT: u16 = 10_000;
/// Rules of one policy object, pods in one file.
const TOGETHER: usize = 100;

/// How large the policy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Peers, the two pods among them.
    pub(crate) peers: u32,
    /// Rules, each for all peers and one port.
    pub(crate) rules: u16,
    /// The last rule is for UDP, too.
    pub(crate) datagrams: bool,
}

impl Policy {
    /// All peers. The two pods are the last, so that who asks one after the other pays for all.
    pub(crate) fn peers(self) -> impl Iterator<Item = Ipv4Addr> {
        let elsewhere = ELSEWHERE.to_bits();
        (elsewhere..elsewhere + self.peers.saturating_sub(2))
            .map(Ipv4Addr::from_bits)
            .chain([CLIENT, SERVER])
    }

    /// The ports of the rules, in their order.
    pub(crate) fn ports(self) -> Range<u16> {
        FIRST_PORT..FIRST_PORT + self.rules
    }

    /// The port that is measured: the last rule's.
    pub(crate) fn last_port(self) -> u16 {
        FIRST_PORT + self.rules - 1
    }

    /// A port that no rule has.
    pub(crate) fn denied_port(self) -> u16 {
        FIRST_PORT + self.rules
    }

    /// Protocols of the rule with this port.
    pub(crate) fn protocols(self, port: u16) -> &'static [&'static str] {
        if self.datagrams && port == self.last_port() { &["tcp", "udp"] } else { &["tcp"] }
    }

    /// The two pods that are there.
    pub(crate) fn pods() -> [PodSpec; 2] {
        [pod("bench/client", CLIENT), pod("bench/server", SERVER)]
    }

    /// The manifests: names of files and their text.
    pub(crate) fn manifests(self) -> Vec<(String, String)> {
        let mut files = vec![("namespace.yaml".to_owned(), namespace_manifest("bench"))];
        let pods: Vec<String> = self
            .peers()
            .map(|address| match address {
                CLIENT => pod("bench/client", address).manifest(),
                SERVER => pod("bench/server", address).manifest(),
                _ => pod(&format!("bench/peer-{}", address.to_bits()), address).manifest(),
            })
            .collect();
        let name = |kind: &str, at: usize| format!("{kind}-{at}.yaml");
        files.extend(
            pods.chunks(10 * TOGETHER)
                .enumerate()
                .map(|(at, pods)| (name("pods", at), pods.join("\n---\n"))),
        );
        let ports: Vec<u16> = self.ports().collect();
        files.extend(
            ports
                .chunks(TOGETHER)
                .enumerate()
                .map(|(at, ports)| (name("policy", at), self.object(at, ports))),
        );
        files
    }

    /// One policy object, with a rule for each of these ports.
    fn object(self, number: usize, ports: &[u16]) -> String {
        let peers = json!([{"podSelector": {"matchLabels": {"role": "peer"}}}]);
        let rules = |side: &str| -> Vec<serde_json::Value> {
            let rule = |port: &u16| {
                let open =
                    |protocol: &&str| json!({"protocol": protocol.to_uppercase(), "port": port});
                let open: Vec<_> = self.protocols(*port).iter().map(open).collect();
                json!({side: peers, "ports": open})
            };
            ports.iter().map(rule).collect()
        };
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"namespace": "bench", "name": format!("part-{number}")},
            "spec": {
                "podSelector": {},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": rules("from"),
                "egress": rules("to"),
            },
        })
        .to_string()
    }
}

/// A pod with one family: what it is compared with has rules for one.
fn pod(name: &str, address: Ipv4Addr) -> PodSpec {
    PodSpec::new(name, &[address.into()]).label("role", "peer")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn peers_are_as_many_as_asked_and_end_with_the_pods() {
        let policy = Policy { peers: 1_000, rules: 1, datagrams: false };
        let peers: Vec<_> = policy.peers().collect();
        assert_eq!(peers.iter().collect::<BTreeSet<_>>().len(), 1_000);
        assert_eq!(peers[998..], [CLIENT, SERVER]);
    }

    #[test]
    fn every_rule_has_its_port_and_the_denied_one_has_none() {
        let policy = Policy { peers: 2, rules: 250, datagrams: true };
        let files = policy.manifests();
        let mut ports = Vec::new();
        for (_, text) in files.iter().filter(|(name, _)| name.starts_with("policy")) {
            let object: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(object["spec"]["ingress"].as_array().unwrap().len() % 50, 0);
            for rule in object["spec"]["egress"].as_array().unwrap() {
                ports.extend(rule["ports"].as_array().unwrap().iter().map(|port| {
                    (port["protocol"].as_str().unwrap().to_owned(), port["port"].as_u64().unwrap())
                }));
            }
        }
        assert_eq!(ports.len(), 251);
        let last = u64::from(policy.last_port());
        assert_eq!(ports[249..], [("TCP".to_owned(), last), ("UDP".to_owned(), last)]);
        assert!(!ports.iter().any(|(_, port)| *port == u64::from(policy.denied_port())));
    }

    #[test]
    fn the_pods_in_the_manifests_are_those_that_are_there() {
        let policy = Policy { peers: 2, rules: 1, datagrams: false };
        let files = policy.manifests();
        let pods = files.iter().find(|(name, _)| name == "pods-0.yaml").unwrap();
        for pod in Policy::pods() {
            assert!(pods.1.contains(&pod.manifest()), "{}", pod.name);
        }
    }
}
