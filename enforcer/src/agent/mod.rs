//! The agent: the task that owns the state, what it answers to and how it is asked.

mod announce;
pub mod api;
mod begin;
mod break_glass;
mod bypass;
mod core;
mod dns;
pub mod endpoints_file;
mod found;
mod gaps;
mod handover;
mod holds;
mod hooks;
mod names;
mod open_gate;
mod questions;
mod report;
mod rival_watch;
pub mod run;
mod saving;
mod scrape;
mod service_gaps;
pub mod socket;
mod switches;
pub mod uninstall;
mod unsaved;
mod upgrade;
