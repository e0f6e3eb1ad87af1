//! Tables of a benchmark of traffic: printed for 80 columns, and kept as JSON.

use std::fmt;

use serde::Serialize;

use super::compare::Spread;

/// One table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    /// What the ratios are to.
    pub(crate) against: &'static str,
    pub(crate) lines: Vec<Line>,
    pub(crate) goals: Vec<Goal>,
    pub(crate) notes: Vec<String>,
}

/// One line of a table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// In the section's unit.
    pub(crate) value: Spread,
    /// Of figures of the same round.
    pub(crate) ratio: Option<Spread>,
    /// The same by the clock on the wall, where there is one.
    pub(crate) wall: Option<Wall>,
}

/// What others on the machine have a part in.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Wall {
    /// Units a second.
    pub(crate) rate: Spread,
    /// Of figures of the same round.
    pub(crate) ratio: Option<Spread>,
}

/// What a number is to be, and what it is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) wanted: Wanted,
    /// Noise that is taken off: how far two measurements of the same are apart.
    pub(crate) noise: f64,
    pub(crate) found: f64,
    pub(crate) reached: bool,
}

/// A bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    /// Holds what was found against what is wanted.
    pub(crate) fn new(what: &str, wanted: Wanted, noise: f64, found: f64) -> Self {
        let reached = match wanted {
            Wanted::AtLeast(bound) => found >= bound - noise,
            Wanted::AtMost(bound) => found <= bound + noise,
        };
        Self { what: what.to_owned(), wanted, noise, found, reached }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, found, noise, .. } = self;
        let (words, bound) = match self.wanted {
            Wanted::AtLeast(bound) => ("at least", bound),
            Wanted::AtMost(bound) => ("at most", bound),
        };
        let reached = if self.reached { "reached" } else { "MISSED" };
        write!(f, "goal: {what} {words} {bound:.2}")?;
        if *noise > 0.0 {
            write!(f, " (A/A spread {noise:.3})")?;
        }
        write!(f, ": {found:.3}, {reached}")
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let walls = self.lines.iter().any(|line| line.wall.is_some());
        writeln!(f, "{}", self.title)?;
        write!(f, "  {:<34} {:>9} {:>17}", self.unit, "median", "quartiles")?;
        writeln!(f, " {:>6}{}", "ratio", if walls { "  by wall" } else { "" })?;
        for line in &self.lines {
            let Spread { low, median, high } = line.value;
            let digits = digits(median);
            let quartiles = format!("{low:.digits$} to {high:.digits$}");
            write!(f, "  {:<34} {median:>9.digits$} {quartiles:>17}", line.name)?;
            if let Some(ratio) = line.ratio {
                write!(f, " {:>6.3}", ratio.median)?;
            }
            if let Some(ratio) = line.wall.and_then(|wall| wall.ratio) {
                write!(f, " {:>8.3}", ratio.median)?;
            }
            writeln!(f)?;
        }
        if !self.against.is_empty() {
            writeln!(f, "  ratio: to {}", self.against)?;
        }
        self.goals.iter().try_for_each(|goal| writeln!(f, "  {goal}"))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))
    }
}

/// Digits behind the point with which a number reads well.
fn digits(number: f64) -> usize {
    match number.abs() {
        small if small < 100.0 => 2,
        middle if middle < 1_000.0 => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(value: f64) -> Spread {
        Spread { low: value, median: value, high: value }
    }

    #[test]
    fn a_table_fits_into_80_columns() {
        let section = Section {
            title: "TCP request/response on 1,000 connections".into(),
            unit: "transactions/s",
            against: "nothing attached, the mean of both in the same round",
            lines: vec![Line {
                name: "nftables, sets, 100,000 peers".into(),
                value: same(876_543.0),
                ratio: Some(same(0.987)),
                wall: Some(Wall { rate: same(1_234.0), ratio: Some(same(0.9)) }),
            }],
            goals: vec![Goal::new("enforcer", Wanted::AtLeast(0.97), 0.012, 0.96)],
            notes: Vec::new(),
        };
        let text = section.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("(A/A spread 0.012): 0.960, reached"), "{text}");
    }

    #[test]
    fn noise_helps_as_far_as_it_goes() {
        assert!(Goal::new("", Wanted::AtLeast(0.9), 0.02, 0.881).reached);
        assert!(!Goal::new("", Wanted::AtLeast(0.9), 0.02, 0.879).reached);
        assert!(Goal::new("", Wanted::AtMost(0.5), 0.0, 0.5).reached);
        assert!(!Goal::new("", Wanted::AtMost(0.5), 0.0, 0.51).reached);
    }
}
