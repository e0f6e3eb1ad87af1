//! Rows: what one class of address may do with one pod in one direction, by protocol and port.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    sync::Arc,
};

use enforcer_common::{
    abi::{ACTION_ALLOW, ACTION_DENY, Interval, RuleId, rule},
    verdict::{PORT_KEYS, port_key, proto},
};

use super::rule::Action;
use crate::cluster::event::Protocol;

/// Keys from `first` to `last`, both included, in the space of [`port_key`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyRange {
    /// First key.
    pub first: u32,
    /// Last key.
    pub last: u32,
}

impl KeyRange {
    /// Every protocol and port: the only range that covers protocols without ports.
    pub const ALL: Self = Self { first: 0, last: PORT_KEYS - 1 };

    /// Ports of a protocol.
    #[must_use]
    pub const fn ports(protocol: Protocol, first: u16, last: u16) -> Self {
        let number = match protocol {
            Protocol::Tcp => proto::TCP,
            Protocol::Udp => proto::UDP,
            Protocol::Sctp => proto::SCTP,
        };
        Self { first: port_key(number, first), last: port_key(number, last) }
    }
}

/// A rule's part of a row: it covers `range`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cover {
    /// Precedence: of two covers of one key the lower decides.
    pub order: u32,
    /// The rule.
    pub rule: RuleId,
    /// What the rule does.
    pub action: Action,
    /// What it covers.
    pub range: KeyRange,
}

/// The row in which nothing is allowed.
#[must_use]
pub fn deny_all() -> Arc<[Interval]> {
    Arc::from([deny(0)])
}

const fn deny(start: u32) -> Interval {
    Interval { start, rule: rule::DEFAULT_DENY, action: ACTION_DENY, _pad: 0, proxy_port: 0 }
}

/// The row that follows from `covers`: sorted, from 0, without gaps, neighbours differ, and
/// default deny where nothing covers. O(n log n) in the number of covers.
#[must_use]
pub fn build(mut covers: Vec<Cover>) -> Arc<[Interval]> {
    covers.sort_unstable_by_key(|cover| cover.range.first);
    let mut steps: BTreeSet<u32> = BTreeSet::from([0]);
    for Cover { range, .. } in &covers {
        steps.insert(range.first);
        steps.insert(range.last.saturating_add(1));
    }
    let mut row: Vec<Interval> = Vec::new();
    // Open covers by precedence; those that have ended are dropped when they come to the top.
    let mut open = BinaryHeap::new();
    let mut next = 0;
    for start in steps.into_iter().filter(|start| *start < PORT_KEYS) {
        while let Some(cover) = covers.get(next).filter(|cover| cover.range.first <= start) {
            open.push(Reverse((cover.order, next)));
            next += 1;
        }
        let interval = loop {
            let Some(Reverse((_, at))) = open.peek() else { break deny(start) };
            let cover = &covers[*at];
            if cover.range.last < start {
                open.pop();
                continue;
            }
            let action = match cover.action {
                Action::Allow => ACTION_ALLOW,
            };
            break Interval { start, rule: cover.rule, action, _pad: 0, proxy_port: 0 };
        };
        if row.last().is_none_or(|last| Interval { start, ..*last } != interval) {
            row.push(interval);
        }
    }
    row.into()
}

/// Whether `b` allows everything that `a` allows. Both are whole rows.
#[must_use]
pub fn allows_subset(a: &[Interval], b: &[Interval]) -> bool {
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        if x.action == ACTION_ALLOW && y.action != ACTION_ALLOW {
            return false;
        }
        let end =
            |row: &[Interval], at: usize| row.get(at + 1).map_or(PORT_KEYS, |next| next.start);
        let (x_end, y_end) = (end(a, i), end(b, j));
        i += usize::from(x_end <= y_end);
        j += usize::from(y_end <= x_end);
    }
    true
}

#[cfg(test)]
mod tests {
    use enforcer_common::verdict::search;
    use proptest::prelude::*;

    use super::*;

    /// What the row must say of one key, from the covers alone.
    fn naive(covers: &[Cover], key: u32) -> (u8, RuleId) {
        covers
            .iter()
            .filter(|cover| (cover.range.first..=cover.range.last).contains(&key))
            .min_by_key(|cover| cover.order)
            .map_or((ACTION_DENY, rule::DEFAULT_DENY), |cover| (ACTION_ALLOW, cover.rule))
    }

    fn covers() -> impl Strategy<Value = Vec<Cover>> {
        let edge = prop_oneof![0..12u16, (u16::MAX - 6)..=u16::MAX, any::<u16>()];
        let protocol = prop_oneof![
            Just(Some(Protocol::Tcp)),
            Just(Some(Protocol::Udp)),
            Just(Some(Protocol::Sctp)),
            Just(None)
        ];
        let range =
            (protocol, edge.clone(), edge, 0..10u8).prop_map(
                |(protocol, a, b, any)| match protocol {
                    Some(protocol) => KeyRange::ports(protocol, a.min(b), a.max(b)),
                    None if any == 0 => KeyRange::ALL,
                    None => KeyRange::ports(Protocol::Tcp, a, a),
                },
            );
        prop::collection::vec((0..6u32, range), 0..12).prop_map(|list| {
            list.into_iter()
                .map(|(order, range)| Cover {
                    order,
                    rule: 16 + order,
                    action: Action::Allow,
                    range,
                })
                .collect()
        })
    }

    /// Every key at which anything can change, and its neighbours.
    fn probes(lists: &[&[Cover]]) -> Vec<u32> {
        let mut keys = vec![0, 65_535, 65_536, PORT_KEYS - 1];
        for cover in lists.iter().copied().flatten() {
            for edge in [cover.range.first, cover.range.last] {
                keys.extend([edge.saturating_sub(1), edge, (edge + 1).min(PORT_KEYS - 1)]);
            }
        }
        keys
    }

    #[test]
    fn a_range_for_everything_ends_with_the_last_port_of_the_last_protocol() {
        let last = KeyRange::ports(Protocol::Sctp, 0, u16::MAX).last;
        assert_eq!(KeyRange::ALL, KeyRange { first: port_key(1, 0), last });
    }

    proptest! {
        #[test]
        fn a_row_says_of_every_key_what_its_covers_say(list in covers()) {
            let row = build(list.clone());
            prop_assert_eq!(row[0].start, 0);
            for pair in row.windows(2) {
                prop_assert!(pair[0].start < pair[1].start);
                prop_assert!((pair[0].rule, pair[0].action) != (pair[1].rule, pair[1].action));
            }
            for key in probes(&[&list]) {
                let found = search(&row, key).unwrap();
                prop_assert_eq!((found.action, found.rule), naive(&list, key), "key {}", key);
            }
        }

        #[test]
        fn a_subset_is_found_by_every_key(a in covers(), b in covers()) {
            let expected = probes(&[&a, &b])
                .into_iter()
                .all(|key| naive(&a, key).0 == ACTION_DENY || naive(&b, key).0 == ACTION_ALLOW);
            prop_assert_eq!(allows_subset(&build(a.clone()), &build(b)), expected);
            prop_assert!(allows_subset(&deny_all(), &build(a.clone())));
            prop_assert!(allows_subset(&build(a.clone()), &build(a)));
        }
    }

    #[test]
    fn ports_of_one_protocol_never_reach_protocols_without_ports() {
        let all = |protocol| Cover {
            order: 0,
            rule: 20,
            action: Action::Allow,
            range: KeyRange::ports(protocol, 0, u16::MAX),
        };
        let row = build([Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(all).to_vec());
        assert_eq!(row.len(), 2, "neighbours that say the same are one");
        assert_eq!(search(&row, 0).unwrap().action, ACTION_DENY);
        assert_eq!(search(&row, 65_536).unwrap().action, ACTION_ALLOW);
        assert_eq!(build(vec![]), deny_all());
    }
}
