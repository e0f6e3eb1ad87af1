//! How long things may take, and the chance that keeps many agents out of step.

use std::time::Duration;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// After this long the server ends a watch; it is made a little shorter by chance.
    pub(crate) watch: Duration,
    /// This long after a watch should have ended its connection counts as dead.
    pub(crate) slack: Duration,
    /// Until an answer begins.
    pub(crate) answer: Duration,
    /// Between two pieces of a list.
    pub(crate) piece: Duration,
    /// First wait after a failure; it doubles up to `longest_wait`.
    pub(crate) wait: Duration,
    /// Longest wait after a failure.
    pub(crate) longest_wait: Duration,
    /// The first request waits at most this long, by chance.
    pub(crate) start: Duration,
    /// A watch that has to catch up is ended by the server after this long, so that it says soon
    /// how far it is.
    pub(crate) hurry: Duration,
    /// A watch that has not caught up after this long lists anew.
    pub(crate) catch_up: Duration,
    /// After so long without a server everything is listed anew.
    pub(crate) outage: Duration,
    /// Up to so many objects are listed anew in order to catch up.
    pub(crate) few: usize,
    /// Without a complete list after this long, what was saved is enforced.
    pub(crate) patience: Duration,
    /// Addresses of other nodes' pods that were saved are good for this long.
    pub(crate) remote: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            // Together at most a minute.
            watch: Duration::from_secs(50),
            slack: Duration::from_secs(8),
            answer: Duration::from_secs(30),
            piece: Duration::from_secs(15),
            wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(20),
            start: Duration::from_millis(200),
            hurry: Duration::from_secs(3),
            catch_up: Duration::from_secs(5),
            outage: Duration::from_secs(5),
            few: 1000,
            patience: Duration::from_secs(3),
            remote: Duration::from_secs(600),
        }
    }
}

/// Chance that is good enough to be out of step with others (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// The sequence that follows from a seed.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another seed, for another sequence.
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between `share` of a time and the whole of it, in 1/256.
    pub(crate) fn part(&mut self, of: Duration, share: u32) -> Duration {
        let choice = u32::try_from(self.next() % 256).unwrap_or(0);
        let share = share.min(256);
        of * (share + (256 - share) * choice / 255) / 256
    }
}

impl Timing {
    /// How long to wait after so many failures in a row.
    pub(crate) fn wait_after(&self, failures: u32, chance: &mut Chance) -> Duration {
        let doubled = self.wait.saturating_mul(1 << failures.saturating_sub(1).min(16));
        chance.part(doubled.min(self.longest_wait), 128)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_limit_and_differ() {
        let (timing, mut chance) = (Timing::default(), Chance::new(1));
        let mut of = |failures| timing.wait_after(failures, &mut chance);
        for failures in [1, 2, 5, 6, 7, 40, u32::MAX] {
            let most = Duration::from_millis(500 << (failures - 1).min(10));
            let most = most.min(timing.longest_wait);
            for _ in 0..100 {
                let wait = of(failures);
                assert!(wait >= most / 2 && wait <= most, "{failures}: {wait:?}");
            }
        }
        assert_ne!(of(7), of(7));
    }

    #[test]
    fn a_dead_connection_is_noticed_within_a_minute() {
        let timing = Timing::default();
        assert!(timing.watch + timing.slack <= Duration::from_secs(60));
    }
}
