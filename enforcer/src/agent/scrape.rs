//! The numbers of this moment, as scrapers get them.

use std::time::Duration;

use enforcer_common::{
    abi::{self, Direction, Spared, counter_index},
    reason::Reason,
};
use jiff::Timestamp;

use super::{api::EndpointState, core::Core, report, service_gaps};
use crate::{
    metrics::{
        EndpointCounts, KernelSnapshot, MapUse, PacketCount, ResourceCount, Snapshot, SourceState,
        StateSnapshot, Verdict,
    },
    source::report::{SourceKind, SourceReport, SourceState as Source},
};

/// Kinds of objects, as the source's watches name them.
const RESOURCES: [&str; 7] =
    ["pods", "local pods", "namespaces", "networkpolicies", "nodes", "services", "endpointslices"];
/// Maps, as the status names them.
const MAPS: [&str; 9] = [
    abi::MAP_ENDPOINTS,
    abi::MAP_NODE_ADDRS,
    abi::MAP_PEERS,
    "CIDRS",
    abi::MAP_SERVICES,
    abi::MAP_ROWS,
    abi::MAP_INTERVALS,
    "CT (half-open)",
    "CT (established)",
];

/// Everything that is asked for at a scrape.
pub(super) fn snapshot(core: &Core) -> Snapshot {
    Snapshot { kernel: kernel(core), state: state(core) }
}

fn kernel(core: &Core) -> KernelSnapshot {
    let maps = report::maps(core);
    let lost = core.kernel.lost().unwrap_or_default();
    let untold = core.kernel.untold().unwrap_or_default();
    KernelSnapshot {
        packets: packets(core),
        maps: MAPS
            .into_iter()
            .filter_map(|map| {
                let found = maps.iter().find(|report| report.name == map)?;
                Some(MapUse { map, entries: found.entries, max_entries: found.max })
            })
            .collect(),
        lost_verdict_events: lost[0],
        lost_trace_events: lost[1],
        untold_verdict_events: untold[0],
        untold_trace_events: untold[1],
    }
}

fn packets(core: &Core) -> Vec<PacketCount> {
    let counters = core.kernel.counters().unwrap_or_default();
    let mut packets = Vec::new();
    for reason in Reason::ALL.iter().copied() {
        let verdict = if reason.is_drop() { Verdict::Dropped } else { Verdict::Forwarded };
        for direction in Direction::BOTH {
            let counter = counters.get(counter_index(reason as u8, direction) as usize);
            let count = counter.copied().unwrap_or(0);
            if count > 0 && verdict.counts(reason) {
                packets.push(PacketCount { verdict, reason, direction, packets: count });
            }
            for (spared, verdict) in
                [(Spared::Audit, Verdict::Audited), (Spared::Disabled, Verdict::Disabled)]
            {
                let index = spared.counter_index(reason as u8, direction);
                let count = counters.get(index as usize).copied().unwrap_or(0);
                if count > 0 && verdict.counts(reason) {
                    packets.push(PacketCount { verdict, reason, direction, packets: count });
                }
            }
        }
    }
    packets
}

fn state(core: &Core) -> StateSnapshot {
    let mut counts = EndpointCounts::default();
    for endpoint in report::endpoints(core) {
        match endpoint.state {
            EndpointState::Enforced if endpoint.disabled_until.is_some() => counts.disabled += 1,
            EndpointState::Enforced if endpoint.audit => counts.audited += 1,
            EndpointState::Enforced => counts.enforced += 1,
            EndpointState::Closed => counts.closed += 1,
            EndpointState::Locked => counts.locked += 1,
        }
    }
    StateSnapshot {
        revision: core.revision,
        endpoints: counts,
        source: source(&core.source.report()),
        interfaces_not_enforced: report::not_enforced(core).len() as u64,
        problems: core.problems.len() as u64,
        service_gaps: service_gaps::counts(core),
        rivals: core.rivals.iter().filter(|rival| rival.enforces).map(|rival| rival.name).collect(),
    }
}

fn source(report: &SourceReport) -> SourceState {
    let contact = report.watches.iter().filter_map(|watch| watch.contact.as_deref()).max();
    let since = contact.and_then(|text| text.parse::<Timestamp>().ok()).map(|then| {
        let since = Timestamp::now().duration_since(then);
        Duration::try_from(since).unwrap_or_default()
    });
    SourceState {
        source: match (report.state, report.kind) {
            (Source::Saved, _) => "saved",
            (_, SourceKind::Manifests) => "manifests",
            (_, SourceKind::Kubernetes) => "kubernetes",
        },
        connected: report.state == Source::Live && report.troubles().next().is_none(),
        since_contact: since,
        resources: RESOURCES
            .into_iter()
            .filter_map(|resource| {
                let watch = report.watches.iter().find(|watch| watch.resource == resource)?;
                Some(ResourceCount {
                    resource,
                    objects: watch.objects as u64,
                    watch_errors: watch.failures,
                })
            })
            .collect(),
    }
}
