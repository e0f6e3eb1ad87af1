//! What an ICMP error quotes, ARP, and what is read off a packet.

use super::*;

/// What the error in a frame quotes, if that names a flow.
fn quoted(frame: Vec<u8>) -> Option<Quoted> {
    let packet = parsed(frame.clone());
    assert!(packet.is_icmp_error(), "{packet:?}");
    let mut quoted = Quoted::default();
    parse_quoted(&Frame(frame), &packet, &mut quoted).then_some(quoted)
}

fn error4(inner: &[u8]) -> Vec<u8> {
    v4(ICMP, 0, &[&[icmp::V4_UNREACHABLE, 4, 0, 0, 0, 0, 5, 0], inner].concat())
}

fn error6(inner: &[u8]) -> Vec<u8> {
    v6(ICMPV6, &[&[2, 0, 0, 0, 0, 0, 5, 0], inner].concat())
}

fn basic(four: bool, proto: u8) -> Quoted {
    let (src, dst) = if four {
        (Addr::v4(u32::from_ne_bytes(SRC)), Addr::v4(u32::from_ne_bytes(DST)))
    } else {
        (Addr::from_octets(SRC6), Addr::from_octets(DST6))
    };
    Quoted { src, dst, proto, ..Quoted::default() }
}

#[test]
fn an_error_names_the_flow_that_it_quotes() {
    for proto in [TCP, UDP, SCTP] {
        let named = |four| Quoted { src_port: 40_000, dst_port: 53, ..basic(four, proto) };
        let four = |options: &[u8]| error4(&v4_packet(proto, 0, options, &UDP_HEADER));
        assert_eq!(quoted(four(&[])), Some(named(true)));
        assert_eq!(quoted(four(&[1; 4])), Some(named(true)));
        assert_eq!(quoted(four(&[1; 40])), Some(named(true)));
        let six = v6_packet(proto, &UDP_HEADER);
        assert_eq!(quoted(error6(&six)), Some(named(false)));
    }
    // Its bytes 4 and 5 are the identifier, and the type says which way it went.
    let echo =
        |four, proto| Quoted { icmp_type: 0x9c, src_port: 8, dst_port: 8, ..basic(four, proto) };
    let four = error4(&v4_packet(ICMP, 0, &[], &UDP_HEADER));
    assert_eq!(quoted(four), Some(echo(true, ICMP)));
    assert_eq!(quoted(error6(&v6_packet(ICMPV6, &UDP_HEADER))), Some(echo(false, ICMPV6)));
    assert_eq!(quoted(error6(&v6_packet(NOTHING, &UDP_HEADER))), Some(basic(false, NOTHING)));
}

#[test]
fn what_names_no_flow_is_none() {
    let four = |fragment| v4_packet(UDP, fragment, &[], &UDP_HEADER);
    for fragment in [0, MORE, DONT] {
        assert!(quoted(error4(&four(fragment))).is_some(), "{fragment:#x}");
    }
    for fragment in [1, 0x1000, MORE | 1] {
        assert_eq!(quoted(error4(&four(fragment))), None, "{fragment:#x}");
    }
    for first in [0x35, 0x55, 0x44, 0x40] {
        assert_eq!(quoted(error4(&with(four(0), 0, &[first]))), None, "{first:#x}");
    }
    let six = v6_packet(UDP, &UDP_HEADER);
    for first in [0x40, 0x70] {
        assert_eq!(quoted(error6(&with(six.clone(), 0, &[first]))), None, "{first:#x}");
    }
    // The family of the packet around it.
    assert_eq!(quoted(error4(&six)), None);
    assert_eq!(quoted(error6(&[four(0), vec![0; 40]].concat())), None);
    // An address of the other family.
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];
    assert_eq!(quoted(error6(&with(six.clone(), 8, &mapped))), None);
    assert_eq!(quoted(error6(&with(six.clone(), 24, &mapped))), None);
    // Eight bytes of the transport header, of the packet and not of what pads the frame.
    for (whole, error) in [(four(0), error4 as fn(&[u8]) -> _), (six, error6)] {
        for cut in 1..=whole.len() {
            let frame = error(&whole[..whole.len() - cut]);
            assert_eq!(quoted(frame.clone()), None, "{cut} bytes too few");
            if cut <= 8 {
                assert_eq!(quoted(padded(frame, 64)), None, "{cut} bytes too few");
            }
        }
    }
}

#[test]
fn one_fragment_header_is_followed_in_what_is_quoted() {
    let fragment = |next, offset| fragment6(next, offset, &UDP_HEADER);
    let error = |next, body: &[u8]| error6(&v6_packet(next, body));
    let named = Quoted { src_port: 40_000, dst_port: 53, ..basic(false, UDP) };
    for offset in [0, 1, 7] {
        assert_eq!(quoted(error(EXT_FRAGMENT, &fragment(UDP, offset))), Some(named));
    }
    for offset in [8, 9, 0xfff8] {
        assert_eq!(quoted(error(EXT_FRAGMENT, &fragment(UDP, offset))), None, "{offset}");
    }
    assert_eq!(quoted(error(EXT_FRAGMENT, &fragment(OPTIONS, 0))), None);
    assert_eq!(
        quoted(error(OPTIONS, &[&[UDP, 0, 0, 0, 0, 0, 0, 0], &UDP_HEADER[..]].concat())),
        None
    );
    assert_eq!(quoted(error(EXT_FRAGMENT, &fragment(UDP, 0)[..4])), None);
}

#[test]
fn arp_is_read_for_ipv4_over_ethernet_only() {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1];
    body.extend(SRC);
    body.extend([0; 10]);
    let arp = |body: &[u8]| parse_arp(&Frame(ethernet(ETH_P_ARP, body)));
    assert_eq!(arp(&body), Some(Arp { sender: u32::from_ne_bytes(SRC) }));
    for at in 0..6 {
        let other = body[at] ^ 1;
        assert_eq!(arp(&with(body.clone(), at, &[other])), None, "byte {at}");
    }
    assert_eq!(arp(&body[..27]), None);
}

#[test]
fn icmp_has_its_kinds_by_family() {
    let of = |v6, proto, icmp_type| Packet { v6, proto, icmp_type, ..Packet::default() };
    for kind in 0..=255 {
        let (four, six) = (of(0, ICMP, kind), of(1, ICMPV6, kind));
        assert!(four.is_icmp() && six.is_icmp());
        assert_eq!(four.is_icmp_error(), [3, 11, 12].contains(&kind), "type {kind}");
        assert_eq!(six.is_icmp_error(), (1..=4).contains(&kind), "type {kind}");
        assert_eq!((four.is_echo_request(), four.is_echo_reply()), (kind == 8, kind == 0));
        assert_eq!((six.is_echo_request(), six.is_echo_reply()), (kind == 128, kind == 129));
        for other in [of(0, ICMPV6, kind), of(1, ICMP, kind), of(0, UDP, kind), of(1, UDP, kind)] {
            assert!(!other.is_icmp() && !other.is_icmp_error());
            assert!(!other.is_echo_request() && !other.is_echo_reply());
        }
    }
}

#[test]
fn a_connection_is_opened_by_a_syn_without_an_ack() {
    for flags in 0..=255 {
        let of = |proto| Packet { proto, tcp_flags: flags, ..Packet::default() };
        let opens = flags & tcp::SYN != 0 && flags & tcp::ACK == 0;
        assert_eq!(of(TCP).is_tcp_open(), opens, "{flags:#x}");
        assert!(!of(SCTP).is_tcp_open());
    }
}

#[test]
fn addresses_of_one_link_and_of_nobody() {
    let of = |first: [u8; 2], last: u8| {
        let mut octets = [0; 16];
        octets[..2].copy_from_slice(&first);
        octets[15] = last;
        Addr::from_octets(octets)
    };
    for first in [[0xfe, 0x80], [0xfe, 0xbf]] {
        assert!(is_link_local(&of(first, 1)), "{first:x?}");
    }
    for first in [[0xfe, 0xc0], [0xfe, 0x00], [0xff, 0x80], [0x7e, 0x80], [0, 0]] {
        assert!(!is_link_local(&of(first, 1)), "{first:x?}");
    }
    assert!(is_unspecified(&of([0, 0], 0)));
    for byte in 0..16 {
        let mut octets = [0; 16];
        octets[byte] = 1;
        assert!(!is_unspecified(&Addr::from_octets(octets)), "byte {byte}");
    }
}
