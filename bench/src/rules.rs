//! The same policy with more rules, and with more peers: what a pod's traffic costs at each size,
//! enforced by the programs, by nftables with sets, and by nftables with a rule a peer.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::{
    BenchError,
    traffic::{
        self, Report, Series, Size, Spread, TrafficError,
        entry::{self, Entry, NOTHING},
        load::{Load, Turn},
        policy::Policy,
        ruleset::Form,
        section::{Goal, Line, Section, Wanted},
        variant::Variant,
    },
};

/// What changes with the size.
const LOADS: [Load; 2] = [Load::Request, Load::Connect];
/// Numbers of rules, with a few peers each.
const RULES: [u16; 4] = [10, 100, 1_000, 10_000];
/// Peers of each rule while the rules grow.
const FEW: u32 = 10;
/// Numbers of peers, of one rule.
const PEERS: [u32; 5] = [10, 100, 1_000, 10_000, 100_000];
/// A chain of more rules tells nothing new: its cost grows in proportion.
const LONGEST: u32 = 10_000;
/// How flat the rates are to be, of those with the fewest rules.
const FLAT: f64 = 0.95;

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Growing {
    /// The rules
    Rules,
    /// The peers
    Peers,
}

impl Growing {
    const fn word(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Peers => "peers",
        }
    }

    /// The policies, the smallest first, with their sizes.
    fn policies(self) -> Vec<(u32, Policy)> {
        let policy = |peers, rules| Policy { peers, rules, datagrams: false };
        match self {
            Self::Rules => {
                RULES.into_iter().map(|rules| (rules.into(), policy(FEW, rules))).collect()
            }
            Self::Peers => PEERS.into_iter().map(|peers| (peers, policy(peers, 1))).collect(),
        }
    }
}

/// Runs the benchmark with the agent `binary`, over what is to grow.
pub(crate) fn run(binary: &Path, growing: &[Growing], size: Size) -> Result<Report, BenchError> {
    let mut sections = Vec::new();
    for growing in growing {
        sections.extend(
            measure(binary, *growing, size)
                .map_err(|source| BenchError { what: "measure rules", source: source.into() })?,
        );
    }
    let setup = format!("{}\nThe last rule and the last peer are measured.", traffic::setup(size));
    Ok(Report { setup, sections })
}

fn measure(binary: &Path, growing: Growing, size: Size) -> Result<Vec<Section>, TrafficError> {
    let entries = entries(binary, growing);
    let measured = entry::hold(&entries, &LOADS, size)?;
    let mut sections = Vec::new();
    for (load, series) in LOADS.into_iter().zip(&measured) {
        let against = "the smallest of its kind in the same round";
        let mut section = entry::rates(load, &entries, series, against);
        section.title = format!("{}, by the number of {}", load.title(), growing.word());
        if growing == Growing::Rules {
            section.goals = flat(&entries, &section.lines, entry::noise(series, Turn::pace));
        }
        section.notes.push(left_out(growing));
        sections.push(section);
        if load == Load::Connect {
            sections.push(cost(growing, &entries, series));
        }
    }
    Ok(sections)
}

/// Nothing twice, then each kind at each size, the smallest being the base of its kind.
fn entries(binary: &Path, growing: Growing) -> Vec<Entry> {
    let policies = growing.policies();
    let mut entries: Vec<Entry> = policies
        .first()
        .map(|(_, smallest)| entry::nothing(*smallest).to_vec())
        .unwrap_or_default();
    let kinds = [
        ("enforcer", Variant::Enforcer { binary: PathBuf::from(binary), flags: &[] }),
        ("nftables, sets", Variant::Nftables(Form::Sets)),
        ("nftables, a rule a peer", Variant::Nftables(Form::Rules)),
    ];
    for (name, variant) in kinds {
        let base = entries.len();
        for (number, policy) in &policies {
            if variant == Variant::Nftables(Form::Rules) && chain(*policy) > LONGEST {
                continue;
            }
            entries.push(Entry {
                name: format!("{name}, {}", entry::grouped(*number)),
                variant: variant.clone(),
                policy: *policy,
                bases: if entries.len() == base { Vec::new() } else { vec![base] },
            });
        }
    }
    entries
}

/// Rules of a chain with one for each peer and port.
fn chain(policy: Policy) -> u32 {
    policy.peers * u32::from(policy.rules)
}

fn left_out(growing: Growing) -> String {
    let each = match growing {
        Growing::Rules => format!("each rule has {FEW} peers"),
        Growing::Peers => "there is one rule".to_owned(),
    };
    let most = entry::grouped(LONGEST);
    format!("{each}; a rule a peer: not beyond {most} in a chain, it grows in proportion")
}

/// Whether ours is as fast with more as with the fewest.
fn flat(entries: &[Entry], lines: &[Line], noise: f64) -> Vec<Goal> {
    let ours = entries.iter().zip(lines);
    ours.filter(|(entry, _)| matches!(entry.variant, Variant::Enforcer { .. }))
        .filter_map(|(entry, line)| {
            let found = line.ratio?.median;
            Some(Goal::new(&entry.name, Wanted::AtLeast(FLAT), noise, found))
        })
        .collect()
}

/// What a connection costs more than with nothing attached, at each size.
fn cost(growing: Growing, entries: &[Entry], series: &[Series]) -> Section {
    let lines = entries.iter().enumerate().skip(NOTHING.len()).map(|(at, entry)| {
        let [way, _] = entry::costs(series, at);
        let base = entry.bases.first().map(|base| entry::costs(series, *base));
        Line {
            name: entry.name.clone(),
            value: Spread::of(way.iter().copied()),
            ratio: base.map(|[base, _]| entry::by(&way, &base)),
            wall: None,
        }
    });
    Section {
        title: format!("Cost added to a connection, by the number of {}", growing.word()),
        unit: "us of the processor",
        against: "the smallest of its kind in the same round",
        lines: lines.collect(),
        goals: Vec::new(),
        notes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_is_held_against_the_smallest_of_its_kind() {
        for growing in [Growing::Rules, Growing::Peers] {
            let entries = entries(Path::new("agent"), growing);
            let smallest = growing.policies()[0].1;
            for entry in &entries[NOTHING.len()..] {
                match entry.bases[..] {
                    [] => assert_eq!(entry.policy, smallest),
                    [base] => {
                        assert_eq!(entries[base].variant, entry.variant);
                        assert_eq!(entries[base].policy, smallest);
                    }
                    _ => panic!("{} has several bases", entry.name),
                }
            }
        }
    }

    #[test]
    fn no_chain_is_longer_than_the_longest() {
        let sizes = |growing| {
            let entries = entries(Path::new("agent"), growing);
            let chains =
                entries.iter().filter(|entry| entry.variant == Variant::Nftables(Form::Rules));
            chains.map(|entry| chain(entry.policy)).max()
        };
        assert_eq!([sizes(Growing::Rules), sizes(Growing::Peers)], [Some(10_000); 2]);
    }
}
