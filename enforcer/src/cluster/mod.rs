//! The index: pods, namespaces, policies and interfaces, and the plan that follows from them.
//! Pure and synchronous, owned by one task; it cannot fail and does no I/O.
//!
//! ```text
//! Interface -> Pod -> Policy -> Table { Rule { atoms, ports } }
//!                                        |
//!  Address, Prefix -> Class { atoms } ---+-> Row
//! ```
//!
//! Beside it, a Service's virtual address stands for its backends, by the classes of their
//! addresses (see [`services`]).
//!
//! An atom is what a rule in use asks of an address (a peer selector, an ipBlock, a port name), a
//! class is a set of atoms, a row is what a class is allowed under a table.
//!
//! **Invariant: no plan is wrong halfway.** In a plan addresses are classed first and endpoints
//! switched to their tables afterwards. So classes hold the atoms of the tables before the plan
//! and of those after it; what only the former ask is forgotten by the next plan. New rows are
//! made for every table that is in use before or after the plan. A packet that is judged in
//! between finds the old table's verdict, or the new one's. Of several events in one plan it may
//! find what a part of them says, as if they had come one by one.
//!
//! **Invariant: what an event costs depends on what it touches**, not on the size of the cluster:
//! selectors are found by the labels they need, blocks by a walk over prefix lengths, addresses
//! by their owner. Only an atom that comes into use, or goes, is looked for among all pods.
#![forbid(unsafe_code)]

mod atom;
mod binding;
mod blocks;
mod class;
mod compose;
mod enforcement;
pub mod event;
mod index;
mod interfaces;
mod labels;
mod objects;
pub mod plan;
mod remember;
mod revise;
mod rules;
mod sandboxes;
pub mod services;
mod settle;
mod snapshot;
mod start;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod uncovered;

pub use enforcement::{BadEnforcement, ENFORCEMENT_LABEL, Enforcement};
pub use index::{Index, IndexConfig};
pub use remember::Remembered;
pub use services::{NodeAddress, NodePortAddresses, ServiceStatus};
pub use snapshot::KernelState;
pub use status::{
    BlockStatus, Counts, EndpointStatus, IndexStatus, InterfaceState, InterfaceStatus, ObjectName,
    PolicyStatus, SandboxState,
};
