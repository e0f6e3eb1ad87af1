//! One size, in a process of its own: what it takes is its own, and not what a size before left.

use std::fs;

use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::{
    AnyError,
    cluster::{Cluster, Shape},
    counting::{Cost, held},
    events::{self, Kind},
    node::{Done, Node},
    tell,
};
use crate::table::Samples;

/// What one size came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) pods: u32,
    pub(crate) policies: usize,
    pub(crate) services: usize,
    pub(crate) local: usize,
    /// The first list taken in, and the plan.
    pub(crate) plan: Cost,
    /// Its names given to who names flows.
    pub(crate) name: Cost,
    /// The plan into the kernel's maps, programs attached.
    pub(crate) write: Cost,
    pub(crate) entries: usize,
    pub(crate) classes: usize,
    pub(crate) tables: usize,
    /// Memory that the index and the names hold afterwards, MiB.
    pub(crate) held: f64,
    /// Resident memory of the process at its most, the generated cluster included, MiB.
    pub(crate) peak: f64,
    pub(crate) events: Vec<OneEvent>,
}

/// What an event costs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OneEvent {
    pub(crate) name: String,
    /// Taking it in and planning, processor time, µs.
    pub(crate) plan: Spread,
    /// Writing, time, µs.
    pub(crate) write: Spread,
    /// Allocations, of taking it in and planning.
    pub(crate) allocations: Spread,
    /// Operations on maps.
    pub(crate) entries: Spread,
    /// All samples of the first, for the table.
    pub(crate) samples: Vec<f64>,
}

/// Of many.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) p99: f64,
    pub(crate) worst: f64,
}

fn spread(samples: &[f64]) -> Spread {
    let samples: Samples = samples.iter().copied().collect();
    Spread { median: samples.median(), p99: samples.quantile(0.99), worst: samples.quantile(1.0) }
}

/// Measures a size, in a network namespace that is made for it.
pub(super) fn measure(pods: u32) -> Result<Size, AnyError> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let shape = Shape::of(pods);
    let cluster = Cluster::new(shape);
    let mut node = Node::new()?;
    node.wire(cluster.local())?;
    let before = held();
    let first = node.take(tell::first(&cluster)?)?;
    let held = (held() - before) as f64 / MIB;
    let counts = node.index.status().counts;
    let mut each = Vec::new();
    for kind in Kind::ALL {
        each.push(event(kind, &events::run(&mut node, &cluster, kind)?));
    }
    let Done { plan, write, name, entries, .. } = first;
    Ok(Size {
        pods,
        policies: cluster.policies.len(),
        services: cluster.services.len(),
        local: cluster.local().count(),
        plan,
        name,
        write,
        entries,
        classes: counts.classes,
        tables: counts.tables,
        held,
        peak: peak(),
        events: each,
    })
}

fn event(kind: Kind, done: &[Done]) -> OneEvent {
    let of = |what: fn(&Done) -> f64| done.iter().map(what).collect::<Vec<_>>();
    let samples = of(|done| done.plan.cpu * 1e3);
    OneEvent {
        name: kind.name().to_owned(),
        plan: spread(&samples),
        write: spread(&of(|done| done.write.wall * 1e3)),
        allocations: spread(&of(|done| done.plan.allocations as f64)),
        entries: spread(&of(|done| done.entries as f64)),
        samples,
    }
}

const MIB: f64 = 1024.0 * 1024.0;

/// The most that was resident at a time, MiB.
fn peak() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    mebibytes(&status, "VmHWM:").unwrap_or(f64::NAN)
}

/// A line of a process's status, which is in KiB, in MiB.
pub(super) fn mebibytes(status: &str, name: &str) -> Option<f64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    let number: f64 = value.trim().split(' ').next()?.parse().ok()?;
    Some(number / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_status() {
        assert_eq!(mebibytes("Name:\tx\nVmHWM:\t  2048 kB\n", "VmHWM:"), Some(2.0));
        assert_eq!(mebibytes("Name:\tx\n", "VmHWM:"), None);
        assert!(peak() > 0.1);
    }

    #[test]
    fn a_spread_names_the_middle_and_the_ends() {
        let spread = spread(&(1..=201).map(f64::from).collect::<Vec<_>>());
        assert_eq!((spread.median, spread.p99, spread.worst), (101.0, 199.0, 201.0));
    }
}
