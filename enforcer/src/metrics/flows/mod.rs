//! What flows say, counted: under Hubble's names and labels where Hubble has them, so that its
//! dashboards and alerts work.
//!
//! Counted on the thread that reads flows. Labels whose values come from the cluster are bounded:
//! a metric that has as many series as it may have counts the rest in a series `overflow`, and
//! series of pods, workloads and namespaces go a minute after the last of their pods.

mod config;
mod context;
mod rows;
mod table;
#[cfg(test)]
mod tests;
mod traffic;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

pub use self::config::{
    FlowMetricsConfig, FlowMetricsError, Label, MetricKind, MetricSpec, Part, Side,
};
use self::{
    context::{Owner, Value, owners},
    rows::NewDenied,
    table::Table,
    traffic::Traffic,
};
use crate::flow::{directory::Directory, event::Flow, reading::Onlooker};

/// Series that a metric can have besides those of its overflow.
pub const MOST_SERIES: usize = 4096;
/// How often is looked for series that have nobody left to be about.
const SWEEP: Duration = Duration::from_secs(5);
/// For so long after somebody went series of the dead may be there.
const WAKE: Duration = Duration::from_secs(130);

/// Counts flows.
#[derive(Debug)]
pub struct FlowMetrics {
    node: Arc<str>,
    metrics: Vec<Metric>,
    traffic: Option<Traffic>,
    values: Vec<Value>,
    swept: Option<Instant>,
    /// How many have gone, and when that was seen to change.
    gone: (u64, Option<Instant>),
}

#[derive(Debug)]
struct Metric {
    spec: MetricSpec,
    table: Table<Counter>,
    denied: Option<NewDenied>,
}

impl FlowMetrics {
    /// Counters of a node's flows, shown by `ours` and `hubbles`. `learning` is how long a
    /// destination that is denied is no news.
    pub(super) fn register(
        config: &FlowMetricsConfig,
        node: &str,
        learning: Duration,
        (ours, hubbles): (&mut Registry, &mut Registry),
    ) -> Self {
        Self::bounded(config, node, learning, (ours, hubbles), MOST_SERIES)
    }

    fn bounded(
        config: &FlowMetricsConfig,
        node: &str,
        learning: Duration,
        (ours, hubbles): (&mut Registry, &mut Registry),
        most: usize,
    ) -> Self {
        let overflown = Family::<[(&'static str, &'static str); 1], Counter>::default();
        ours.register(
            "flow_metric_overflow",
            "Flows that were counted in a series `overflow` because their metric was full",
            overflown.clone(),
        );
        let metric = |spec: &MetricSpec| {
            let extra = spec.labels.iter().map(|label| label.name);
            let names = rows::labels(spec).iter().copied().chain(extra).collect();
            let overflown = overflown.get_or_create_owned(&[("metric", spec.kind.name())]);
            let table = Table::new(names, most, overflown, Counter::default);
            let (name, help) = rows::described(spec.kind);
            let ours_too = spec.kind == MetricKind::NewDenied;
            let registry = if ours_too { &mut *ours } else { &mut *hubbles };
            registry.register(name, help, table.shown());
            let denied = ours_too.then(|| NewDenied::new(learning));
            Metric { spec: spec.clone(), table, denied }
        };
        let is_traffic = |spec: &&MetricSpec| spec.kind == MetricKind::Traffic;
        let metrics = config.metrics.iter().filter(|spec| !is_traffic(spec)).map(metric).collect();
        let traffic = config.metrics.iter().find(is_traffic).map(|spec| {
            let overflown = overflown.get_or_create_owned(&[("metric", spec.kind.name())]);
            Traffic::register(ours, most, &overflown)
        });
        Self {
            node: node.into(),
            metrics,
            traffic,
            values: Vec::new(),
            swept: None,
            gone: (0, None),
        }
    }

    /// Takes series out of which nobody is left, if it is time.
    fn sweep(&mut self, directory: &Directory, now: Instant) {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP) {
            return;
        }
        self.swept = Some(now);
        if directory.departures() != self.gone.0 {
            self.gone = (directory.departures(), Some(now));
        }
        let recently = |at: Instant| now.saturating_duration_since(at) < WAKE;
        if !self.gone.1.is_some_and(recently) {
            return;
        }
        let living: HashSet<Owner> = directory.pods(now).flat_map(|pod| Owner::of(pod)).collect();
        for metric in &mut self.metrics {
            metric.table.keep(&living);
        }
        if let Some(traffic) = &mut self.traffic {
            traffic.keep(&living);
        }
    }
}

impl Onlooker for FlowMetrics {
    fn look(&mut self, flow: &Flow) {
        let Self { node, metrics, traffic, values, .. } = self;
        if let Some(traffic) = traffic {
            traffic.look(flow);
        }
        for Metric { spec, table, denied } in metrics {
            // Drops of one tuple are told together; each was a drop.
            let by = match spec.kind {
                MetricKind::Drop => u64::from(flow.raw.count.max(1)),
                _ => 1,
            };
            let mut count = |row: &[Value], closed: usize, owner: Option<Owner>| {
                values.clear();
                values.extend_from_slice(row);
                values.extend(spec.labels.iter().map(|label| label.value(flow, node)));
                let owners = || match owner {
                    Some(owner) => [Some(owner), None],
                    None => owners(&spec.labels, flow),
                };
                table.with(values, closed, owners, |counter| {
                    counter.inc_by(by);
                });
            };
            match denied {
                Some(denied) => denied.row(flow, &mut count),
                None => rows::rows(spec, flow, &mut |row, closed| count(row, closed, None)),
            }
        }
    }

    fn turned(&mut self, directory: &Directory) {
        self.sweep(directory, Instant::now());
    }
}
