//! `networking.k8s.io/v1` NetworkPolicy to [`Policy`], with exactly the API's meaning.
//!
//! The API server has validated what arrives here. What is malformed all the same never panics
//! and never opens anything: that piece matches nothing, and the policy says so.

use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::{
    api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{
    peer::{IpBlock, NamespacePeer, Peer, PeerSelector},
    rule::{Action, Peers, Policy, Port, PortMatch, Ports, Rule},
    selector::Selector,
};
use crate::cluster::event::{ObjectKey, Protocol};

/// Namespace and name of a NetworkPolicy; the namespace is `default` where the object has none.
#[must_use]
pub fn key(object: &NetworkPolicy) -> ObjectKey {
    ObjectKey {
        namespace: object.metadata.namespace.as_deref().unwrap_or("default").into(),
        name: object.metadata.name.as_deref().unwrap_or_default().into(),
    }
}

/// Compiles one object.
#[must_use]
pub fn network_policy(object: &NetworkPolicy) -> Policy {
    let key = key(object);
    let mut compiler = Compiler { namespace: Arc::clone(&key.namespace), problems: Vec::new() };
    let default = Default::default();
    let spec = object.spec.as_ref().unwrap_or(&default);

    let everything = LabelSelector::default();
    let subject = spec.pod_selector.as_ref().unwrap_or(&everything);
    let subject = compiler.selector(subject, || "spec.podSelector".to_owned());
    let has_egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
    let isolates = compiler.isolates(spec.policy_types.as_deref(), has_egress);

    let mut rules = [Vec::new(), Vec::new()];
    if isolates[0] {
        for (index, rule) in (0u32..).zip(spec.ingress.iter().flatten()) {
            let at = format!("spec.ingress[{index}]");
            rules[0].push(compiler.rule(index, &at, rule.from.as_deref(), rule.ports.as_deref()));
        }
    }
    if isolates[1] {
        for (index, rule) in (0u32..).zip(spec.egress.iter().flatten()) {
            let at = format!("spec.egress[{index}]");
            rules[1].push(compiler.rule(index, &at, rule.to.as_deref(), rule.ports.as_deref()));
        }
    }
    Policy { key, subject, isolates, rules, problems: compiler.problems }
}

struct Compiler {
    namespace: Arc<str>,
    problems: Vec<String>,
}

impl Compiler {
    /// Without policyTypes a policy isolates ingress, and egress if it has egress rules.
    fn isolates(&mut self, types: Option<&[String]>, has_egress: bool) -> [bool; 2] {
        let Some(types) = types.filter(|types| !types.is_empty()) else {
            return [true, has_egress];
        };
        let mut isolates = [false; 2];
        for name in types {
            match name.as_str() {
                "Ingress" => isolates[0] = true,
                "Egress" => isolates[1] = true,
                other => self.problems.push(format!(
                    "spec.policyTypes: {other:?} is neither Ingress nor Egress; it is left out"
                )),
            }
        }
        isolates
    }

    fn selector(&mut self, selector: &LabelSelector, at: impl Fn() -> String) -> Option<Selector> {
        match Selector::compile(selector) {
            Ok(selector) => Some(selector),
            Err(error) => {
                self.problems.push(format!("{}: {error}; it matches nothing", at()));
                None
            }
        }
    }

    fn rule(
        &mut self,
        index: u32,
        at: &str,
        peers: Option<&[NetworkPolicyPeer]>,
        ports: Option<&[NetworkPolicyPort]>,
    ) -> Rule {
        let peers = match peers {
            None | Some([]) => Peers::Any,
            Some(peers) => {
                let mut list: Vec<_> = (peers.iter().enumerate())
                    .filter_map(|(place, peer)| self.peer(&format!("{at} peer {place}"), peer))
                    .map(Arc::new)
                    .collect();
                list.sort_unstable();
                list.dedup();
                Peers::Of(list)
            }
        };
        let ports = match ports {
            None | Some([]) => Ports::Any,
            Some(ports) => {
                let mut list: Vec<_> = (ports.iter().enumerate())
                    .filter_map(|(place, port)| self.port(&format!("{at} port {place}"), port))
                    .collect();
                list.sort_unstable();
                list.dedup();
                Ports::Of(list)
            }
        };
        Rule { index, action: Action::Allow, peers, ports }
    }

    fn peer(&mut self, at: &str, peer: &NetworkPolicyPeer) -> Option<Peer> {
        let NetworkPolicyPeer { ip_block, namespace_selector, pod_selector } = peer;
        if let Some(block) = ip_block {
            if namespace_selector.is_some() || pod_selector.is_some() {
                self.problems.push(format!("{at}: ipBlock beside a selector; it matches nothing"));
                return None;
            }
            return self.block(at, block).map(Peer::Block);
        }
        if namespace_selector.is_none() && pod_selector.is_none() {
            self.problems.push(format!("{at}: names nothing; it matches nothing"));
            return None;
        }
        let namespace = match namespace_selector {
            None => NamespacePeer::Same(Arc::clone(&self.namespace)),
            Some(selector) => {
                let at = || format!("{at} namespaceSelector");
                NamespacePeer::Selected(self.selector(selector, at)?)
            }
        };
        let pod = match pod_selector {
            None => Selector::default(),
            Some(selector) => self.selector(selector, || format!("{at} podSelector"))?,
        };
        Some(Peer::Pods(PeerSelector { namespace, pod }))
    }

    fn block(&mut self, at: &str, block: &IPBlock) -> Option<IpBlock> {
        let cidr = self.net(at, &block.cidr)?;
        let mut excepts = Vec::new();
        for except in block.except.iter().flatten() {
            excepts.push(self.net(at, except)?);
        }
        let block = IpBlock::new(cidr, excepts);
        if block.is_none() {
            self.problems.push(format!("{at}: except covers all of {cidr}; it matches nothing"));
        }
        block
    }

    fn net(&mut self, at: &str, text: &str) -> Option<IpNet> {
        let net = text.parse().ok();
        if net.is_none() {
            self.problems.push(format!("{at}: {text:?} is not a CIDR; the peer matches nothing"));
        }
        net
    }

    fn port(&mut self, at: &str, port: &NetworkPolicyPort) -> Option<PortMatch> {
        let protocol = match port.protocol.as_deref() {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(other) => {
                self.problems.push(format!(
                    "{at}: protocol {other:?} is not one of TCP, UDP and SCTP; it matches nothing"
                ));
                return None;
            }
        };
        let port = match (&port.port, port.end_port) {
            (None, None) => Port::Range(0, u16::MAX),
            (Some(IntOrString::Int(number)), end) => {
                let end = end.unwrap_or(*number);
                match (u16::try_from(*number), u16::try_from(end)) {
                    (Ok(first), Ok(last)) if first <= last => Port::Range(first, last),
                    _ => {
                        self.problems.push(format!(
                            "{at}: {number} to {end} is no range of ports; it matches nothing"
                        ));
                        return None;
                    }
                }
            }
            (Some(IntOrString::String(name)), None) => Port::Named(name.as_str().into()),
            (None | Some(IntOrString::String(_)), Some(_)) => {
                self.problems
                    .push(format!("{at}: endPort without a port number; it matches nothing"));
                return None;
            }
        };
        Some(PortMatch { protocol, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(spec: &str) -> Policy {
        let yaml = format!("{{metadata: {{namespace: ns, name: p}}, spec: {{{spec}}}}}");
        network_policy(&serde_norway::from_str(&yaml).unwrap())
    }

    #[test]
    fn policy_types_are_given_or_derived() {
        for (spec, expected) in [
            ("podSelector: {}", [true, false]),
            ("podSelector: {}, ingress: [{}]", [true, false]),
            ("podSelector: {}, egress: [{}]", [true, true]),
            ("podSelector: {}, egress: []", [true, false]),
            ("podSelector: {}, policyTypes: []", [true, false]),
            ("podSelector: {}, policyTypes: [Ingress]", [true, false]),
            ("podSelector: {}, policyTypes: [Egress]", [false, true]),
            ("podSelector: {}, policyTypes: [Ingress, Egress]", [true, true]),
            ("podSelector: {}, policyTypes: [Ingress], egress: [{}]", [true, false]),
            ("podSelector: {}, policyTypes: [Egress], ingress: [{}]", [false, true]),
        ] {
            let policy = policy(spec);
            assert_eq!(policy.isolates, expected, "{spec}");
            for direction in [0, 1] {
                assert!(policy.isolates[direction] || policy.rules[direction].is_empty(), "{spec}");
            }
        }
    }

    #[test]
    fn missing_and_empty_lists_mean_any() {
        for rule in ["{}", "{from: [], ports: []}"] {
            let policy = policy(&format!("podSelector: {{}}, ingress: [{rule}]"));
            let [rule] = &policy.rules[0][..] else { panic!("one rule") };
            assert_eq!((&rule.peers, &rule.ports), (&Peers::Any, &Ports::Any));
        }
        assert!(policy("podSelector: {}, ingress: []").rules[0].is_empty());
        assert!(policy("podSelector: {}").subject.unwrap().is_everything());
    }

    #[test]
    fn peers_follow_the_api() {
        for (peer, expected) in [
            ("{podSelector: {}}", "pods {} in namespace ns"),
            ("{podSelector: {matchLabels: {a: b}}}", "pods {a in (b)} in namespace ns"),
            ("{namespaceSelector: {}}", "pods {} in namespaces {}"),
            (
                "{namespaceSelector: {matchLabels: {t: x}}, podSelector: {matchLabels: {a: b}}}",
                "pods {a in (b)} in namespaces {t in (x)}",
            ),
            ("{ipBlock: {cidr: 10.1.2.3/8}}", "10.0.0.0/8"),
            (
                "{ipBlock: {cidr: 'fd00::/8', except: ['fd00:1::/32']}}",
                "fd00::/8 except fd00:1::/32",
            ),
        ] {
            let policy = policy(&format!("podSelector: {{}}, ingress: [{{from: [{peer}]}}]"));
            let Peers::Of(peers) = &policy.rules[0][0].peers else { panic!("{peer}") };
            assert_eq!(peers.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
            assert!(policy.problems.is_empty());
        }
    }

    #[test]
    fn ports_follow_the_api() {
        use Protocol::{Sctp, Tcp, Udp};
        for (port, protocol, expected) in [
            ("{port: 80}", Tcp, Port::Range(80, 80)),
            ("{protocol: UDP, port: 53}", Udp, Port::Range(53, 53)),
            ("{protocol: SCTP}", Sctp, Port::Range(0, 65_535)),
            ("{port: 8000, endPort: 9000}", Tcp, Port::Range(8000, 9000)),
            ("{port: web}", Tcp, Port::Named("web".into())),
            ("{}", Tcp, Port::Range(0, 65_535)),
        ] {
            let policy = policy(&format!("podSelector: {{}}, ingress: [{{ports: [{port}]}}]"));
            assert_eq!(
                policy.rules[0][0].ports,
                Ports::Of(vec![PortMatch { protocol, port: expected }]),
                "{port}"
            );
        }
    }

    #[test]
    fn what_is_malformed_matches_nothing_and_is_reported() {
        for rule in [
            "{from: [{ipBlock: {cidr: nonsense}}]}",
            "{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [x]}}]}",
            "{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}",
            "{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}",
            "{from: [{}]}",
            "{from: [{podSelector: {matchExpressions: [{key: a, operator: Like}]}}]}",
            "{from: [{namespaceSelector: {matchExpressions: [{key: a, operator: Like}]}}]}",
            "{ports: [{protocol: ICMP}]}",
            "{ports: [{port: 70000}]}",
            "{ports: [{port: 10, endPort: 9}]}",
            "{ports: [{port: web, endPort: 9}]}",
            "{ports: [{endPort: 9}]}",
        ] {
            let policy = policy(&format!("podSelector: {{}}, ingress: [{rule}]"));
            let Rule { peers, ports, .. } = &policy.rules[0][0];
            let nothing = *peers == Peers::Of(vec![]) || *ports == Ports::Of(vec![]);
            assert!(nothing && policy.problems.len() == 1, "{rule}: {policy:?}");
        }
        let bad = policy("podSelector: {matchExpressions: [{key: a, operator: Like}]}");
        assert!(bad.subject.is_none() && bad.problems.len() == 1);
        assert_eq!(policy("podSelector: {}, policyTypes: [Both]").problems.len(), 1);
    }
}
