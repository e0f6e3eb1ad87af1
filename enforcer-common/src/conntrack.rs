//! Conntrack transitions and timeouts, as pure functions.
//!
//! An entry keeps what each side has sent ([`SEEN`] and the TCP flags); the state is read off
//! these two bytes and never stored, so two CPUs that handle the two directions write different
//! bytes and need no lock. Sequence numbers are not followed: a forged reset can therefore not
//! end a flow, which goes on with the next packet of it ([`observe`]).

use crate::{
    abi::{CT_REVOKED, CtEntry},
    packet::tcp,
    verdict::proto::{ICMP, ICMPV6, SCTP, TCP, UDP},
};

/// The side has sent something.
pub const SEEN: u8 = 1;
/// The side has sent a SYN.
pub const SYN: u8 = 2;
/// The side has sent an ACK.
pub const ACK: u8 = 4;
/// The side has sent a FIN.
pub const FIN: u8 = 8;
/// The side's last segment was a RST.
pub const RST: u8 = 16;

/// Remote port in the key of an echo flow whose requests the pod sends. Requests in the other
/// direction with the same identifier are another flow, so no request is taken for a reply.
pub const ECHO_FROM_POD: u16 = 1;
/// The same for requests that the pod receives.
pub const ECHO_TO_POD: u16 = 2;

/// A second, in the unit of all times here.
pub const SECOND: u64 = 1_000_000_000;

/// No timeout is shorter: an entry used within this time needs no further look at its state.
pub const SHORTEST: u64 = 10 * SECOND;

/// What a side's byte becomes after it sent a packet with these TCP flags (0 if not TCP).
#[must_use]
#[inline(always)]
pub const fn observe(side: u8, flags: u8) -> u8 {
    let mut next = (side | SEEN) & !RST;
    if flags & tcp::SYN != 0 {
        next |= SYN;
    }
    if flags & tcp::ACK != 0 {
        next |= ACK;
    }
    if flags & tcp::FIN != 0 {
        next |= FIN;
    }
    if flags & tcp::RST != 0 {
        next |= RST;
    }
    next
}

/// Whether a flow counts as established: seen both ways and, for TCP, the opener has
/// acknowledged, so that a SYN answered with SYN cookies stays half-open.
#[must_use]
#[inline(always)]
pub const fn established(proto: u8, origin: u8, reply: u8) -> bool {
    if reply & SEEN == 0 {
        return false;
    }
    proto != TCP || origin & ACK != 0
}

/// Whether a connection is over: both sides have sent a FIN, or a side's last segment was a RST.
#[must_use]
#[inline(always)]
pub const fn over(proto: u8, origin: u8, reply: u8) -> bool {
    proto == TCP && ((origin & reply) & FIN != 0 || (origin | reply) & RST != 0)
}

/// [`CtEntry::rtt`]: a SYN was repeated, so nobody knows which one was answered.
pub const RTT_AMBIGUOUS: u32 = u32::MAX;

/// Whether this packet repeats a SYN of its side.
#[must_use]
#[inline(always)]
pub const fn repeats_syn(side: u8, flags: u8) -> bool {
    side & SYN != 0 && flags & tcp::SYN != 0
}

/// Whether this packet of the opener ends the handshake: the first after its SYN, and the other
/// side has answered that.
#[must_use]
#[inline(always)]
pub const fn completes_handshake(origin: u8, reply: u8, flags: u8) -> bool {
    origin == SEEN | SYN
        && reply & (SYN | ACK) == SYN | ACK
        && flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::ACK
}

/// Microseconds between two times in ns; at least 1, so that 0 can mean that it is not known.
#[must_use]
#[inline(always)]
pub const fn micros(since: u64, now: u64) -> u32 {
    let micros = now.saturating_sub(since) / 1_000;
    if micros == 0 {
        1
    } else if micros >= RTT_AMBIGUOUS as u64 {
        RTT_AMBIGUOUS - 1
    } else {
        micros as u32
    }
}

/// How long a flow lives without a packet, ns.
///
/// Where nf_conntrack has a default, this is at least as long, so that a flow the node still
/// tracks is never unknown here (`net/netfilter/nf_conntrack_proto_*.c`).
#[must_use]
pub const fn timeout(proto: u8, entry: &CtEntry) -> u64 {
    let (origin, reply) = (entry.seen_origin, entry.seen_reply);
    match proto {
        TCP => {
            if entry.flags & CT_REVOKED != 0 {
                // Longer than retransmissions go on, so that they find their flow's origin.
                3_600 * SECOND
            } else if !established(proto, origin, reply) {
                if (origin | reply) & RST != 0 { SHORTEST } else { 120 * SECOND }
            } else if origin & reply & FIN != 0 {
                120 * SECOND
            } else if (origin | reply) & (FIN | RST) != 0 {
                // Half-closed connections may stream for as long as they like, but not idle. And a
                // reset may be anybody's guess, with numbers that its receiver throws away: whether
                // it ended the connection shows only when one that lives goes on.
                3_600 * SECOND
            } else {
                432_000 * SECOND
            }
        }
        UDP => {
            if reply & SEEN == 0 {
                30 * SECOND
            } else if streams(entry) {
                180 * SECOND
            } else {
                60 * SECOND
            }
        }
        SCTP => {
            if reply & SEEN == 0 {
                60 * SECOND
            } else {
                3_600 * SECOND
            }
        }
        ICMP | ICMPV6 => 30 * SECOND,
        _ => 600 * SECOND,
    }
}

/// Whether the entry is too old to count.
#[must_use]
#[inline(always)]
pub const fn expired(proto: u8, entry: &CtEntry, now: u64) -> bool {
    let idle = now.saturating_sub(entry.last_seen);
    idle > SHORTEST && idle > timeout(proto, entry)
}

/// Whether the entry may go before its time where its endpoint has no room left: nothing that it is
/// for can come any more, as far as the node's own tracking knows.
///
/// A TCP connection that both sides have closed is kept for what is repeated of its end, one that
/// was reset because it may not have been, and an answered datagram for twice as long as
/// `nf_conntrack_proto_udp.c` keeps it. Without this a pod with many short connections would spend
/// its quota on those that are over.
#[must_use]
#[inline(always)]
pub const fn gives_way(proto: u8, entry: &CtEntry, now: u64) -> bool {
    let (origin, reply) = (entry.seen_origin, entry.seen_reply);
    let idle = now.saturating_sub(entry.last_seen);
    match proto {
        TCP if entry.flags & CT_REVOKED != 0 => false,
        TCP => idle > SHORTEST && (origin & reply & FIN != 0 || (origin | reply) & RST != 0),
        UDP => idle > 30 * SECOND && reply & SEEN != 0 && !streams(entry),
        _ => false,
    }
}

/// Whether a flow of datagrams goes on for longer than a question and its answers.
#[inline(always)]
const fn streams(entry: &CtEntry) -> bool {
    entry.last_seen.saturating_sub(entry.created) > 2 * SECOND
}

/// Whether a segment that opens a connection (SYN without ACK) on a known tuple is a connection
/// of its own, to be judged by its own direction.
///
/// From the opener it is a retransmission until the old connection is closing. From the other
/// side it is a simultaneous open (RFC 9293, 3.5) only while both have sent nothing but a SYN.
/// Later it must not ride on the old verdict, and never on an entry whose opener was not seen to
/// open it (picked up in the middle): the pod would open with it what only the other side may.
#[must_use]
#[inline(always)]
pub const fn reopens(origin: u8, reply: u8, from_origin: bool) -> bool {
    if from_origin {
        (origin | reply) & (FIN | RST) != 0
    } else {
        origin != SEEN | SYN || reply & !(SEEN | SYN) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(origin: u8, reply: u8) -> CtEntry {
        CtEntry { seen_origin: origin, seen_reply: reply, ..CtEntry::default() }
    }

    #[test]
    fn a_handshake_is_half_open_until_the_opener_acknowledges() {
        let origin = observe(0, tcp::SYN);
        assert!(!established(TCP, origin, 0));
        let reply = observe(0, tcp::SYN | tcp::ACK);
        assert!(!established(TCP, origin, reply), "a SYN cookie proves nothing");
        let origin = observe(origin, tcp::ACK);
        assert!(established(TCP, origin, reply));
        assert_eq!(timeout(TCP, &entry(origin, reply)), 432_000 * SECOND);
    }

    #[test]
    fn a_reset_ends_a_flow_only_if_nothing_follows() {
        let (origin, reply) = (SEEN | SYN | ACK, SEEN | SYN | ACK);
        let reset = observe(reply, tcp::RST);
        assert_eq!(timeout(TCP, &entry(origin, reset)), 3_600 * SECOND);
        assert_eq!(timeout(TCP, &entry(SEEN | SYN, SEEN | RST | ACK)), SHORTEST, "refused");
        let alive = observe(reset, tcp::ACK);
        assert_eq!(timeout(TCP, &entry(origin, alive)), 432_000 * SECOND);
    }

    #[test]
    fn closing_shortens_in_two_steps() {
        let open = SEEN | SYN | ACK;
        assert_eq!(timeout(TCP, &entry(open | FIN, open)), 3_600 * SECOND);
        assert_eq!(timeout(TCP, &entry(open | FIN, open | FIN)), 120 * SECOND);
    }

    #[test]
    fn a_flow_lives_as_long_as_the_nodes_own_tracking_keeps_it() {
        let lives = |proto, origin, reply, flags| {
            timeout(proto, &CtEntry { flags, ..entry(origin, reply) }) as f64 / 1e9
        };
        let open = SEEN | SYN | ACK;
        for (seconds, origin, reply) in [
            (120.0, SEEN | SYN, 0),
            (120.0, SEEN | SYN, SEEN | SYN | ACK),
            (10.0, SEEN | SYN, SEEN | RST | ACK),
            (432_000.0, open, open),
            (3_600.0, open, open | FIN),
            (120.0, open | FIN, open | FIN),
            (120.0, open | FIN | RST, open | FIN),
            (3_600.0, open | RST, open | RST),
            (10.0, SEEN | SYN | RST, SEEN | RST),
        ] {
            assert_eq!(lives(TCP, origin, reply, 0), seconds, "{origin:#x} {reply:#x}");
            assert_eq!(lives(TCP, origin, reply, CT_REVOKED), 3_600.0);
        }
        assert_eq!([lives(UDP, SEEN, 0, 0), lives(UDP, SEEN, SEEN, 0)], [30.0, 60.0]);
        assert_eq!([lives(SCTP, SEEN, 0, 0), lives(SCTP, SEEN, SEEN, 0)], [60.0, 3_600.0]);
        for proto in [ICMP, ICMPV6] {
            assert_eq!([lives(proto, SEEN, 0, 0), lives(proto, SEEN, SEEN, 0)], [30.0; 2]);
        }
        assert_eq!([lives(47, SEEN, 0, 0), lives(47, SEEN, SEEN, 0)], [600.0; 2]);
        assert_eq!(SHORTEST as f64 / 1e9, 10.0);
    }

    #[test]
    fn what_a_side_has_sent_is_kept_flag_by_flag() {
        let pairs = [(tcp::SYN, SYN), (tcp::ACK, ACK), (tcp::FIN, FIN), (tcp::RST, RST)];
        for flags in 0..=255 {
            let expected = pairs.iter().filter(|(flag, _)| flags & flag != 0);
            let expected = expected.fold(SEEN, |seen, (_, kept)| seen | kept);
            assert_eq!(observe(0, flags), expected, "{flags:#x}");
        }
    }

    #[test]
    fn other_flows_are_established_by_an_answer() {
        for proto in [UDP, SCTP, ICMP] {
            assert!(!established(proto, SEEN, 0), "{proto}");
            assert!(established(proto, SEEN, SEEN), "{proto}");
        }
    }

    #[test]
    fn udp_lives_longer_once_it_is_a_stream() {
        let mut e = entry(SEEN, 0);
        assert_eq!(timeout(UDP, &e), 30 * SECOND);
        e.seen_reply = SEEN;
        assert_eq!(timeout(UDP, &e), 60 * SECOND);
        e.last_seen = 2 * SECOND;
        assert_eq!(timeout(UDP, &e), 60 * SECOND);
        e.last_seen += 1;
        assert_eq!(timeout(UDP, &e), 180 * SECOND);
    }

    #[test]
    fn only_what_is_closed_or_answered_gives_way() {
        let open = SEEN | SYN | ACK;
        let mut closed = entry(open | FIN, open | FIN);
        assert!(!gives_way(TCP, &closed, SHORTEST), "its end may be repeated");
        assert!(gives_way(TCP, &closed, SHORTEST + 1) && !expired(TCP, &closed, SHORTEST + 1));
        let reset = entry(open, SEEN | RST);
        assert!(!gives_way(TCP, &reset, SHORTEST) && gives_way(TCP, &reset, SHORTEST + 1));
        closed.flags = CT_REVOKED;
        assert!(!gives_way(TCP, &closed, 3_600 * SECOND), "it says who opened it");
        for alive in [entry(open, open), entry(open | FIN, open), entry(SEEN | SYN, 0)] {
            assert!(!gives_way(TCP, &alive, u64::MAX), "{alive:?}");
        }
        let mut asked = entry(SEEN, 0);
        assert!(!gives_way(UDP, &asked, u64::MAX), "its answer may come");
        asked.seen_reply = SEEN;
        assert!(!gives_way(UDP, &asked, 30 * SECOND) && gives_way(UDP, &asked, 30 * SECOND + 1));
        asked.last_seen = 3 * SECOND;
        assert!(!gives_way(UDP, &asked, u64::MAX), "a stream");
        assert!(!gives_way(SCTP, &entry(SEEN, SEEN), u64::MAX));
    }

    #[test]
    fn no_flow_gives_way_that_a_packet_may_use_without_a_look_at_its_state() {
        let open = SEEN | SYN | ACK;
        let (closed, reset) = (entry(open | FIN, open | FIN), entry(open | RST, open | RST));
        for flow in [closed, reset] {
            assert!(!gives_way(TCP, &flow, 10_000_000_000), "{flow:?}");
            assert!(gives_way(TCP, &flow, 10_000_000_001), "{flow:?}");
        }
    }

    #[test]
    fn expiry_counts_from_the_last_packet_and_survives_a_clock_that_lags() {
        let mut e = entry(SEEN, 0);
        e.last_seen = 100 * SECOND;
        assert!(!expired(UDP, &e, 130 * SECOND));
        assert!(expired(UDP, &e, 130 * SECOND + 1));
        assert!(!expired(UDP, &e, 0));
    }

    #[test]
    fn a_syn_from_the_other_side_rides_on_a_flow_only_while_it_opens() {
        let syn_sent = observe(0, tcp::SYN);
        assert!(!reopens(syn_sent, 0, false), "simultaneous open");
        assert!(!reopens(syn_sent, SEEN | SYN, false), "its retransmission");
        assert!(reopens(syn_sent, SEEN | RST | ACK, false), "refused before");
        assert!(reopens(syn_sent, SEEN | SYN | ACK, false), "answered before");
        assert!(reopens(0, SEEN | ACK, false), "picked up: its opener was never seen");
        assert!(reopens(0, SEEN, false), "picked up without a flag");
        let acked = observe(syn_sent, tcp::ACK);
        assert!(reopens(acked, SEEN | SYN | ACK, false));
        assert!(!reopens(acked, SEEN, true), "retransmission");
        assert!(reopens(acked | FIN, SEEN, true));
        assert!(reopens(acked | FIN, acked | FIN, true) && reopens(acked, acked | RST, true));
    }

    #[test]
    fn a_connection_is_over_with_both_ends_or_a_reset() {
        let open = SEEN | SYN | ACK;
        assert!(!over(TCP, open, open) && !over(TCP, open | FIN, open));
        assert!(over(TCP, open | FIN, open | FIN));
        assert!(over(TCP, open | RST, open | RST));
        assert!(over(TCP, open, open | RST) && over(TCP, SEEN | SYN, SEEN | RST));
        assert!(!over(UDP, open | FIN, open | FIN), "its bytes mean nothing elsewhere");
    }

    #[test]
    fn a_handshake_ends_with_the_openers_first_acknowledgement_of_an_answer() {
        let (opened, answered) = (SEEN | SYN, SEEN | SYN | ACK);
        assert!(completes_handshake(opened, answered, tcp::ACK));
        assert!(!completes_handshake(opened, answered, tcp::ACK | tcp::RST));
        assert!(!completes_handshake(opened, answered, tcp::SYN | tcp::ACK));
        assert!(!completes_handshake(opened, 0, tcp::ACK), "nobody has answered");
        assert!(!completes_handshake(opened | ACK, answered, tcp::ACK), "the second one");
        assert!(!completes_handshake(SEEN, answered, tcp::ACK), "its SYN was not seen");
        assert!(repeats_syn(opened, tcp::SYN) && repeats_syn(answered, tcp::SYN | tcp::ACK));
        assert!(!repeats_syn(0, tcp::SYN) && !repeats_syn(opened, tcp::ACK));
    }

    #[test]
    fn a_known_time_is_never_zero_nor_taken_for_an_ambiguous_one() {
        assert_eq!([micros(5_000, 5_999), micros(9, 8), micros(0, 7_999)], [1, 1, 7]);
        assert_eq!(micros(0, u64::MAX), RTT_AMBIGUOUS - 1);
    }

    proptest::proptest! {
        #[test]
        fn no_timeout_is_shorter_than_the_shortest(
            proto: u8, origin: u8, reply: u8, flags: u8, created: u64, last_seen: u64,
        ) {
            let e = CtEntry {
                seen_origin: origin, seen_reply: reply, flags, created, last_seen,
                ..CtEntry::default()
            };
            proptest::prop_assert!(timeout(proto, &e) >= SHORTEST);
        }

        #[test]
        fn a_side_never_forgets_what_it_sent_but_a_reset(side: u8, flags: u8) {
            let next = observe(side, flags);
            proptest::prop_assert_eq!(next & side & !RST, side & !RST);
            proptest::prop_assert!(next & SEEN != 0);
        }
    }
}
