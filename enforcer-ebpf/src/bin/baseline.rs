//! What the programs are measured against: nothing, a parse with one LRU look-up, a parse with one
//! look-up and one insertion. Loaded by the benchmarks only.
#![no_std]
#![no_main]

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_ANY},
    helpers::generated::bpf_skb_load_bytes,
    macros::{classifier, map},
    maps::LruHashMap,
    programs::TcContext,
};
use enforcer_common::{
    abi::{CtEntry, CtKey4},
    packet::{Bytes, PARSED_IP, Packet, parse},
};

#[map]
static FLOWS: LruHashMap<CtKey4, CtEntry> = LruHashMap::with_max_entries(262_144, 0);

/// Reads like the real programs, so that the difference is what they do beside.
struct Skb(*mut __sk_buff);

impl Skb {
    #[inline(always)]
    fn load<T: Copy>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        let (buffer, size) = (value.as_mut_ptr().cast(), size_of::<T>() as u32);
        // SAFETY: the buffer has the size of T, and the helper checks offset and length.
        if unsafe { bpf_skb_load_bytes(self.0.cast(), offset, buffer, size) } != 0 {
            return None;
        }
        // SAFETY: filled by the helper; T is an array of integers.
        Some(unsafe { value.assume_init() })
    }
}

impl Bytes for Skb {
    #[inline(always)]
    fn frame_len(&self) -> u32 {
        // SAFETY: the kernel passed the context, and the verifier checks the offset.
        unsafe { (*self.0).len }
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

#[inline(always)]
fn key(ctx: &TcContext) -> Option<CtKey4> {
    let mut packet = Packet::default();
    if parse(&Skb(ctx.skb.skb), false, &mut packet) != PARSED_IP {
        return None;
    }
    Some(CtKey4 {
        ifindex: 0,
        local: packet.src.0[3],
        remote: packet.dst.0[3],
        local_port: packet.src_port,
        remote_port: packet.dst_port,
        proto: u32::from(packet.proto),
    })
}

/// Passes everything.
#[classifier]
fn empty(_ctx: TcContext) -> i32 {
    -1
}

/// Parses and looks up once.
#[classifier]
fn look_up(ctx: TcContext) -> i32 {
    let Some(key) = key(&ctx) else {
        return 2;
    };
    if FLOWS.get_ptr(key).is_some() { -1 } else { 3 }
}

/// Parses, looks up once and inserts once.
#[classifier]
fn insert(ctx: TcContext) -> i32 {
    let Some(key) = key(&ctx) else {
        return 2;
    };
    if FLOWS.get_ptr(key).is_some() {
        return 3;
    }
    if FLOWS.insert(key, CtEntry::default(), u64::from(BPF_ANY)).is_ok() { -1 } else { 2 }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never linked in: no panic is reachable.
    loop {}
}

/// Licence string of the object.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
