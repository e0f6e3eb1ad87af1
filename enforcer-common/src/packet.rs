//! The packet parser: what the hooks know of a packet, and where it stops being readable.
//!
//! One pass over Ethernet, IPv4 (RFC 791) or IPv6 with its extension headers (RFC 8200), and the
//! transport header. It never guesses: whatever cannot be read ends in a [`Reason`] that drops
//! when the pod is isolated, and says how far the packet was understood. Reads go through
//! [`Bytes`], so the same source runs over an skb and over a slice in tests.

use crate::{
    abi::Addr,
    reason::Reason,
    verdict::proto::{ICMP, ICMPV6, SCTP, TCP, UDP},
};

/// Where packet bytes come from. Offsets count from the Ethernet header.
pub trait Bytes {
    /// Length of the whole frame, bytes.
    fn frame_len(&self) -> u32;
    /// `N` bytes at `offset`, if the frame has them.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
    /// `N` words at `offset`, in the order of their bytes, if the frame has them.
    fn read_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;
}

/// Length of an Ethernet header.
pub const ETH_LEN: u32 = 14;
/// IPv4.
pub const ETH_P_IP: u16 = 0x0800;
/// ARP.
pub const ETH_P_ARP: u16 = 0x0806;
/// IPv6.
pub const ETH_P_IPV6: u16 = 0x86dd;
/// 802.1Q tag in the frame's bytes.
pub const ETH_P_8021Q: u16 = 0x8100;
/// 802.1ad tag in the frame's bytes.
pub const ETH_P_8021AD: u16 = 0x88a8;

/// TCP flags as in byte 13 of the header (RFC 9293, 3.1).
pub mod tcp {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// ACK.
    pub const ACK: u8 = 0x10;
}

/// ICMP types that the data path treats apart (RFC 792; RFC 4443, RFC 4861, RFC 2710, RFC 3810).
pub mod icmp {
    /// IPv4 echo reply.
    pub const V4_ECHO_REPLY: u8 = 0;
    /// IPv4 destination unreachable.
    pub const V4_UNREACHABLE: u8 = 3;
    /// IPv4 echo request.
    pub const V4_ECHO: u8 = 8;
    /// IPv4 time exceeded.
    pub const V4_TIME_EXCEEDED: u8 = 11;
    /// IPv4 parameter problem.
    pub const V4_PARAMETER: u8 = 12;
    /// IPv6 error messages are 1 to 4: unreachable, too big, time exceeded, parameter problem.
    pub const V6_LAST_ERROR: u8 = 4;
    /// IPv6 echo request.
    pub const V6_ECHO: u8 = 128;
    /// IPv6 echo reply.
    pub const V6_ECHO_REPLY: u8 = 129;
    /// Multicast listener query.
    pub const V6_MLD_QUERY: u8 = 130;
    /// Multicast listener done, the last of MLDv1.
    pub const V6_MLD_DONE: u8 = 132;
    /// Router solicitation.
    pub const V6_ROUTER_SOLICIT: u8 = 133;
    /// Router advertisement.
    pub const V6_ROUTER_ADVERT: u8 = 134;
    /// Neighbour solicitation.
    pub const V6_NEIGHBOUR_SOLICIT: u8 = 135;
    /// Neighbour advertisement.
    pub const V6_NEIGHBOUR_ADVERT: u8 = 136;
    /// Redirect.
    pub const V6_REDIRECT: u8 = 137;
    /// Multicast listener report, version 2.
    pub const V6_MLD2_REPORT: u8 = 143;
}

/// [`Packet::fragment`]: not a fragment.
pub const FRAG_NONE: u8 = 0;
/// [`Packet::fragment`]: the first of several.
pub const FRAG_FIRST: u8 = 1;
/// [`Packet::fragment`]: one without the transport header.
pub const FRAG_LATER: u8 = 2;

/// What is known of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Packet {
    /// Source address; zero until `addresses` is set.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Offset of the transport header.
    pub l4: u32,
    /// Offset of the IP packet's end.
    pub end: u32,
    /// Identification of a fragment.
    pub fragment_id: u32,
    /// Where a fragment's payload starts in the datagram's, bytes.
    pub fragment_start: u32,
    /// Where it ends.
    pub fragment_end: u32,
    /// Source port (TCP, UDP, SCTP); echo identifier (ICMP echo).
    pub src_port: u16,
    /// Destination port; echo identifier.
    pub dst_port: u16,
    /// Frame type.
    pub ethertype: u16,
    /// IP protocol number.
    pub proto: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// Hop limit or time to live.
    pub hop_limit: u8,
    /// `FRAG_…`.
    pub fragment: u8,
    /// 1 if the destination MAC is a group address.
    pub group: u8,
    /// 1 once `src` and `dst` are read.
    pub addresses: u8,
    /// 1 for IPv6.
    pub v6: u8,
    /// Zero.
    pub _pad: u8,
}

impl Packet {
    /// Whether it is ICMP in IPv4 or ICMPv6 in IPv6 (and not one in the other).
    #[inline(always)]
    #[must_use]
    pub const fn is_icmp(&self) -> bool {
        if self.v6 == 0 { self.proto == ICMP } else { self.proto == ICMPV6 }
    }

    /// Whether it is an ICMP error, which quotes the packet that it is about.
    #[inline(always)]
    #[must_use]
    pub const fn is_icmp_error(&self) -> bool {
        if !self.is_icmp() {
            return false;
        }
        if self.v6 == 0 {
            matches!(
                self.icmp_type,
                icmp::V4_UNREACHABLE | icmp::V4_TIME_EXCEEDED | icmp::V4_PARAMETER
            )
        } else {
            self.icmp_type >= 1 && self.icmp_type <= icmp::V6_LAST_ERROR
        }
    }

    /// Whether it is an echo request.
    #[inline(always)]
    #[must_use]
    pub const fn is_echo_request(&self) -> bool {
        self.is_icmp() && self.icmp_type == if self.v6 == 0 { icmp::V4_ECHO } else { icmp::V6_ECHO }
    }

    /// Whether it is an echo reply.
    #[inline(always)]
    #[must_use]
    pub const fn is_echo_reply(&self) -> bool {
        self.is_icmp()
            && self.icmp_type
                == if self.v6 == 0 { icmp::V4_ECHO_REPLY } else { icmp::V6_ECHO_REPLY }
    }

    /// Whether it opens a TCP connection: SYN without ACK.
    #[inline(always)]
    #[must_use]
    pub const fn is_tcp_open(&self) -> bool {
        self.proto == TCP && self.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }
}

/// [`parse`]: an IP packet, read as far as its transport header.
pub const PARSED_IP: u8 = 0;
/// [`parse`]: an ARP frame.
pub const PARSED_ARP: u8 = 1;

const fn be16(hi: u8, lo: u8) -> u16 {
    u16::from_be_bytes([hi, lo])
}

/// Reads a frame into `packet`.
///
/// Returns [`PARSED_IP`], [`PARSED_ARP`], or the number of the [`Reason`] why it is not readable
/// (all of those drop, so they cannot be taken for the first two). `vlan_present` is the skb's
/// field: the kernel takes an outer tag out of the frame's bytes before the hook.
#[inline(always)]
pub fn parse<B: Bytes>(bytes: &B, vlan_present: bool, packet: &mut Packet) -> u8 {
    let Some(eth) = bytes.read::<14>(0) else {
        return Reason::InvalidHeader as u8;
    };
    packet.group = eth[0] & 1;
    packet.ethertype = be16(eth[12], eth[13]);
    if vlan_present {
        return Reason::VlanTagged as u8;
    }
    parse_network(bytes, packet)
}

/// Reads a frame whose type is in `packet` already, from its network header on.
///
/// Returns what [`parse`] does.
#[inline(always)]
pub fn parse_network<B: Bytes>(bytes: &B, packet: &mut Packet) -> u8 {
    match packet.ethertype {
        ETH_P_IP => parse_v4(bytes, packet),
        ETH_P_IPV6 => parse_v6(bytes, packet),
        ETH_P_ARP => PARSED_ARP,
        ETH_P_8021Q | ETH_P_8021AD => Reason::VlanTagged as u8,
        _ => Reason::UnknownEthertype as u8,
    }
}

/// Largest IP packet without jumbo payloads; a GSO packet above it carries a length of 0.
const MAX_IP_LEN: u32 = 65_535;

#[inline(always)]
fn parse_v4<B: Bytes>(bytes: &B, packet: &mut Packet) -> u8 {
    let Some([first, second, third, src, dst]) = bytes.read_words::<5>(ETH_LEN) else {
        return Reason::InvalidHeader as u8;
    };
    let (first, second) = (first.to_ne_bytes(), second.to_ne_bytes());
    let third = third.to_ne_bytes();
    let available = bytes.frame_len() - ETH_LEN;
    let header = ((first[0] & 0x0f) as u32) * 4;
    if first[0] >> 4 != 4 || header < 20 {
        return Reason::InvalidHeader as u8;
    }
    let mut total = be16(first[2], first[3]) as u32;
    if total == 0 && available > MAX_IP_LEN {
        total = available;
    }
    if total < header || total > available {
        return Reason::InvalidHeader as u8;
    }
    packet.src = Addr::v4(src);
    packet.dst = Addr::v4(dst);
    packet.addresses = 1;
    packet.hop_limit = third[0];
    packet.proto = third[1];
    packet.l4 = ETH_LEN + header;
    packet.end = ETH_LEN + total;
    let fragment = be16(second[2], second[3]);
    if fragment & 0x3fff != 0 {
        let start = ((fragment & 0x1fff) as u32) * 8;
        packet.fragment_id = be16(second[0], second[1]) as u32;
        let more = fragment & 0x2000 != 0;
        if let Some(reason) = fragment_bounds(packet, start, total - header, more) {
            return reason;
        }
        if packet.fragment == FRAG_LATER {
            return PARSED_IP;
        }
    }
    parse_l4(bytes, packet)
}

/// Records a fragment's place; the reason if it cannot be one.
#[inline(always)]
fn fragment_bounds(packet: &mut Packet, start: u32, len: u32, more: bool) -> Option<u8> {
    packet.fragment_start = start;
    packet.fragment_end = start + len;
    // All but the last carry a multiple of eight bytes, none is empty, and none ends beyond the
    // largest datagram (RFC 791, 3.2; RFC 8200, 4.5).
    if len == 0 || start + len > MAX_IP_LEN || (more && !len.is_multiple_of(8)) {
        return Some(Reason::BadFragment as u8);
    }
    packet.fragment = if start == 0 { FRAG_FIRST } else { FRAG_LATER };
    None
}

/// Steps of the walk over extension headers, the last of which must find the transport header: so
/// seven are followed. No real sender uses more.
const MAX_EXTENSION_HEADERS: u32 = 8;

// Not inlined: its frame is then on the kernel's 512-byte stack only while it runs.
#[inline(never)]
fn parse_v6<B: Bytes>(bytes: &B, packet: &mut Packet) -> u8 {
    let Some([first, second, s0, s1, s2, s3, d0, d1, d2, d3]) = bytes.read_words::<10>(ETH_LEN)
    else {
        return Reason::InvalidHeader as u8;
    };
    let (first, second) = (first.to_ne_bytes(), second.to_ne_bytes());
    let available = bytes.frame_len() - ETH_LEN;
    packet.v6 = 1;
    if first[0] >> 4 != 6 {
        return Reason::InvalidHeader as u8;
    }
    let mut total = 40 + be16(second[0], second[1]) as u32;
    // A length of 0 is a jumbogram (RFC 2675), which only a GSO packet can be here: it may come
    // with the jumbo option or without.
    if total == 40 && available > MAX_IP_LEN {
        total = available;
    }
    if total > available {
        return Reason::InvalidHeader as u8;
    }
    packet.src = Addr([s0, s1, s2, s3]);
    packet.dst = Addr([d0, d1, d2, d3]);
    packet.addresses = 1;
    if packet.src.is_v4() || packet.dst.is_v4() {
        // ::ffff:a.b.c.d is no address on the wire, and here it would be the IPv4 one's.
        return Reason::InvalidHeader as u8;
    }
    packet.hop_limit = second[3];
    packet.end = ETH_LEN + total;
    let mut next = second[2];
    let mut at = ETH_LEN + 40;
    if !is_extension(next) {
        packet.proto = next;
        packet.l4 = at;
        return parse_l4(bytes, packet);
    }
    let mut left = MAX_EXTENSION_HEADERS;
    while left > 0 {
        left -= 1;
        if !is_extension(next) {
            packet.proto = next;
            packet.l4 = at;
            return parse_l4(bytes, packet);
        }
        // Every extension header has at least eight bytes.
        if at + 8 > packet.end {
            return Reason::ExtensionHeaders as u8;
        }
        let Some(e) = bytes.read::<8>(at) else {
            return Reason::ExtensionHeaders as u8;
        };
        let length = match next {
            EXT_FRAGMENT => 8,
            EXT_AUTH => (e[1] as u32 + 2) * 4,
            _ => (e[1] as u32 + 1) * 8,
        };
        if next == EXT_ROUTING && e[3] != 0 {
            // Segments left: the packet's destination is not where it ends.
            return Reason::ExtensionHeaders as u8;
        }
        if next == EXT_FRAGMENT {
            let offset = be16(e[2], e[3]);
            // Offset 0 without more to come is an atomic fragment: a whole packet (RFC 6946).
            if offset & 0xfff9 != 0 {
                if packet.fragment != FRAG_NONE {
                    return Reason::BadFragment as u8;
                }
                packet.fragment_id = u32::from_be_bytes([e[4], e[5], e[6], e[7]]);
                let start = (offset & 0xfff8) as u32;
                let payload = packet.end - (at + 8);
                if let Some(reason) = fragment_bounds(packet, start, payload, offset & 1 != 0) {
                    return reason;
                }
                if packet.fragment == FRAG_LATER {
                    packet.proto = e[0];
                    packet.l4 = at + 8;
                    return PARSED_IP;
                }
            }
        }
        next = e[0];
        at += length;
        if at > packet.end {
            return Reason::ExtensionHeaders as u8;
        }
    }
    Reason::ExtensionHeaders as u8
}

const EXT_ROUTING: u8 = 43;
const EXT_FRAGMENT: u8 = 44;
const EXT_AUTH: u8 = 51;

/// Hop-by-hop, routing, fragment, authentication, destination options, mobility, HIP, shim6
/// (IANA's IPv6 extension header types that can be walked).
#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, 0 | EXT_ROUTING | EXT_FRAGMENT | EXT_AUTH | 60 | 135 | 139 | 140)
}

#[inline(always)]
fn parse_l4<B: Bytes>(bytes: &B, packet: &mut Packet) -> u8 {
    let need = match packet.proto {
        TCP => 20,
        SCTP => 12,
        UDP => 8,
        ICMP if packet.v6 == 0 => 8,
        ICMPV6 if packet.v6 != 0 => 8,
        _ => return PARSED_IP,
    };
    if packet.l4 + need > packet.end {
        return short(packet);
    }
    if packet.proto == TCP {
        let Some(h) = bytes.read::<14>(packet.l4) else {
            return short(packet);
        };
        let header = ((h[12] >> 4) as u32) * 4;
        if header < 20 || packet.l4 + header > packet.end {
            return short(packet);
        }
        packet.src_port = be16(h[0], h[1]);
        packet.dst_port = be16(h[2], h[3]);
        packet.tcp_flags = h[13];
        return PARSED_IP;
    }
    let Some(h) = bytes.read::<8>(packet.l4) else {
        return short(packet);
    };
    if packet.is_icmp() {
        packet.icmp_type = h[0];
        packet.icmp_code = h[1];
        let id = be16(h[4], h[5]);
        packet.src_port = id;
        packet.dst_port = id;
    } else {
        packet.src_port = be16(h[0], h[1]);
        packet.dst_port = be16(h[2], h[3]);
    }
    PARSED_IP
}

/// A transport header that is not whole: of a first fragment, or of a packet.
#[inline(always)]
const fn short(packet: &Packet) -> u8 {
    if packet.fragment == FRAG_FIRST { Reason::BadFragment as u8 } else { Reason::Truncated as u8 }
}

/// The flow that an ICMP error quotes, in the quoted packet's own direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Quoted {
    /// Source of the quoted packet.
    pub src: Addr,
    /// Destination of the quoted packet.
    pub dst: Addr,
    /// Its source port or echo identifier.
    pub src_port: u16,
    /// Its destination port or echo identifier.
    pub dst_port: u16,
    /// Its protocol.
    pub proto: u8,
    /// Its ICMP type, if it is ICMP.
    pub icmp_type: u8,
    /// Zero.
    pub _pad: u16,
}

/// Reads the packet that the ICMP error `packet` quotes. `false` if it does not name a flow: too
/// short, a later fragment, or another family (an IPv4 address in IPv6 form, too).
#[inline(never)]
pub fn parse_quoted<B: Bytes>(bytes: &B, packet: &Packet, quoted: &mut Quoted) -> bool {
    let at = packet.l4 + 8;
    let l4;
    if packet.v6 == 0 {
        let Some([first, second, third, src, dst]) = bytes.read_words::<5>(at) else {
            return false;
        };
        let (first, second) = (first.to_ne_bytes(), second.to_ne_bytes());
        let header = ((first[0] & 0x0f) as u32) * 4;
        if first[0] >> 4 != 4 || header < 20 || be16(second[2], second[3]) & 0x1fff != 0 {
            return false;
        }
        quoted.src = Addr::v4(src);
        quoted.dst = Addr::v4(dst);
        quoted.proto = third.to_ne_bytes()[1];
        l4 = at + header;
    } else {
        let Some([first, second, s0, s1, s2, s3, d0, d1, d2, d3]) = bytes.read_words::<10>(at)
        else {
            return false;
        };
        if first.to_ne_bytes()[0] >> 4 != 6 {
            return false;
        }
        quoted.src = Addr([s0, s1, s2, s3]);
        quoted.dst = Addr([d0, d1, d2, d3]);
        if quoted.src.is_v4() || quoted.dst.is_v4() {
            // As in `parse_v6`: it would name a flow of the other family.
            return false;
        }
        // One fragment header is followed: a fragmented datagram's error is the common case.
        let mut next = second.to_ne_bytes()[2];
        let mut offset = at + 40;
        if next == EXT_FRAGMENT {
            let Some(e) = bytes.read::<8>(offset) else {
                return false;
            };
            if be16(e[2], e[3]) & 0xfff8 != 0 {
                return false;
            }
            next = e[0];
            offset += 8;
        }
        if is_extension(next) {
            return false;
        }
        quoted.proto = next;
        l4 = offset;
    }
    // RFC 792 promises eight bytes of the quoted transport header.
    let Some(h) = bytes.read::<8>(l4) else {
        return false;
    };
    if l4 + 8 > packet.end {
        return false;
    }
    match quoted.proto {
        TCP | UDP | SCTP => {
            quoted.src_port = be16(h[0], h[1]);
            quoted.dst_port = be16(h[2], h[3]);
        }
        ICMP | ICMPV6 => {
            quoted.icmp_type = h[0];
            quoted.src_port = be16(h[4], h[5]);
            quoted.dst_port = quoted.src_port;
        }
        _ => {}
    }
    true
}

/// What policy needs of an ARP frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arp {
    /// Sender protocol address, network byte order.
    pub sender: u32,
}

/// Reads an ARP frame for IPv4 over Ethernet (RFC 826).
#[inline(always)]
pub fn parse_arp<B: Bytes>(bytes: &B) -> Option<Arp> {
    let h = bytes.read::<28>(ETH_LEN)?;
    if h[0] != 0 || h[1] != 1 || h[2] != 8 || h[3] != 0 || h[4] != 6 || h[5] != 4 {
        return None;
    }
    Some(Arp { sender: u32::from_ne_bytes([h[14], h[15], h[16], h[17]]) })
}

/// Whether an IPv6 address is link-local unicast, fe80::/10.
#[inline(always)]
#[must_use]
pub const fn is_link_local(addr: &Addr) -> bool {
    addr.0[0] & u32::from_be(0xffc0_0000) == u32::from_be(0xfe80_0000)
}

/// Whether an IPv6 address is the unspecified one.
#[inline(always)]
#[must_use]
pub const fn is_unspecified(addr: &Addr) -> bool {
    addr.0[0] == 0 && addr.0[1] == 0 && addr.0[2] == 0 && addr.0[3] == 0
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
