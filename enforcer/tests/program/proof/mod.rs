//! Verdicts of random clusters: the reference evaluator, the tables read in userspace and the real
//! object in the kernel must say the same of every probe, after every update.
//!
//! A round is a cluster, built from nothing, and what becomes of it by streams of events. All of it
//! follows from a seed, which a failure names, and `ENFORCER_SEED=` repeats. What differs is made as
//! small as it can be and written down as the files of a scenario.
//!
//! In every run 50,000 probes (10 s); with `ENFORCER_EXHAUSTIVE` set, which is what
//! `cargo xtask test --exhaustive` does, a million.

mod compare;
mod events;
mod generate;
mod live;
mod manifests;
mod meaning;
mod misread;
mod places;
mod probe;
mod random;
mod rig;
mod round;
mod shrink;
mod writer;

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use enforcer::{cluster::event::Event, source::manifests::ManifestSource};
use enforcer_reference::Cluster;

use self::{
    manifests::Files,
    misread::{MISREADINGS, Misreading},
    random::Random,
    rig::Rig,
    round::{Ask, Failure, Round, differs},
};

/// Probes of a run.
const PROBES: usize = 50_000;
/// Those of a long one.
const MANY_PROBES: usize = 1_000_000;
/// Rounds in which something was found that was wrong then.
const FOUND: &[u64] = &[];

/// Where what is worth keeping is written.
fn dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("proof")
}

/// A seed for a run: the one that is asked for, or any.
fn seed() -> (u64, bool) {
    match env::var("ENFORCER_SEED") {
        Ok(text) => (text.parse().expect("ENFORCER_SEED is a number"), true),
        Err(_) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            (Random::new(now.as_nanos() as u64).next() >> 16, false)
        }
    }
}

/// Whether this is a long run.
fn is_exhaustive() -> bool {
    env::var_os("ENFORCER_EXHAUSTIVE").is_some()
}

/// Writes down what a run was, and shows it.
fn record(line: &str) {
    println!("{line}");
    fs::create_dir_all(dir()).unwrap();
    let path = dir().join("runs.txt");
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    writeln!(file, "{line}").unwrap();
}

fn fail(rig: &mut Rig, seed: u64, failure: &Failure) -> ! {
    let (difference, small) = failure.shrink(rig, Ask::Tables, |_| {});
    let Some(small) = small else {
        panic!(
            "ENFORCER_SEED={seed}: only after an update, not in a fresh build:\n{difference}\n\
             the update before:\n{:#?}",
            failure.events
        );
    };
    let files = Files::of(&small, &difference.probe);
    let dir = dir().join(seed.to_string());
    files.write(&dir);
    panic!("ENFORCER_SEED={seed}:\n{difference}\nin {}:\n{files}", dir.display());
}

#[test]
fn the_kernel_the_tables_and_the_reference_agree() {
    let (first, only) = seed();
    let wanted = if is_exhaustive() { MANY_PROBES } else { PROBES };
    let started = Instant::now();
    let mut rig = Rig::new();
    let (mut probes, mut rounds, mut clusters) = (0, 0, 0);
    let found = if only { &[] } else { FOUND };
    let mut tally = round::Tally::default();
    for seed in found.iter().copied().chain(first..) {
        let mut round = Round::new(seed, &mut rig);
        loop {
            match round.probe(&mut rig, |_| {}) {
                Ok(seen) => probes += seen,
                Err(failure) => fail(&mut rig, seed, &failure),
            }
            clusters += 1;
            if !round.update(&mut rig) {
                break;
            }
        }
        tally.add(&round.tally);
        rounds += 1;
        if only || probes >= wanted {
            break;
        }
    }
    record(&format!(
        "{probes} probes, no difference: {rounds} rounds from ENFORCER_SEED={first}, {clusters} \
         clusters, {:.1} s; {tally}",
        started.elapsed().as_secs_f64()
    ));
    // A generator that asks only what is denied, or only what nobody cares for, shows nothing.
    if !only {
        tally.assert_varied();
    }
}

/// Events of the files, as the manifests' source reads them.
fn replayed(files: &Files) -> Vec<Event> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cluster.yaml"), &files.cluster).unwrap();
    fs::write(dir.path().join("policies.yaml"), &files.policies).unwrap();
    let update = ManifestSource::new(dir.path()).unwrap().rescan();
    assert_eq!(format!("{:?}", update.problems), "[]", "{files}");
    update.events
}

/// A reference that reads the API wrong is found out, whatever it gets wrong, and the case is small,
/// and the same when its files are read.
#[test]
fn every_misreading_is_found_and_comes_out_small() {
    // Most of the time is spent waiting for the kernel to take interfaces away: together.
    let finding = |part: &'static [Misreading]| {
        thread::spawn(move || {
            let mut rig = Rig::new();
            for (at, misreading) in part.iter().enumerate() {
                // One by packets alone, as what only the kernel gets wrong would have to be.
                find(&mut rig, if at == 0 { Ask::Kernel } else { Ask::Tables }, *misreading);
            }
        })
    };
    let parts: Vec<_> = MISREADINGS.chunks(MISREADINGS.len().div_ceil(4)).map(finding).collect();
    parts.into_iter().for_each(|part| part.join().unwrap());
}

fn find(rig: &mut Rig, ask: Ask, (what, misread): Misreading) {
    let (seed, failure) = (1..1_000)
        .filter(|seed| round::matters(*seed, misread))
        .find_map(|seed| Some((seed, Round::new(seed, rig).probe(rig, misread).err()?)))
        .unwrap_or_else(|| panic!("{what}: nobody notices"));
    let (difference, small) = failure.shrink(rig, ask, misread);
    let small = small.unwrap_or_else(|| panic!("{what}: not in a fresh build: {difference}"));
    let files = Files::of(&small, &difference.probe);
    assert!(small.policies.len() <= 2, "{what}, seed {seed}:\n{files}");
    assert!(small.pods.len() <= 3, "{what}, seed {seed}:\n{files}");
    assert!(files.to_string().lines().count() < 100, "{what}, seed {seed}:\n{files}");
    // The very files lead to the same.
    rig.rebuild(&Cluster { node: small.node.clone(), ..Cluster::default() });
    rig.lead_to(small.clone(), replayed(&files));
    let again = differs(rig, &small, &difference.probe, misread);
    assert!(again.is_some(), "{what}, seed {seed}: not by its files:\n{files}");
    // And the right reading finds nothing wrong with it.
    let right = differs(rig, &small, &difference.probe, |_| {});
    assert!(right.is_none(), "{what}, seed {seed}: {}", right.unwrap());
}
