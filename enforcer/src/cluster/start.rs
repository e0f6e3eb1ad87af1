//! What a pod may do before its policy is in force.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    binding::Binding,
    compose::{Composition, compose},
    event::{ObjectKey, Protocol, StartPolicy},
    index::Index,
    table::Content,
};
use crate::policy::{
    peer::{IpBlock, Peer},
    rule::{Action, Peers, Policy, Port, PortMatch, Ports, Rule},
};

/// Where names are asked for (RFC 1035, 4.2).
const DNS_PORT: u16 = 53;

/// The name under which flows show what is allowed before a policy is in force.
const NAME: &str = "closed-except-dns";

/// [`StartPolicy`] as the index uses it.
#[derive(Debug, Default)]
pub(super) struct Start {
    pub(super) policy: StartPolicy,
    /// What is allowed all the same.
    except: Option<Arc<Policy>>,
}

impl Start {
    pub(super) fn new(policy: StartPolicy) -> Self {
        let except = match &policy {
            StartPolicy::ClosedExceptDns(addresses) if !addresses.is_empty() => {
                Some(Arc::new(dns_only(addresses)))
            }
            StartPolicy::Open | StartPolicy::Closed | StartPolicy::ClosedExceptDns(_) => None,
        };
        Self { policy, except }
    }

    /// Whether a younger interface is armed before its pod is known.
    pub(super) fn closes(&self) -> bool {
        self.policy != StartPolicy::Open
    }
}

impl Index {
    /// The table of a pod whose policy is not in force yet.
    pub(super) fn start_content(&mut self) -> Content {
        let Some(except) = self.start.except.clone() else { return Content::closed() };
        let (atoms, rules) = (&mut self.atoms, &mut self.rules);
        compose(&[except], &mut Composition { atoms, rules, ports: &[] })
    }

    pub(super) fn set_start(&mut self, policy: StartPolicy) {
        if self.start.policy == policy {
            return;
        }
        self.start = Start::new(policy);
        for (ifindex, entry) in &self.interfaces.entries {
            if matches!(entry.binding, Binding::Starting { .. }) {
                self.dirty.endpoints.insert(*ifindex);
            }
        }
    }
}

fn dns_only(addresses: &[IpAddr]) -> Policy {
    let block = |address: &IpAddr| IpBlock::new(IpNet::from(address.to_canonical()), []);
    let peers = addresses.iter().filter_map(block).map(|block| Arc::new(Peer::Block(block)));
    let port = |protocol| PortMatch { protocol, port: Port::Range(DNS_PORT, DNS_PORT) };
    let rule = Rule {
        index: 0,
        action: Action::Allow,
        peers: Peers::Of(peers.collect()),
        ports: Ports::Of(vec![port(Protocol::Udp), port(Protocol::Tcp)]),
    };
    Policy {
        key: ObjectKey { namespace: "".into(), name: NAME.into() },
        subject: None,
        isolates: [true, true],
        rules: [Vec::new(), vec![rule]],
        problems: Vec::new(),
    }
}
