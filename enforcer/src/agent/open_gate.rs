//! The gate while this agent has it open.

use std::time::Duration;

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use super::holds::Doorkeeper;
use crate::{
    cli::AgentArgs,
    gate::{Gate, GateConfig, GateStatus},
    source::kubernetes::Chance,
};

/// How long the runtime is waited for before the agent goes on.
const REGISTRATION: Duration = Duration::from_millis(500);

/// A gate that is open.
#[derive(Debug)]
pub(super) struct OpenGate {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
    status: watch::Receiver<GateStatus>,
}

impl OpenGate {
    /// Stands in the runtime's way, and waits a moment until the runtime knows.
    pub(super) async fn open(args: &AgentArgs, doorkeeper: Doorkeeper, random: u64) -> Self {
        let config = GateConfig { socket: args.nri_socket.clone(), ..GateConfig::default() };
        let (gate, mut status) = Gate::new(config);
        let mut chance = Chance::new(random);
        let (end, ended) = oneshot::channel::<()>();
        let shutdown = async {
            let _dropped = ended.await;
        };
        let task = tokio::spawn(gate.run(doorkeeper, move || chance.next(), shutdown));
        // Without a runtime there is nothing to hold; the gate goes on trying.
        let _late =
            timeout(REGISTRATION, status.wait_for(|status| status.connected)).await.is_err();
        Self { end, task, status }
    }

    /// What it says of itself.
    pub(super) fn status(&self) -> watch::Receiver<GateStatus> {
        self.status.clone()
    }

    /// Ends it in order: what it holds is answered.
    pub(super) async fn close(self) {
        drop(self.end);
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the gate did not end in order");
        }
    }
}
