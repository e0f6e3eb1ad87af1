//! One probe, three answers: the reference's, that of the tables as they are read here, and what the
//! kernel did and told.

use std::fmt;

use enforcer::cluster::KernelState;
use enforcer_common::{
    abi::{ACTION_ALLOW, RuleId, rule},
    reason::Reason,
};
use enforcer_reference::{Cluster, Direction, Outcome, Pod};

use super::{
    probe::Probe,
    rig::{Seen, of},
    writer::Writer,
};
use crate::lab::{DROP, PASS};

/// What the tables say, read in userspace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Read {
    /// The interface has no endpoint.
    Nothing,
    NotIsolated,
    Allowed(RuleId),
    Denied(RuleId),
}

/// Answers that differ.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    pub(crate) probe: Probe,
    /// What was expected.
    pub(crate) expected: Outcome,
    /// What came instead.
    pub(crate) found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { probe, expected, found } = self;
        // For who reads a test's failure.
        let (packet, expected) = (format!("{:?}", probe.packet), format!("{expected:?}"));
        write!(f, "local{}: {packet}\nexpected: {expected}\nfound: {found}", probe.slot)
    }
}

/// The local pod in a slot.
pub(crate) fn subject(cluster: &Cluster, slot: usize) -> Option<&Pod> {
    let name = format!("local{slot}");
    cluster.pods.iter().find(|pod| pod.name.name == name)
}

/// Holds the tables against a cluster, and the kernel if it was asked. `state` is what the maps hold.
pub(crate) fn compare(
    writer: &Writer,
    cluster: &Cluster,
    state: &KernelState,
    probe: &Probe,
    seen: Option<&Seen>,
) -> Option<Difference> {
    let subject = subject(cluster, probe.slot)?;
    let expected = cluster.outcome(subject, &probe.packet);
    let found = wrong_table(writer, cluster, state, probe, &expected)
        .or_else(|| wrong_packet(writer, &expected, seen?))?;
    Some(Difference { probe: *probe, expected, found })
}

fn wrong_table(
    writer: &Writer,
    cluster: &Cluster,
    state: &KernelState,
    probe: &Probe,
    expected: &Outcome,
) -> Option<String> {
    let read = read(writer, cluster, state, probe);
    let right = match expected {
        Outcome::NotIsolated => read == Read::NotIsolated || to_service(cluster, probe),
        Outcome::Denied => read == Read::Denied(rule::DEFAULT_DENY),
        Outcome::Allowed(rules) => {
            let named = |number| writer.rule(number).is_some_and(|rule| rules.contains(rule));
            matches!(read, Read::Allowed(number) if named(number))
        }
        // Not asked of a table, or of more than one of its rows.
        Outcome::FromNode
        | Outcome::Hairpin
        | Outcome::Pending
        | Outcome::PendingOrDenied
        | Outcome::Spoofed => true,
    };
    (!right).then(|| format!("the tables say {read:?}, a rule {:?}", rule_of(writer, read)))
}

fn to_service(cluster: &Cluster, probe: &Probe) -> bool {
    cluster.services.iter().any(|service| service.address == probe.packet.destination)
}

fn rule_of(writer: &Writer, read: Read) -> Option<&enforcer_reference::Rule> {
    match read {
        Read::Allowed(number) | Read::Denied(number) => writer.rule(number),
        Read::Nothing | Read::NotIsolated => None,
    }
}

fn read(writer: &Writer, cluster: &Cluster, state: &KernelState, probe: &Probe) -> Read {
    let packet = &probe.packet;
    let Some(endpoint) = state.endpoints.get(&writer.ifindex(probe.slot)) else {
        return Read::Nothing;
    };
    let direction = of(packet.direction);
    if !endpoint.isolated[direction as usize] {
        return Read::NotIsolated;
    }
    let other = packet.other();
    let hidden = packet.direction == Direction::Ingress && cluster.node.contains(&other);
    let class = if hidden { state.class_by_prefix(other) } else { state.class(other) };
    match state.interval(endpoint.table, direction, class, (packet.protocol, packet.port)) {
        Some(interval) if interval.action == ACTION_ALLOW => Read::Allowed(interval.rule),
        Some(interval) => Read::Denied(interval.rule),
        None => Read::Nothing,
    }
}

fn wrong_packet(writer: &Writer, expected: &Outcome, seen: &Seen) -> Option<String> {
    let Some(event) = seen.told else { return Some(format!("{}, nothing told", code(seen))) };
    let reason = Reason::from_u8(event.reason);
    let is = |wanted: Reason, rule: Option<RuleId>| {
        let wanted_code = if wanted.is_drop() { DROP } else { PASS };
        seen.code == wanted_code
            && reason == Some(wanted)
            && rule.is_none_or(|rule| rule == event.rule)
    };
    let denied = is(Reason::PolicyDenied, Some(rule::DEFAULT_DENY));
    let right = match expected {
        Outcome::NotIsolated => is(Reason::NotIsolated, Some(rule::NOT_ISOLATED)),
        Outcome::Allowed(rules) => {
            let named = writer.rule(event.rule).is_some_and(|rule| rules.contains(rule));
            is(Reason::Allowed, None) && named
        }
        Outcome::FromNode => is(Reason::FromNode, Some(rule::FROM_NODE)),
        Outcome::Hairpin => is(Reason::Hairpin, Some(rule::HAIRPIN)),
        Outcome::Pending => is(Reason::Pending, None),
        Outcome::PendingOrDenied => is(Reason::Pending, None) || denied,
        Outcome::Denied => denied,
        Outcome::Spoofed => is(Reason::SpoofedSource, None),
    };
    let rule = writer.rule(event.rule);
    (!right).then(|| format!("{}, {reason:?}, rule {} {rule:?}", code(seen), event.rule))
}

fn code(seen: &Seen) -> String {
    match seen.code {
        PASS => "passed".to_owned(),
        DROP => "dropped".to_owned(),
        other => format!("code {other}"),
    }
}
