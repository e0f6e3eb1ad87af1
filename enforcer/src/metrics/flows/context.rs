//! What a flow says for a label, and for how long there is a reason to say it.

use std::{fmt, net::IpAddr, sync::Arc};

use enforcer_common::abi::Direction;

use super::config::{Label, Part, Side};
use crate::{
    cluster::plan::PodIdentity,
    flow::{
        directory::Place,
        event::{Flow, connection_direction},
        names::Icmp,
    },
};

/// A label's value. Made and compared without taking memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Value {
    Word(&'static str),
    Number(u16),
    Ip(IpAddr),
    Icmp(Icmp),
    Name(Arc<str>),
    Path(Arc<str>, Arc<str>),
}

impl Value {
    /// Nothing is known.
    pub(super) const NONE: Self = Self::Word("");
    /// There were too many to tell apart.
    pub(super) const OVERFLOW: Self = Self::Word("overflow");
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word),
            Self::Number(number) => number.fmt(f),
            Self::Ip(address) => address.fmt(f),
            Self::Icmp(message) => message.fmt(f),
            Self::Name(name) => f.write_str(name),
            Self::Path(namespace, name) => write!(f, "{namespace}/{name}"),
        }
    }
}

/// A series is shown as long as who it is about is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    Namespace(Arc<str>),
    Workload(Arc<str>, Arc<str>),
    Pod(Arc<str>, Arc<str>),
}

impl Owner {
    /// Whom this pod keeps alive.
    pub(super) fn of(pod: &PodIdentity) -> [Self; 3] {
        let namespace = || Arc::clone(&pod.key.namespace);
        [
            Self::Namespace(namespace()),
            Self::Workload(namespace(), workload_name(pod)),
            Self::Pod(namespace(), Arc::clone(&pod.key.name)),
        ]
    }
}

/// The name of what a pod is part of; its own until that is known.
pub(super) fn workload_name(pod: &PodIdentity) -> Arc<str> {
    Arc::clone(pod.workload.as_ref().map_or(&pod.key.name, |workload| &workload.name))
}

/// The end of a flow that is a pod.
pub(super) fn pod(flow: &Flow, side: Side) -> Option<&PodIdentity> {
    match side {
        Side::Source => flow.source.as_deref(),
        Side::Destination => flow.destination.as_deref(),
    }
}

/// Whether the end is something outside of the cluster.
pub(super) fn is_world(flow: &Flow, side: Side) -> bool {
    let (place, address) = place(flow, side);
    let through_service = side == Side::Destination && flow.service.is_some();
    pod(flow, side).is_none() && place.is_none() && address.is_some() && !through_service
}

fn place(flow: &Flow, side: Side) -> (Option<&Place>, Option<IpAddr>) {
    match side {
        Side::Source => (flow.source_place.as_ref(), flow.raw.src),
        Side::Destination => (flow.destination_place.as_ref(), flow.raw.dst),
    }
}

impl Label {
    /// What the label says of a flow, told on node `node`.
    pub(super) fn value(&self, flow: &Flow, node: &str) -> Value {
        let direction = connection_direction(&flow.raw).unwrap_or(Direction::Ingress);
        let parts = self.parts[direction as usize].iter();
        parts
            .filter_map(|part| part_value(*part, flow, self.side, node))
            .next()
            .unwrap_or(Value::NONE)
    }
}

fn part_value(part: Part, flow: &Flow, side: Side, node: &str) -> Option<Value> {
    if part == Part::Direction {
        return connection_direction(&flow.raw).map(|direction| Value::Word(word(direction)));
    }
    if part == Part::Ip {
        return place(flow, side).1.map(Value::Ip);
    }
    let pod = pod(flow, side);
    if part == Part::Reserved {
        return pod.is_none().then(|| reserved(flow, side, node)).flatten().map(Value::Word);
    }
    let pod = pod?;
    let namespace = || Arc::clone(&pod.key.namespace);
    Some(match part {
        Part::Namespace => Value::Name(namespace()),
        Part::Pod => Value::Path(namespace(), Arc::clone(&pod.key.name)),
        Part::PodName => Value::Name(Arc::clone(&pod.key.name)),
        Part::Workload => Value::Path(namespace(), workload_name(pod)),
        Part::WorkloadName => Value::Name(workload_name(pod)),
        Part::WorkloadKind => Value::Name(Arc::clone(&pod.workload.as_ref()?.kind)),
        Part::Direction | Part::Ip | Part::Reserved => return None,
    })
}

/// The word of a direction in labels.
pub(super) const fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

fn reserved(flow: &Flow, side: Side, node: &str) -> Option<&'static str> {
    let (place, address) = place(flow, side);
    let through = flow.service.as_ref().filter(|_| side == Side::Destination);
    let service = match place {
        Some(Place::Service(key)) => Some(key),
        _ => through,
    };
    if let Some(key) = service {
        let is_api_server = (&*key.namespace, &*key.name) == ("default", "kubernetes");
        return Some(if is_api_server { "reserved:kube-apiserver" } else { "reserved:unknown" });
    }
    match place {
        Some(Place::Node(name)) if **name == *node => Some("reserved:host"),
        Some(Place::Node(_)) => Some("reserved:remote-node"),
        _ => address.map(|_| "reserved:world"),
    }
}

/// Who must be there for a series with these labels to be shown, for both ends.
pub(super) fn owners(labels: &[Label], flow: &Flow) -> [Option<Owner>; 2] {
    [Side::Source, Side::Destination].map(|side| {
        let parts = labels.iter().filter(|label| label.side == side).flat_map(|l| &l.parts);
        let finest = parts.flatten().filter_map(|part| match part {
            Part::Namespace => Some(0),
            Part::Workload | Part::WorkloadName | Part::WorkloadKind => Some(1),
            Part::Pod | Part::PodName | Part::Ip => Some(2),
            Part::Reserved | Part::Direction => None,
        });
        let finest: usize = finest.max()?;
        Owner::of(pod(flow, side)?).into_iter().nth(finest)
    })
}
