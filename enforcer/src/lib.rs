//! Kubernetes network policy, compiled to eBPF and enforced on every local pod's interface.
//!
//! The way of a change: [`source`] reads objects and emits [`cluster::event::Event`]s; the
//! [`cluster::Index`] (pure, owned by one task) keeps what depends on what and emits a
//! [`cluster::plan::Plan`]; [`dataplane`] writes it to the kernel. The way of a packet's news:
//! rings to [`flow`], which names what the kernel numbers, to the [`cli`] over a socket.

pub mod agent;
pub mod apiserver;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod dataplane;
pub mod flow;
pub mod gate;
pub mod hubble;
pub mod insight;
pub mod metrics;
pub mod policy;
pub mod rfc3339;
pub mod rivals;
pub mod source;

pub use dataplane::error::chain as error_chain;
