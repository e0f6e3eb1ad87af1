//! A metric with labels whose values come from flows: found without a lock and without taking memory
//! for series that are there, and never more series than there is room for.

use std::collections::HashSet;

// Asked for each flow several times; what can be in it is bounded, so nobody gains by collisions.
use foldhash::HashMap;
use prometheus_client::metrics::{counter::Counter, family::Family};

use super::context::{Owner, Value};

/// Labels as they are shown.
pub(super) type Shown = Vec<(&'static str, String)>;
/// The series as they are shown.
pub(super) type ShownSeries<M> = Family<Shown, M, fn() -> M>;
/// For both ends of a flow, who must be there for a series to be shown.
pub(super) type Owners = [Option<Owner>; 2];

/// The series of a metric: changed by one thread, shown by others.
#[derive(Debug)]
pub(super) struct Table<M> {
    names: Vec<&'static str>,
    series: HashMap<Box<[Value]>, Series<M>>,
    shown: ShownSeries<M>,
    /// Series that are none of the overflow's.
    own: usize,
    most: usize,
    overflown: Counter,
}

#[derive(Debug)]
struct Series<M> {
    metric: M,
    owners: Owners,
}

impl<M: Clone> Table<M> {
    /// A metric with these labels and at most `most` series besides those of the overflow;
    /// `overflown` is told how often it was one of those.
    pub(super) fn new(
        names: Vec<&'static str>,
        most: usize,
        overflown: Counter,
        make: fn() -> M,
    ) -> Self {
        let (series, shown) = (HashMap::default(), Family::new_with_constructor(make));
        Self { names, series, shown, own: 0, most, overflown }
    }

    /// What is shown of it.
    pub(super) fn shown(&self) -> ShownSeries<M> {
        self.shown.clone()
    }

    /// Changes the series of these values, of which the first `closed` come of closed sets.
    pub(super) fn with(
        &mut self,
        values: &mut [Value],
        closed: usize,
        owners: impl FnOnce() -> Owners,
        change: impl FnOnce(&M),
    ) {
        if let Some(series) = self.series.get(&*values) {
            change(&series.metric);
            return;
        }
        if self.own < self.most {
            self.own += 1;
            change(self.add(values, owners()));
            return;
        }
        self.overflown.inc();
        values[closed..].fill(Value::OVERFLOW);
        match self.series.get(&*values) {
            Some(series) => change(&series.metric),
            None => change(self.add(values, [None, None])),
        }
    }

    fn add(&mut self, values: &[Value], owners: Owners) -> &M {
        let metric = self.shown.get_or_create_owned(&self.labels(values));
        let series = Series { metric, owners };
        &self.series.entry(values.into()).or_insert(series).metric
    }

    fn labels(&self, values: &[Value]) -> Shown {
        self.names.iter().copied().zip(values.iter().map(ToString::to_string)).collect()
    }

    /// Forgets series about somebody who is not among the living.
    pub(super) fn keep(&mut self, living: &HashSet<Owner>) {
        let is_dead = |series: &Series<M>| {
            series.owners.iter().flatten().any(|owner| !living.contains(owner))
        };
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
