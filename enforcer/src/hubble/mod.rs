//! The Hubble interface of this node: our flows in Hubble's form, its filters on them, and the gRPC
//! server that hands them out.
//!
//! [`convert`] makes messages of flows, [`filter`] chooses flows without making messages,
//! [`events`] keeps what the agent did, [`peers`] who else can be asked, and [`server`] answers.
//! [`client`] is the other end of the local socket.

pub mod client;
pub mod convert;
pub mod events;
pub mod filter;
pub mod origin;
pub mod peers;
pub mod server;
