//! Metrics and health over HTTP: what the owner of the state counts ([`Metrics`]), what it answers
//! when it is scraped ([`Snapshot`]), and the [`MetricsServer`] that shows both.
//!
//! Numbers that the agent makes itself are counted where they arise. Numbers that the kernel or the
//! index has anyway are asked for at each scrape: nothing is kept twice, and an agent that nobody
//! scrapes does no work for it. Every label here has a closed set of values (`&'static str` or an
//! enum): pods and addresses become labels only of [`flows`], which bounds their number.

mod collector;
pub mod flows;
mod health;
mod server;
#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod shown_tests;
mod snapshot;
mod text;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use enforcer_common::abi::ABI_VERSION;
use prometheus_client::{
    encoding::text::{encode_eof, encode_registry},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge, histogram::Histogram},
    registry::Registry,
};

use self::{
    collector::{LostEvents, SnapshotCollector},
    flows::{FlowMetrics, FlowMetricsConfig},
    text::Format,
};
pub use self::{
    health::Health,
    server::{MetricsAddress, MetricsError, MetricsServer, Scraped},
    snapshot::{
        EndpointCounts, KernelSnapshot, MapUse, PacketCount, ResourceCount, ServiceGaps, Snapshot,
        SourceState, StateSnapshot, Verdict,
    },
};
use crate::{hubble::export::ExportCounts, insight};

/// 1 ms to 10 s: from an event's arrival to its effect in the kernel.
const PROPAGATION: [f64; 13] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
/// 100 us to 10 s: how long a starting pod waits for its policy.
const START_GAP: [f64; 16] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
    10.0,
];
/// 1 ms to 2.5 s: a container runtime waits 2 s for the gate by default.
const GATE_HOLD: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Durations, kept as a histogram.
#[derive(Clone, Debug)]
pub struct Timing(Histogram);

impl Timing {
    fn new(buckets: &[f64]) -> Self {
        Self(Histogram::new(buckets.iter().copied()))
    }

    /// Counts one.
    pub fn observe(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }
}

/// From a pod's first sign of life to its policy in force.
#[derive(Clone, Debug)]
pub struct StartGap {
    /// From the moment its interface appeared.
    pub link: Timing,
    /// From the start of its first container: what a process in the pod has noticed at least. The
    /// API tells that start by the second.
    pub container: Timing,
}

/// What flows made known, by kind.
#[derive(Clone, Debug)]
pub struct Insights(Family<[(&'static str, &'static str); 1], Counter>);

/// What became of verdicts that were checked.
#[derive(Clone, Debug)]
pub struct SelfChecks(Family<[(&'static str, &'static str); 1], Counter>);

impl SelfChecks {
    const RESULTS: [&'static str; 3] = ["agrees", "differs", "passed_over"];

    fn new() -> Self {
        let family = Family::default();
        // From the beginning, so that the first difference is an increase.
        for result in Self::RESULTS {
            drop(family.get_or_create(&[("result", result)]));
        }
        Self(family)
    }

    fn of(&self, result: &'static str) -> Counter {
        self.0.get_or_create(&[("result", result)]).clone()
    }

    /// Kernel and objects say the same.
    pub fn agrees(&self) {
        self.of("agrees").inc();
    }

    /// They do not.
    pub fn differs(&self) {
        self.of("differs").inc();
    }

    /// How often they did not.
    #[must_use]
    pub fn differing(&self) -> u64 {
        self.of("differs").get()
    }

    /// It could not be told.
    pub fn passed_over(&self) {
        self.of("passed_over").inc();
    }
}

impl Insights {
    fn new() -> Self {
        let family = Family::default();
        // Zero is shown, too: a rate needs the value before the first.
        for kind in insight::Kind::ALL {
            let _at_zero = family.get_or_create_owned(&[("kind", kind.name())]);
        }
        Self(family)
    }

    /// Counts one.
    pub fn count(&self, kind: insight::Kind) {
        self.0.get_or_create(&[("kind", kind.name())]).inc();
    }

    /// How many there were.
    #[must_use]
    pub fn get(&self, kind: insight::Kind) -> u64 {
        self.0.get_or_create(&[("kind", kind.name())]).get()
    }
}

/// What the agent counts. A clone counts into the same numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// From the arrival of a change in the agent to its effect in the kernel.
    pub policy_propagation: Timing,
    /// How long starting pods waited for their policy.
    pub start_gap: StartGap,
    /// How long the gate held pods back.
    pub gate_hold: Timing,
    /// Pods that started while no agent ran: nothing judged their first packets.
    pub unprotected_starts: Counter,
    /// What flows made known, by kind.
    pub insights: Insights,
    /// Verdicts of the kernel that were held against the objects.
    pub self_checks: SelfChecks,
    /// The export of flows to a file.
    pub export: ExportCounts,
    /// Flows that were overwritten before the clients that wanted them came to them.
    pub lost_by_clients: Counter,
    /// Whether the agent lives and is ready.
    pub health: Arc<Health>,
    registry: Arc<Registry>,
    /// What has Hubble's names.
    hubbles: Arc<Registry>,
    answer: Arc<Mutex<Option<Snapshot>>>,
}

impl Metrics {
    /// Everything at zero, alive and not ready.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let nothing = FlowMetricsConfig { metrics: Vec::new() };
        Self::with_flows(now, &nothing, "", Duration::ZERO).0
    }

    /// The same, and what counts the flows of a node. `learning` is how long a destination that is
    /// denied is no news.
    #[must_use]
    pub fn with_flows(
        now: Instant,
        config: &FlowMetricsConfig,
        node: &str,
        learning: Duration,
    ) -> (Self, FlowMetrics) {
        let metrics = Self {
            policy_propagation: Timing::new(&PROPAGATION),
            start_gap: StartGap {
                link: Timing::new(&START_GAP),
                container: Timing::new(&START_GAP),
            },
            gate_hold: Timing::new(&GATE_HOLD),
            unprotected_starts: Counter::default(),
            insights: Insights::new(),
            self_checks: SelfChecks::new(),
            export: ExportCounts::default(),
            lost_by_clients: Counter::default(),
            health: Arc::new(Health::new(now)),
            registry: Arc::default(),
            hubbles: Arc::default(),
            answer: Arc::default(),
        };
        let mut ours = metrics.registered();
        let mut hubbles = Registry::with_prefix("hubble");
        let registries = (&mut ours, &mut hubbles);
        let flows = FlowMetrics::register(config, node, learning, registries);
        let answer = Arc::clone(&metrics.answer);
        let overwritten = [metrics.export.lost.clone(), metrics.lost_by_clients.clone()];
        hubbles.register_collector(Box::new(LostEvents { answer, overwritten }));
        (Self { registry: Arc::new(ours), hubbles: Arc::new(hubbles), ..metrics }, flows)
    }

    fn registered(&self) -> Registry {
        let mut registry = Registry::with_prefix("enforcer");
        registry.register(
            "policy_propagation_seconds",
            "From the arrival of a change in the agent to its effect in the kernel",
            self.policy_propagation.0.clone(),
        );
        registry.register_collector(Box::new(collector::StartGaps(self.start_gap.clone())));
        registry.register(
            "gate_hold_seconds",
            "How long the gate held a starting pod back",
            self.gate_hold.0.clone(),
        );
        registry.register(
            "unprotected_starts",
            "Pods that started while no agent ran on the node",
            self.unprotected_starts.clone(),
        );
        let ExportCounts { written, failed, lost: _ } = &self.export;
        registry.register("export_flows", "Flows that were exported", written.clone());
        registry.register("export_errors", "Times that flows could not be written", failed.clone());
        registry.register(
            "self_checks",
            "Verdicts of the kernel that were held against the objects, by result",
            self.self_checks.0.clone(),
        );
        registry.register("insights", "What flows made known, by kind", self.insights.0.clone());
        let build = registry
            .sub_registry_with_label(("version".into(), env!("CARGO_PKG_VERSION").into()))
            .sub_registry_with_label(("abi".into(), ABI_VERSION.to_string().into()));
        build.register("build_info", "What is running; always 1", ConstGauge::new(1_u64));
        registry.register_collector(Box::new(SnapshotCollector(Arc::clone(&self.answer))));
        registry
    }

    /// The text of a scrape. Without a snapshot its series are absent: a number that nobody knows
    /// at this moment must not look like one that does not move.
    fn render(&self, snapshot: Option<Snapshot>, format: Format) -> Result<String, fmt::Error> {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
        let mut text = String::new();
        for registry in [&self.registry, &self.hubbles] {
            encode_registry(&mut text, registry)?;
        }
        encode_eof(&mut text)?;
        Ok(match format {
            Format::OpenMetrics => text,
            Format::Prometheus => text::to_prometheus(&text),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use enforcer_common::{abi::Direction, reason::Reason};

    use super::*;

    fn lines(metrics: &Metrics, snapshot: Option<Snapshot>) -> Vec<String> {
        let text = metrics.render(snapshot, Format::Prometheus).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    fn value<'a>(lines: &'a [String], series: &str) -> Option<&'a str> {
        lines.iter().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
    }

    /// A snapshot with a number of its own in each place.
    pub(super) fn snapshot() -> Snapshot {
        Snapshot {
            kernel: KernelSnapshot {
                packets: vec![
                    PacketCount {
                        verdict: Verdict::Dropped,
                        reason: Reason::PolicyDenied,
                        direction: Direction::Ingress,
                        packets: 41,
                    },
                    PacketCount {
                        verdict: Verdict::Audited,
                        reason: Reason::PolicyDenied,
                        direction: Direction::Egress,
                        packets: 42,
                    },
                ],
                maps: vec![MapUse { map: "PEERS", entries: 64, max_entries: 256 }],
                lost_verdict_events: 3,
                lost_trace_events: 4,
                untold_verdict_events: 5,
                untold_trace_events: 6,
            },
            state: StateSnapshot {
                revision: 17,
                endpoints: EndpointCounts { enforced: 5, locked: 1, ..EndpointCounts::default() },
                source: SourceState {
                    source: "kubernetes",
                    connected: true,
                    since_contact: Some(Duration::from_millis(1500)),
                    resources: vec![ResourceCount {
                        resource: "pods",
                        objects: 7,
                        watch_errors: 2,
                    }],
                },
                interfaces_not_enforced: 2,
                problems: 6,
                service_gaps: ServiceGaps { outlets: 8, input: 1, marks: 9 },
                rivals: vec!["Calico"],
            },
        }
    }

    #[test]
    fn what_is_counted_and_what_is_asked_for_are_shown() {
        let metrics = Metrics::new(Instant::now());
        metrics.policy_propagation.observe(Duration::from_millis(3));
        metrics.start_gap.link.observe(Duration::from_micros(150));
        metrics.unprotected_starts.inc();
        metrics.insights.count(insight::Kind::PortScan);
        metrics.export.lost.inc_by(5);
        metrics.lost_by_clients.inc_by(4);
        let lines = lines(&metrics, Some(snapshot()));
        for (series, expected) in [
            ("enforcer_policy_propagation_seconds_bucket{le=\"0.002\"}", "0"),
            ("enforcer_policy_propagation_seconds_bucket{le=\"0.005\"}", "1"),
            ("enforcer_start_gap_seconds_bucket{le=\"0.0001\",from=\"link\"}", "0"),
            ("enforcer_start_gap_seconds_bucket{le=\"0.0002\",from=\"link\"}", "1"),
            ("enforcer_start_gap_seconds_count{from=\"container\"}", "0"),
            ("enforcer_gate_hold_seconds_count", "0"),
            ("enforcer_unprotected_starts_total", "1"),
            (
                "enforcer_packets_total{verdict=\"dropped\",reason=\"PolicyDenied\",direction=\"ingress\"}",
                "41",
            ),
            (
                "enforcer_packets_total{verdict=\"audited\",reason=\"PolicyDenied\",direction=\"egress\"}",
                "42",
            ),
            (
                "enforcer_packets_total{verdict=\"disabled\",reason=\"Locked\",direction=\"egress\"}",
                "0",
            ),
            ("enforcer_map_entries{map=\"PEERS\"}", "64"),
            ("enforcer_map_pressure_ratio{map=\"PEERS\"}", "0.25"),
            ("enforcer_lost_events_total{lane=\"verdict\"}", "3"),
            ("enforcer_lost_events_total{lane=\"trace\"}", "4"),
            ("hubble_lost_events_total{source=\"perf_event_ring_buffer\"}", "7"),
            ("hubble_lost_events_total{source=\"hubble_ring_buffer\"}", "9"),
            ("enforcer_insights_total{kind=\"PortScan\"}", "1"),
            ("enforcer_insights_total{kind=\"MetadataAccess\"}", "0"),
            ("enforcer_untold_events_total{lane=\"verdict\"}", "5"),
            ("enforcer_untold_events_total{lane=\"trace\"}", "6"),
            ("enforcer_endpoints{state=\"enforced\"}", "5"),
            ("enforcer_endpoints{state=\"locked\"}", "1"),
            ("enforcer_endpoints{state=\"closed\"}", "0"),
            ("enforcer_plan_revision", "17"),
            ("enforcer_source_connected{source=\"kubernetes\"}", "1"),
            ("enforcer_source_contact_age_seconds", "1.5"),
            ("enforcer_source_objects{resource=\"pods\"}", "7"),
            ("enforcer_source_watch_errors_total{resource=\"pods\"}", "2"),
            ("enforcer_interfaces_not_enforced", "2"),
            ("enforcer_problems", "6"),
            ("enforcer_service_gaps{kind=\"outlet\"}", "8"),
            ("enforcer_service_gaps{kind=\"input\"}", "1"),
            ("enforcer_service_gaps{kind=\"mark\"}", "9"),
            ("enforcer_rival_enforcers{rival=\"Calico\"}", "1"),
        ] {
            assert_eq!(value(&lines, series), Some(expected), "{series} in {lines:#?}");
        }
        assert!(lines.iter().any(|line| line.starts_with("enforcer_build_info{version=\"")));
    }

    #[test]
    fn a_verdict_is_only_shown_with_the_reasons_that_it_can_have() {
        let lines = lines(&Metrics::new(Instant::now()), Some(snapshot()));
        let packets = |part: &str| {
            lines.iter().filter(|l| l.starts_with("enforcer_packets") && l.contains(part)).count()
        };
        let drops = Reason::ALL.iter().filter(|reason| reason.is_drop()).count();
        // Both directions; all reasons that pass but one, which is never counted.
        assert_eq!(packets("verdict=\"forwarded\""), 2 * (Reason::ALL.len() - drops - 1));
        for verdict in ["dropped", "audited", "disabled"] {
            assert_eq!(packets(&format!("verdict=\"{verdict}\"")), 2 * drops, "{verdict}");
        }
    }

    #[test]
    fn what_nobody_knows_is_absent() {
        let metrics = Metrics::new(Instant::now());
        assert!(value(&lines(&metrics, Some(snapshot())), "enforcer_problems").is_some());
        let after = lines(&metrics, None);
        assert_eq!(value(&after, "enforcer_problems"), None);
        assert!(!after.iter().any(|line| line.starts_with("enforcer_packets_total")));
        assert_eq!(value(&after, "enforcer_unprotected_starts_total"), Some("0"));
        // A source that never answered has no age.
        let mut fresh = snapshot();
        fresh.state.source.since_contact = None;
        let lines = lines(&metrics, Some(fresh));
        assert_eq!(value(&lines, "enforcer_source_contact_age_seconds"), None);
    }

    #[test]
    fn a_clone_counts_into_the_same_numbers() {
        let metrics = Metrics::new(Instant::now());
        metrics.clone().gate_hold.observe(Duration::from_secs(1));
        let lines = lines(&metrics, None);
        assert_eq!(value(&lines, "enforcer_gate_hold_seconds_sum"), Some("1.0"));
    }
}
