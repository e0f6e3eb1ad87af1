//! The loop of a target.

use std::{
    env, fs,
    panic::{self, AssertUnwindSafe},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    corpus,
    mutate::{Random, mutate},
};

/// How long a target goes on by itself.
const SHORT: Duration = Duration::from_secs(5);
/// Longer for one input is a failure: one that holds up who reads it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Inputs that are kept in mind, to be changed further.
const POOL: usize = 512;

/// Gives `target` its corpus, then changed inputs until the time is over. It answers with a number that
/// tells what became of the input: those with a new one are changed further.
pub(crate) fn run(name: &str, mut target: impl FnMut(&[u8]) -> u64) {
    let seconds = env::var("ENFORCER_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = seconds.map_or(SHORT, Duration::from_secs);
    let seed = env::var("ENFORCER_FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64)
    });
    println!("{name}: seed {seed}");
    let mut random = Random::new(seed);
    let mut pool = corpus::read(name);
    let mut seen = std::collections::HashSet::new();
    for input in &pool {
        seen.insert(one(name, &mut target, input));
    }
    let (started, mut rounds) = (Instant::now(), 0_u64);
    while started.elapsed() < time {
        let mut input = pool[random.below(pool.len())].clone();
        let other = random.below(pool.len());
        mutate(&mut random, &mut input, &pool[other]);
        rounds += 1;
        if seen.insert(one(name, &mut target, &input)) && pool.len() < POOL {
            pool.push(input);
        }
    }
    println!("{name}: {rounds} inputs, {} outcomes", seen.len());
    assert!(rounds > 50, "{name}: too slow to find anything: {rounds} inputs");
}

/// One input; if it fails it is kept.
fn one(name: &str, target: &mut impl FnMut(&[u8]) -> u64, input: &[u8]) -> u64 {
    let started = Instant::now();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| target(input)));
    let slow = started.elapsed() > PATIENCE;
    match outcome {
        Ok(outcome) if !slow => outcome,
        failed => {
            let sum = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
            let path = corpus::folder(name).join(format!("failed-{sum:016x}"));
            fs::write(&path, input).unwrap();
            let what = if failed.is_err() { "a panic" } else { "too slow" };
            panic!("{name}: {what}, input kept as {}", path.display());
        }
    }
}
