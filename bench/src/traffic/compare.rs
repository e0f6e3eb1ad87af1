//! Figures of one round against figures of the same round.

use serde::Serialize;

use super::{contest::Series, load::Turn};
use crate::table::Samples;

/// Where the middle half lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// Of samples.
    pub(crate) fn of(samples: impl IntoIterator<Item = f64>) -> Self {
        let samples: Samples = samples.into_iter().collect();
        let [low, median, high] = [0.25, 0.5, 0.75].map(|share| samples.quantile(share));
        Self { low, median, high }
    }

    /// How far from 1 the middle half reaches.
    pub(crate) fn around_one(&self) -> f64 {
        (self.low - 1.0).abs().max((self.high - 1.0).abs())
    }
}

/// What a turn is looked at for.
pub(crate) type Figure = fn(&Turn) -> f64;

/// The figure in each round.
pub(crate) fn each(series: &Series, figure: Figure) -> impl Iterator<Item = f64> {
    series.0.iter().map(figure)
}

/// The figure in each round, by the mean of `bases` in the same round.
pub(crate) fn ratios(series: &Series, bases: &[&Series], figure: Figure) -> Vec<f64> {
    paired(series, bases, figure).map(|(own, base)| own / base).collect()
}

/// By how much the figure is above the mean of `bases` in the same round.
pub(crate) fn added(series: &Series, bases: &[&Series], figure: Figure) -> Vec<f64> {
    paired(series, bases, figure).map(|(own, base)| own - base).collect()
}

fn paired(series: &Series, bases: &[&Series], figure: Figure) -> impl Iterator<Item = (f64, f64)> {
    each(series, figure).enumerate().map(move |(round, own)| {
        let there = bases.iter().filter_map(|base| base.0.get(round));
        let sum: f64 = there.clone().map(figure).sum();
        (own, sum / there.count() as f64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(rates: &[f64]) -> Series {
        let turn = |units: &f64| Turn { units: *units, wall: 1.0, ends: 1.0, agent: 0.0 };
        Series(rates.iter().map(turn).collect())
    }

    #[test]
    fn a_machine_that_slows_down_changes_no_ratio() {
        let (base, again) = (series(&[100.0, 50.0, 10.0]), series(&[100.0, 50.0, 10.0]));
        let own = series(&[90.0, 45.0, 9.0]);
        let ratio = Spread::of(ratios(&own, &[&base, &again], Turn::rate));
        assert!((ratio.median - 0.9).abs() < 1e-9 && (ratio.low - 0.9).abs() < 1e-9, "{ratio:?}");
    }

    #[test]
    fn what_is_added_is_against_the_mean_of_the_bases() {
        let (base, again) = (series(&[10.0]), series(&[20.0]));
        assert_eq!(added(&series(&[25.0]), &[&base, &again], Turn::rate), [10.0]);
    }

    #[test]
    fn the_spread_around_one_is_that_of_the_further_quartile() {
        let spread = Spread { low: 0.97, median: 1.0, high: 1.01 };
        assert!((spread.around_one() - 0.03).abs() < 1e-9);
    }
}
