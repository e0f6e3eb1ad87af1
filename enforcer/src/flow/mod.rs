//! Flows: the kernel's events decoded, named and kept.
//!
//! [`decode`] reads the bytes, [`directory`] knows what the numbers in them mean, [`event`] is one
//! flow with its names, [`ring`] keeps the last of them. How they leave is in [`crate::hubble`].

pub mod decode;
pub mod directory;
pub mod event;
pub mod names;
pub mod pending;
pub mod ring;
