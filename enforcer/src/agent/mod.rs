//! The agent: the task that owns the state, what it answers to and how it is asked.

pub mod api;
mod bypass;
mod core;
mod found;
mod handover;
mod names;
mod report;
pub mod run;
mod saving;
pub mod socket;
pub mod uninstall;
