//! Frames, read by the very source that the kernel runs.

use enforcer_common::{
    packet::{
        Bytes, ETH_LEN, FRAG_LATER, FRAG_NONE, PARSED_ARP, PARSED_IP, Packet, Quoted, parse,
        parse_arp, parse_quoted,
    },
    reason::Reason,
};

struct Frame<'a>(&'a [u8]);

impl Frame<'_> {
    fn part<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let from = offset as usize;
        self.0.get(from..from.checked_add(N)?)?.try_into().ok()
    }
}

impl Bytes for Frame<'_> {
    fn frame_len(&self) -> u32 {
        self.0.len() as u32
    }

    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.part(offset)
    }

    fn read_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let mut words = [0; N];
        for (word, at) in words.iter_mut().zip((offset..).step_by(4)) {
            *word = u32::from_ne_bytes(self.part(at)?);
        }
        Some(words)
    }
}

/// What the parser says of a frame, which must be true of its bytes.
fn read(frame: &[u8]) -> u64 {
    let bytes = Frame(frame);
    let mut packet = Packet::default();
    let parsed = parse(&bytes, false, &mut packet);
    match parsed {
        PARSED_IP => holds(frame, &packet),
        PARSED_ARP => drop(parse_arp(&bytes)),
        // Whatever else comes is a reason, and one that drops.
        other => assert!(Reason::from_u8(other).unwrap().is_drop(), "{other}"),
    }
    if parsed == PARSED_IP && packet.is_icmp_error() {
        parse_quoted(&bytes, &packet, &mut Quoted::default());
    }
    let mut tagged = Packet::default();
    assert_ne!(parse(&bytes, true, &mut tagged), PARSED_IP, "a tag hides nothing");
    u64::from(parsed)
        | u64::from(packet.proto) << 8
        | u64::from(packet.fragment) << 16
        | u64::from(packet.v6) << 24
        | u64::from(packet.l4 & 0xff) << 32
}

fn holds(frame: &[u8], packet: &Packet) {
    let length = frame.len() as u32;
    assert!(packet.l4 >= ETH_LEN + 20 && packet.l4 <= length, "{packet:?}");
    let version = frame[ETH_LEN as usize] >> 4;
    assert_eq!(version, if packet.v6 == 0 { 4 } else { 6 }, "{packet:?}");
    if packet.fragment == FRAG_LATER || !matches!(packet.proto, 6 | 17 | 132) {
        return;
    }
    // Ports are those of the header that it names, and this is whole.
    let at = packet.l4 as usize;
    let header = match packet.proto {
        6 => 20,
        17 => 8,
        _ => 12,
    };
    assert!(at + header <= frame.len(), "{packet:?}");
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    assert_eq!((packet.src_port, packet.dst_port), (port(at), port(at + 2)), "{packet:?}");
    if packet.v6 == 0 {
        let bits = u16::from_be_bytes([frame[20], frame[21]]);
        assert_eq!(packet.fragment == FRAG_NONE, bits & 0x3fff == 0, "{packet:?}");
        let options = usize::from(frame[14] & 15) * 4;
        assert_eq!(at, 14 + options, "{packet:?}");
        assert_eq!(packet.proto, frame[23]);
    }
}

#[test]
fn packets() {
    crate::run::run("packets", read);
}
