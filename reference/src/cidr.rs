//! Blocks of addresses, from their text.

use std::net::IpAddr;

/// Whether an address is in a block; never, if the text is no block.
pub(crate) fn contains(cidr: &str, address: IpAddr) -> bool {
    let Some((base, length)) = cidr.split_once('/') else { return false };
    let (Ok(base), Ok(length)) = (base.parse(), length.parse::<usize>()) else { return false };
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            bits(&base.octets(), length) == bits(&address.octets(), length)
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            bits(&base.octets(), length) == bits(&address.octets(), length)
        }
        _ => false,
    }
}

/// The first bits, each by itself.
fn bits(octets: &[u8], length: usize) -> Vec<bool> {
    let all = octets.iter().flat_map(|octet| (0..8).map(move |bit| octet & (0x80 >> bit) != 0));
    all.take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::contains;

    #[test]
    fn blocks_hold_what_their_bits_say() {
        for (cidr, address, expected) in [
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.9", false),
            ("10.0.0.0/23", "10.0.1.255", true),
            ("10.0.0.0/23", "10.0.2.0", false),
            ("10.0.0.7/31", "10.0.0.6", true),
            ("10.0.0.7/32", "10.0.0.6", false),
            ("fd00::/127", "fd00::1", true),
            ("fd00::/127", "fd00::2", false),
            ("10.0.0.0", "10.0.0.0", false),
            ("10.0.0.0/x", "10.0.0.0", false),
        ] {
            assert_eq!(contains(cidr, address.parse().unwrap()), expected, "{cidr} {address}");
        }
    }
}
