//! A flow's own number, by RFC 9562.

use std::{fmt, hash::Hasher as _, net::IpAddr};

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::flow::event::Flow;

/// A universally unique identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// That of a flow: made of what was told, so that it needs no memory and is the same whenever it
    /// is asked for.
    #[must_use]
    pub fn of(flow: &Flow) -> Self {
        let raw = &flow.raw;
        let mut hasher = SipHasher13::new();
        hasher.write_i64(flow.time);
        for address in [raw.src, raw.dst] {
            match address {
                Some(IpAddr::V4(address)) => hasher.write(&address.octets()),
                Some(IpAddr::V6(address)) => hasher.write(&address.octets()),
                None => hasher.write_u8(0),
            }
        }
        for word in [raw.ifindex, raw.rule, raw.generation, raw.len] {
            hasher.write_u32(word);
        }
        for word in [raw.src_port, raw.dst_port, raw.slot, raw.proto.into(), raw.tcp_flags.into()] {
            hasher.write_u16(word);
        }
        hasher.write(raw.reason.name().as_bytes());
        hasher.write_u8(raw.direction.map_or(2, |direction| direction as u8));
        let hash = hasher.finish128();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&hash.h1.to_be_bytes());
        bytes[8..].copy_from_slice(&hash.h2.to_be_bytes());
        // Version 8, for contents of one's own making: section 5.8.
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// Reads the usual form, in lower or upper case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.split('-').collect();
        let parsed = Self(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes());
        parsed.to_string().eq_ignore_ascii_case(text).then_some(parsed)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use enforcer_common::abi::Event;

    use super::*;
    use crate::flow::event::tests::{allowed, flow};

    #[test]
    fn a_flow_keeps_its_number_and_others_have_others() {
        let number = Uuid::of(&flow(&allowed()));
        assert_eq!(number, Uuid::of(&flow(&allowed())));
        for other in [
            Event { time: 1, ..allowed() },
            Event { src_port: 1, ..allowed() },
            Event { direction: 1, ..allowed() },
            Event { reason: 16, ..allowed() },
        ] {
            assert_ne!(number, Uuid::of(&flow(&other)), "{other:?}");
        }
        let text = number.to_string();
        // Version 8, variant 10.
        assert_eq!((text.len(), text.get(14..15)), (36, Some("8")));
        assert!("89ab".contains(text.get(19..20).unwrap()));
    }

    #[test]
    fn only_the_usual_form_is_read() {
        let number = Uuid::of(&flow(&allowed()));
        let text = number.to_string();
        assert_eq!(Uuid::parse(&text), Some(number));
        assert_eq!(Uuid::parse(&text.to_uppercase()), Some(number));
        for wrong in ["", "-", "x", &text[1..], &text.replace('-', ""), &format!("{text}0"), "+1"] {
            assert_eq!(Uuid::parse(wrong), None, "{wrong}");
        }
    }
}
