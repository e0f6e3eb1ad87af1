//! A round: a cluster and what becomes of it, with probes after every step.

use std::collections::BTreeMap;

use enforcer::cluster::event::Event;
use enforcer_reference::{Cluster, Outcome};

use super::{
    compare::{Difference, compare, subject},
    events, generate,
    places::LOCAL,
    probe::{self, Probe, Sameness},
    random::Random,
    rig::Rig,
    shrink,
    writer::Writer,
};

/// Updates of a round.
const UPDATES: usize = 9;
/// Probes after each step.
const PROBES: usize = 500;

/// What makes a reference wrong on purpose.
pub(crate) type Misread = fn(&mut Cluster);

/// A round under way.
pub(crate) struct Round {
    random: Random,
    updates: usize,
    /// Events of the last update.
    events: Vec<Event>,
    pub(crate) tally: Tally,
}

/// A difference, and where it was found.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) difference: Difference,
    cluster: Cluster,
    /// The update before, if there was one.
    pub(crate) events: Vec<Event>,
}

/// What was expected of probes, by kind.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<&'static str, usize>);

impl Round {
    /// Builds the first cluster of a round.
    pub(crate) fn new(seed: u64, rig: &mut Rig) -> Self {
        let mut random = Random::new(seed);
        let cluster = generate::cluster(&mut random);
        rig.rebuild(&cluster);
        Self { random, updates: UPDATES, events: Vec::new(), tally: Tally::default() }
    }

    /// Sends probes and compares. Returns how many were sent.
    pub(crate) fn probe(&mut self, rig: &mut Rig, misread: Misread) -> Result<usize, Box<Failure>> {
        let seen = rig.probe(&probes(&mut self.random, &rig.cluster));
        let mut read = rig.cluster.clone();
        misread(&mut read);
        let state = rig.writer.index.snapshot();
        for (probe, seen) in &seen {
            if let Some(difference) = compare(&rig.writer, &read, &state, probe, Some(seen)) {
                let events = std::mem::take(&mut self.events);
                let cluster = rig.cluster.clone();
                return Err(Box::new(Failure { difference, cluster, events }));
            }
            if let Some(pod) = subject(&read, probe.slot) {
                self.tally.count(&read.outcome(pod, &probe.packet));
            }
        }
        Ok(seen.len())
    }

    /// The next update, after which the maps must be what a fresh index writes. False after the
    /// last one.
    pub(crate) fn update(&mut self, rig: &mut Rig) -> bool {
        if self.updates == 0 {
            return false;
        }
        self.updates -= 1;
        let next = generate::next(&mut self.random, &rig.cluster);
        self.events = events::stream(&mut self.random, &rig.cluster, &next);
        if self.random.chance(30) {
            let slot = self.random.below(LOCAL);
            let interface = rig.writer.interfaces[slot].clone();
            events::lose_and_find(&mut self.random, interface, &mut self.events);
        }
        rig.lead_to(next, self.events.clone());
        rig.check_against_a_fresh_one();
        true
    }
}

fn probes(random: &mut Random, cluster: &Cluster) -> Vec<Probe> {
    let ports = probe::interesting_ports(cluster);
    (0..PROBES).map(|_| probe::probe(random, cluster, &ports)).collect()
}

/// Whether a misreading says another thing of the first probes of a round than the right reading.
pub(crate) fn matters(seed: u64, misread: Misread) -> bool {
    let mut random = Random::new(seed);
    let cluster = generate::cluster(&mut random);
    let mut read = cluster.clone();
    misread(&mut read);
    probes(&mut random, &cluster).iter().any(|probe| {
        let [right, wrong] = [&cluster, &read].map(|cluster| {
            let pod = subject(cluster, probe.slot)?;
            Some(cluster.by_policy(pod, &probe.packet).allows())
        });
        right != wrong
    })
}

/// One probe in the cluster that is there.
pub(crate) fn differs(
    rig: &mut Rig,
    cluster: &Cluster,
    probe: &Probe,
    misread: Misread,
) -> Option<Difference> {
    let mut read = cluster.clone();
    misread(&mut read);
    if probe.sameness() == Sameness::Flow {
        rig.forget_flows();
    }
    let seen = rig.probe(&[*probe]);
    let state = rig.writer.index.snapshot();
    seen.iter().find_map(|(probe, seen)| compare(&rig.writer, &read, &state, probe, Some(seen)))
}

/// The same in the tables alone, of an index that is told the cluster at once. The kernel is not
/// asked, and so need not be waited for.
fn differs_in_tables(
    rig: &Rig,
    cluster: &Cluster,
    probe: &Probe,
    misread: Misread,
) -> Option<Difference> {
    let mut read = cluster.clone();
    misread(&mut read);
    let (writer, state) = Writer::of(&rig.writer.interfaces, cluster);
    compare(&writer, &read, &state, probe, None)
}

/// Who is asked whether a smaller cluster still shows a difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    /// The tables, if they show it.
    Tables,
    /// The kernel in any case.
    Kernel,
}

impl Failure {
    /// The smallest cluster that shows it, if one that is built from nothing does.
    pub(crate) fn shrink(
        &self,
        rig: &mut Rig,
        ask: Ask,
        misread: Misread,
    ) -> (Difference, Option<Cluster>) {
        let probe = &self.difference.probe;
        rig.rebuild(&self.cluster);
        if differs(rig, &self.cluster, probe, misread).is_none() {
            return (self.difference.clone(), None);
        }
        let tables =
            ask == Ask::Tables && differs_in_tables(rig, &self.cluster, probe, misread).is_some();
        let small = shrink::shrink(self.cluster.clone(), |cluster| {
            if subject(cluster, probe.slot).is_none() {
                return false;
            }
            if tables {
                return differs_in_tables(rig, cluster, probe, misread).is_some();
            }
            rig.become_(cluster.clone());
            differs(rig, cluster, probe, misread).is_some()
        });
        rig.rebuild(&small);
        match differs(rig, &small, probe, misread) {
            Some(difference) => (difference, Some(small)),
            // On the way something was left over that shows it, too.
            None => (self.difference.clone(), Some(self.cluster.clone())),
        }
    }
}

impl Tally {
    fn count(&mut self, outcome: &Outcome) {
        let kind = match outcome {
            Outcome::NotIsolated => "not isolated",
            Outcome::Allowed(_) => "allowed",
            Outcome::FromNode => "from the node",
            Outcome::Hairpin => "to itself",
            Outcome::Pending => "to a Service",
            Outcome::PendingOrDenied => "to a denied Service",
            Outcome::Denied => "denied",
            Outcome::Spoofed => "spoofed",
        };
        *self.0.entry(kind).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            *self.0.entry(kind).or_default() += count;
        }
    }

    /// Asserts that every kind was there, and what policy decides most of all.
    pub(crate) fn assert_varied(&self) {
        let all: usize = self.0.values().sum();
        assert_eq!(self.0.len(), 8, "{self}");
        for kind in ["allowed", "denied", "not isolated"] {
            assert!(self.0[kind] > all / 20, "{kind}: {self}");
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<_> = self.0.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        f.write_str(&parts.join(", "))
    }
}
