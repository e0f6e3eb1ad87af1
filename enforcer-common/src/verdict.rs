//! The verdict search: a row of sorted intervals over protocol and port, and how it is read.
//!
//! A row answers "what may this class of address do with this pod in this direction". Its keys
//! are [`port_key`]s; its intervals cover all of them without a gap, so the last interval that
//! starts at or before a key is the answer. Ranges and any number of ports are exact.

use crate::abi::{Interval, MAX_ROW_INTERVALS};

/// IP protocol numbers (IANA).
pub mod proto {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Number of keys: four protocol groups of 65,536.
pub const PORT_KEYS: u32 = 4 << 16;

/// Place of a protocol and destination port in a row.
///
/// Group 0 is every protocol without ports (a rule reaches it only when it names no ports), then
/// TCP, UDP and SCTP by port.
#[must_use]
#[inline(always)]
pub const fn port_key(protocol: u8, port: u16) -> u32 {
    match protocol {
        proto::TCP => 1 << 16 | port as u32,
        proto::UDP => 2 << 16 | port as u32,
        proto::SCTP => 3 << 16 | port as u32,
        _ => 0,
    }
}

const _: () = assert!(PORT_KEYS <= MAX_ROW_INTERVALS, "every port alone fits a row");

/// Steps that always suffice to search a row.
pub const SEARCH_STEPS: u32 = MAX_ROW_INTERVALS.ilog2() + 1;

/// One step of the search over `[low, high)`: the probe's place, and how its start moves the
/// bounds. Kept apart from the map access so that the kernel and the tests run the same code.
#[must_use]
#[inline(always)]
pub const fn probe(low: u32, high: u32) -> u32 {
    low + (high - low) / 2
}

/// The interval of `row` that holds `key`; the host's form of the search.
///
/// `None` only for an empty row, which the compiler never makes.
#[must_use]
pub fn search(row: &[Interval], key: u32) -> Option<&Interval> {
    let after = row.partition_point(|interval| interval.start <= key);
    row.get(after.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(start: u32, rule: u32) -> Interval {
        Interval { start, rule, ..Interval::default() }
    }

    #[test]
    fn keys_do_not_overlap() {
        assert_eq!(port_key(proto::ICMP, 8), 0);
        assert_eq!(port_key(proto::TCP, 0), 65_536);
        assert_eq!(port_key(proto::TCP, u16::MAX) + 1, port_key(proto::UDP, 0));
        assert_eq!(port_key(proto::UDP, u16::MAX) + 1, port_key(proto::SCTP, 0));
        assert_eq!(port_key(proto::SCTP, u16::MAX) + 1, PORT_KEYS);
    }

    #[test]
    fn the_search_finds_the_interval_that_holds_the_key() {
        let row = [interval(0, 1), interval(10, 2), interval(11, 3)];
        for (key, rule) in [(0, 1), (9, 1), (10, 2), (11, 3), (u32::MAX, 3)] {
            assert_eq!(search(&row, key).unwrap().rule, rule, "key {key}");
        }
        assert!(search(&[], 0).is_none());
    }

    /// As the programs search, in intervals that start at twice their number from `first` on; what
    /// is left to look at when the steps are over.
    fn stepwise(first: u32, count: u32, key: u32) -> (u32, u32) {
        let (mut low, mut high) = (first, first + count);
        for _ in 0..SEARCH_STEPS {
            if high - low <= 1 {
                break;
            }
            let middle = probe(low, high);
            assert!(low < middle && middle < high, "a step moves a bound");
            if (middle - first) * 2 <= key { low = middle } else { high = middle }
        }
        (low, high)
    }

    #[test]
    fn steps_that_always_suffice_find_the_interval_in_the_longest_row() {
        for (first, count) in [(0, 1), (7, 2), (0, 3), (100_000, 1_000), (3, MAX_ROW_INTERVALS)] {
            let last = count - 1;
            for number in [0, 1, count / 3, count / 2, last.saturating_sub(1), last] {
                let number = number.min(last);
                for key in [number * 2, number * 2 + 1] {
                    let found = first + number;
                    assert_eq!(stepwise(first, count, key), (found, found + 1), "{key} of {count}");
                }
            }
        }
    }
}
