//! `--since` and `--until`: a time ago, or a point in time.

use std::{str::FromStr, time::SystemTime};

use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    fmt::strtime::BrokenDownTime,
    tz::TimeZone,
};

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// So many ns before now.
    Ago(i64),
    /// Ns since the epoch.
    At(i64),
}

impl When {
    /// Ns since the epoch.
    #[must_use]
    pub fn ns(self) -> i64 {
        match self {
            Self::At(ns) => ns,
            Self::Ago(ns) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let now = now.map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or(i64::MAX));
                now.saturating_sub(ns)
            }
        }
    }
}

impl FromStr for When {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(ns) = duration(text) {
            return Ok(Self::Ago(ns));
        }
        let Some(time) = text.parse().ok().or_else(|| date(text)) else {
            return Err("must be a time ago (30s, 5m, 1h30m) or a date (2006-01-02, \
                        2006-01-02T15:04-07:00, RFC 3339)");
        };
        i64::try_from(time.as_nanosecond()).ok().map(Self::At).ok_or("is out of range")
    }
}

/// The forms beside RFC 3339 that Hubble knows. What says nothing of a zone is in UTC, as all times
/// are that we print.
fn date(text: &str) -> Option<Timestamp> {
    for form in ["%Y-%m-%dT%H:%M%:z", "%Y-%m-%dT%H%:z", "%a, %d %b %Y %H:%M:%S %z"] {
        // A whole hour is a time, too.
        let text = text.strip_suffix('Z').map_or_else(|| text.to_owned(), |t| format!("{t}+00:00"));
        let Ok(mut parts) = BrokenDownTime::parse(form, &text) else { continue };
        if parts.minute().is_none() {
            parts.set_minute(Some(0)).ok()?;
        }
        if let Ok(time) = parts.to_timestamp() {
            return Some(time);
        }
    }
    let utc = |time: DateTime| Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp());
    if let Ok(date) = Date::strptime("%Y-%m-%d", text) {
        return utc(date.at(0, 0, 0, 0));
    }
    // As `observe` prints it: of this year.
    let year = Timestamp::now().to_zoned(TimeZone::UTC).year();
    utc(DateTime::strptime("%Y %b %d %H:%M:%S%.f", format!("{year} {text}")).ok()?)
}

/// Nanoseconds of `1h30m`, `90s`, `2d`, `1.5s`.
pub(super) fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "d" => 86_400e9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[letters..];
    }
    #[expect(clippy::cast_possible_truncation, reason = "a cast from a float saturates")]
    (!text.is_empty()).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_ago_and_points_in_time() {
        for (text, expected) in [
            ("30s", Ok(When::Ago(30_000_000_000))),
            ("1h30m", Ok(When::Ago(5_400_000_000_000))),
            ("1.5s", Ok(When::Ago(1_500_000_000))),
            ("250ms", Ok(When::Ago(250_000_000))),
            ("2d", Ok(When::Ago(172_800_000_000_000))),
            ("1970-01-01T00:00:01Z", Ok(When::At(1_000_000_000))),
            ("1970-01-01T01:00:00+01:00", Ok(When::At(0))),
            ("1970-01-02", Ok(When::At(86_400_000_000_000))),
            ("1970-01-01T02+01:00", Ok(When::At(3_600_000_000_000))),
            ("1970-01-01T02Z", Ok(When::At(7_200_000_000_000))),
            ("1970-01-01T02:30-01:00", Ok(When::At(12_600_000_000_000))),
            ("1970-01-01T00:00:01.5Z", Ok(When::At(1_500_000_000))),
            ("Thu, 01 Jan 1970 00:00:02 +0000", Ok(When::At(2_000_000_000))),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
        for text in ["", "5", "s", "5 m", "1y", "yesterday", "1..5s", "-5m"] {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
        let stamp: When = "Jan  2 03:04:05.250".parse().unwrap();
        let year = Timestamp::now().to_zoned(TimeZone::UTC).year();
        assert_eq!(Ok(stamp), format!("{year}-01-02T03:04:05.25Z").parse());
        assert!(When::Ago(0).ns() > When::Ago(1_000_000_000).ns());
    }
}
