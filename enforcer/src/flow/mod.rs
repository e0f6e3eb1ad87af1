//! Flows: the kernel's events decoded, named, kept and filtered.
//!
//! [`decode`] reads the bytes, [`directory`] knows what the numbers in them mean, [`event`] is one
//! flow with its names, [`ring`] keeps the last of them, [`filter`] chooses, and [`hubble`] is the
//! form in which they leave: Hubble's JSON. `why` explains a denial.

pub mod decode;
pub mod directory;
pub mod event;
pub mod filter;
pub mod hubble;
pub mod names;
pub mod pending;
pub mod ring;
mod why;
