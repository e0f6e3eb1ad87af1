//! Frames byte by byte, on the host: every bound from both sides.

use super::*;

const SRC: [u8; 4] = [10, 0, 0, 1];
const DST: [u8; 4] = [10, 0, 0, 2];
const SRC6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const DST6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// A protocol without ports.
const IGMP: u8 = 2;
/// No next header (RFC 8200, 4.7).
const NOTHING: u8 = 59;
/// Destination options.
const OPTIONS: u8 = 60;
/// Flags and offset of an IPv4 fragment.
const MORE: u16 = 0x2000;
const DONT: u16 = 0x4000;

struct Frame(Vec<u8>);

impl Bytes for Frame {
    fn frame_len(&self) -> u32 {
        self.0.len() as u32
    }

    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let from = offset as usize;
        self.0.get(from..from.checked_add(N)?)?.try_into().ok()
    }

    fn read_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let mut words = [0; N];
        for (word, at) in words.iter_mut().zip((offset..).step_by(4)) {
            *word = u32::from_ne_bytes(self.read(at)?);
        }
        Some(words)
    }
}

fn ethernet(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], &ethertype.to_be_bytes()[..], packet].concat()
}

fn v4_packet(proto: u8, fragment: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([63, proto, 0, 0]);
    [&packet, &SRC[..], &DST, options, payload].concat()
}

fn v6_packet(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 62]);
    [&packet, &SRC6[..], &DST6, payload].concat()
}

fn v4(proto: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    ethernet(ETH_P_IP, &v4_packet(proto, fragment, &[], payload))
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(ETH_P_IPV6, &v6_packet(next, payload))
}

/// Ports 40,000 and 80, SYN and ACK; so many bytes, of which the data offset tells.
fn tcp_header(len: usize) -> Vec<u8> {
    let mut header = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2];
    header.extend([(len / 4 * 16) as u8, tcp::SYN | tcp::ACK]);
    header.resize(len, 0);
    header
}

/// Ports 40,000 and 53 and a checksum, which is where an echo has its identifier.
const UDP_HEADER: [u8; 8] = [0x9c, 0x40, 0, 53, 0, 8, 0xab, 0xcd];

fn read(frame: Vec<u8>) -> (u8, Packet) {
    let mut packet = Packet::default();
    let outcome = parse(&Frame(frame), false, &mut packet);
    (outcome, packet)
}

/// What is read of a frame that can be.
fn parsed(frame: Vec<u8>) -> Packet {
    let (outcome, packet) = read(frame);
    assert_eq!(outcome, PARSED_IP, "{packet:?}");
    packet
}

fn refused(frame: Vec<u8>, reason: Reason) {
    let (outcome, packet) = read(frame);
    assert_eq!(Reason::from_u8(outcome), Some(reason), "{packet:?}");
}

fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

fn padded(mut frame: Vec<u8>, by: usize) -> Vec<u8> {
    frame.resize(frame.len() + by, 0);
    frame
}

fn basic4() -> Packet {
    Packet {
        src: Addr::v4(u32::from_ne_bytes(SRC)),
        dst: Addr::v4(u32::from_ne_bytes(DST)),
        l4: 34,
        ethertype: ETH_P_IP,
        hop_limit: 63,
        addresses: 1,
        ..Packet::default()
    }
}

fn basic6() -> Packet {
    Packet {
        src: Addr::from_octets(SRC6),
        dst: Addr::from_octets(DST6),
        l4: 54,
        ethertype: ETH_P_IPV6,
        hop_limit: 62,
        addresses: 1,
        v6: 1,
        ..Packet::default()
    }
}

#[test]
fn an_ethernet_header_says_what_follows_and_to_whom() {
    refused(vec![0; 13], Reason::InvalidHeader);
    for (first, group) in [(2, 0), (3, 1), (0xff, 1), (0, 0)] {
        let packet = parsed(with(v4(IGMP, 0, &[]), 0, &[first]));
        assert_eq!(packet.group, group, "{first:#x}");
    }
    refused(ethernet(ETH_P_8021Q, &v4_packet(IGMP, 0, &[], &[])), Reason::VlanTagged);
    refused(ethernet(ETH_P_8021AD, &v4_packet(IGMP, 0, &[], &[])), Reason::VlanTagged);
    refused(ethernet(0x8847, &[0; 60]), Reason::UnknownEthertype);
    assert_eq!(read(ethernet(ETH_P_ARP, &[])).0, PARSED_ARP);
    // A tag that the kernel has taken out of the bytes.
    let mut packet = Packet::default();
    let outcome = parse(&Frame(v4(IGMP, 0, &[])), true, &mut packet);
    assert_eq!((outcome, packet.ethertype), (Reason::VlanTagged as u8, ETH_P_IP));
    assert_eq!(packet.addresses, 0);
}

#[test]
fn a_segment_is_read_to_its_flags() {
    let expected = |basic: Packet, len: u32| Packet {
        end: basic.l4 + len,
        proto: TCP,
        src_port: 40_000,
        dst_port: 80,
        tcp_flags: tcp::SYN | tcp::ACK,
        ..basic
    };
    for len in [20, 60] {
        assert_eq!(parsed(v4(TCP, 0, &tcp_header(len))), expected(basic4(), len as u32));
        assert_eq!(parsed(v6(TCP, &tcp_header(len))), expected(basic6(), len as u32));
    }
    // Options of IPv4 stand before it.
    for words in 1..=10 {
        let options = vec![1; words as usize * 4];
        let frame = ethernet(ETH_P_IP, &v4_packet(TCP, 0, &options, &tcp_header(20)));
        let basic = Packet { l4: 34 + words * 4, ..basic4() };
        assert_eq!(parsed(frame), expected(basic, 20));
    }
}

#[test]
fn a_transport_header_is_whole_or_the_packet_is_not_read() {
    let whole = [(TCP, 20), (SCTP, 12), (UDP, 8)];
    for (proto, need) in whole {
        let header = &tcp_header(20)[..need];
        for len in 0..need {
            // With padding behind it, so that the frame does not end where the packet does.
            refused(padded(v4(proto, 0, &header[..len]), 40), Reason::Truncated);
            refused(padded(v6(proto, &header[..len]), 40), Reason::Truncated);
            refused(v4(proto, 0, &header[..len]), Reason::Truncated);
            // Of a first fragment it is what hides ports.
            refused(padded(v4(proto, MORE, &header[..len & !7]), 40), Reason::BadFragment);
        }
        assert_eq!(parsed(v4(proto, 0, header)).dst_port, 80);
        assert_eq!(parsed(v6(proto, header)).src_port, 40_000);
    }
    // A data offset below 5 words, or beyond the packet's end.
    let offset = |words: u8, len: usize| with(v4(TCP, 0, &tcp_header(len)), 34 + 12, &[words << 4]);
    refused(offset(4, 40), Reason::Truncated);
    refused(offset(11, 40), Reason::Truncated);
    assert_eq!(parsed(offset(10, 40)).dst_port, 80);
    refused(padded(offset(15, 59), 40), Reason::Truncated);
}

#[test]
fn icmp_belongs_to_its_family_and_has_an_identifier_for_ports() {
    let echo = [icmp::V4_ECHO, 3, 0, 0, 0xab, 0xcd, 0, 1];
    let expected = |basic: Packet, proto| Packet {
        end: basic.l4 + 8,
        proto,
        icmp_type: icmp::V4_ECHO,
        icmp_code: 3,
        src_port: 0xabcd,
        dst_port: 0xabcd,
        ..basic
    };
    assert_eq!(parsed(v4(ICMP, 0, &echo)), expected(basic4(), ICMP));
    assert_eq!(parsed(v6(ICMPV6, &echo)), expected(basic6(), ICMPV6));
    for len in 0..8 {
        refused(padded(v4(ICMP, 0, &echo[..len]), 40), Reason::Truncated);
        refused(padded(v6(ICMPV6, &echo[..len]), 40), Reason::Truncated);
        // In the other family it is a protocol without ports like others.
        let packet = parsed(v4(ICMPV6, 0, &echo[..len]));
        assert_eq!(packet, Packet { end: 34 + len as u32, proto: ICMPV6, ..basic4() });
        let packet = parsed(v6(ICMP, &echo[..len]));
        assert_eq!(packet, Packet { end: 54 + len as u32, proto: ICMP, ..basic6() });
    }
    assert_eq!(parsed(v4(ICMPV6, 0, &echo)).src_port, 0);
    assert_eq!(parsed(v6(ICMP, &echo)).src_port, 0);
}

#[test]
fn lengths_of_ipv4_agree_with_each_other_and_with_the_frame() {
    let good = || v4(IGMP, 0, &[0; 12]);
    let total = |length: u16| with(good(), 16, &length.to_be_bytes());
    for byte in [0x35, 0x55, 0x65, 0x44, 0x40] {
        refused(with(good(), 14, &[byte]), Reason::InvalidHeader);
    }
    assert_eq!(parsed(with(good(), 14, &[0x48])).l4, 46);
    refused(with(good(), 14, &[0x49]), Reason::InvalidHeader);
    for length in [0, 19, 33, u16::MAX] {
        refused(total(length), Reason::InvalidHeader);
    }
    for length in [20, 21, 32] {
        assert_eq!(parsed(total(length)).end, 14 + u32::from(length));
    }
    for len in 14..34 {
        refused(good()[..len].to_vec(), Reason::InvalidHeader);
    }
}

#[test]
fn only_what_is_too_long_for_a_length_may_come_without_one() {
    let of = |available: usize, four: bool| {
        let (frame, at) = if four { (v4(IGMP, 0, &[]), 16) } else { (v6(IGMP, &[]), 18) };
        let mut frame = with(frame, at, &[0, 0]);
        frame.resize(14 + available, 0);
        frame
    };
    refused(of(65_535, true), Reason::InvalidHeader);
    for available in [65_536, 70_000] {
        assert_eq!(parsed(of(available, true)).end, 14 + available as u32);
        assert_eq!(parsed(of(available, false)).end, 14 + available as u32);
    }
    // A length of 0 is that of an IPv6 packet without payload.
    assert_eq!(parsed(of(65_535, false)).end, 54);
    // One that has a length has that one, however long the frame is.
    assert_eq!(parsed(padded(v4(IGMP, 0, &[0; 12]), 70_000)).end, 46);
    assert_eq!(parsed(padded(v6(IGMP, &[0; 12]), 70_000)).end, 66);
}

#[test]
fn a_packet_of_ipv6_lies_in_its_frame() {
    let good = || v6(IGMP, &[0; 12]);
    let payload = |length: u16| with(good(), 18, &length.to_be_bytes());
    for length in [0, 1, 12] {
        assert_eq!(parsed(payload(length)).end, 54 + u32::from(length));
    }
    for length in [13, u16::MAX] {
        refused(payload(length), Reason::InvalidHeader);
    }
    for byte in [0x40, 0x50, 0x70] {
        refused(with(good(), 14, &[byte]), Reason::InvalidHeader);
    }
    for len in 14..54 {
        refused(good()[..len].to_vec(), Reason::InvalidHeader);
    }
    // An IPv4 address in IPv6's form is no address on the wire.
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];
    refused(with(good(), 22, &mapped), Reason::InvalidHeader);
    refused(with(good(), 38, &mapped), Reason::InvalidHeader);
}

#[test]
fn a_fragment_of_ipv4_has_its_place_and_only_the_first_has_ports() {
    // Not to be fragmented is not a fragment.
    assert_eq!(parsed(v4(UDP, DONT, &UDP_HEADER)).fragment, FRAG_NONE);
    let first = parsed(v4(UDP, MORE, &[&UDP_HEADER[..], &[0; 8]].concat()));
    assert_eq!((first.fragment, first.fragment_id, first.dst_port), (FRAG_FIRST, 0x1234, 53));
    assert_eq!((first.fragment_start, first.fragment_end), (0, 16));
    let options = ethernet(ETH_P_IP, &v4_packet(UDP, MORE | 3, &[1; 8], &UDP_HEADER));
    for frame in [v4(UDP, MORE | 3, &UDP_HEADER), v4(UDP, 3, &UDP_HEADER), options] {
        let later = parsed(frame);
        assert_eq!((later.fragment, later.src_port, later.dst_port), (FRAG_LATER, 0, 0));
        assert_eq!((later.fragment_start, later.fragment_end), (24, 32));
    }
    // All but the last are multiples of eight, none is empty.
    refused(v4(UDP, MORE, &[0; 12]), Reason::BadFragment);
    refused(v4(UDP, MORE | 3, &[0; 12]), Reason::BadFragment);
    assert_eq!(parsed(v4(UDP, 3, &[0; 12])).fragment_end, 36);
    refused(v4(UDP, MORE, &[]), Reason::BadFragment);
    refused(v4(UDP, 3, &[]), Reason::BadFragment);
    // None ends beyond the largest datagram.
    assert_eq!(parsed(v4(UDP, 8191, &[0; 7])).fragment_end, 65_535);
    refused(v4(UDP, 8191, &[0; 8]), Reason::BadFragment);
}

/// A fragment header, and what follows it.
fn fragment6(next: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    // A reserved byte stands where others have their length.
    let [high, low] = offset.to_be_bytes();
    [&[next, 5, high, low, 0, 0, 0x12, 0x34], payload].concat()
}

#[test]
fn a_fragment_of_ipv6_has_its_place_and_only_the_first_has_ports() {
    let frame = |offset, payload: &[u8]| v6(EXT_FRAGMENT, &fragment6(UDP, offset, payload));
    // Whole, whatever the reserved bits are.
    for offset in [0, 6] {
        let atomic = parsed(frame(offset, &UDP_HEADER));
        assert_eq!((atomic.fragment, atomic.dst_port, atomic.l4), (FRAG_NONE, 53, 62));
    }
    let first = parsed(frame(1, &[&UDP_HEADER[..], &[0; 8]].concat()));
    assert_eq!((first.fragment, first.fragment_id, first.dst_port), (FRAG_FIRST, 0x1234, 53));
    assert_eq!((first.fragment_start, first.fragment_end, first.l4), (0, 16, 62));
    for offset in [24, 24 | 1, 24 | 7] {
        let later = parsed(frame(offset, &UDP_HEADER));
        assert_eq!((later.fragment, later.proto, later.dst_port), (FRAG_LATER, UDP, 0));
        assert_eq!((later.fragment_start, later.fragment_end, later.l4), (24, 32, 62));
    }
    refused(frame(1, &[0; 12]), Reason::BadFragment);
    assert_eq!(parsed(frame(24, &[0; 12])).fragment_end, 36);
    refused(frame(24, &[]), Reason::BadFragment);
    assert_eq!(parsed(frame(65_528, &[0; 7])).fragment_end, 65_535);
    refused(frame(65_528, &[0; 8]), Reason::BadFragment);
    // A fragment of a fragment.
    let twice = fragment6(EXT_FRAGMENT, 1, &fragment6(UDP, 1, &[0; 16]));
    refused(v6(EXT_FRAGMENT, &twice), Reason::BadFragment);
}

#[test]
fn extension_headers_are_followed_to_the_transport_header() {
    let option = |next: u8, words: u8, len: usize| {
        let mut header = vec![next, words, 0, 1];
        header.resize(len, 0);
        header
    };
    for (kind, words, len) in [
        (0, 0, 8),
        (0, 1, 16),
        (OPTIONS, 2, 24),
        (135, 0, 8),
        (139, 0, 8),
        (140, 1, 16),
        // Authentication counts in fours, less two.
        (EXT_AUTH, 0, 8),
        (EXT_AUTH, 1, 12),
        (EXT_AUTH, 4, 24),
    ] {
        let packet = parsed(v6(kind, &[option(UDP, words, len), UDP_HEADER.to_vec()].concat()));
        let expected = Packet {
            l4: 54 + len as u32,
            end: 62 + len as u32,
            proto: UDP,
            src_port: 40_000,
            dst_port: 53,
            ..basic6()
        };
        assert_eq!(packet, expected, "header {kind}");
        // One that ends the packet, and one that ends beyond it.
        let last = v6(kind, &option(NOTHING, words, len));
        assert_eq!(parsed(last.clone()).proto, NOTHING);
        let long = with(last, 55, &[words + 1]);
        refused(padded(long, 64), Reason::ExtensionHeaders);
    }
    for len in 1..8 {
        refused(v6(OPTIONS, &option(NOTHING, 0, len.max(4))[..len]), Reason::ExtensionHeaders);
        let short = v6(EXT_FRAGMENT, &fragment6(UDP, 24, &[])[..len]);
        refused(padded(short, 64), Reason::ExtensionHeaders);
    }
    // Routing with segments left: the destination is not where it ends.
    let routing = |left| [vec![UDP, 0, 0, left, 0, 0, 0, 0], UDP_HEADER.to_vec()].concat();
    assert_eq!(parsed(v6(EXT_ROUTING, &routing(0))).dst_port, 53);
    refused(v6(EXT_ROUTING, &routing(1)), Reason::ExtensionHeaders);
}

#[test]
fn a_chain_of_extension_headers_ends() {
    let chain = |length: usize| {
        let mut headers = [OPTIONS, 0, 0, 0, 0, 0, 0, 0].repeat(length);
        headers[(length - 1) * 8] = UDP;
        headers.extend(UDP_HEADER);
        v6(OPTIONS, &headers)
    };
    for length in 1..MAX_EXTENSION_HEADERS {
        assert_eq!(parsed(chain(length as usize)).dst_port, 53, "{length} headers");
    }
    for length in MAX_EXTENSION_HEADERS..20 {
        refused(chain(length as usize), Reason::ExtensionHeaders);
    }
}

#[path = "quoted_tests.rs"]
mod quoted;
