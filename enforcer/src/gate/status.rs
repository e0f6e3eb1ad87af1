//! What the gate says of itself.

use std::time::SystemTime;

use tokio::sync::watch;
use tracing::{info, warn};

use super::error::GateError;

/// The gate at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateStatus {
    /// The runtime asks the gate before it lets a sandbox run.
    pub connected: bool,
    /// Since when that is so, or not so.
    pub since: SystemTime,
    /// Name and version of the runtime that was last connected.
    pub runtime: Option<String>,
    /// Sandboxes that are being held now.
    pub holding: usize,
    /// Sandboxes let go, armed.
    pub held: u64,
    /// Sandboxes refused: not armed in time, or not understood.
    pub failed: u64,
    /// Sandboxes whose runtime went, or was not heard in time, while they were held: an older
    /// runtime lets them run.
    pub abandoned: u64,
    /// Why the gate was last not connected, or refused a sandbox.
    pub last_error: Option<String>,
}

/// Where the gate writes what it says.
#[derive(Debug)]
pub(super) struct Board {
    status: watch::Sender<GateStatus>,
}

impl Board {
    pub(super) fn new(now: SystemTime) -> (Self, watch::Receiver<GateStatus>) {
        let (status, seen) = watch::channel(GateStatus {
            connected: false,
            since: now,
            runtime: None,
            holding: 0,
            held: 0,
            failed: 0,
            abandoned: 0,
            last_error: None,
        });
        (Self { status }, seen)
    }

    /// The runtime has taken the plugin in.
    pub(super) fn up(&self, runtime: String, running: usize, now: SystemTime) {
        info!(runtime, running, "the gate holds new pod sandboxes until their interface is armed");
        self.status.send_modify(|status| {
            status.connected = true;
            status.since = now;
            status.runtime = Some(runtime);
            status.last_error = None;
        });
    }

    /// There is no connection. Says so once, as long as the reason is the same.
    pub(super) fn down(&self, error: &GateError, now: SystemTime) {
        let error = crate::error_chain(error);
        let changed = self.status.send_if_modified(|status| {
            let was_connected = std::mem::replace(&mut status.connected, false);
            if was_connected {
                status.since = now;
            }
            status.abandoned += u64::try_from(status.holding).unwrap_or(u64::MAX);
            status.holding = 0;
            let other = status.last_error.as_ref() != Some(&error);
            status.last_error = Some(error.clone());
            was_connected || other
        });
        if changed {
            warn!("no gate, new pods start before their interface is armed: {error}");
        }
    }

    /// The agent ends.
    pub(super) fn ended(&self, now: SystemTime) {
        self.status.send_modify(|status| {
            if std::mem::replace(&mut status.connected, false) {
                status.since = now;
            }
        });
    }

    /// A sandbox waits.
    pub(super) fn hold(&self) {
        self.status.send_modify(|status| status.holding += 1);
    }

    /// A held sandbox is let go, armed.
    pub(super) fn let_go(&self) {
        self.status.send_modify(|status| {
            status.holding = status.holding.saturating_sub(1);
            status.held += 1;
        });
    }

    /// A held sandbox is refused.
    pub(super) fn refuse_held(&self, error: String) {
        self.status.send_modify(|status| status.holding = status.holding.saturating_sub(1));
        self.refuse(error);
    }

    /// A sandbox is refused.
    pub(super) fn refuse(&self, error: String) {
        warn!("{error}");
        self.status.send_modify(|status| {
            status.failed += 1;
            status.last_error = Some(error);
        });
    }
}
