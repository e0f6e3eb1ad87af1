//! The way of a packet through a hook, up to the conntrack hit that ends it for most.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_ktime_get_coarse_ns};
use enforcer_common::{
    abi::{
        Addr, AddrKey, Direction, ENDPOINT_SLOTS, EP_ADDR4, EP_ADDR6, EP_MORE_ADDRS, Endpoint,
        EndpointState,
    },
    conntrack::{ECHO_FROM_POD, ECHO_TO_POD},
    packet::{self, FRAG_LATER, Packet},
    reason::Reason,
};

use crate::{
    event, flow, fragment, icmp, link,
    maps::{ENDPOINT_STATE, ENDPOINTS, IFINDEX_SLOT, POD_ADDRS},
    skb::Skb,
    spare,
    state::State,
};

/// Go on with the next program: `TCX_NEXT` and `TC_ACT_UNSPEC` are the same number, so that other
/// programs on the hook keep working in both modes.
pub(crate) const PASS: i32 = -1;
/// Drop: `TCX_DROP` and `TC_ACT_SHOT`.
pub(crate) const DROP: i32 = 2;

/// The record in a slot.
#[inline(always)]
pub(crate) fn at(slot: u32) -> Option<&'static Endpoint> {
    // SAFETY: array elements live as long as the map; the agent's stores are single words.
    ENDPOINTS.get_ptr(slot).map(|endpoint| unsafe { &*endpoint })
}

/// What the programs write about the endpoint in a slot.
#[inline(always)]
pub(crate) fn counts(slot: u32) -> Option<&'static mut EndpointState> {
    // SAFETY: array elements live as long as the map; counts are changed by atomic adds only,
    // clocks by whole stores.
    ENDPOINT_STATE.get_ptr_mut(slot).map(|state| unsafe { &mut *state })
}

/// Notes that the hook has seen a packet: by this the agent finds hooks that packets go round.
#[inline(always)]
pub(crate) fn seen(state: &State) {
    if let Some(counts) = counts(state.slot) {
        if state.egress() {
            counts.last_egress = state.now;
        } else {
            counts.last_ingress = state.now;
        }
    }
}

/// The record of an interface: one array look-up, unless its natural slot was taken.
#[inline(always)]
fn endpoint(ifindex: u32) -> Option<(u32, &'static Endpoint)> {
    let slot = ifindex & (ENDPOINT_SLOTS - 1);
    if let Some(endpoint) = at(slot)
        && endpoint.ifindex == ifindex
    {
        return Some((slot, endpoint));
    }
    let slot = IFINDEX_SLOT.get_ptr(ifindex)?;
    // SAFETY: not preallocated, so the element lives until the program returns (RCU).
    let slot = unsafe { *slot };
    at(slot).filter(|endpoint| endpoint.ifindex == ifindex).map(|endpoint| (slot, endpoint))
}

/// Whether an address is the pod's, by its record in hand.
#[inline(always)]
fn owned(slot: u32, endpoint: &Endpoint, addr: &Addr) -> bool {
    if addr.is_v4() {
        if endpoint.flags & EP_ADDR4 != 0 && endpoint.addr4 == addr.0[3] {
            return true;
        }
    } else if endpoint.flags & EP_ADDR6 != 0 && endpoint.addr6 == addr.0 {
        return true;
    }
    endpoint.flags & EP_MORE_ADDRS != 0 && owns_more(slot, addr)
}

#[inline(never)]
fn owns_more(slot: u32, addr: &Addr) -> bool {
    POD_ADDRS.get_ptr(AddrKey { slot, addr: *addr }).is_some()
}

/// Whether an address is that of the pod in a slot.
#[inline(always)]
pub(crate) fn owns(slot: u32, addr: &Addr) -> bool {
    at(slot).is_some_and(|endpoint| owned(slot, endpoint, addr))
}

/// One packet.
#[inline(always)]
pub(crate) fn run<const DIRECTION: u32>(skb: *mut __sk_buff) -> i32 {
    let egress = DIRECTION == Direction::Egress as u32;
    let skb = Skb::new(skb);
    let ifindex = skb.ifindex();
    let Some((slot, endpoint)) = endpoint(ifindex) else {
        return not_ready(skb, DIRECTION);
    };
    if egress {
        skb.set_tc_index(slot);
    }
    let word = &raw const endpoint.policy;
    let mut state = State {
        // SAFETY: an aligned word that the agent changes by one store; volatile so that it is
        // read here, before the maps that it governs, and only once.
        word: unsafe { word.read_volatile() },
        // SAFETY: the helper has no preconditions.
        now: unsafe { bpf_ktime_get_coarse_ns() },
        packet: Packet::default(),
        slot,
        ifindex,
        direction: DIRECTION,
        local_port: 0,
        remote_port: 0,
    };
    let parsed = packet::parse(&skb, skb.vlan_present() != 0, &mut state.packet);
    if parsed != packet::PARSED_IP {
        return link::not_ip(skb.raw(), &raw const state, u32::from(parsed));
    }
    let packet = &state.packet;
    if egress {
        if !owned(slot, endpoint, &packet.src) && !link_local(packet, &packet.src) {
            let code = link::foreign_source(skb.raw(), &raw const state);
            if code != link::DISCOVERY {
                return code;
            }
            return icmp::judge_icmp(skb.raw(), &raw const state);
        }
    } else if packet.group == 0
        && !owned(slot, endpoint, &packet.dst)
        && !link_local(packet, &packet.dst)
    {
        return spare::flooded(&raw const state);
    }
    if packet.fragment == FRAG_LATER {
        return fragment::later(skb.raw(), &raw const state);
    }
    if packet.is_icmp() {
        let request = packet.is_echo_request();
        if !request && !packet.is_echo_reply() {
            return icmp::judge_icmp(skb.raw(), &raw const state);
        }
        state.local_port = packet.src_port;
        state.remote_port = if request == egress { ECHO_FROM_POD } else { ECHO_TO_POD };
    } else {
        let (src, dst) = (packet.src_port, packet.dst_port);
        (state.local_port, state.remote_port) = if egress { (src, dst) } else { (dst, src) };
    }
    flow::run(skb, &state)
}

#[inline(always)]
fn link_local(packet: &Packet, addr: &Addr) -> bool {
    packet.v6 != 0 && packet::is_link_local(addr)
}

/// No record: the agent has attached and not armed, or another hand left the program here. Only
/// the node may pass.
#[inline(always)]
fn not_ready(skb: Skb, direction: u32) -> i32 {
    if direction == Direction::Ingress as u32 && skb.ingress_ifindex() == 0 {
        return PASS;
    }
    if spare::unknown_interface(direction) {
        return PASS;
    }
    event::count(Reason::EndpointNotReady as u8, direction);
    DROP
}
