//! How long to wait before the next attempt to connect.

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(100);
/// The longest. An attempt costs a system call, and pods start without a gate meanwhile.
const LONGEST: Duration = Duration::from_secs(2);

/// Doubles from attempt to attempt.
#[derive(Debug)]
pub(super) struct Backoff {
    wait: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { wait: FIRST }
    }
}

impl Backoff {
    /// The wait after a connection that was in use for `lasted`, between half of what it would be
    /// and all of it. Starts anew after a connection that lasted longer than any wait.
    pub(super) fn next(&mut self, lasted: Option<Duration>, random: u64) -> Duration {
        if lasted.is_some_and(|lasted| lasted > LONGEST) {
            *self = Self::default();
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(LONGEST);
        let half = wait / 2;
        let steps = u32::try_from(random % 1024).expect("below 1024");
        half + half * steps / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..7).map(|_| backoff.next(None, 0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
        // One that is closed at once, again and again, is not tried at full speed.
        assert_eq!(backoff.next(Some(Duration::from_secs(1)), 0).as_millis(), 1000);
        assert_eq!(backoff.next(Some(Duration::from_secs(3)), 0).as_millis(), 50);
    }

    #[test]
    fn chance_moves_a_wait_between_half_and_whole() {
        for random in [0, 1, 511, 1023, 1024, u64::MAX] {
            let wait = Backoff::default().next(None, random);
            assert!((FIRST / 2..FIRST).contains(&wait), "{random}: {wait:?}");
        }
        assert!(Backoff::default().next(None, 1023) > Backoff::default().next(None, 0));
    }
}
