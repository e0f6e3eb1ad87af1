//! What is hard to read: each ends in a named verdict, and opens no isolated pod.

use enforcer_common::{
    abi::Direction::{Egress, Ingress},
    reason::Reason,
    verdict::proto::{TCP, UDP},
};

use crate::{
    lab::{DROP, FRIEND4, FRIEND6, Lab, PASS, POD4, POD6, STRANGER4, all, http},
    packets::{SYN, ethernet, ip, tcp, tcp_header, udp, udp_header, v4, v6},
};

/// Expects a reason for an isolated pod, and passage for one that is not, for each frame.
fn unreadable(frames: &[(Vec<u8>, Reason)]) {
    let mut isolated = Lab::new([true, true], [all(), all()]);
    for (frame, reason) in frames {
        isolated.expect(Ingress, frame, *reason, true);
    }
    drop(isolated);
    let mut open = Lab::new([false, false], [all(), all()]);
    for (frame, _) in frames {
        open.expect(Ingress, frame, Reason::PassedUnparsed, false);
    }
}

#[test]
fn lengths_that_contradict_each_other() {
    let good = tcp(FRIEND4, POD4, (40_000, 80), SYN);
    let mut version = good.clone();
    version[14] = 0x65;
    let mut header = good.clone();
    header[14] = 0x44;
    let mut long = good.clone();
    long[16..18].copy_from_slice(&1_000_u16.to_be_bytes());
    let mut zero = good.clone();
    zero[16..18].copy_from_slice(&0_u16.to_be_bytes());
    let mut six = tcp(FRIEND6, POD6, (40_000, 80), SYN);
    six[18..20].copy_from_slice(&1_000_u16.to_be_bytes());
    unreadable(&[version, header, long, zero, six].map(|frame| (frame, Reason::InvalidHeader)));
}

#[test]
fn a_transport_header_that_is_cut_off_anywhere() {
    let mut frames = Vec::new();
    for (proto, header) in [(TCP, tcp_header(40_000, 80, SYN)), (UDP, udp_header(40_000, 80))] {
        for len in 0..header.len() {
            frames.push(ip(FRIEND4, POD4, proto, &header[..len]));
            frames.push(ip(FRIEND6, POD6, proto, &header[..len]));
        }
    }
    let mut offset = tcp_header(40_000, 80, SYN);
    offset[12] = 4 << 4;
    frames.push(ip(FRIEND4, POD4, TCP, &offset));
    offset[12] = 15 << 4;
    frames.push(ip(FRIEND4, POD4, TCP, &offset));
    let frames: Vec<_> = frames.into_iter().map(|frame| (frame, Reason::Truncated)).collect();
    unreadable(&frames);
}

#[test]
fn padding_after_the_packet_is_not_part_of_it() {
    let mut frame = ethernet(0x0800, &v4(FRIEND4, POD4, UDP, 0, &[], &udp_header(1, 2)[..6]));
    frame.extend([0; 40]);
    unreadable(&[(frame, Reason::Truncated)]);
}

#[test]
fn options_do_not_hide_the_ports() {
    let mut lab = Lab::strict();
    for words in 1..=10_u16 {
        // Options that look like a transport header to port 80.
        let options: Vec<u8> =
            tcp_header(1, 80, SYN).into_iter().cycle().take(words as usize * 4).collect();
        let at = |src, port| {
            let header = tcp_header(src, port, SYN);
            ethernet(0x0800, &v4(FRIEND4, POD4, TCP, 0, &options, &header))
        };
        lab.expect(Ingress, &at(40_000 + words, 90), Reason::PolicyDenied, true);
        lab.expect(Ingress, &at(40_000 + words, 89), Reason::Allowed, true);
    }
}

#[test]
fn extension_headers_are_walked_in_any_order() {
    let mut lab = Lab::strict();
    for chain in [vec![0], vec![60], vec![0, 60], vec![0, 60, 43, 60], vec![51], vec![135, 139]] {
        let with = |port| {
            let mut body = Vec::new();
            for (at, _) in chain.iter().enumerate() {
                let next = chain.get(at + 1).copied().unwrap_or(TCP);
                // Eight bytes; for authentication that is length 0 in words less two.
                body.extend([next, 0, 0, 0, 0, 0, 0, 0]);
            }
            body.extend(tcp_header(40_000, port, SYN));
            ethernet(0x86dd, &v6(FRIEND6, POD6, chain[0], 64, &body))
        };
        assert_eq!(lab.run(Ingress, &with(80)).code, PASS, "{chain:?}");
        lab.expect(Ingress, &with(79), Reason::PolicyDenied, true);
    }
}

#[test]
fn chains_that_lead_elsewhere_are_not_followed() {
    let chain = |headers: &[[u8; 8]], last: &[u8]| {
        let mut body: Vec<u8> = headers.concat();
        body.extend(last);
        ethernet(0x86dd, &v6(FRIEND6, POD6, 60, 64, &body))
    };
    let tcp = tcp_header(40_000, 80, SYN);
    let mut nine = [[60, 0, 0, 0, 0, 0, 0, 0]; 9];
    nine[8][0] = TCP;
    let frames = [
        chain(&nine, &tcp),
        // Segments left: the packet ends elsewhere.
        chain(&[[43, 0, 0, 0, 0, 0, 0, 0], [TCP, 0, 4, 1, 0, 0, 0, 0]], &tcp),
        // A length beyond the packet.
        chain(&[[TCP, 200, 0, 0, 0, 0, 0, 0]], &tcp),
        // Cut off.
        chain(&[], &[60, 0, 0]),
    ];
    unreadable(&frames.map(|frame| (frame, Reason::ExtensionHeaders)));
}

#[test]
fn tags_and_strange_frames() {
    let inner = tcp(FRIEND4, POD4, (40_000, 80), SYN);
    let mut frames = Vec::new();
    for tag in [0x8100_u16, 0x88a8] {
        let mut frame = inner[..12].to_vec();
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 5]);
        frame.extend(&inner[12..]);
        frames.push((frame, Reason::VlanTagged));
    }
    frames.push((ethernet(0x8847, &[0; 60]), Reason::UnknownEthertype));
    frames.push((ethernet(0x8035, &[0; 60]), Reason::UnknownEthertype));
    unreadable(&frames);
}

#[test]
fn protocols_without_ports_match_rules_without_ports_only() {
    let (mut strict, mut lenient) = (Lab::strict(), Lab::new([true, true], [all(), all()]));
    for proto in [2, 4, 41, 47, 50, 58, 103, 255] {
        let packet = ip(FRIEND4, POD4, proto, &[0; 40]);
        strict.expect(Ingress, &packet, Reason::PolicyDenied, true);
        lenient.expect(Ingress, &packet, Reason::Allowed, true);
    }
}

#[test]
fn an_unreadable_packet_with_a_foreign_source_is_spoofed_even_if_the_pod_is_open() {
    let mut lab = Lab::new([false, false], [http(), http()]);
    let frame = ip(STRANGER4, FRIEND4, TCP, &[0; 3]);
    lab.expect(Egress, &frame, Reason::SpoofedSource, true);
    let own = ip(POD4, FRIEND4, TCP, &[0; 3]);
    lab.expect(Egress, &own, Reason::PassedUnparsed, false);
}

#[test]
fn every_cut_of_a_packet_has_a_verdict() {
    let mut lab = Lab::strict();
    for frame in [tcp(FRIEND6, POD6, (40_000, 22), SYN), udp(FRIEND4, POD4, (40_000, 22))] {
        // A test run wants a whole IP header.
        let header = if frame[12] == 8 { 34 } else { 54 };
        for len in header..frame.len() {
            assert_eq!(lab.run(Ingress, &frame[..len]).code, DROP, "{len} bytes");
        }
    }
}
