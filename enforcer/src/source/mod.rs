//! Where objects come from. A source reads, applies the API server's defaults and validation, and
//! emits [`crate::cluster::event::Event`]s; it gives no verdicts.

pub mod cni;
pub mod manifests;
pub mod names;
pub mod problem;
pub mod validate;
