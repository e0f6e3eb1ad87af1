//! The command that loads rules of nftables.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use enforcer_tests::Netns;

use super::error::TrafficError;

/// Loads rules in a namespace, with which they go.
pub(crate) fn load(node: &Netns, rules: &str) -> Result<(), TrafficError> {
    let output = node.run(|| {
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // It may give up before it has read everything; then its message says why.
            stdin.write_all(rules.as_bytes()).ok();
        }
        child.wait_with_output()
    })?;
    let output = output.map_err(TrafficError::NoNft)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(TrafficError::Refused(said.lines().next().unwrap_or("without a message").to_owned()))
}
