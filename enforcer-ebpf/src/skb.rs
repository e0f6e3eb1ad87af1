//! The skb: its fields, and its bytes for the parser.

use core::{
    ffi::{c_long, c_void},
    mem::MaybeUninit,
};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative},
};
use enforcer_common::{
    abi::MARK_SLOT,
    packet::{Bytes, ETH_LEN},
};

/// The packet that the program was called for.
#[derive(Clone, Copy)]
pub(crate) struct Skb(*mut __sk_buff);

macro_rules! field {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name(self) -> u32 {
            // SAFETY: the kernel passed the context, and the verifier checks the offset.
            unsafe { (*self.0).$name }
        }
    };
}

impl Skb {
    /// Wraps the context pointer that the kernel passed.
    #[inline(always)]
    pub(crate) fn new(skb: *mut __sk_buff) -> Self {
        Self(skb)
    }

    /// The context pointer, for global functions.
    #[inline(always)]
    pub(crate) fn raw(self) -> *mut __sk_buff {
        self.0
    }

    field!(
        /// Interface that the hook is on.
        ifindex
    );
    field!(
        /// Interface that the packet came in by; 0 if this node made it.
        ingress_ifindex
    );
    field!(
        /// Slot of the local pod that sent the packet, if one did, and `MARK_…` bits.
        tc_index
    );
    field!(
        /// Frame type, network byte order.
        protocol
    );
    field!(
        /// Segments that the stack cuts the packet into; 0 if it does not.
        gso_segs
    );
    field!(
        /// Whether the kernel took a VLAN tag out of the frame.
        vlan_present
    );

    /// Marks the packet with the slot of the pod that sends it, and `MARK_…` bits.
    #[inline(always)]
    pub(crate) fn set_tc_index(self, mark: u32) {
        // SAFETY: `tc_index` is writable for TC programs (net/core/filter.c,
        // tc_cls_act_is_valid_access).
        unsafe { (*self.0).tc_index = mark };
        // Where a program after ours says that the packet is fine, its class becomes `tc_index`
        // (`tcx_action_code` in include/net/tcx.h): let it be the same.
        // SAFETY: writable likewise.
        unsafe { (*self.0).tc_classid = mark };
    }

    /// Packets that it is on the wire.
    #[inline(always)]
    pub(crate) fn packets(self) -> u32 {
        let segments = self.gso_segs();
        if segments == 0 { 1 } else { segments }
    }

    /// Slot of the local pod that sent the packet, if one did; else 0.
    #[inline(always)]
    pub(crate) fn sender(self) -> u32 {
        self.tc_index() & MARK_SLOT
    }
}

impl Bytes for Skb {
    #[inline(always)]
    fn frame_len(&self) -> u32 {
        // SAFETY: as for the other fields.
        unsafe { (*self.0).len }
    }

    // The helper, not direct access: it reads paged data as well, so no packet is hard to read.
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.load(offset)
    }

    #[inline(always)]
    fn read_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.load(offset)
    }
}

impl Skb {
    /// A plain value at `offset`; for `T` that any bytes are a value of.
    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> Option<T> {
        // SAFETY: the helper checks offset and length, and `filled` passes a buffer of that length.
        filled(|to, len| unsafe { bpf_skb_load_bytes(self.0.cast(), offset, to, len) })
    }
}

/// The value that a helper writes to the buffer and of the length that it is given, unless it
/// returns an error; for `T` that any bytes are a value of.
#[inline(always)]
pub(crate) fn filled<T: Copy>(helper: impl FnOnce(*mut c_void, u32) -> c_long) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    if helper(value.as_mut_ptr().cast(), size_of::<T>() as u32) != 0 {
        return None;
    }
    // SAFETY: the helper returned 0, so it has filled the value; the callers' types are arrays of
    // integers, which any bytes are a value of.
    Some(unsafe { value.assume_init() })
}

/// The packet from its network header on, as if an Ethernet header stood before it: interfaces
/// that are no pod's may have another link header, or none.
#[derive(Clone, Copy)]
pub(crate) struct FromNetwork(pub(crate) Skb);

/// `BPF_HDR_START_NET` of `include/uapi/linux/bpf.h`.
const FROM_NETWORK_HEADER: u32 = 1;

impl FromNetwork {
    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> Option<T> {
        let offset = offset.checked_sub(ETH_LEN)?;
        let skb = self.0.0.cast();
        filled(|to, len| {
            // SAFETY: as in `Skb::load`.
            unsafe { bpf_skb_load_bytes_relative(skb, offset, to, len, FROM_NETWORK_HEADER) }
        })
    }
}

impl Bytes for FromNetwork {
    // At most one link header too long; the node's own stack has checked the packet before.
    #[inline(always)]
    fn frame_len(&self) -> u32 {
        self.0.frame_len() + ETH_LEN
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
