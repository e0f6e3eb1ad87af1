//! The agent: what it answers to and how it is asked.

pub mod api;
pub mod socket;
