//! What policy says of a packet, read straight off the objects by the words of the API.
//!
//! It shares no code, no type and no thought with the compiler and the programs, and takes no
//! trouble to be fast: every question is answered from all objects anew. What the product decides is
//! held against this.
//!
//! ```text
//! Cluster + Packet -> hook (who is the other side, what needs no policy) -> policy -> Outcome
//! ```
#![forbid(unsafe_code)]

mod cidr;
mod cluster;
mod hook;
mod policy;
mod selector;

pub use cluster::{Cluster, Labels, Name, NamedPort, Namespace, Pod, Protocol, Service, protocol};
pub use hook::{Outcome, Packet};
pub use policy::{Answer, Direction, Other, Question, Rule, judge};
