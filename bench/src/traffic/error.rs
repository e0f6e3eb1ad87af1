//! Why traffic cannot be measured, and what to do about it.

use std::{error::Error, io};

use enforcer_tests::LabError;

/// A failure of a benchmark of traffic.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrafficError {
    /// A namespace, the agent or the load.
    #[error("{}", with_source(.0))]
    Lab(#[from] LabError),
    /// The command that loads rules is missing.
    #[error("nft cannot be started ({0}): install nftables (Debian and Ubuntu: package nftables)")]
    NoNft(#[source] io::Error),
    /// It refused them.
    #[error("nft refuses the rules, which kernels without nf_tables do: {0}")]
    Refused(String),
    /// The programs of the kernel's own cost.
    #[error("the baseline programs cannot be attached: {0}")]
    Baseline(#[source] Box<dyn Error + Send + Sync>),
    /// A variant does not do what it is measured for.
    #[error(
        "`{variant}` is not to be measured: {probe} should be {wanted} and is {found}; is there a \
         firewall on this machine that reaches into network namespaces?"
    )]
    NotInForce {
        /// Which.
        variant: String,
        /// What was tried.
        probe: &'static str,
        /// What must come of it.
        wanted: &'static str,
        /// What came.
        found: &'static str,
    },
    /// A variant's turn failed.
    #[error("`{variant}` under {load}: {}", with_source(.source))]
    Turn {
        /// Which.
        variant: String,
        /// Under what.
        load: &'static str,
        /// Why.
        source: LabError,
    },
}

/// The laboratory keeps the reason apart from the message.
fn with_source(error: &LabError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_and_why() {
        let source = LabError::Io { operation: "listen".into(), source: io::Error::other("taken") };
        let error = TrafficError::Turn { variant: "enforcer".into(), load: "TCP stream", source };
        assert_eq!(error.to_string(), "`enforcer` under TCP stream: cannot listen: taken");
    }
}
