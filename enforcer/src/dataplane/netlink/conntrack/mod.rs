//! The connections that the node's kernel tracks (`NETLINK_NETFILTER`,
//! `linux/netfilter/nfnetlink_conntrack.h`).

mod ask;
mod parse;
mod view;

use std::net::IpAddr;

pub use self::ask::Connections;
pub use self::view::{PodFlow, pod_view, pod_views};
use super::{
    error::NetlinkError,
    socket::{Family, Requests},
    wire::{DUMP, Request},
};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`.
const GET: u16 = 0x101;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW`: an entry of a dump.
const NEW: u16 = 0x100;

/// What an ICMP or ICMPv6 flow has in place of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IcmpPart {
    /// Identifier.
    pub id: u16,
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
}

/// One direction of a flow as its packets look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port; 0 for protocols without.
    pub source_port: u16,
    /// Destination port; 0 for protocols without.
    pub destination_port: u16,
    /// For ICMP and ICMPv6.
    pub icmp: Option<IcmpPart>,
}

/// A flow that the kernel tracks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFlow {
    /// The first packet's direction, before any translation.
    pub orig: Tuple,
    /// What replies look like when they come: after the translation of the other direction.
    pub reply: Tuple,
    /// A packet was seen in both directions (`IPS_SEEN_REPLY`).
    pub seen_reply: bool,
    /// Not the first to go when the table is full (`IPS_ASSURED`).
    pub assured: bool,
    /// `enum tcp_conntrack`: 3 is established.
    pub tcp_state: Option<u8>,
    /// Seconds until it expires without a packet; `None` where it does not age by itself.
    pub timeout: Option<u32>,
    /// Conntrack zone; 0 unless something on the node uses zones.
    pub zone: u16,
}

/// All flows that the kernel tracks in the calling thread's network namespace.
///
/// `None` where the kernel has no conntrack or does not list it. A list that is empty may also mean
/// that nothing on the node asked for tracking.
///
/// # Errors
/// If the kernel refuses (`EPERM` without `CAP_NET_ADMIN`) or the answer is cut short.
pub fn dump() -> Result<Option<Vec<KernelFlow>>, NetlinkError> {
    dump_where(|_| true)
}

/// The same, of the flows that `keep` keeps: a large node's table is not held in memory at once.
///
/// # Errors
/// As for [`dump`].
pub fn dump_where(
    mut keep: impl FnMut(&KernelFlow) -> bool,
) -> Result<Option<Vec<KernelFlow>>, NetlinkError> {
    let absent = |error: &NetlinkError| {
        matches!(error.errno(), Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
    };
    let mut requests = match Requests::open(Family::Netfilter) {
        Ok(requests) => requests,
        Err(error) if absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    // AF_UNSPEC: both families.
    let request = Request::new(GET, DUMP, &[0; parse::HEADER]);
    let flows = requests.dump("list the node's conntrack", &request, |message| {
        (message.kind == NEW).then(|| parse::flow(message.payload)).flatten().filter(&mut keep)
    });
    match flows {
        Ok(flows) => Ok(Some(flows)),
        // The answer to a subsystem that is not there is EINVAL, or ENOENT for a message of it.
        Err(error)
            if absent(&error) || matches!(error.errno(), Some(libc::EINVAL | libc::ENOENT)) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
