//! Samples, and the table that is printed and kept.

use serde::Serialize;

/// Measurements of one variant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// One sample.
    pub(crate) fn of(sample: f64) -> Self {
        Self(vec![sample])
    }

    pub(crate) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// The value below which a share of the samples lies.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (share * (sorted.len().saturating_sub(1)) as f64).round();
        sorted.get(at as usize).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

/// One line of a table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) median: f64,
    /// First and third quartile.
    pub(crate) quartiles: [f64; 2],
    pub(crate) worst: f64,
    /// Against what, and the ratio of medians.
    pub(crate) ratio: Option<(String, f64)>,
}

impl Row {
    pub(crate) fn new(
        name: &str,
        unit: &'static str,
        samples: &Samples,
        against: Option<(&str, f64)>,
    ) -> Self {
        let median = samples.median();
        Self {
            name: name.to_owned(),
            unit,
            median,
            quartiles: [samples.quantile(0.25), samples.quantile(0.75)],
            worst: samples.quantile(1.0),
            ratio: against.map(|(name, base)| (name.to_owned(), median / base)),
        }
    }
}
