//! What workloads of this node send and receive, and how far away those are that they talk to.

use std::collections::HashSet;

use enforcer_common::abi::Direction;
use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::Registry,
};

use super::{
    context::{Owner, Value, workload_name},
    table::Table,
};
use crate::flow::{decode::EventKind, event::Flow};

/// 50 us to 5 s: from a neighbour on the node to a bad line around the world.
const ROUND_TRIP: [f64; 14] = [
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
];

/// Counts flows that are over, by the workload whose interface they used.
#[derive(Debug)]
pub(super) struct Traffic {
    bytes: Table<Counter>,
    packets: Table<Counter>,
    round_trip: Table<Histogram>,
}

impl Traffic {
    pub(super) fn register(registry: &mut Registry, most: usize, overflown: &Counter) -> Self {
        let both = || vec!["namespace", "workload", "way"];
        let counter = |names| Table::new(names, most, overflown.clone(), Counter::default);
        let round_trip = || Histogram::new(ROUND_TRIP);
        let names = vec!["namespace", "workload"];
        let this = Self {
            bytes: counter(both()),
            packets: counter(both()),
            round_trip: Table::new(names, most, overflown.clone(), round_trip),
        };
        let help = "Bytes of IP packets of flows that are over, by workload of this node";
        registry.register("workload_bytes", help, this.bytes.shown());
        let help = "Packets of flows that are over, by workload of this node";
        registry.register("workload_packets", help, this.packets.shown());
        let help = "How long TCP's handshake took to its first answer, by workload of this node";
        registry.register("workload_tcp_handshake_seconds", help, this.round_trip.shown());
        this
    }

    pub(super) fn look(&mut self, flow: &Flow) {
        let raw = &flow.raw;
        // The first answer comes against the flow, a close tells of it in its own direction.
        let own = match raw.direction {
            Some(Direction::Egress) => &flow.source,
            Some(Direction::Ingress) => &flow.destination,
            None => return,
        };
        let Some(pod) = own.as_deref() else { return };
        let (namespace, name) = (pod.key.namespace.clone(), workload_name(pod));
        let owner = || [Some(Owner::Workload(namespace.clone(), name.clone())), None];
        let whose = [&namespace, &name].map(|name| Value::Name(name.clone()));
        if raw.kind == EventKind::Trace
            && let Some(took) = raw.rtt
        {
            let took = took.as_secs_f64();
            self.round_trip.with(&mut whose.clone(), 0, owner, |rtt| rtt.observe(took));
        }
        let Some(totals) = &raw.totals else { return };
        let (sent, received) = match raw.direction {
            Some(Direction::Egress) => (totals.origin, totals.reply),
            _ => (totals.reply, totals.origin),
        };
        let [namespace, name] = whose;
        for (way, traffic) in [("sent", sent), ("received", received)] {
            let mut values = [namespace.clone(), name.clone(), Value::Word(way)];
            self.bytes.with(&mut values.clone(), 0, owner, |bytes| {
                bytes.inc_by(traffic.bytes);
            });
            self.packets.with(&mut values, 0, owner, |packets| {
                packets.inc_by(traffic.packets);
            });
        }
    }

    pub(super) fn keep(&mut self, living: &HashSet<Owner>) {
        self.bytes.keep(living);
        self.packets.keep(living);
        self.round_trip.keep(living);
    }
}
