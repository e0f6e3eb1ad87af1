//! How many different things one source has touched within a time.

use std::{collections::VecDeque, hash::Hash};

// Asked for each flow; what can be in it is bounded, so nobody gains by collisions.
use foldhash::HashMap;

use super::config::Rate;

/// Sources that are followed at once. The one that was quiet for longest gives way.
const MOST_SOURCES: usize = 4096;
/// What has been told of a source is told again after so many windows at the earliest.
const QUIET_WINDOWS: i64 = 10;

/// Sources, each with what it has touched of late.
#[derive(Debug)]
pub(super) struct Spreads<S, T> {
    rate: Rate,
    window: i64,
    sources: HashMap<S, Spread<T>>,
    /// Sources in the order in which they were last active; a number that is not the source's is
    /// out of date.
    order: VecDeque<(u64, S)>,
    count: u64,
}

#[derive(Debug)]
struct Spread<T> {
    /// With the time at which it was last touched, oldest first; never more than the rate's count.
    touched: Vec<(T, i64)>,
    told: Option<i64>,
    number: u64,
}

impl<S: Hash + Eq + Clone, T: PartialEq> Spreads<S, T> {
    /// Nothing seen.
    pub(super) fn new(rate: Rate) -> Self {
        let window = i64::try_from(rate.within.as_nanos()).unwrap_or(i64::MAX);
        Self { rate, window, sources: HashMap::default(), order: VecDeque::new(), count: 0 }
    }

    /// Notes that `source` touched `thing`. Returns how many different ones it were within the
    /// window if that is worth telling now.
    pub(super) fn add(&mut self, source: S, thing: T, now: i64) -> Option<usize> {
        let most = usize::from(self.rate.count);
        if most == 0 {
            return None;
        }
        self.count += 1;
        let number = self.count;
        self.order.push_back((number, source.clone()));
        let spread = self.sources.entry(source).or_insert_with(|| Spread {
            touched: Vec::new(),
            told: None,
            number,
        });
        spread.number = number;
        let window = self.window;
        spread.touched.retain(|(old, at)| *old != thing && now.saturating_sub(*at) <= window);
        if spread.touched.len() >= most {
            spread.touched.remove(0);
        }
        spread.touched.push((thing, now));
        let reached = spread.touched.len() >= most;
        let quiet = window.saturating_mul(QUIET_WINDOWS);
        let tells = reached && spread.told.is_none_or(|told| now.saturating_sub(told) > quiet);
        if tells {
            spread.told = Some(now);
        }
        self.forget();
        tells.then_some(most)
    }

    /// Keeps what is kept bounded: out-of-date places in the order, and sources.
    fn forget(&mut self) {
        while let Some((number, source)) = self.order.front() {
            let current = self.sources.get(source).is_some_and(|one| one.number == *number);
            if current && self.sources.len() <= MOST_SOURCES {
                break;
            }
            if let Some((_, source)) = self.order.pop_front()
                && current
            {
                self.sources.remove(&source);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize) {
        (self.sources.len(), self.order.len())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn spreads(count: u16) -> Spreads<u32, u32> {
        Spreads::new(Rate { count, within: Duration::from_secs(60) })
    }

    #[test]
    fn different_things_count_and_only_within_the_window() {
        let mut s = spreads(3);
        assert_eq!(s.add(1, 10, 0), None);
        assert_eq!(s.add(1, 10, SECOND), None);
        assert_eq!(s.add(1, 11, 2 * SECOND), None);
        assert_eq!(s.add(2, 12, 3 * SECOND), None, "another source");
        // 10 was last touched a second in: out of the window by now.
        assert_eq!(s.add(1, 12, 62 * SECOND), None);
        assert_eq!(s.add(1, 13, 62 * SECOND), Some(3));
    }

    #[test]
    fn what_was_told_is_quiet_for_a_while_and_then_told_again() {
        let mut s = spreads(2);
        s.add(1, 1, 0);
        assert_eq!(s.add(1, 2, 0), Some(2));
        for n in 3..600 {
            assert_eq!(s.add(1, n, i64::from(n) * SECOND), None, "{n}");
        }
        assert_eq!(s.add(1, 600, 601 * SECOND), Some(2));
    }

    #[test]
    fn a_rate_of_none_never_tells_and_keeps_nothing() {
        let mut s = spreads(0);
        assert!((0..99).all(|n| s.add(1, n, 0).is_none()));
        assert_eq!(s.kept(), (0, 0));
    }

    #[test]
    fn sources_are_bounded_and_the_quietest_goes_first() {
        let mut s = spreads(2);
        s.add(0, 1, 0);
        for source in 1..=4096 {
            // The first stays active.
            assert_eq!(s.add(0, 1, 0), None);
            s.add(source, 1, 0);
        }
        let (sources, order) = s.kept();
        assert!(sources <= MOST_SOURCES && order <= 2 * MOST_SOURCES, "{sources} {order}");
        assert_eq!(s.add(0, 2, 0), Some(2), "still known");
        assert_eq!(s.add(1, 2, 0), None, "forgotten");
    }

    #[test]
    fn one_busy_source_leaves_no_trail() {
        let mut s = spreads(2);
        for n in 0..10_000 {
            s.add(7, n, 0);
        }
        assert_eq!(s.kept(), (1, 1));
    }
}
