//! Times as texts that sort as they follow each other.

use jiff::{Timestamp, tz::Offset};

/// RFC 3339 in UTC with all nine digits. `ns` is since the epoch.
#[must_use]
pub fn timestamp(ns: i64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    let t = Offset::UTC.to_datetime(time);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        t.year(),
        t.month(),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        t.subsec_nanosecond()
    )
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn all_digits_are_written() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(timestamp(1_700_000_001_500_000_000), "2023-11-14T22:13:21.500000000Z");
    }
}
