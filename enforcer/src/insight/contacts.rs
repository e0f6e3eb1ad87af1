//! Whom a workload has been in contact with before.

use std::{collections::VecDeque, hash::Hash};

// Asked for each flow; what can be in it is bounded, so nobody gains by collisions.
use foldhash::{HashMap, HashSet};

/// Workloads whose contacts are kept; the one that came first gives way.
const MOST_WORKLOADS: usize = 4096;
/// Contacts that are kept of one. Beyond it the workload talks to everybody, and a new contact
/// says nothing.
const MOST_CONTACTS: usize = 1024;
/// First contacts of one workload that are new within [`PERIOD`]; more of them are no news.
const MOST_NEW: u32 = 10;
/// An hour, in ns.
const PERIOD: i64 = 3_600_000_000_000;

/// Workloads with their contacts.
#[derive(Debug)]
pub(crate) struct Contacts<W, C> {
    known: HashMap<W, Known<C>>,
    order: VecDeque<W>,
}

#[derive(Debug)]
struct Known<C> {
    contacts: HashSet<C>,
    period_began: i64,
    new_in_period: u32,
}

impl<W, C> Default for Contacts<W, C> {
    fn default() -> Self {
        Self { known: HashMap::default(), order: VecDeque::new() }
    }
}

impl<W: Hash + Eq + Clone, C: Hash + Eq> Contacts<W, C> {
    /// Notes a contact. Returns whether it is a first one that is news.
    pub(crate) fn is_new(&mut self, workload: W, contact: C, now: i64) -> bool {
        let known = match self.known.get_mut(&workload) {
            Some(known) => known,
            None => {
                if self.known.len() >= MOST_WORKLOADS
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.known.remove(&oldest);
                }
                self.order.push_back(workload.clone());
                self.known.entry(workload).or_insert_with(|| Known {
                    contacts: HashSet::default(),
                    period_began: now,
                    new_in_period: 0,
                })
            }
        };
        if known.contacts.contains(&contact) || known.contacts.len() >= MOST_CONTACTS {
            return false;
        }
        known.contacts.insert(contact);
        if now.saturating_sub(known.period_began) > PERIOD {
            known.period_began = now;
            known.new_in_period = 0;
        }
        known.new_in_period = known.new_in_period.saturating_add(1);
        known.new_in_period <= MOST_NEW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_contact_is_news_and_the_second_is_not() {
        let mut c = Contacts::default();
        assert!(c.is_new("a", 1, 0));
        assert!(!c.is_new("a", 1, 1));
        assert!(c.is_new("b", 1, 1), "another workload");
        assert!(c.is_new("a", 2, 2));
    }

    #[test]
    fn who_talks_to_everybody_is_told_of_a_few_times_an_hour() {
        let mut c = Contacts::default();
        assert_eq!((0..100).filter(|n| c.is_new("a", *n, 0)).count(), 10);
        assert_eq!((100..200).filter(|n| c.is_new("a", *n, PERIOD + 1)).count(), 10);
        let mut many = (0..100_000).filter(|n| c.is_new("b", *n, i64::from(*n) * PERIOD * 2));
        assert_eq!(many.by_ref().count(), MOST_CONTACTS);
    }

    #[test]
    fn workloads_are_bounded() {
        let mut c = Contacts::default();
        assert!((0..=MOST_WORKLOADS).all(|n| c.is_new(n, (), 0)));
        assert_eq!((c.known.len(), c.order.len()), (MOST_WORKLOADS, MOST_WORKLOADS));
        assert!(!c.is_new(MOST_WORKLOADS, (), 0));
        assert!(c.is_new(0, (), 0), "the first was forgotten");
    }
}
