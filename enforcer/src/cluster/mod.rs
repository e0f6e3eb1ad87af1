//! The index: pods, namespaces, policies and interfaces, and the plan that follows from them.
//! Pure and synchronous, owned by one task; it cannot fail and does no I/O.

pub mod event;
pub mod plan;
