//! What dashboard and alerts ask for is what the agent exports.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use enforcer_common::abi::{Direction, Event, Totals, event_kind};

use super::{
    flows::{FlowMetricsConfig, MetricKind},
    text::Format,
    *,
};
use crate::flow::{
    event::tests::{addr, allowed, denied, flow},
    reading::Onlooker as _,
};

/// Names that a scrape of an agent that has seen something of everything shows.
fn exported() -> BTreeSet<String> {
    let kinds = MetricKind::ALL.map(MetricKind::name).join(" ");
    let config: FlowMetricsConfig = kinds.parse().unwrap();
    let (metrics, mut counting) =
        Metrics::with_flows(Instant::now(), &config, "w1", Duration::ZERO);
    let world = Event {
        src: addr(1),
        dst: addr(9),
        ifindex: 5,
        direction: Direction::Egress as u8,
        ..allowed()
    };
    let ping = Event { proto: 1, src_port: 8, dst_port: 0, ..allowed() };
    let (kind, rule) = (event_kind::TRACE, 0);
    let answer = Event { kind, rule, rtt: 300, ..allowed() };
    for event in [allowed(), denied(), world, ping, answer] {
        counting.look(&flow(&event));
    }
    let mut ended = flow(&Event { kind: event_kind::CLOSE, ..allowed() });
    ended.raw.totals = Some(Totals::default());
    counting.look(&ended);
    let text = metrics.render(Some(tests::snapshot()), Format::Prometheus).unwrap();
    let series = text.lines().filter(|line| !line.starts_with('#'));
    series.map(|line| line.split(['{', ' ']).next().unwrap_or_default().to_owned()).collect()
}

/// Words that begin like our metrics and Hubble's, but for a label's value of that kind.
fn asked_for(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_ours = |word: &&str| word.starts_with("enforcer_") || word.starts_with("hubble_");
    let is_source = |word: &&str| *word == "hubble_ring_buffer";
    words.filter(is_ours).filter(|word| !is_source(word)).map(str::to_owned).collect()
}

#[test]
fn dashboard_and_alerts_ask_for_what_there_is() {
    let exported = exported();
    for (file, least) in [("grafana/enforcer.json", 20), ("prometheus/enforcer.rules.yaml", 9)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
        let asked_for = asked_for(&fs::read_to_string(path).unwrap());
        assert!(asked_for.len() >= least, "{file}: {asked_for:?}");
        let absent: Vec<_> = asked_for.difference(&exported).collect();
        assert!(absent.is_empty(), "{file} asks for {absent:?}; there are {exported:#?}");
    }
}
