//! The real object under `BPF_PROG_TEST_RUN`: for each packet class its verdict, its reason, every
//! counter that moves and every event that is told.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod closings;
mod connections;
mod conntrack;
mod flood;
mod fragments;
mod hostile;
mod interrupted;
mod lab;
mod outlets;
mod packets;
mod parsing;
mod proof;
mod rate;
mod records;
mod runner;
mod senders;
mod service_map;
mod services;
mod spared;
mod storms;
mod verifier;
