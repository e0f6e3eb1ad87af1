//! The policies of one pod put together: the content of its table.

use std::sync::Arc;

use enforcer_common::abi::Direction;

use super::{
    atom::{Atom, AtomId, Atoms},
    event::NamedPort,
    rules::Rules,
    table::{Content, TablePorts, TableRule},
};
use crate::policy::{
    peer::Peer,
    row::KeyRange,
    rule::{Peers, Policy, Port, Ports, Rule},
};

/// Where the parts of a table get their numbers, and the pod that it is for.
pub(super) struct Composition<'a> {
    pub(super) atoms: &'a mut Atoms,
    pub(super) rules: &'a mut Rules,
    /// The pod's own named ports: what names in ingress rules mean.
    pub(super) ports: &'a [NamedPort],
}

/// The content of a table for a pod that is the subject of these policies, in their order.
pub(super) fn compose(policies: &[Arc<Policy>], with: &mut Composition<'_>) -> Content {
    Content(Direction::BOTH.map(|direction| {
        let mut isolating = policies.iter().filter(|policy| policy.isolates(direction)).peekable();
        isolating.peek()?;
        let mut rules = Vec::new();
        for policy in isolating {
            for rule in policy.rules(direction) {
                // A rule that matches nothing keeps no table apart from one without it.
                if rule.peers == Peers::Of(Vec::new()) {
                    continue;
                }
                let Some(ports) = with.ports(direction, rule) else { continue };
                let peers = match &rule.peers {
                    Peers::Any => None,
                    Peers::Of(peers) => Some(with.peers(peers)),
                };
                let id = with.rules.intern(&policy.key, direction, rule);
                rules.push(TableRule { rule: id, action: rule.action, peers, ports });
            }
        }
        Some(rules)
    }))
}

impl Composition<'_> {
    fn peers(&mut self, peers: &[Arc<Peer>]) -> Vec<AtomId> {
        let mut ids: Vec<_> =
            peers.iter().map(|peer| self.atoms.intern(&Atom::Peer(Arc::clone(peer)))).collect();
        ids.sort_unstable();
        ids
    }

    /// What the rule covers; `None` if nothing can match.
    fn ports(&mut self, direction: Direction, rule: &Rule) -> Option<TablePorts> {
        let Ports::Of(list) = &rule.ports else { return Some(TablePorts::Any) };
        let (mut ranges, mut names) = (Vec::new(), Vec::new());
        for port in list {
            match (&port.port, direction) {
                (Port::Range(first, last), _) => {
                    ranges.push(KeyRange::ports(port.protocol, *first, *last));
                }
                // A name means the destination's port: this pod's, or the other address's.
                (Port::Named(name), Direction::Ingress) => {
                    let own = self.ports.iter();
                    let own = own.filter(|own| own.name == *name && own.protocol == port.protocol);
                    ranges.extend(
                        own.map(|own| KeyRange::ports(own.protocol, own.number, own.number)),
                    );
                }
                (Port::Named(name), Direction::Egress) => {
                    names.push((port.protocol, Arc::clone(name)));
                }
            }
        }
        if ranges.is_empty() && names.is_empty() {
            return None;
        }
        ranges.sort_unstable();
        ranges.dedup();
        let mut names: Vec<_> = names
            .into_iter()
            .map(|(protocol, name)| (protocol, self.atoms.intern(&Atom::PortName(protocol, name))))
            .collect();
        names.sort_unstable();
        Some(TablePorts::Of(ranges, names))
    }
}
