//! By what of a packet its verdict was found, as Cilium classes it.

use enforcer_common::reason::Reason;

use super::{
    decode::ReasonCode,
    event::{DecidedBy, Flow},
    names::proto,
};
use crate::{
    cluster::event::Protocol,
    policy::rule::{PortScope, Scope},
};

/// By what a verdict was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched {
    /// No rule matched.
    None,
    /// Who the other end is.
    Peer,
    /// That, and the port.
    PeerAndPort,
    /// The port.
    Port,
    /// Everything may pass.
    All,
    /// Who the other end is, and the protocol.
    PeerAndProtocol,
    /// The protocol.
    Protocol,
}

impl Matched {
    /// By what the verdict of this flow was found.
    #[must_use]
    pub fn of(flow: &Flow) -> Self {
        match (&flow.decided_by, flow.raw.reason) {
            (DecidedBy::Rule(rule), _) => Self::by(rule.scope, flow.raw.proto),
            (_, ReasonCode::Known(Reason::NotIsolated | Reason::PassedUnparsed)) => Self::All,
            (_, ReasonCode::Known(Reason::FromNode | Reason::Hairpin)) => Self::Peer,
            _ => Self::None,
        }
    }

    /// By what a rule of this scope matches a packet of this protocol.
    fn by(scope: Scope, protocol: u8) -> Self {
        let whole = match scope.ports {
            PortScope::Any => return if scope.peers { Self::Peer } else { Self::All },
            PortScope::Listed(whole) => match protocol {
                proto::TCP => whole[Protocol::Tcp as usize],
                proto::UDP => whole[Protocol::Udp as usize],
                proto::SCTP => whole[Protocol::Sctp as usize],
                _ => false,
            },
        };
        match (scope.peers, whole) {
            (true, false) => Self::PeerAndPort,
            (true, true) => Self::PeerAndProtocol,
            (false, false) => Self::Port,
            (false, true) => Self::Protocol,
        }
    }

    /// Cilium's number, as flows have it.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Peer => 1,
            Self::PeerAndPort => 2,
            Self::Port => 3,
            Self::All => 4,
            Self::PeerAndProtocol => 5,
            Self::Protocol => 6,
        }
    }

    /// Cilium's word, as metrics have it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Peer => "l3-only",
            Self::PeerAndPort => "l3-l4",
            Self::Port => "l4-only",
            Self::All => "all",
            Self::PeerAndProtocol => "l3-proto",
            Self::Protocol => "proto-only",
        }
    }
}

#[cfg(test)]
mod tests {
    use enforcer_common::abi::Direction;

    use super::*;
    use crate::flow::event::tests::policy;

    #[test]
    fn a_rule_matches_by_what_it_asks_for() {
        let matched = |rule: &str, protocol| {
            let spec = format!("podSelector: {{}}, ingress: [{{{rule}}}]");
            let policy = policy("shop", "p", &spec);
            Matched::by(policy.rules(Direction::Ingress)[0].scope(), protocol).word()
        };
        let from = "from: [{podSelector: {}}]";
        assert_eq!(matched("", proto::TCP), "all");
        assert_eq!(matched(from, proto::ICMP), "l3-only");
        assert_eq!(matched("from: [{ipBlock: {cidr: 10.0.0.0/8}}]", proto::TCP), "l3-only");
        assert_eq!(matched("ports: [{port: 80}]", proto::TCP), "l4-only");
        assert_eq!(matched("ports: [{port: web}]", proto::TCP), "l4-only");
        assert_eq!(matched("ports: [{protocol: SCTP}]", proto::SCTP), "proto-only");
        assert_eq!(matched(&format!("{from}, ports: [{{port: 80, endPort: 90}}]"), 6), "l3-l4");
        // One rule, by the protocol.
        let both = format!("{from}, ports: [{{protocol: TCP}}, {{protocol: UDP, port: 53}}]");
        assert_eq!(matched(&both, proto::TCP), "l3-proto");
        assert_eq!(matched(&both, proto::UDP), "l3-l4");
    }
}
