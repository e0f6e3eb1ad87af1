//! How long the node's proxy is given to notice that a Service is gone.

use std::time::{Duration, Instant};

/// Its API watch and its next write of rules take seconds; a proxy that is out of contact for
/// longer translates for as long as it is, and nobody knows.
const TIME: Duration = Duration::from_secs(60);

/// Since when something lingers.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    since: Option<Instant>,
}

impl Lingering {
    /// Whether the time is over again. To be called every few seconds.
    pub(super) fn is_over(&mut self, lingers: bool, now: Instant) -> bool {
        if !lingers {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let is_over = now.saturating_duration_since(since) >= TIME;
        if is_over {
            self.since = Some(now);
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_begins_when_something_lingers_and_again_when_it_is_over() {
        let mut lingering = Lingering::default();
        let start = Instant::now();
        let mut at = |seconds: u64, lingers: bool| {
            lingering.is_over(lingers, start + Duration::from_secs(seconds))
        };
        let looks = [(0, false), (100, true), (159, true), (160, true), (165, true), (219, true)];
        assert_eq!(looks.map(|(at_, l)| at(at_, l)), [false, false, false, true, false, false]);
        assert!(at(220, true));
        assert_eq!([(230, false), (300, true), (359, true)].map(|(s, l)| at(s, l)), [false; 3]);
        assert!(at(360, true));
    }
}
