//! Hooks that packets go round: another program on the hook that redirects a pod's packets before
//! ours sees them. Found by comparing what the interface has counted with when our program last
//! saw a packet.

use std::collections::HashMap;

/// So many packets in one interval, none of them seen by us, are no accident.
const ENOUGH: u64 = 32;
/// Our clock of an endpoint lags by at most so much, ns.
const LAG: u64 = 2_000_000_000;

/// The interfaces that were looked at last time.
#[derive(Debug, Default)]
pub(super) struct Bypass {
    /// Packets from the pod by interface, as the interface counts them.
    before: HashMap<u32, u64>,
    /// Time of the last look (`CLOCK_MONOTONIC`, ns).
    looked: u64,
    found: Vec<u32>,
}

impl Bypass {
    /// Looks at all armed interfaces: index, packets that the interface received from the pod, and
    /// when our program last saw one.
    pub(super) fn look(&mut self, now: u64, interfaces: impl Iterator<Item = (u32, u64, u64)>) {
        let mut counts = HashMap::new();
        self.found.clear();
        for (ifindex, packets, last_seen) in interfaces {
            counts.insert(ifindex, packets);
            let Some(before) = self.before.get(&ifindex) else {
                continue;
            };
            let came = packets.saturating_sub(*before);
            if came >= ENOUGH && last_seen.saturating_add(LAG) < self.looked {
                self.found.push(ifindex);
            }
        }
        self.before = counts;
        self.looked = now;
    }

    /// Interfaces whose packets went round our program in the last interval.
    pub(super) fn found(&self) -> &[u32] {
        &self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn packets_that_we_do_not_see_are_found_and_others_are_not() {
        let mut bypass = Bypass::default();
        let at = |packets, seen| [(7, packets, seen)].into_iter();
        bypass.look(10 * SECOND, at(1_000, 0));
        assert!(bypass.found().is_empty(), "nothing to compare with");
        bypass.look(15 * SECOND, at(1_000 + ENOUGH, 0));
        assert_eq!(bypass.found(), [7]);
        bypass.look(20 * SECOND, at(1_000 + 2 * ENOUGH, 14 * SECOND));
        assert!(bypass.found().is_empty(), "seen, as far as the clock tells");
        bypass.look(25 * SECOND, at(1_000 + 3 * ENOUGH - 1, 14 * SECOND));
        assert!(bypass.found().is_empty(), "too few to say");
        bypass.look(30 * SECOND, at(0, 14 * SECOND));
        assert!(bypass.found().is_empty(), "a counter that starts over");
    }
}
