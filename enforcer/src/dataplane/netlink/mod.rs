//! What the node's kernel tells about its network: interfaces and the addresses behind them,
//! connections that it tracks, programs on hooks.
//!
//! Everything works in the network namespace of the thread that opens it, with `CAP_NET_ADMIN`
//! alone, and never enters a pod's namespace. Messages are read attribute by attribute, and only
//! the few attributes in use: a kernel that says more, or says it differently, costs no message.

mod address;
pub mod conntrack;
pub mod discover;
pub mod error;
pub mod links;
pub mod nftables;
pub mod peers;
pub mod rcu;
mod socket;
mod sys;
pub mod tc;
pub mod tcx;
#[cfg(test)]
pub(crate) mod testing;
pub mod watch;
mod wire;

pub use discover::{Discovery, DiscoveryEvent};
pub use error::NetlinkError;
