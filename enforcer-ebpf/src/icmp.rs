//! ICMP that is not an echo: errors about flows, neighbour discovery, the rest.

use aya_ebpf::bindings::__sk_buff;
use enforcer_common::{
    abi::{Addr, CT_AUDITED, CT_REVOKED, CT_SERVICE},
    conntrack::{ECHO_FROM_POD, ECHO_TO_POD, expired},
    ending::Ends,
    packet::{Bytes as _, FRAG_NONE, Quoted, icmp, is_link_local, is_unspecified, parse_quoted},
    reason::Reason,
    verdict::proto::{ICMP, ICMPV6},
};

use crate::{
    event,
    flow::{self, Tuple},
    fragment,
    hook::{self, DROP},
    judge::{Flow, judge_flow},
    link,
    skb::Skb,
    state::{Judged, State},
};

/// Judges an ICMP packet that is no echo.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn judge_icmp(skb: *mut __sk_buff, state: *const State) -> i32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return DROP;
    };
    let bytes = Skb::new(skb);
    if state.packet.is_icmp_error() && related(skb, state) != 0 {
        fragment::first(state);
        return event::settle(state, Reason::Related);
    }
    if state.packet.v6 != 0
        && let Some(reason) = discovery(bytes, state)
    {
        if reason.is_drop() {
            return event::tell(bytes, state, reason);
        }
        return event::settle(state, reason);
    }
    // No ports and no reply: rules without ports decide, for each packet.
    flow::stateless(skb, state)
}

/// Whether (not 0) an error is about a flow that may go on, and goes to the one who sent the
/// quoted packet.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn related(skb: *mut __sk_buff, state: *const State) -> u32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return 0;
    };
    let packet = &state.packet;
    let mut quoted = Quoted::default();
    if !parse_quoted(&Skb::new(skb), packet, &mut quoted) || quoted.src != packet.dst {
        return 0;
    }
    // Towards the pod the quoted packet is one that the pod sent; from the pod one that it got.
    let pod_sent = !state.egress();
    let mut remote_port = if pod_sent { quoted.dst_port } else { quoted.src_port };
    let v6 = packet.v6 != 0;
    if (quoted.proto == ICMP && !v6) || (quoted.proto == ICMPV6 && v6) {
        let (request, reply) = if v6 {
            (icmp::V6_ECHO, icmp::V6_ECHO_REPLY)
        } else {
            (icmp::V4_ECHO, icmp::V4_ECHO_REPLY)
        };
        if quoted.icmp_type != request && quoted.icmp_type != reply {
            return 0;
        }
        let from_pod = (quoted.icmp_type == request) == pod_sent;
        remote_port = if from_pod { ECHO_FROM_POD } else { ECHO_TO_POD };
    }
    let (local, remote) =
        if pod_sent { (&quoted.src, &quoted.dst) } else { (&quoted.dst, &quoted.src) };
    let tuple = Tuple(Ends {
        ifindex: state.ifindex,
        local,
        remote,
        local_port: if pod_sent { quoted.src_port } else { quoted.dst_port },
        remote_port,
        proto: quoted.proto,
    });
    let Some(entry) = tuple.find() else {
        return 0;
    };
    // SAFETY: preallocated, so the element lives as long as the map.
    let entry = unsafe { &*entry };
    if expired(quoted.proto, entry, state.now) {
        return 0;
    }
    let judged_anew = entry.flags & (CT_REVOKED | CT_AUDITED) != 0;
    if entry.generation == state.policy().generation() && !judged_anew {
        return 1;
    }
    if entry.service & CT_SERVICE != 0 {
        // Its backend is judged behind the translation; what the flow sends is, too.
        return u32::from(!judged_anew);
    }
    let flow = Flow {
        remote: *remote,
        word: state.word,
        slot: state.slot,
        local_port: tuple.0.local_port,
        remote_port: tuple.0.remote_port,
        proto: quoted.proto,
        flags: entry.flags,
        hidden: entry.hidden_slot,
        _pad: 0,
    };
    u32::from(Judged(judge_flow(&raw const flow)).allows())
}

/// Neighbour discovery and multicast listener messages, which every pod needs; `None` for the
/// rest, and for what only looks like them.
#[inline(always)]
fn discovery(skb: Skb, state: &State) -> Option<Reason> {
    let packet = &state.packet;
    match packet.icmp_type {
        icmp::V6_MLD_QUERY..=icmp::V6_MLD_DONE | icmp::V6_MLD2_REPORT => {
            // RFC 3810, 5: hop limit 1, link-local or unspecified source.
            (packet.hop_limit == 1 && (is_link_local(&packet.src) || is_unspecified(&packet.src)))
                .then_some(Reason::Discovery)
        }
        icmp::V6_ROUTER_ADVERT | icmp::V6_REDIRECT if state.egress() => {
            Some(Reason::ForbiddenIcmpv6)
        }
        icmp::V6_ROUTER_SOLICIT..=icmp::V6_REDIRECT => {
            // RFC 4861, 6.1 and 7.1: hop limit 255 proves the link; RFC 6980: never fragmented.
            let genuine = packet.hop_limit == 255 && packet.fragment == FRAG_NONE;
            if !state.egress() {
                return genuine.then_some(Reason::Discovery);
            }
            if !genuine || !own_advertisement(skb, state) {
                return Some(Reason::ForbiddenIcmpv6);
            }
            Some(Reason::Discovery)
        }
        _ => None,
    }
}

/// Whether an advertisement is about the pod's own address; true for what is none.
#[inline(always)]
fn own_advertisement(skb: Skb, state: &State) -> bool {
    if state.packet.icmp_type != icmp::V6_NEIGHBOUR_ADVERT {
        return true;
    }
    let Some(target) = skb.read::<16>(state.packet.l4 + 8) else {
        return false;
    };
    let target = Addr::from_octets(target);
    is_link_local(&target)
        || hook::owns(state.slot, &target)
        || hook::at(state.slot).is_some_and(link::addresses_to_come)
}
