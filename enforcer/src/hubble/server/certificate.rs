//! Until when a certificate is good. Only as much of X.509 as that needs.

use jiff::civil::DateTime;

/// Tags of DER (X.690).
mod tag {
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const UTC_TIME: u8 = 0x17;
    pub(super) const GENERALIZED_TIME: u8 = 0x18;
    pub(super) const SEQUENCE: u8 = 0x30;
    /// `[0]`, constructed.
    pub(super) const VERSION: u8 = 0xa0;
}

/// The end of a certificate's validity, ns since the epoch; `None` if that cannot be read.
///
/// The place is that of RFC 5280, section 4.1.
#[must_use]
pub fn not_after(der: &[u8]) -> Option<i64> {
    let (certificate, _) = element(der, tag::SEQUENCE)?;
    let (mut rest, _) = element(certificate, tag::SEQUENCE)?;
    if rest.first() == Some(&tag::VERSION) {
        (_, rest) = element(rest, tag::VERSION)?;
    }
    // Serial number, signature algorithm, issuer.
    for tag in [tag::INTEGER, tag::SEQUENCE, tag::SEQUENCE] {
        (_, rest) = element(rest, tag)?;
    }
    let (validity, _) = element(rest, tag::SEQUENCE)?;
    let (_, rest) = time(validity)?;
    Some(time(rest)?.0)
}

/// The content of the element with which `der` begins, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = der.split_first_chunk()?;
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        // So many bytes of length follow; no certificate needs more than four.
        let bytes = usize::from(length & 0x7f);
        let (long, rest) = rest.split_at_checked(bytes).filter(|_| (1..=4).contains(&bytes))?;
        (long.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    if found == tag { rest.split_at_checked(length) } else { None }
}

/// The time with which `der` begins, ns since the epoch, and what follows it.
fn time(der: &[u8]) -> Option<(i64, &[u8])> {
    let tag = *der.first()?;
    let (content, rest) = element(der, tag)?;
    let digits = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let digits = match tag {
        // Years of two digits are of 1950 to 2049: RFC 5280, section 4.1.2.5.1.
        tag::UTC_TIME => {
            let century = if digits.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" };
            format!("{century}{digits}")
        }
        tag::GENERALIZED_TIME => digits.to_owned(),
        _ => return None,
    };
    if digits.len() != 14 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |at: usize| digits.get(at..at + 2)?.parse::<i8>().ok();
    let year = digits.get(..4)?.parse::<i16>().ok()?;
    let time = DateTime::new(year, part(4)?, part(6)?, part(8)?, part(10)?, part(12)?, 0).ok()?;
    let time = jiff::tz::Offset::UTC.to_timestamp(time).ok()?;
    // A time beyond the clock is as good as never.
    Some((i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["w1".to_owned()]).unwrap();
        params.not_before = date_time_ymd(1999, 1, 1);
        params.not_after = date_time_ymd(year, 2, 3);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_is_read_in_both_forms_of_time() {
        // 2024 is written with two digits, 2051 with four.
        assert_eq!(not_after(&certificate(2024)), Some(1_706_918_400_000_000_000));
        assert_eq!(not_after(&certificate(2051)), Some(2_558_995_200_000_000_000));
        assert_eq!(not_after(&certificate(9999)), Some(i64::MAX));
    }

    #[test]
    fn what_is_cut_off_has_no_end() {
        let whole = certificate(2024);
        let at = whole.windows(13).position(|w| w == b"240203000000Z").unwrap();
        for length in 0..at + 13 {
            assert_eq!(not_after(&whole[..length]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_change_of_a_byte_is_survived(at in 0_usize..200, byte in any::<u8>()) {
            let mut der = certificate(2024);
            der[at] = byte;
            // Whatever it is then, it is read or not, and nothing panics.
            let read = not_after(&der);
            prop_assert!(read.is_none_or(|time| time > i64::MIN));
        }
    }
}
