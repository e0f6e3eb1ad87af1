//! What a pod sent to a Service and a process of this node gets: it meets no hook of an interface
//! behind the translation, so it is judged where the node takes it in (`NF_INET_LOCAL_IN`).
//!
//! A program of netfilter sees the kernel's own `sk_buff`, whose layout is the kernel's: the agent
//! reads the places of the fields from the kernel's type information and puts them in here.

use core::ffi::c_void;

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_kernel},
};
use enforcer_common::{
    abi::{EVENT_TRANSLATED, MARK_JUDGE, MARK_SERVICE, MARK_SLOT},
    packet::{self, Bytes, ETH_LEN, ETH_P_IP, ETH_P_IPV6, FRAG_LATER, Packet},
    verdict::proto::TCP,
};

use crate::{
    event,
    hook::{self, DROP, PASS},
    maps::SENDER,
    sender::{says_nothing, take_name},
    skb::filled,
    state::State,
    table::{Query, look_up},
};

/// Offset of `tc_index` in `struct sk_buff`, bytes.
#[unsafe(no_mangle)]
static SKB_TC_INDEX: Global<u32> = Global::new(0);
/// Offset of `data`.
#[unsafe(no_mangle)]
static SKB_DATA: Global<u32> = Global::new(0);
/// Offset of `len`.
#[unsafe(no_mangle)]
static SKB_LEN: Global<u32> = Global::new(0);
/// Offset of `data_len`.
#[unsafe(no_mangle)]
static SKB_DATA_LEN: Global<u32> = Global::new(0);

/// `NF_DROP` and `NF_ACCEPT` (`include/uapi/linux/netfilter.h`).
const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;

/// `struct bpf_nf_ctx` (`include/net/netfilter/nf_bpf_link.h`).
#[repr(C)]
pub(crate) struct Context {
    _state: *const c_void,
    skb: *const u8,
}

/// A field of the `sk_buff`.
#[inline(always)]
fn field<T: Copy>(skb: *const u8, offset: &Global<u32>) -> T {
    let field = skb.wrapping_add(offset.load() as usize).cast::<T>();
    // SAFETY: the kernel's pointer; the verifier knows its type, and that the offset, from a map
    // that nobody writes any more, is that of a field of this size.
    unsafe { field.read_volatile() }
}

/// The part of a packet that lies in one piece, from its network header on, as if an Ethernet header
/// stood before it. What is translated has its ports in it: the translation writes them there.
struct Linear {
    data: u64,
    linear: u32,
    len: u32,
}

impl Linear {
    #[inline(always)]
    fn load<T: Copy>(&self, offset: u32) -> Option<T> {
        let from = offset.checked_sub(ETH_LEN)?;
        if u64::from(from) + size_of::<T>() as u64 > u64::from(self.linear) {
            return None;
        }
        let place = (self.data + u64::from(from)) as *const c_void;
        // SAFETY: the helper takes any address, and `filled` passes a buffer of that length.
        filled(|to, len| unsafe { bpf_probe_read_kernel(to, len, place) })
    }
}

impl Bytes for Linear {
    #[inline(always)]
    fn frame_len(&self) -> u32 {
        self.len + ETH_LEN
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.load(offset)
    }

    #[inline(always)]
    fn read_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.load(offset)
    }
}

/// One packet that is for this node.
#[inline(always)]
pub(crate) fn arrive(context: *const Context) -> i32 {
    // SAFETY: the kernel passed the context, and the verifier checks the offset.
    let skb = unsafe { (*context).skb };
    let mark = u32::from(field::<u16>(skb, &SKB_TC_INDEX));
    if mark & (MARK_SERVICE | MARK_JUDGE) == 0 {
        return NF_ACCEPT;
    }
    let len: u32 = field(skb, &SKB_LEN);
    let linear = len.saturating_sub(field(skb, &SKB_DATA_LEN));
    let bytes = Linear { data: field(skb, &SKB_DATA), linear, len };
    if judge(&bytes, mark) == DROP { NF_DROP } else { NF_ACCEPT }
}

/// Whether the source of a packet is the pod's in whose name it is marked, as far as it can be read.
#[inline(always)]
fn is_senders(sender: &State) -> bool {
    let packet = &sender.packet;
    packet.addresses == 0
        || hook::owns(sender.slot, &packet.src)
        || (packet.v6 != 0 && packet::is_link_local(&packet.src))
}

/// As `sender::leave_translated`, but that an address which nothing has translated is the node's
/// own: a process serves it there, as any other of the node's addresses.
#[inline(always)]
fn judge(bytes: &Linear, mark: u32) -> i32 {
    let Some(sender) = SENDER.get_ptr_mut(0) else {
        return DROP;
    };
    // SAFETY: a per-CPU value; the node takes packets in where TC programs run, too, with bottom
    // halves off, and neither runs inside the other.
    let sender = unsafe { &mut *sender };
    sender.packet = Packet::default();
    // SAFETY: the helper has no preconditions.
    sender.now = unsafe { bpf_ktime_get_ns() };
    let version = bytes.read::<1>(ETH_LEN).map_or(0, |[first]| first >> 4);
    sender.packet.ethertype = if version == 6 { ETH_P_IPV6 } else { ETH_P_IP };
    let parsed = packet::parse_network(bytes, &mut sender.packet);
    let readable = parsed == packet::PARSED_IP;
    if readable && mark & MARK_JUDGE == 0 && sender.packet.proto == TCP {
        return PASS;
    }
    // The node's own traffic must never be ours to drop: another hand may write `tc_index`, too. No
    // source is translated before this hook, and none but its own leaves a pod.
    if !take_name(sender, mark & MARK_SLOT) || !is_senders(sender) {
        return PASS;
    }
    let judged = if !readable {
        u64::from(parsed) << 32
    } else if sender.packet.fragment == FRAG_LATER {
        // Only of IPv6, where the node does not reassemble before: without its first, which is
        // judged, it gets to nobody.
        return PASS;
    } else {
        let query = Query::out(sender);
        look_up(&raw const query)
    };
    if readable && says_nothing(sender, judged, mark) {
        return PASS;
    }
    event::conclude(bytes.frame_len(), sender, judged, u32::from(EVENT_TRANSLATED))
}
