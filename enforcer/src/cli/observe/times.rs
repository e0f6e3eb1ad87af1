//! Times as `observe` prints them: always in UTC.

use clap::ValueEnum;
use jiff::{Timestamp, fmt::strtime, tz::TimeZone};

/// Form of a time; the names are Hubble's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TimeFormat {
    /// Nov 14 22:13:21.500
    #[default]
    #[value(name = "StampMilli")]
    StampMilli,
    /// 2023-11-14
    #[value(name = "YearMonthDay")]
    YearMonthDay,
    /// 2023-11-14T22Z
    #[value(name = "YearMonthDayHour")]
    YearMonthDayHour,
    /// 2023-11-14T22:13Z
    #[value(name = "YearMonthDayHourMinute")]
    YearMonthDayHourMinute,
    /// 2023-11-14T22:13:21Z
    #[value(name = "RFC3339")]
    Rfc3339,
    /// 2023-11-14T22:13:21.5Z
    #[value(name = "RFC3339Milli")]
    Rfc3339Milli,
    /// 2023-11-14T22:13:21.500001Z
    #[value(name = "RFC3339Micro")]
    Rfc3339Micro,
    /// 2023-11-14T22:13:21.500000001Z
    #[value(name = "RFC3339Nano")]
    Rfc3339Nano,
    /// Tue, 14 Nov 2023 22:13:21 +0000
    #[value(name = "RFC1123Z")]
    Rfc1123Z,
}

impl TimeFormat {
    /// The time as text; `N/A` where there is none, or none that a calendar has.
    #[must_use]
    pub fn text(self, time: Option<&prost_types::Timestamp>) -> String {
        let read = time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok());
        let Some(time) = read else { return "N/A".to_owned() };
        let format = match self {
            Self::StampMilli => "%b %e %H:%M:%S.%3f",
            Self::YearMonthDay => "%Y-%m-%d",
            Self::YearMonthDayHour => "%Y-%m-%dT%HZ",
            Self::YearMonthDayHourMinute => "%Y-%m-%dT%H:%MZ",
            Self::Rfc3339 => "%Y-%m-%dT%H:%M:%SZ",
            Self::Rfc3339Milli | Self::Rfc3339Micro | Self::Rfc3339Nano => {
                let nanos = format!("{:09}", time.subsec_nanosecond());
                let digits = match self {
                    Self::Rfc3339Milli => 3,
                    Self::Rfc3339Micro => 6,
                    _ => 9,
                };
                let fraction = nanos[..digits].trim_end_matches('0');
                let dot = if fraction.is_empty() { "" } else { "." };
                return format!("{}{dot}{fraction}Z", stamp("%Y-%m-%dT%H:%M:%S", time));
            }
            Self::Rfc1123Z => "%a, %d %b %Y %H:%M:%S +0000",
        };
        stamp(format, time)
    }
}

fn stamp(format: &str, time: Timestamp) -> String {
    let zoned = time.to_zoned(TimeZone::UTC);
    // Nothing in the formats above depends on the time that is given.
    strtime::format(format, &zoned).unwrap_or_else(|_| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_hubbles() {
        let time = |nanos| prost_types::Timestamp { seconds: 1_699_063_384, nanos };
        for (format, nanos, expected) in [
            (TimeFormat::StampMilli, 123_999_999, "Nov  4 02:03:04.123"),
            (TimeFormat::YearMonthDay, 0, "2023-11-04"),
            (TimeFormat::YearMonthDayHour, 0, "2023-11-04T02Z"),
            (TimeFormat::YearMonthDayHourMinute, 0, "2023-11-04T02:03Z"),
            (TimeFormat::Rfc3339, 500_000_000, "2023-11-04T02:03:04Z"),
            (TimeFormat::Rfc3339Milli, 500_000_000, "2023-11-04T02:03:04.5Z"),
            (TimeFormat::Rfc3339Micro, 123_456_789, "2023-11-04T02:03:04.123456Z"),
            (TimeFormat::Rfc3339Nano, 0, "2023-11-04T02:03:04Z"),
            (TimeFormat::Rfc1123Z, 0, "Sat, 04 Nov 2023 02:03:04 +0000"),
        ] {
            assert_eq!(format.text(Some(&time(nanos))), expected);
        }
        assert_eq!(TimeFormat::StampMilli.text(None), "N/A");
    }
}
