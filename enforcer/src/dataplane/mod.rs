//! The kernel side of the agent: the object loaded and pinned, programs attached, plans written.
//!
//! [`Kernel`] owns the maps. What it writes comes as a [`crate::cluster::plan::Plan`]; what it
//! finds after a restart is compared with the whole desired state ([`adopt`]) and only the
//! difference is written. Nothing here knows what a policy means.

pub mod adopt;
mod apply;
mod attach;
mod backends;
mod batch;
mod bpf;
mod btf;
mod closings;
mod code;
mod control;
mod disable;
mod drops;
mod endpoints;
pub mod error;
mod input;
mod intervals;
mod kept;
pub mod kernel;
mod maps;
pub mod netlink;
mod node_addresses;
pub mod object;
mod program_pins;
mod read;
mod release;
mod remove;
mod resize;
pub mod rings;
mod seed;
mod services;
pub mod sweep;
mod sys;
mod upgrade;
mod uplinks;
mod verifier;

pub use apply::Applied;
pub use attach::AttachMode;
pub use backends::BackendNotes;
pub use control::FlowEvents;
pub use disable::{Disabled, Switches};
pub use error::DataplaneError;
pub use kernel::{FoundEndpoint, Kernel, KernelConfig};
pub use maps::RingMaps;
pub use object::Loaded;
pub use release::{OLDEST, Release};
pub use remove::{attached_anywhere, remove};
pub(crate) use sys::value_of;
pub use sys::{is_root, may_load, monotonic, user};
pub use upgrade::{Upgraded, other_version};
pub use uplinks::{Cover, Covered};
pub use verifier::{Verified, VerifyError, verify_all};
