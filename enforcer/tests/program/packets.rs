//! Packets byte by byte, for the real object.

use enforcer_common::verdict::proto::{ICMP, ICMPV6, SCTP, TCP, UDP};

/// An address of either family.
#[derive(Clone, Copy)]
pub(crate) enum Ip {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl From<[u8; 4]> for Ip {
    fn from(ip: [u8; 4]) -> Self {
        Self::V4(ip)
    }
}

impl From<[u8; 16]> for Ip {
    fn from(ip: [u8; 16]) -> Self {
        Self::V6(ip)
    }
}

pub(crate) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IP packet around a transport payload.
pub(crate) fn ip(src: impl Into<Ip>, dst: impl Into<Ip>, proto: u8, payload: &[u8]) -> Vec<u8> {
    match (src.into(), dst.into()) {
        (Ip::V4(src), Ip::V4(dst)) => ethernet(0x0800, &v4(src, dst, proto, 0, &[], payload)),
        (Ip::V6(src), Ip::V6(dst)) => ethernet(0x86dd, &v6(src, dst, proto, 64, payload)),
        _ => panic!("families differ"),
    }
}

/// An IPv4 packet; `fragment` is the field of flags and offset, `options` a multiple of 4 bytes.
pub(crate) fn v4(
    src: [u8; 4],
    dst: [u8; 4],
    proto: u8,
    fragment: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let total = u16::try_from(header + payload.len()).unwrap();
    let mut packet = vec![0x40 | u8::try_from(header / 4).unwrap(), 0];
    packet.extend(total.to_be_bytes());
    packet.extend(0x1234_u16.to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, proto, 0, 0]);
    packet.extend(src);
    packet.extend(dst);
    packet.extend(options);
    packet.extend(payload);
    packet
}

pub(crate) fn v6(src: [u8; 16], dst: [u8; 16], next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, hops]);
    packet.extend(src);
    packet.extend(dst);
    packet.extend(payload);
    packet
}

pub(crate) fn tcp_header(src: u16, dst: u16, flags: u8) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(src.to_be_bytes());
    segment.extend(dst.to_be_bytes());
    segment.extend([0; 8]);
    segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

pub(crate) fn udp_header(src: u16, dst: u16) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(src.to_be_bytes());
    datagram.extend(dst.to_be_bytes());
    datagram.extend([0, 8, 0, 0]);
    datagram
}

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const FIN: u8 = 0x01;
pub(crate) const RST: u8 = 0x04;

pub(crate) fn tcp(src: impl Into<Ip>, dst: impl Into<Ip>, ports: (u16, u16), flags: u8) -> Vec<u8> {
    ip(src, dst, TCP, &tcp_header(ports.0, ports.1, flags))
}

pub(crate) fn udp(src: impl Into<Ip>, dst: impl Into<Ip>, ports: (u16, u16)) -> Vec<u8> {
    ip(src, dst, UDP, &udp_header(ports.0, ports.1))
}

pub(crate) fn sctp(src: impl Into<Ip>, dst: impl Into<Ip>, ports: (u16, u16)) -> Vec<u8> {
    let mut chunk = udp_header(ports.0, ports.1);
    chunk.extend([0; 8]);
    ip(src, dst, SCTP, &chunk)
}

/// ICMP or ICMPv6, by the addresses' family.
pub(crate) fn icmp(src: impl Into<Ip>, dst: impl Into<Ip>, kind: u8, body: &[u8]) -> Vec<u8> {
    let src = src.into();
    let proto = if matches!(src, Ip::V4(_)) { ICMP } else { ICMPV6 };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(body);
    ip(src, dst, proto, &message)
}

/// An echo request or reply with an identifier.
pub(crate) fn echo(src: impl Into<Ip>, dst: impl Into<Ip>, kind: u8, id: u16) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend([0, 1]);
    icmp(src, dst, kind, &body)
}

/// An ICMP error that quotes a frame of [`ip`].
pub(crate) fn error(src: impl Into<Ip>, dst: impl Into<Ip>, kind: u8, quoted: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(&quoted[14..]);
    icmp(src, dst, kind, &body)
}
