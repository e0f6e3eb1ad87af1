//! Who takes part, and the tables that are made of what they did.

use super::{
    compare::{Figure, Spread, added, each, ratios},
    contest::{self, Series, Size},
    error::TrafficError,
    load::{Load, Turn},
    policy::Policy,
    section::{Line, Section, Wall},
    site::Site,
    variant::Variant,
};

/// Somebody who takes turns.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) variant: Variant,
    pub(crate) policy: Policy,
    /// Whom it is held against: places in the list.
    pub(crate) bases: Vec<usize>,
}

/// The first two entries of every list: nothing, twice. How far these two are apart is what the
/// machine's noise can make of any other two.
pub(crate) fn nothing(policy: Policy) -> [Entry; 2] {
    let entry = |name: &str, bases| Entry {
        name: name.to_owned(),
        variant: Variant::Nothing,
        policy,
        bases,
    };
    [entry("nothing attached", Vec::new()), entry("nothing attached, again", vec![0])]
}

/// Where these are.
pub(crate) const NOTHING: [usize; 2] = [0, 1];

/// Sets everybody up and has them take turns: for each load a series of each entry.
pub(crate) fn hold(
    entries: &[Entry],
    loads: &[Load],
    size: Size,
) -> Result<Vec<Vec<Series>>, TrafficError> {
    let mut sites = Vec::with_capacity(entries.len());
    for entry in entries {
        contest::say(&format!("setting up: {}", entry.name));
        sites.push(Site::new(&entry.name, &entry.variant, entry.policy)?);
    }
    contest::hold(&mut sites, loads, size)
}

/// The table of how fast a load went.
pub(crate) fn rates(
    load: Load,
    entries: &[Entry],
    series: &[Series],
    against: &'static str,
) -> Section {
    let lines = entries.iter().zip(series).map(|(entry, own)| {
        let bases = of(series, &entry.bases);
        let ratio = |figure| (!bases.is_empty()).then(|| Spread::of(ratios(own, &bases, figure)));
        Line {
            name: entry.name.clone(),
            value: Spread::of(each(own, Turn::pace)),
            ratio: ratio(Turn::pace),
            wall: Some(Wall { rate: Spread::of(each(own, Turn::rate)), ratio: ratio(Turn::rate) }),
        }
    });
    Section {
        title: load.title().to_owned(),
        unit: load.unit(),
        against,
        lines: lines.collect(),
        goals: Vec::new(),
        notes: Vec::new(),
    }
}

/// What each entry adds to the cost of a unit over nothing attached, round by round: along the way
/// of the packets, and with what an agent took.
pub(crate) fn costs(series: &[Series], of_entry: usize) -> [Vec<f64>; 2] {
    let bases = of(series, &NOTHING);
    let own = of(series, &[of_entry]);
    [Turn::cost, Turn::whole_cost]
        .map(|figure| own.first().map(|own| added(own, &bases, figure)).unwrap_or_default())
}

/// How far two measurements of the same are apart.
pub(crate) fn noise(series: &[Series], figure: Figure) -> f64 {
    match series {
        [first, second, ..] => Spread::of(ratios(second, &[first], figure)).around_one(),
        _ => f64::NAN,
    }
}

/// One by the other, round by round.
pub(crate) fn by(own: &[f64], base: &[f64]) -> Spread {
    Spread::of(own.iter().zip(base).map(|(own, base)| own / base))
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn of<'a>(series: &'a [Series], places: &[usize]) -> Vec<&'a Series> {
    places.iter().filter_map(|at| series.get(*at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(costs: &[f64]) -> Series {
        let turn = |cost: &f64| Turn { units: 1e6, wall: *cost, ends: *cost, agent: 1.0 };
        Series(costs.iter().map(turn).collect())
    }

    #[test]
    fn costs_are_over_nothing_attached() {
        let all = [series(&[10.0, 20.0]), series(&[12.0, 20.0]), series(&[14.0, 23.0])];
        let [way, whole] = costs(&all, 2);
        assert_eq!(way, [3.0, 3.0]);
        assert_eq!(whole, [3.0, 3.0], "who has no agent has the same beside it");
    }

    #[test]
    fn the_noise_is_what_the_same_differs_by() {
        let all = [series(&[10.0; 5]), series(&[10.0, 12.5, 10.0, 12.5, 10.0])];
        assert!((noise(&all, Turn::pace) - 0.2).abs() < 1e-9);
    }

    #[test]
    fn thousands_are_apart() {
        let texts = [0, 999, 1_000, 100_000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "100,000", "1,234,567"]);
    }
}
