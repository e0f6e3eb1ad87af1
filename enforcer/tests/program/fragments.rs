//! Fragments of both families.

use enforcer_common::{
    abi::Direction::{self, Egress, Ingress},
    reason::Reason,
    verdict::proto::{TCP, UDP},
};

use crate::{
    lab::{FRIEND4, FRIEND6, Lab, POD4, POD6, all, http},
    packets::{ethernet, tcp_header, udp_header, v4, v6},
};

const MORE: u16 = 0x2000;

/// A fragment from the friend: its payload starts at `offset` (in bytes).
fn frag4(offset: u16, more: bool, proto: u8, payload: &[u8]) -> Vec<u8> {
    let field = (offset / 8) | if more { MORE } else { 0 };
    ethernet(0x0800, &v4(FRIEND4, POD4, proto, field, &[], payload))
}

fn frag6(offset: u16, more: bool, proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![proto, 0];
    body.extend((offset | u16::from(more)).to_be_bytes());
    body.extend([0, 0, 0, 9]);
    body.extend(payload);
    ethernet(0x86dd, &v6(FRIEND6, POD6, 44, 64, &body))
}

fn datagram(port: u16, len: usize) -> Vec<u8> {
    let mut bytes = udp_header(40_000, port);
    bytes.resize(len, 0);
    bytes
}

type Fragment = fn(u16, bool, u8, &[u8]) -> Vec<u8>;
const FAMILIES: [Fragment; 2] = [frag4, frag6];

#[test]
fn later_fragments_follow_an_allowed_first_one() {
    for fragment in FAMILIES {
        let mut lab = Lab::new([true, true], [all(), all()]);
        lab.expect(Ingress, &fragment(0, true, UDP, &datagram(53, 64)), Reason::Allowed, true);
        lab.expect(Ingress, &fragment(64, true, UDP, &[0; 64]), Reason::Fragment, false);
        lab.expect(Ingress, &fragment(128, false, UDP, &[0; 5]), Reason::Fragment, false);
    }
}

#[test]
fn later_fragments_of_a_denied_or_unseen_first_one_are_dropped() {
    for fragment in FAMILIES {
        let mut lab = Lab::strict();
        lab.expect(Ingress, &fragment(64, false, UDP, &[0; 8]), Reason::FragmentNoFirst, true);
        let first = fragment(0, true, UDP, &datagram(53, 64));
        lab.expect(Ingress, &first, Reason::PolicyDenied, true);
        lab.expect(Ingress, &fragment(64, false, UDP, &[0; 8]), Reason::FragmentNoFirst, true);
    }
}

#[test]
fn an_open_pod_needs_no_first_fragment() {
    let mut lab = Lab::new([false, false], [http(), http()]);
    lab.expect(Ingress, &frag4(64, false, UDP, &[0; 8]), Reason::Fragment, false);
}

#[test]
fn a_first_fragment_carries_the_whole_transport_header_or_is_dropped() {
    for fragment in FAMILIES {
        let mut lab = Lab::new([true, true], [all(), all()]);
        let tcp = tcp_header(40_000, 80, 2);
        let short = fragment(0, true, TCP, &tcp[..16]);
        lab.expect(Ingress, &short, Reason::BadFragment, true);
        let mut with_options = tcp_header(40_000, 80, 2);
        with_options[12] = 8 << 4;
        with_options.resize(24, 0);
        lab.expect(Ingress, &fragment(0, true, TCP, &with_options), Reason::BadFragment, true);
    }
}

#[test]
fn what_overlaps_the_first_fragment_is_dropped() {
    for fragment in FAMILIES {
        let mut lab = Lab::new([true, true], [all(), all()]);
        lab.expect(Ingress, &fragment(0, true, UDP, &datagram(53, 64)), Reason::Allowed, true);
        for offset in [8, 56] {
            let overlap = fragment(offset, true, UDP, &[0; 64]);
            lab.expect(Ingress, &overlap, Reason::BadFragment, true);
        }
        lab.expect(Ingress, &fragment(64, false, UDP, &[0; 8]), Reason::Fragment, false);
    }
}

#[test]
fn impossible_fragments_are_dropped() {
    for fragment in FAMILIES {
        let mut lab = Lab::new([true, true], [all(), all()]);
        // Not a multiple of eight with more to come, beyond the largest datagram, empty.
        let ragged = fragment(64, true, UDP, &[0; 9]);
        lab.expect(Ingress, &ragged, Reason::BadFragment, true);
        let beyond = fragment(65_528, false, UDP, &[0; 16]);
        lab.expect(Ingress, &beyond, Reason::BadFragment, true);
        lab.expect(Ingress, &fragment(64, false, UDP, &[]), Reason::BadFragment, true);
    }
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let mut lab = Lab::new([true, true], [all(), all()]);
    lab.expect(Ingress, &frag6(0, false, UDP, &datagram(53, 64)), Reason::Allowed, true);
}

#[test]
fn fragments_of_one_direction_do_not_open_the_other() {
    let mut lab = Lab::new([true, true], [all(), all()]);
    lab.expect(Ingress, &frag4(0, true, UDP, &datagram(53, 64)), Reason::Allowed, true);
    let back = ethernet(0x0800, &v4(POD4, FRIEND4, UDP, 64 / 8, &[], &[0; 8]));
    lab.expect(Egress as Direction, &back, Reason::FragmentNoFirst, true);
}
