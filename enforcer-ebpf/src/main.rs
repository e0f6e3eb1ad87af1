//! The kernel half: two TC programs on the host-side interface of every local pod, one where packets
//! leave the node, and one where the node takes packets in.
//!
//! `pod_egress` runs on TC ingress (what the pod sends), `pod_ingress` on TC egress (what the pod
//! receives); `node_egress` and `node_input` judge what a pod sent to a Service and leaves the node,
//! or gets to one of its processes. The way of a packet is [`hook::run`]; what it means is decided in
//! `enforcer-common` and by the maps, here are only helpers and map access.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod aging;
mod atomic;
mod drops;
mod end;
mod event;
mod flow;
mod fragment;
mod hook;
mod icmp;
mod input;
mod judge;
mod link;
mod maps;
mod quota;
mod sender;
mod service;
mod skb;
mod spare;
mod state;
mod table;

use aya_ebpf::{macros::classifier, programs::TcContext};
use enforcer_common::abi::Direction;

/// TC ingress of a host-side interface: what the pod sends.
#[classifier]
fn pod_egress(ctx: TcContext) -> i32 {
    hook::run::<{ Direction::Egress as u32 }>(ctx.skb.skb)
}

/// TC egress of a host-side interface: what the pod receives.
#[classifier]
fn pod_ingress(ctx: TcContext) -> i32 {
    hook::run::<{ Direction::Ingress as u32 }>(ctx.skb.skb)
}

/// TC egress of every other interface: what a pod sent to a Service whose backend is elsewhere.
#[classifier]
fn node_egress(ctx: TcContext) -> i32 {
    sender::leave(ctx.skb.skb)
}

/// Where the node takes a packet in for itself: what a pod sent to a Service with a backend there.
///
/// The library knows no programs of netfilter. The section only has it take this for a program; the
/// agent loads it as what it is (`dataplane::input`).
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/node_input")]
fn node_input(context: *const input::Context) -> i32 {
    input::arrive(context)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never linked in: every access is checked, so no panic is reachable. The verifier refuses the
    // endless loop if one ever is.
    loop {}
}

/// Licence string of the object: most helpers in use are offered to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
