//! What is not a plain IP packet of the pod's own: ARP, unreadable frames, foreign sources.

use aya_ebpf::bindings::__sk_buff;
use enforcer_common::{
    abi::{Addr, EP_ADDR4, EP_ADDR6, EP_STARTING, Endpoint},
    packet::{FRAG_NONE, PARSED_ARP, icmp, is_link_local, is_unspecified, parse_arp},
    reason::Reason,
    verdict::proto::{ICMPV6, UDP},
};

use crate::{
    event,
    hook::{self, DROP},
    skb::Skb,
    state::{Judged, State},
};

/// A frame that is no readable IP packet; `parsed` is the parser's answer.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn not_ip(skb: *mut __sk_buff, state: *const State, parsed: u32) -> i32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return DROP;
    };
    if parsed == u32::from(PARSED_ARP) {
        return arp(Skb::new(skb), state);
    }
    if state.isolated() {
        return event::verdict(skb, state, u64::from(parsed & 0xff) << 32, 0);
    }
    if state.egress() && state.packet.addresses != 0 && !own_source(state) {
        return event::tell(Skb::new(skb), state, Reason::SpoofedSource);
    }
    event::quiet(state, Judged::new(Reason::PassedUnparsed, 0))
}

/// Whether the source of an unreadable packet is the pod's, in the packet's own family.
#[inline(always)]
fn own_source(state: &State) -> bool {
    let (v6, src) = (state.packet.v6 != 0, &state.packet.src);
    if v6 && is_link_local(src) {
        return true;
    }
    v6 != src.is_v4() && hook::owns(state.slot, src)
}

/// ARP: every pod needs it; a pod may speak only for its own address (or for none, RFC 5227).
#[inline(always)]
fn arp(skb: Skb, state: &State) -> i32 {
    if !state.egress() {
        return event::settle(state, Reason::Discovery);
    }
    let own = parse_arp(&skb).is_some_and(|arp| {
        let endpoint = hook::at(state.slot);
        let flags = endpoint.map_or(0, |endpoint| endpoint.flags);
        let probe = arp.sender == 0 && flags & EP_ADDR4 != 0;
        probe
            || flags & (EP_STARTING | EP_ADDR4) == EP_STARTING
            || hook::owns(state.slot, &Addr::v4(arp.sender))
    });
    if own {
        event::settle(state, Reason::Discovery)
    } else {
        event::tell(skb, state, Reason::SpoofedSource)
    }
}

/// Whether a starting pod's IPv6 addresses are not known yet.
#[inline(always)]
pub(crate) fn addresses_to_come(endpoint: &Endpoint) -> bool {
    endpoint.flags & (EP_STARTING | EP_ADDR6) == EP_STARTING
}

/// [`foreign_source`]'s answer: a message of discovery, for `icmp::judge_icmp` to judge.
pub(crate) const DISCOVERY: i32 = 100;

/// A packet from the pod whose source is not the pod's: what a host without an address may send
/// passes, the rest is spoofed. A return code, or [`DISCOVERY`].
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn foreign_source(skb: *mut __sk_buff, state: *const State) -> i32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return DROP;
    };
    let packet = &state.packet;
    if packet.fragment == FRAG_NONE {
        if packet.v6 == 0 {
            // RFC 2131, 4.1: DHCP from 0.0.0.0, port 68 to 67.
            if packet.src.0[3] == 0
                && packet.proto == UDP
                && packet.src_port == 68
                && packet.dst_port == 67
            {
                return event::settle(state, Reason::Discovery);
            }
        } else if packet.proto == ICMPV6
            && matches!(packet.icmp_type, icmp::V6_NEIGHBOUR_SOLICIT | icmp::V6_NEIGHBOUR_ADVERT)
            && hook::at(state.slot).is_some_and(addresses_to_come)
        {
            return DISCOVERY;
        } else if is_unspecified(&packet.src) && packet.proto == ICMPV6 {
            // RFC 4862, 5.4.2 and RFC 4861, 4.1: duplicate detection and router solicitation.
            match packet.icmp_type {
                icmp::V6_NEIGHBOUR_SOLICIT
                | icmp::V6_ROUTER_SOLICIT
                | icmp::V6_MLD_QUERY..=icmp::V6_MLD_DONE
                | icmp::V6_MLD2_REPORT => return DISCOVERY,
                _ => {}
            }
        }
    }
    event::tell(Skb::new(skb), state, Reason::SpoofedSource)
}
