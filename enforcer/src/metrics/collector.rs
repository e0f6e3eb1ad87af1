//! Turns the answer to a scrape into series.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use enforcer_common::{abi::Direction, reason::Reason};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        gauge::ConstGauge,
    },
};

use super::{
    StartGap,
    snapshot::{KernelSnapshot, Snapshot, StateSnapshot, Verdict},
};

/// Names and values of a series' labels.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The labels of a series that is a family's only one.
const ALONE: Labels<0> = [];

/// The start gaps: one family, two histograms.
#[derive(Debug)]
pub(super) struct StartGaps(pub(super) StartGap);

impl Collector for StartGaps {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let StartGap { link, container } = &self.0;
        let help = "From a starting pod's interface or first container to its policy in force.";
        let kind = MetricType::Histogram;
        let mut family = encoder.encode_descriptor("start_gap_seconds", help, None, kind)?;
        for (from, timing) in [("link", link), ("container", container)] {
            timing.0.encode(family.encode_family(&[("from", from)])?)?;
        }
        Ok(())
    }
}

/// Hubble's view of what was lost: in the kernel's rings and before slow readers.
#[derive(Debug)]
pub(super) struct LostEvents {
    /// What the kernel has lost.
    pub(super) answer: Arc<Mutex<Option<Snapshot>>>,
    /// What was overwritten before its readers came to it: the export, and clients.
    pub(super) overwritten: [Counter; 2],
}

impl Collector for LostEvents {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        let kernel = answer.as_ref().map(|Snapshot { kernel, .. }| {
            let lost = kernel.lost_verdict_events.saturating_add(kernel.lost_trace_events);
            ([("source", "perf_event_ring_buffer")], lost)
        });
        let overwritten = self.overwritten.iter().map(Counter::get).sum();
        let readers = ([("source", "hubble_ring_buffer")], overwritten);
        let help = "Events that were lost, by where";
        counters(&mut encoder, "lost_events", help, kernel.into_iter().chain([readers]))
    }
}

/// The last answer, as the scrape that asked for it left it.
#[derive(Debug)]
pub(super) struct SnapshotCollector(pub(super) Arc<Mutex<Option<Snapshot>>>);

impl Collector for SnapshotCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let answer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Snapshot { kernel, state }) = &*answer else { return Ok(()) };
        encode_kernel(&mut encoder, kernel)?;
        encode_state(&mut encoder, state)
    }
}

fn encode_kernel(encoder: &mut DescriptorEncoder<'_>, kernel: &KernelSnapshot) -> fmt::Result {
    let KernelSnapshot { packets, maps, lost_verdict_events, lost_trace_events, .. } = kernel;
    let KernelSnapshot { untold_verdict_events, untold_trace_events, .. } = kernel;
    let mut counted: HashMap<(Verdict, Reason, usize), u64> = HashMap::new();
    for one in packets {
        let count = counted.entry((one.verdict, one.reason, one.direction as usize)).or_default();
        *count = count.saturating_add(one.packets);
    }
    // Zero is shown, too: a rate needs the value before the first packet.
    let series = Verdict::ALL.into_iter().flat_map(|verdict| {
        let reasons = Reason::ALL.iter().filter(move |reason| verdict.counts(**reason));
        reasons
            .flat_map(move |reason| Direction::BOTH.map(|direction| (verdict, *reason, direction)))
    });
    counters(
        encoder,
        "packets",
        "Packets judged by verdict, reason and direction, without those of established flows",
        series.map(|(verdict, reason, direction)| {
            let labels = [
                ("verdict", verdict.name()),
                ("reason", reason.name()),
                ("direction", direction_name(direction)),
            ];
            let count = counted.get(&(verdict, reason, direction as usize)).copied();
            (labels, count.unwrap_or(0))
        }),
    )?;
    let by_map = || maps.iter().map(|map| ([("map", map.map)], map));
    gauges(
        encoder,
        "map_entries",
        "Entries in use in a map of the kernel",
        by_map().map(|(labels, map)| (labels, map.entries)),
    )?;
    gauges(
        encoder,
        "map_max_entries",
        "Entries that a map of the kernel can hold",
        by_map().map(|(labels, map)| (labels, map.max_entries)),
    )?;
    gauges(
        encoder,
        "map_pressure_ratio",
        "How full a map of the kernel is; at 1 new flows of the pods concerned are closed",
        by_map().map(|(labels, map)| (labels, map.entries as f64 / map.max_entries.max(1) as f64)),
    )?;
    counters(
        encoder,
        "lost_events",
        "Events that were lost because their ring was full",
        [("verdict", *lost_verdict_events), ("trace", *lost_trace_events)]
            .map(|(lane, events)| ([("lane", lane)], events)),
    )?;
    counters(
        encoder,
        "untold_events",
        "Events that were not told because of --flow-events or --flow-sampling",
        [("verdict", *untold_verdict_events), ("trace", *untold_trace_events)]
            .map(|(lane, events)| ([("lane", lane)], events)),
    )
}

fn encode_state(encoder: &mut DescriptorEncoder<'_>, state: &StateSnapshot) -> fmt::Result {
    let StateSnapshot {
        revision,
        endpoints,
        source,
        interfaces_not_enforced,
        problems,
        service_gaps,
        rivals,
    } = state;
    gauges(
        encoder,
        "endpoints",
        "Local pod interfaces by what is in force on them",
        [
            ("enforced", endpoints.enforced),
            ("audited", endpoints.audited),
            ("disabled", endpoints.disabled),
            ("closed", endpoints.closed),
            ("locked", endpoints.locked),
        ]
        .map(|(state, count)| ([("state", state)], count)),
    )?;
    let revision_help = "Revision of the plan in force; it starts anew with the agent";
    gauges(encoder, "plan_revision", revision_help, [(ALONE, *revision)])?;
    gauges(
        encoder,
        "source_connected",
        "Whether the source of objects answers",
        [([("source", source.source)], u64::from(source.connected))],
    )?;
    gauges(
        encoder,
        "source_contact_age_seconds",
        "How long ago the source of objects last answered",
        source.since_contact.map(|age| (ALONE, age.as_secs_f64())),
    )?;
    let by_resource = || source.resources.iter().map(|one| ([("resource", one.resource)], one));
    gauges(
        encoder,
        "source_objects",
        "Objects known by resource",
        by_resource().map(|(labels, one)| (labels, one.objects)),
    )?;
    counters(
        encoder,
        "source_watch_errors",
        "Failures of a watch by resource",
        by_resource().map(|(labels, one)| (labels, one.watch_errors)),
    )?;
    gauges(
        encoder,
        "interfaces_not_enforced",
        "Interfaces of local pods on which nothing is enforced",
        [(ALONE, *interfaces_not_enforced)],
    )?;
    gauges(
        encoder,
        "problems",
        "Problems with objects, as the status command lists them",
        [(ALONE, *problems)],
    )?;
    gauges(
        encoder,
        "service_gaps",
        "Places where the backends of Services may go unjudged, or flows are closed for it",
        [
            ("outlet", service_gaps.outlets),
            ("input", service_gaps.input),
            ("mark", service_gaps.marks),
        ]
        .map(|(kind, count)| ([("kind", kind)], count)),
    )?;
    gauges(
        encoder,
        "rival_enforcers",
        "Other enforcers of network policy found on the node",
        rivals.iter().map(|rival| ([("rival", *rival)], 1_u64)),
    )
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

/// A family of counters; nothing if there is no series.
fn counters<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Labels<N>, impl EncodeCounterValue + fmt::Debug)>,
) -> fmt::Result {
    let series = series.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value)));
    family(encoder, name, help, MetricType::Counter, series)
}

/// A family of gauges; nothing if there is no series.
fn gauges<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Labels<N>, impl EncodeGaugeValue + fmt::Debug)>,
) -> fmt::Result {
    let series = series.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value)));
    family(encoder, name, help, MetricType::Gauge, series)
}

fn family<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    series: impl Iterator<Item = (Labels<N>, impl EncodeMetric)>,
) -> fmt::Result {
    let mut series = series.peekable();
    if series.peek().is_none() {
        return Ok(());
    }
    // The registry ends the help of what it encodes itself with a full stop.
    let mut family = encoder.encode_descriptor(name, &format!("{help}."), None, kind)?;
    for (labels, value) in series {
        if labels.is_empty() {
            value.encode(family)?;
            break;
        }
        value.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
