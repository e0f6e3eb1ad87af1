//! Room for rows in the interval array: equal rows share it, freed ranges are joined again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use enforcer_common::abi::{Interval, RowRef};

/// Who uses which range.
#[derive(Debug)]
pub(super) struct Allocator {
    /// Free ranges: start to length. No two touch.
    free: BTreeMap<u32, u32>,
    /// Rows in place, with the number of keys that refer to them.
    rows: HashMap<Arc<[Interval]>, (RowRef, u32)>,
}

/// What to do for a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// It is there already.
    Shared(RowRef),
    /// Write it here first.
    New(RowRef),
    /// There is no room.
    Full,
}

impl Allocator {
    /// All of `slots` free.
    pub(super) fn new(slots: u32) -> Self {
        Self { free: BTreeMap::from([(0, slots)]), rows: HashMap::new() }
    }

    /// Takes one reference to `row`.
    pub(super) fn take(&mut self, row: &Arc<[Interval]>) -> Placement {
        if let Some((place, users)) = self.rows.get_mut(row) {
            *users += 1;
            return Placement::Shared(*place);
        }
        let Ok(count) = u32::try_from(row.len()) else {
            return Placement::Full;
        };
        let Some((&first, &length)) = self.free.iter().find(|&(_, &length)| length >= count) else {
            return Placement::Full;
        };
        self.free.remove(&first);
        if length > count {
            self.free.insert(first + count, length - count);
        }
        let place = RowRef { first, count };
        self.rows.insert(Arc::clone(row), (place, 1));
        Placement::New(place)
    }

    /// Gives one reference back; the last one frees the range.
    pub(super) fn give_back(&mut self, row: &Arc<[Interval]>) {
        let Some((place, users)) = self.rows.get_mut(row) else {
            return;
        };
        *users -= 1;
        if *users > 0 {
            return;
        }
        let RowRef { first, count } = *place;
        self.rows.remove(row);
        let mut range = (first, count);
        if let Some((&before, &length)) = self.free.range(..first).next_back()
            && before + length == first
        {
            self.free.remove(&before);
            range = (before, length + count);
        }
        if let Some(&length) = self.free.get(&(first + count)) {
            self.free.remove(&(first + count));
            range.1 += length;
        }
        self.free.insert(range.0, range.1);
    }

    /// Takes over a row that is in the kernel already, at `place`. `false` if the range is not
    /// free, which would mean that the kernel's rows overlap.
    pub(super) fn adopt(&mut self, row: &Arc<[Interval]>, place: RowRef) -> bool {
        if let Some((known, users)) = self.rows.get_mut(row) {
            *users += 1;
            return *known == place;
        }
        let Some((&start, &length)) = self.free.range(..=place.first).next_back() else {
            return false;
        };
        let end = place.first + place.count;
        if end > start + length {
            return false;
        }
        self.free.remove(&start);
        if place.first > start {
            self.free.insert(start, place.first - start);
        }
        if start + length > end {
            self.free.insert(end, start + length - end);
        }
        self.rows.insert(Arc::clone(row), (place, 1));
        true
    }

    /// Intervals in use.
    pub(super) fn used(&self) -> u32 {
        self.rows.values().map(|(place, _)| place.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rule: u32, count: u32) -> Arc<[Interval]> {
        (0..count).map(|start| Interval { start, rule, ..Interval::default() }).collect()
    }

    #[test]
    fn equal_rows_share_a_place_and_the_last_one_frees_it() {
        let mut alloc = Allocator::new(10);
        let a = row(1, 4);
        assert_eq!(alloc.take(&a), Placement::New(RowRef { first: 0, count: 4 }));
        assert_eq!(alloc.take(&row(1, 4)), Placement::Shared(RowRef { first: 0, count: 4 }));
        assert_eq!(alloc.take(&row(2, 7)), Placement::Full);
        alloc.give_back(&a);
        assert_eq!(alloc.take(&row(2, 7)), Placement::Full);
        alloc.give_back(&a);
        assert_eq!(alloc.take(&row(2, 10)), Placement::New(RowRef { first: 0, count: 10 }));
    }

    #[test]
    fn freed_ranges_are_joined() {
        let mut alloc = Allocator::new(9);
        let rows: Vec<_> = (0..3).map(|n| row(n, 3)).collect();
        for row in &rows {
            alloc.take(row);
        }
        for n in [0, 2, 1] {
            alloc.give_back(&rows[n]);
        }
        assert_eq!(alloc.free, BTreeMap::from([(0, 9)]));
        assert_eq!(alloc.used(), 0);
    }

    #[test]
    fn adopted_rows_take_their_place_and_refuse_overlap() {
        let mut alloc = Allocator::new(10);
        assert!(alloc.adopt(&row(1, 3), RowRef { first: 4, count: 3 }));
        assert!(alloc.adopt(&row(1, 3), RowRef { first: 4, count: 3 }));
        assert!(!alloc.adopt(&row(2, 3), RowRef { first: 5, count: 3 }));
        assert!(!alloc.adopt(&row(3, 4), RowRef { first: 7, count: 4 }));
        assert_eq!(alloc.free, BTreeMap::from([(0, 4), (7, 3)]));
    }
}
