//! The rule form that everything is compiled to.

use std::sync::Arc;

use enforcer_common::abi::Direction;

use super::{peer::Peer, selector::Selector};
use crate::cluster::event::{ObjectKey, Protocol};

/// Kind of the policy objects compiled here, as the flows name it.
pub const KIND: &str = "NetworkPolicy";

/// What a rule does with what it matches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Pass.
    Allow,
}

/// Who is at the other end.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Peers {
    /// Everyone, inside and outside the cluster.
    Any,
    /// Who matches at least one. Empty after a malformed peer was left out: nobody.
    Of(Vec<Arc<Peer>>),
}

/// Ports on the destination.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Port {
    /// These numbers, both ends included.
    Range(u16, u16),
    /// The number, or numbers, that the destination pod has under this name.
    Named(Arc<str>),
}

/// A protocol and ports of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortMatch {
    /// Protocol.
    pub protocol: Protocol,
    /// Ports of it.
    pub port: Port,
}

/// What may be reached.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ports {
    /// Every protocol, those without ports too.
    Any,
    /// Only these.
    Of(Vec<PortMatch>),
}

/// One element of `spec.ingress` or `spec.egress`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rule {
    /// Place in its list, from 0.
    pub index: u32,
    /// What it does.
    pub action: Action,
    /// For whom.
    pub peers: Peers,
    /// For what.
    pub ports: Ports,
}

/// What a rule asks of a packet beside its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// It names peers.
    pub peers: bool,
    /// What it says of protocols and ports.
    pub ports: PortScope,
}

/// What a rule says of protocols and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortScope {
    /// Nothing.
    Any,
    /// It lists some; by [`Protocol`] whether all ports of it are among them.
    Listed([bool; 3]),
}

impl Rule {
    /// What it asks for.
    #[must_use]
    pub fn scope(&self) -> Scope {
        let peers = self.peers != Peers::Any;
        let ports = match &self.ports {
            Ports::Any => PortScope::Any,
            Ports::Of(ports) => {
                let mut whole = [false; 3];
                for one in ports.iter().filter(|one| one.port == Port::Range(0, u16::MAX)) {
                    whole[one.protocol as usize] = true;
                }
                PortScope::Listed(whole)
            }
        };
        Scope { peers, ports }
    }
}

/// The policies that isolate a pod in one direction, by name, as of one moment. Clones share them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Isolating(Arc<[Arc<Policy>]>);

impl Isolating {
    /// The policies, with their rules.
    #[must_use]
    pub fn policies(&self) -> &[Arc<Policy>] {
        &self.0
    }

    /// Their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ObjectKey> {
        self.0.iter().map(|policy| &policy.key)
    }
}

impl FromIterator<Arc<Policy>> for Isolating {
    fn from_iter<I: IntoIterator<Item = Arc<Policy>>>(policies: I) -> Self {
        Self(policies.into_iter().collect())
    }
}

/// A compiled policy object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Pods of its namespace that it is for; `None` if the selector is malformed: no pod.
    pub subject: Option<Selector>,
    /// Directions in which those pods take only what a rule allows, by [`Direction`].
    pub isolates: [bool; 2],
    /// Rules by [`Direction`]; empty in a direction that is not isolated.
    pub rules: [Vec<Rule>; 2],
    /// What of it could not be understood, and matches nothing therefore.
    pub problems: Vec<String>,
}

impl Policy {
    /// Whether it isolates its pods in this direction.
    #[must_use]
    pub fn isolates(&self, direction: Direction) -> bool {
        self.isolates[direction as usize]
    }

    /// The rules of a direction.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> &[Rule] {
        &self.rules[direction as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile::network_policy;

    fn policy(name: &str, types: &str) -> Policy {
        let yaml = format!(
            "{{metadata: {{namespace: shop, name: {name}}}, spec: {{podSelector: {{}}, policyTypes: \
             {types}}}}}"
        );
        network_policy(&serde_norway::from_str(&yaml).unwrap())
    }

    #[test]
    fn a_policy_isolates_in_the_directions_that_it_names() {
        let isolates = |types| Direction::BOTH.map(|one| policy("p", types).isolates(one));
        assert_eq!(isolates("[Ingress]"), [true, false]);
        assert_eq!(isolates("[Egress]"), [false, true]);
        assert_eq!(isolates("[Ingress, Egress]"), [true, true]);
    }

    #[test]
    fn a_scope_says_whether_peers_and_which_whole_protocols_are_named() {
        let scope = |rule: &str| {
            let yaml = format!(
                "{{metadata: {{namespace: shop, name: p}}, spec: {{podSelector: {{}}, ingress: \
                 [{rule}]}}}}"
            );
            let policy = network_policy(&serde_norway::from_str(&yaml).unwrap());
            policy.rules(Direction::Ingress)[0].scope()
        };
        let any = Scope { peers: false, ports: PortScope::Any };
        assert_eq!(scope("{}"), any);
        assert_eq!(scope("{from: [{podSelector: {}}]}"), Scope { peers: true, ..any });
        for (ports, whole) in [
            ("{port: 80}", [false; 3]),
            ("{}", [true, false, false]),
            ("{protocol: UDP}, {port: 80}", [false, true, false]),
            ("{protocol: SCTP}, {}", [true, false, true]),
        ] {
            let listed = Scope { ports: PortScope::Listed(whole), ..any };
            assert_eq!(scope(&format!("{{ports: [{ports}]}}")), listed, "{ports}");
        }
    }

    #[test]
    fn policies_that_isolate_keep_their_order_and_names() {
        let isolating = Isolating::from_iter(["b", "a"].map(|name| Arc::new(policy(name, "[]"))));
        let names: Vec<_> = isolating.iter().map(|key| &*key.name).collect();
        assert_eq!(names, ["b", "a"]);
        assert_eq!(isolating.policies().len(), 2);
    }
}
