//! Flows: the kernel's events decoded, named, kept and filtered.
//!
//! ```text
//! rings -> decode -> pending (Services) -> event (named by the directory) -> ring -> readers
//! ```
//!
//! [`thread`] turns that wheel, [`reading`] is the wheel. [`decode`] reads the bytes, [`directory`]
//! knows what the numbers in them mean, [`event`] is one flow with its names, `why` explains a
//! denial, [`ring`] keeps the last flows, [`filter`] chooses, and [`hubble`] is the form in which
//! they leave: Hubble's JSON. [`nodes`] says who else tells flows.

pub mod decode;
pub mod directory;
pub mod event;
pub mod filter;
pub mod hubble;
pub mod names;
pub mod nodes;
pub mod pending;
pub mod reading;
pub mod ring;
pub mod thread;
mod why;
