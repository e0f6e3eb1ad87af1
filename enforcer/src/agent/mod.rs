//! The agent: the task that owns the state, what it answers to and how it is asked.

pub mod api;
mod break_glass;
mod bypass;
mod core;
pub mod endpoints_file;
mod report;
pub mod run;
pub mod socket;
pub mod uninstall;
