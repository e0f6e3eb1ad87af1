//! Packets byte by byte, for what no socket would send.

use std::net::IpAddr;

/// Ethernet types.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// IP protocol numbers.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}

/// Where a parameter hides the module's name.
const FRAGMENT_HEADER: u8 = protocol::FRAGMENT;

/// TCP flags.
pub mod tcp_flags {
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

/// A part of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Fragment {
    /// Identification of the datagram.
    pub id: u32,
    /// Where the part begins, bytes; a multiple of 8.
    pub offset: u16,
    /// More parts follow.
    pub more: bool,
}

/// The octets of an address.
fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// A length as the 16-bit field that it becomes.
///
/// # Panics
/// If the packet is longer than a packet can be.
fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).expect("a packet has at most 65,535 bytes").to_be_bytes()
}

/// The internet checksum (RFC 1071).
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let bytes: Vec<u8> = parts.concat();
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(!sum & 0xffff).unwrap_or(0).to_be_bytes()
}

/// The pseudo header of RFC 793 and RFC 8200, 8.1.
fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, bytes: usize) -> Vec<u8> {
    let mut header = [octets(src), octets(dst)].concat();
    if src.is_ipv4() {
        header.extend([0, protocol]);
        header.extend(length(bytes));
    } else {
        header.extend([0, 0]);
        header.extend(length(bytes));
        header.extend([0, 0, 0, protocol]);
    }
    header
}

/// A frame.
#[must_use]
pub fn frame(dst: [u8; 6], src: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&dst[..], &src, &ethertype.to_be_bytes(), payload].concat()
}

/// A frame that carries an IP packet.
#[must_use]
pub fn ip_frame(dst: [u8; 6], src: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    frame(dst, src, if v6 { ethertype::IPV6 } else { ethertype::IPV4 }, packet)
}

/// An IP packet of the addresses' family, with a hop limit of 64.
#[must_use]
pub fn ip(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip_with_hops(src, dst, protocol, 64, payload)
}

/// An IP packet with the given hop limit.
#[must_use]
pub fn ip_with_hops(src: IpAddr, dst: IpAddr, protocol: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    if src.is_ipv4() {
        ipv4(src, dst, protocol, hops, [0; 4], payload)
    } else {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(length(payload.len()));
        packet.extend([protocol, hops]);
        packet.extend([octets(src), octets(dst)].concat());
        packet.extend(payload);
        packet
    }
}

fn ipv4(
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    hops: u8,
    fragment: [u8; 4],
    payload: &[u8],
) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(length(20 + payload.len()));
    header.extend(fragment);
    header.extend([hops, protocol, 0, 0]);
    header.extend([octets(src), octets(dst)].concat());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum);
    header.extend(payload);
    header
}

/// A fragment of a datagram whose payload has this protocol.
#[must_use]
pub fn ip_fragment(
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    fragment: Fragment,
    payload: &[u8],
) -> Vec<u8> {
    let Fragment { id, offset, more } = fragment;
    if src.is_ipv4() {
        let field = (offset / 8) | if more { 0x2000 } else { 0 };
        let [_, _, a, b] = id.to_be_bytes();
        let [c, d] = field.to_be_bytes();
        ipv4(src, dst, protocol, 64, [a, b, c, d], payload)
    } else {
        let field = (offset & !7) | u16::from(more);
        let mut extension = vec![protocol, 0];
        extension.extend(field.to_be_bytes());
        extension.extend(id.to_be_bytes());
        extension.extend(payload);
        ip(src, dst, FRAGMENT_HEADER, &extension)
    }
}

/// A UDP datagram without its IP header.
#[must_use]
pub fn udp(src: (IpAddr, u16), dst: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let mut header = [src.1.to_be_bytes(), dst.1.to_be_bytes()].concat();
    header.extend(length(8 + payload.len()));
    header.extend([0, 0]);
    let sum =
        checksum(&[&pseudo(src.0, dst.0, protocol::UDP, 8 + payload.len()), &header, payload]);
    header[6..8].copy_from_slice(&sum);
    header.extend(payload);
    header
}

/// A TCP segment without data and without its IP header.
#[must_use]
pub fn tcp(src: (IpAddr, u16), dst: (IpAddr, u16), flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let mut header = [src.1.to_be_bytes(), dst.1.to_be_bytes()].concat();
    header.extend(seq.to_be_bytes());
    header.extend(ack.to_be_bytes());
    header.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let sum = checksum(&[&pseudo(src.0, dst.0, protocol::TCP, header.len()), &header]);
    header[16..18].copy_from_slice(&sum);
    header
}

/// An ICMP or ICMPv6 message by the addresses' family, without its IP header.
#[must_use]
pub fn icmp(src: IpAddr, dst: IpAddr, kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend(body);
    let sum = if src.is_ipv4() {
        checksum(&[&message])
    } else {
        checksum(&[&pseudo(src, dst, protocol::ICMPV6, message.len()), &message])
    };
    message[2..4].copy_from_slice(&sum);
    message
}

/// An ARP packet for IPv4 over Ethernet; `operation` is 1 for a request, 2 for a reply.
#[must_use]
pub fn arp(operation: u8, sender: ([u8; 6], IpAddr), target: ([u8; 6], IpAddr)) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    for (mac, ip) in [sender, target] {
        packet.extend(mac);
        packet.extend(octets(ip));
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 2));

    #[test]
    fn a_checksum_over_a_whole_header_is_zero() {
        let packet = ip(A, B, protocol::UDP, &[]);
        assert_eq!(checksum(&[&packet[..20]]), [0, 0]);
        let datagram = udp((A, 1), (B, 2), b"odd");
        let pseudo = pseudo(A, B, protocol::UDP, datagram.len());
        assert_eq!(checksum(&[&pseudo, &datagram]), [0, 0]);
    }

    #[test]
    fn fragments_carry_their_place() {
        let fragment = Fragment { id: 7, offset: 1480, more: true };
        let packet = ip_fragment(A, B, protocol::UDP, fragment, &[0; 8]);
        assert_eq!(packet[4..8], [0, 7, 0x20, 185]);
        let [a, b] = ["fd00::1", "fd00::2"].map(|text| text.parse::<IpAddr>().unwrap());
        let packet = ip_fragment(a, b, protocol::UDP, fragment, &[0; 8]);
        assert_eq!(packet[6], protocol::FRAGMENT);
        assert_eq!(packet[40..48], [protocol::UDP, 0, 0x05, 0xc9, 0, 0, 0, 7]);
    }
}
