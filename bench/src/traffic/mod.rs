//! Traffic between two pods of a node: what the programs cost it, next to nothing attached, to the
//! kernel's own cost of such programs, and to nftables with the same policy.

mod baseline;
mod compare;
mod contest;
mod cpu;
pub(crate) mod entry;
mod error;
pub(crate) mod load;
mod nft;
pub(crate) mod policy;
mod probe;
pub(crate) mod ruleset;
pub(crate) mod section;
mod site;
pub(crate) mod variant;

use std::path::PathBuf;

pub(crate) use compare::{Figure, Spread};
pub(crate) use contest::{Series, Size};
pub(crate) use error::TrafficError;
use serde::Serialize;

use crate::BenchError;
use entry::{Entry, NOTHING};
use load::{Load, Turn};
use policy::Policy;
use ruleset::Form;
use section::{Goal, Line, Section, Wanted};
use variant::Variant;

/// Every kind of load, those first that have two threads.
const LOADS: [Load; 5] = [Load::Stream, Load::Request, Load::Connect, Load::Datagrams, Load::Many];
/// How many these are.
const TWO_THREADS: usize = 3;
/// What the rates are to be, of those with nothing attached.
const GOALS: [(Load, f64); 3] =
    [(Load::Stream, 0.97), (Load::Request, 0.97), (Load::Connect, 0.90)];
/// What a new connection may cost more, of what nftables costs more.
const HALF: f64 = 0.5;
/// The policy of the goals.
const POLICY: Policy = Policy { peers: 1_000, rules: 1, datagrams: true };
/// Flags of the variant in which the kernel tells nothing.
const UNTOLD: &[&str] = &["--flow-events=none"];

/// Places of those that are named in goals, after [`NOTHING`].
const ENFORCER: usize = 4;
const SETS: usize = 6;

/// What is printed and kept.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) setup: String,
    pub(crate) sections: Vec<Section>,
}

/// Runs the benchmark with the agent `binary`.
pub(crate) fn run(binary: PathBuf, size: Size) -> Result<Report, BenchError> {
    measure(binary, size)
        .map_err(|source| BenchError { what: "measure traffic", source: source.into() })
}

fn measure(binary: PathBuf, size: Size) -> Result<Report, TrafficError> {
    let entries = entries(&binary);
    // What has one thread has no ends to put apart.
    let loads = if size.apart { &LOADS[..TWO_THREADS] } else { &LOADS[..] };
    let measured = entry::hold(&entries, loads, size)?;
    let setup =
        format!("{}\nThe policy: {} peers at one port.", setup(size), entry::grouped(POLICY.peers));
    let figure: Figure = if size.apart { Turn::rate } else { Turn::pace };
    let mut sections = Vec::new();
    for (load, series) in loads.iter().copied().zip(&measured) {
        let against = "nothing attached, the mean of both in the same round";
        let mut section = entry::rates(load, &entries, series, against);
        let goal = GOALS.into_iter().find(|(of, _)| *of == load);
        let found = section
            .lines
            .get(ENFORCER)
            .and_then(|line| if size.apart { line.wall?.ratio } else { line.ratio });
        if let (Some((_, bound)), Some(found)) = (goal, found) {
            let (wanted, noise) = (Wanted::AtLeast(bound), entry::noise(series, figure));
            section.goals.push(Goal::new("enforcer", wanted, noise, found.median));
        }
        sections.push(section);
        if load == Load::Connect {
            sections.push(cost(&entries, series));
        }
    }
    Ok(Report { setup, sections })
}

/// What all figures have in common, in words.
pub(crate) fn setup(size: Size) -> String {
    let clock = if size.apart {
        "Each end has\na processor of its own. Goals are by the wall, because the ends wait for each \
         other."
    } else {
        "Both ends\nrun on one processor, and its time for them and for the kernel on their way \
         is\nwhat counts; by the wall others on the machine have a part in it."
    };
    format!(
        "Two pods behind veth pairs, routed, both isolated in both directions. {clock}\nMedians \
         of {} rounds of {} ms, ratios within a round.",
        size.rounds,
        size.turn.as_millis(),
    )
}

fn entries(binary: &std::path::Path) -> Vec<Entry> {
    let enforcer = |flags| Variant::Enforcer { binary: binary.to_owned(), flags };
    let compared = [
        ("an empty program at each hook", Variant::Baseline("empty")),
        ("two inserts a connection", Variant::Baseline("insert")),
        ("enforcer", enforcer(&[])),
        ("enforcer, no flow events", enforcer(UNTOLD)),
        ("nftables, sets", Variant::Nftables(Form::Sets)),
        ("nftables, a rule a peer", Variant::Nftables(Form::Rules)),
    ];
    let compared = compared.into_iter().map(|(name, variant)| Entry {
        name: name.to_owned(),
        variant,
        policy: POLICY,
        bases: NOTHING.to_vec(),
    });
    entry::nothing(POLICY).into_iter().chain(compared).collect()
}

/// What a connection costs more than with nothing attached.
fn cost(entries: &[Entry], series: &[Series]) -> Section {
    let [_, sets] = entry::costs(series, SETS);
    let mut lines = Vec::new();
    let mut goals = Vec::new();
    for (at, entry) in entries.iter().enumerate().skip(NOTHING.len()) {
        let [way, whole] = entry::costs(series, at);
        let named = |suffix: &str, costs: &[f64]| Line {
            name: format!("{}{suffix}", entry.name),
            value: Spread::of(costs.iter().copied()),
            ratio: Some(entry::by(costs, &sets)),
            wall: None,
        };
        lines.push(named("", &way));
        if matches!(entry.variant, Variant::Enforcer { .. }) {
            lines.push(named(" + agent", &whole));
        }
        if at == ENFORCER {
            for (what, costs) in [("on the packets' way", &way), ("with the agent", &whole)] {
                let found = entry::by(costs, &sets).median;
                goals.push(Goal::new(what, Wanted::AtMost(HALF), 0.0, found));
            }
        }
    }
    Section {
        title: "Cost added to a connection, from its SYN to its last FIN".to_owned(),
        unit: "us of the processor",
        against: "what nftables with sets adds in the same round",
        lines,
        goals,
        notes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_about_who_they_name() {
        let entries = entries("agent".as_ref());
        assert_eq!(entries[ENFORCER].name, "enforcer");
        assert_eq!(entries[SETS].variant, Variant::Nftables(Form::Sets));
        assert!(NOTHING.iter().all(|at| entries[*at].variant == Variant::Nothing));
        assert!(entries[2..].iter().all(|entry| entry.bases == NOTHING));
    }
}
