//! A laboratory of network namespaces: pods, a node and the outside, with real sockets.
//!
//! A [`Lab`] is one node: a network namespace in which the agent runs, pods as further namespaces
//! behind veth pairs, and everything else in a namespace called *outside*. Nothing here knows the
//! agent's code: [`Agent`] starts the real binary and talks to it by its command line, so that the
//! tests hold users' contract and nothing else.

pub mod agent;
pub mod api;
mod bpffs;
mod cleanup;
pub mod connection;
pub mod datagrams;
mod echo;
mod error;
pub mod follow;
mod ip;
pub mod ipvs;
pub mod lab;
pub mod manifests;
pub mod market;
mod netns;
pub mod packet;
pub mod pins;
mod plan;
pub mod policy;
pub mod probe;
pub mod proxy;
pub mod push;
pub mod scenario;
pub mod service;
pub mod shout;
mod sockets;
pub mod spec;
pub mod tunnel;
pub mod wire;
mod witness;
pub mod world;

pub use agent::{Agent, AgentOptions};
pub use bpffs::Bpffs;
pub use cleanup::{clean_up_on_signals, stop_requested, wait_for_signal};
pub use connection::{Connection, Heartbeat};
pub use datagrams::Datagrams;
pub use error::LabError;
pub use follow::{Follow, Line};
pub use lab::{Lab, Mode};
pub use manifests::Manifests;
pub use market::Market;
pub use netns::Netns;
pub use probe::{Outcome, Place, Probe, Protocol};
pub use proxy::{Masquerade, Proxy};
pub use push::Push;
pub use service::{Backend, Condition, Service};
pub use spec::PodSpec;
pub use world::World;
