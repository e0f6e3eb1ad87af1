//! What is compared: who enforces the policy, or what stands there instead.

use std::path::PathBuf;

use super::ruleset::Form;

/// What is at the pods' interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Nothing.
    Nothing,
    /// A program of the baseline, at the four places where ours are.
    Baseline(&'static str),
    /// The agent, with these flags.
    Enforcer {
        /// Its binary.
        binary: PathBuf,
        /// Its flags.
        flags: &'static [&'static str],
    },
    /// Rules of nftables on the node, and the kernel's connection tracking.
    Nftables(Form),
}

impl Variant {
    /// Whether it enforces the policy.
    pub(crate) const fn enforces(&self) -> bool {
        matches!(self, Self::Enforcer { .. } | Self::Nftables(_))
    }
}
