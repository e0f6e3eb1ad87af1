//! A counter with labels whose values come from flows: counted without a lock and without taking
//! memory for series that are there, and never more series than there is room for.

use std::collections::{HashMap, HashSet};

use prometheus_client::metrics::{counter::Counter, family::Family};

use super::context::{Owner, Value};

/// Labels as they are shown.
pub(super) type Shown = Vec<(&'static str, String)>;

/// The series of a metric: counted by one thread, shown by others.
#[derive(Debug)]
pub(super) struct Table {
    names: Vec<&'static str>,
    series: HashMap<Box<[Value]>, Series>,
    shown: Family<Shown, Counter>,
    /// Series that are none of the overflow's.
    own: usize,
    most: usize,
    overflown: Counter,
}

#[derive(Debug)]
struct Series {
    counter: Counter,
    owners: [Option<Owner>; 2],
}

impl Table {
    /// A metric with these labels and at most `most` series besides those of the overflow;
    /// `overflown` is told what was counted there.
    pub(super) fn new(names: Vec<&'static str>, most: usize, overflown: Counter) -> Self {
        let (series, shown) = (HashMap::new(), Family::default());
        Self { names, series, shown, own: 0, most, overflown }
    }

    /// What is shown of it.
    pub(super) fn shown(&self) -> Family<Shown, Counter> {
        self.shown.clone()
    }

    /// Counts in the series of these values, of which the first `closed` come of closed sets.
    pub(super) fn count(
        &mut self,
        values: &mut [Value],
        closed: usize,
        by: u64,
        owners: impl FnOnce() -> [Option<Owner>; 2],
    ) {
        if let Some(series) = self.series.get(&*values) {
            series.counter.inc_by(by);
            return;
        }
        if self.own < self.most {
            self.own += 1;
            self.add(values, by, owners());
            return;
        }
        self.overflown.inc_by(by);
        values[closed..].fill(Value::OVERFLOW);
        match self.series.get(&*values) {
            Some(series) => {
                series.counter.inc_by(by);
            }
            None => self.add(values, by, [None, None]),
        }
    }

    fn add(&mut self, values: &[Value], by: u64, owners: [Option<Owner>; 2]) {
        let counter = self.shown.get_or_create_owned(&self.labels(values));
        counter.inc_by(by);
        self.series.insert(values.into(), Series { counter, owners });
    }

    fn labels(&self, values: &[Value]) -> Shown {
        self.names.iter().copied().zip(values.iter().map(ToString::to_string)).collect()
    }

    /// Forgets series about somebody who is not among the living.
    pub(super) fn keep(&mut self, living: &HashSet<Owner>) {
        let is_dead =
            |series: &Series| series.owners.iter().flatten().any(|owner| !living.contains(owner));
        let dead: Vec<Box<[Value]>> = self
            .series
            .iter()
            .filter(|(_, series)| is_dead(series))
            .map(|(values, _)| values.clone())
            .collect();
        for values in dead {
            self.shown.remove(&self.labels(&values));
            self.series.remove(&values);
            // Those of the overflow are nobody's.
            self.own -= 1;
        }
    }
}
