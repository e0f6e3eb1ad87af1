//! The command line: arguments, the client side of the agent's socket, and what people read.
//!
//! Exit codes: 0 done, 1 the answer is no or the work failed, 2 wrong usage (clap's own).

pub mod args;
pub mod client;
pub mod completion;
mod dirs;
pub mod disable;
pub mod export_args;
pub mod flow_args;
mod hubble_args;
pub mod list;
#[cfg(test)]
mod manifests_tests;
pub mod observe;
pub mod report;
pub mod server;
pub mod status;
mod switch_args;
pub mod terminal;
pub mod tls;
mod watched;
pub mod when;

pub use args::{
    AgentArgs, Cli, Command, GateMode, ObserveArgs, StartMode, StatusArgs, UninstallArgs,
};
