//! Flows: the kernel's events decoded, named and kept.
//!
//! ```text
//! rings -> decode -> pending (Services) -> event (named by the directory) -> ring -> readers
//! ```
//!
//! [`thread`] turns that wheel, [`reading`] is the wheel. [`decode`] reads the bytes, [`directory`]
//! knows what the numbers in them mean, [`event`] is one flow with its names, `why` explains a
//! denial, [`ring`] keeps the last flows. How they leave is in [`crate::hubble`]. [`nodes`] says who
//! else tells flows.

pub mod decode;
pub mod directory;
pub mod event;
pub mod matched;
pub mod names;
pub mod nodes;
pub mod pending;
pub mod reading;
pub mod ring;
pub mod thread;
mod why;
