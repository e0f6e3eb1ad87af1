//! The sender's egress, judged behind a Service's translation: at the hook of the pod that gets the
//! packet, or where it leaves the node. All in the sender's name: its table, its audit, its events.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_ktime_get_coarse_ns};
use enforcer_common::{
    abi::{
        Direction, EVENT_TRANSLATED, MARK_JUDGE, MARK_SERVICE, MARK_TELL, SVC_GONE, Service,
        ServiceKey, rule,
    },
    packet::{self, FRAG_LATER, Packet},
    reason::Reason,
    verdict::proto::TCP,
};

use crate::{
    event, fragment,
    hook::{self, DROP, PASS},
    maps::{SENDER, SERVICES},
    skb::{FromNetwork, Skb},
    state::{Judged, State},
    table::{Query, look_up},
};

const EGRESS: u32 = Direction::Egress as u32;

/// A packet on its way to a pod, which a pod of this node sent to a Service: [`PASS`], or the code
/// that ends it.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn judge_sender(skb: *mut __sk_buff, state: *const State) -> i32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return DROP;
    };
    let mark = Skb::new(skb).tc_index();
    // The chain of calls has no room on the stack for a second state.
    let Some(sender) = SENDER.get_ptr_mut(0) else {
        return DROP;
    };
    // SAFETY: a per-CPU value, and TC programs are not re-entered on a CPU.
    let sender = unsafe { &mut *sender };
    sender.packet = state.packet;
    sender.now = state.now;
    if !take_name(sender, Skb::new(skb).sender()) {
        return gone();
    }
    if sender.slot == state.slot {
        return conclude(skb, sender, Judged::new(Reason::Hairpin, rule::HAIRPIN).0, mark);
    }
    decide(skb, sender, mark)
}

/// Makes the state that of the pod in a slot; `false` if there is none.
#[inline(always)]
pub(crate) fn take_name(sender: &mut State, slot: u32) -> bool {
    let Some(endpoint) = hook::at(slot) else {
        return false;
    };
    let word = &raw const endpoint.policy;
    // SAFETY: as in `hook::run`.
    sender.word = unsafe { word.read_volatile() };
    sender.slot = slot;
    sender.ifindex = endpoint.ifindex;
    sender.direction = EGRESS;
    sender.local_port = sender.packet.src_port;
    sender.remote_port = sender.packet.dst_port;
    slot != 0 && endpoint.ifindex != 0
}

/// The pod that sent the packet is no more: nobody speaks for it.
#[inline(always)]
fn gone() -> i32 {
    event::count(Reason::EndpointNotReady as u8, EGRESS);
    DROP
}

#[inline(always)]
fn decide(skb: *mut __sk_buff, sender: &State, mark: u32) -> i32 {
    let query = Query::out(sender);
    conclude(skb, sender, look_up(&raw const query), mark)
}

/// Whether a packet passes without a word: a denial is told always, an allowance of a flow's first
/// packet only.
#[inline(always)]
pub(crate) fn says_nothing(sender: &State, judged: u64, mark: u32) -> bool {
    let packet = &sender.packet;
    let is_open = mark & MARK_JUDGE == 0 || (packet.proto == TCP && !packet.is_tcp_open());
    if Judged(judged).is(Reason::Locked) && is_open {
        // A plan that is not whole closes what is new.
        return true;
    }
    Judged(judged).allows() && mark & MARK_TELL == 0
}

#[inline(always)]
fn conclude(skb: *mut __sk_buff, sender: &State, judged: u64, mark: u32) -> i32 {
    if says_nothing(sender, judged, mark) {
        return PASS;
    }
    event::verdict(skb, sender, judged, u32::from(EVENT_TRANSLATED))
}

/// One packet on the TC egress of an interface that is no pod's.
#[inline(always)]
pub(crate) fn leave(skb: *mut __sk_buff) -> i32 {
    let skb = Skb::new(skb);
    let mark = skb.tc_index();
    if mark & (MARK_SERVICE | MARK_JUDGE) == 0 {
        if mark != 0 {
            // Slots are this node's, and the mark survives where nodes share a kernel.
            skb.set_tc_index(0);
        }
        return PASS;
    }
    leave_translated(skb.raw())
}

/// A packet to a Service that leaves the node.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn leave_translated(skb: *mut __sk_buff) -> i32 {
    let skb = Skb::new(skb);
    let mark = skb.tc_index();
    let slot = skb.sender();
    // What comes after, the outer packet of a tunnel among it, is not to be judged for this.
    skb.set_tc_index(0);
    let Some(sender) = SENDER.get_ptr_mut(0) else {
        return DROP;
    };
    // SAFETY: as in `judge_sender`.
    let sender = unsafe { &mut *sender };
    sender.packet = Packet::default();
    // SAFETY: the helper has no preconditions.
    sender.now = unsafe { bpf_ktime_get_coarse_ns() };
    sender.packet.ethertype = u16::from_be(skb.protocol() as u16);
    let parsed = packet::parse_network(&FromNetwork(skb), &mut sender.packet);
    let readable = parsed == packet::PARSED_IP;
    if readable && mark & MARK_JUDGE == 0 && sender.packet.proto == TCP {
        return PASS;
    }
    if !take_name(sender, slot) {
        return gone();
    }
    if !readable {
        return event::verdict(skb.raw(), sender, u64::from(parsed) << 32, EVENT_TRANSLATED.into());
    }
    if sender.packet.fragment == FRAG_LATER {
        return fragment::later(skb.raw(), sender);
    }
    let to = ServiceKey {
        addr: sender.packet.dst,
        port: sender.packet.dst_port,
        proto: sender.packet.proto,
        _pad: 0,
    };
    // SAFETY: the element stays mapped (RCU).
    let has_service = |service: *const Service| unsafe { (*service).flags & SVC_GONE == 0 };
    if sender.isolated() && SERVICES.get_ptr(to).is_some_and(has_service) {
        return event::tell(skb, sender, Reason::ServiceUntranslated);
    }
    let code = decide(skb.raw(), sender, mark);
    if code == PASS {
        fragment::first(sender);
    }
    code
}
