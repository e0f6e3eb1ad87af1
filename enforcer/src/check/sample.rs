//! A verdict of the kernel as far as the reference can judge it.

use std::{fmt, net::IpAddr};

use enforcer_common::{abi::Direction, reason::Reason, verdict::proto};
use enforcer_reference::{Packet, Rule};

use super::convert;
use crate::{
    cluster::event::ObjectKey,
    flow::{
        decode::{EventKind, ReasonCode},
        directory::Place,
        event::{DecidedBy, Flow},
    },
};

/// What the kernel judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When (`CLOCK_MONOTONIC`, ns).
    pub time: u64,
    /// The pod at whose interface.
    pub subject: ObjectKey,
    /// Its UID.
    pub uid: String,
    /// The pod at the other end, as flows name it; policy selects it by that.
    pub peer: Option<ObjectKey>,
    /// Direction as seen from the pod.
    pub direction: Direction,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port, 0 where the protocol has none.
    pub port: u16,
    /// The verdict: allowed, not isolated or denied.
    pub reason: Reason,
    /// The rule that the kernel named.
    pub rule: Option<Rule>,
}

impl Sample {
    /// A flow's first packet that policy alone decided about, by the addresses that it carries. All
    /// else is the hook's business: replies, what the node sends, what is translated on its way.
    #[must_use]
    pub fn of(flow: &Flow) -> Option<Self> {
        let raw = &flow.raw;
        let ReasonCode::Known(
            reason @ (Reason::Allowed | Reason::NotIsolated | Reason::PolicyDenied),
        ) = raw.reason
        else {
            return None;
        };
        let is_first = raw.kind == EventKind::Verdict && !raw.reply && !raw.revoked;
        let is_plain = !raw.masqueraded && !raw.translated && raw.spared.is_none();
        // An interface without a name is of no pod that is known.
        if !is_first || !is_plain || flow.interface.is_none() || flow.service.is_some() {
            return None;
        }
        let direction = raw.direction?;
        let (own, peer, other) = match direction {
            Direction::Ingress => (&flow.destination, &flow.source, &flow.source_place),
            Direction::Egress => (&flow.source, &flow.destination, &flow.destination_place),
        };
        // Virtual addresses and node ports are judged for their backends.
        if direction == Direction::Egress
            && matches!(other, Some(Place::Service(_) | Place::Node(_)))
        {
            return None;
        }
        let own = own.as_ref()?;
        let rule = match &flow.decided_by {
            DecidedBy::Rule(rule) => Some(Rule {
                policy: convert::name(&rule.policy),
                direction: convert::direction(rule.direction),
                index: usize::try_from(rule.index).ok()?,
            }),
            DecidedBy::Nothing | DecidedBy::Isolation(_) => None,
        };
        let has_ports = matches!(raw.proto, proto::TCP | proto::UDP | proto::SCTP);
        Some(Self {
            time: raw.time,
            subject: own.key.clone(),
            uid: own.uid.to_string(),
            peer: peer.as_ref().map(|pod| pod.key.clone()),
            direction,
            source: raw.src?,
            destination: raw.dst?,
            protocol: raw.proto,
            port: if has_ports { raw.dst_port } else { 0 },
            reason,
            rule,
        })
    }

    /// The packet for the reference.
    pub(super) fn packet(&self) -> Packet {
        Packet {
            direction: convert::direction(self.direction),
            source: self.source,
            destination: self.destination,
            protocol: self.protocol,
            port: self.port,
            by_node: false,
        }
    }

    /// The address that is not the pod's.
    pub(super) fn other(&self) -> IpAddr {
        match self.direction {
            Direction::Ingress => self.source,
            Direction::Egress => self.destination,
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, source, destination, protocol, port, reason, .. } = self;
        let direction = match self.direction {
            Direction::Ingress => "to",
            Direction::Egress => "from",
        };
        let ObjectKey { namespace, name } = subject;
        write!(
            f,
            "packet {direction} {namespace}/{name}, {source} -> {destination}, protocol \
             {protocol}, port {port}: the kernel says {}",
            reason.name()
        )?;
        match &self.rule {
            Some(Rule { policy, index, .. }) => {
                write!(f, " by {}/{} rule {index}", policy.namespace, policy.name)
            }
            None => Ok(()),
        }
    }
}
