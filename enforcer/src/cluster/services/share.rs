//! Who may have how many entries of the kernel's map.
//!
//! Everybody gets what they ask for while that fits. Else namespaces share equally: one that asks
//! for less than an equal share has all of it, and what it leaves is the others'. Within a
//! namespace the Services that ask for least come first. So nobody who asks for little is refused because of
//! one who asks for very much. What is refused is judged all the same, see
//! [`enforcer_common::abi::REST_OF_SERVICES`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::cluster::event::ObjectKey;

/// Entries that a Service asks for; `None` for more than anybody may have.
pub(super) type Demand = Option<usize>;

#[derive(Debug, Default)]
pub(super) struct Share {
    /// Entries that there are; `None` for any number.
    most: Option<usize>,
    demands: BTreeMap<ObjectKey, Demand>,
    /// Their sum.
    total: usize,
    refused: BTreeSet<ObjectKey>,
    changed: bool,
}

impl Share {
    pub(super) fn new(most: Option<usize>) -> Self {
        Self { most, ..Self::default() }
    }

    /// A Service asks for this; for nothing if it is gone.
    pub(super) fn ask(&mut self, service: &ObjectKey, demand: Demand) {
        let old = if demand == Some(0) {
            self.demands.remove(service)
        } else {
            self.demands.insert(service.clone(), demand)
        };
        let old = old.unwrap_or(Some(0));
        if old == demand {
            return;
        }
        self.changed = true;
        self.total = self.total.saturating_sub(old.unwrap_or(0));
        self.total = self.total.saturating_add(demand.unwrap_or(0));
    }

    /// Whether a Service is to do without entries of its own.
    pub(super) fn refuses(&self, service: &ObjectKey) -> bool {
        self.refused.contains(service)
    }

    /// All that are.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&ObjectKey, Demand)> {
        self.refused.iter().map(|key| (key, self.demands.get(key).copied().flatten()))
    }

    /// Entries that there are.
    pub(super) fn most(&self) -> Option<usize> {
        self.most
    }

    /// Shares again if something has changed. Returns the Services for which that matters.
    pub(super) fn settle(&mut self) -> Vec<ObjectKey> {
        if !std::mem::take(&mut self.changed) {
            return Vec::new();
        }
        let refused = self.find_refused();
        let moved = self.refused.symmetric_difference(&refused).cloned().collect();
        self.refused = refused;
        moved
    }

    fn find_refused(&self) -> BTreeSet<ObjectKey> {
        let too_many = self.demands.iter().filter(|(_, demand)| demand.is_none());
        let mut refused: BTreeSet<_> = too_many.map(|(key, _)| key.clone()).collect();
        let Some(most) = self.most.filter(|most| self.total > *most) else { return refused };
        let mut namespaces: BTreeMap<&Arc<str>, Vec<(usize, &ObjectKey)>> = BTreeMap::new();
        for (key, demand) in &self.demands {
            if let Some(demand) = demand {
                namespaces.entry(&key.namespace).or_default().push((*demand, key));
            }
        }
        let sum = |all: &[(usize, &ObjectKey)]| {
            all.iter().fold(0_usize, |sum, (demand, _)| sum.saturating_add(*demand))
        };
        let mut namespaces: Vec<_> = namespaces.into_values().map(|all| (sum(&all), all)).collect();
        namespaces.sort_unstable();
        let mut left = most;
        let mut count = namespaces.len();
        for (wanted, mut services) in namespaces {
            let equal = left / count.max(1);
            count -= 1;
            if wanted <= equal {
                left -= wanted;
                continue;
            }
            services.sort_unstable();
            let mut own = equal;
            for (demand, key) in services {
                match own.checked_sub(demand) {
                    Some(rest) => own = rest,
                    None => {
                        refused.insert(key.clone());
                    }
                }
            }
            left -= equal - own;
        }
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: usize) -> ObjectKey {
        ObjectKey { namespace: namespace.into(), name: format!("s{name}").into() }
    }

    fn refused(most: usize, demands: &[(&str, &[usize])]) -> Vec<String> {
        let mut share = Share::new(Some(most));
        for (namespace, demands) in demands {
            for (name, demand) in demands.iter().enumerate() {
                share.ask(&key(namespace, name), Some(*demand));
            }
        }
        let moved = share.settle();
        let all: Vec<_> = share.refused().map(|(key, _)| key.clone()).collect();
        assert_eq!(moved, all);
        assert!(share.settle().is_empty(), "nothing has changed");
        all.iter().map(|key| format!("{}/{}", key.namespace, key.name)).collect()
    }

    #[test]
    fn who_asks_for_little_is_never_refused_because_of_who_asks_for_much() {
        for (demands, expected) in [
            (&[("a", &[60, 40][..])][..], &[][..]),
            (&[("a", &[60, 41])], &["a/s0"]),
            (&[("a", &[1, 2, 3]), ("b", &[1_000_000])], &["b/s0"]),
            (&[("a", &[1, 2, 3]), ("b", &[10, 30, 60])], &["b/s2"]),
            // What others leave of their shares is there for those who ask for more.
            (&[("a", &[10]), ("b", &[10]), ("c", &[80, 1])], &["c/s0"]),
            (&[("a", &[10]), ("b", &[10]), ("c", &[79, 1])], &[]),
            (&[("a", &[50]), ("b", &[51])], &["b/s0"]),
            (&[("a", &[usize::MAX, 1]), ("b", &[usize::MAX])], &["a/s0", "b/s0"]),
            // Of a share that is of no use to its namespace nothing is kept back from the next.
            (&[("a", &[90, 90]), ("b", &[95])], &["a/s1", "b/s0"]),
        ] {
            assert_eq!(refused(100, demands), expected, "{demands:?}");
        }
    }

    #[test]
    fn what_goes_makes_room() {
        let mut share = Share::new(Some(100));
        share.ask(&key("a", 0), Some(60));
        share.ask(&key("b", 0), Some(60));
        share.ask(&key("c", 0), None);
        assert_eq!(share.settle(), [key("a", 0), key("c", 0)]);
        share.ask(&key("b", 0), Some(0));
        assert_eq!(share.settle(), [key("a", 0)]);
        assert!(share.refuses(&key("c", 0)) && !share.refuses(&key("a", 0)));
        share.ask(&key("c", 0), Some(40));
        assert_eq!(share.settle(), [key("c", 0)]);
        assert_eq!(share.refused().count(), 0);
    }
}
