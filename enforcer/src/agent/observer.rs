//! The server of flows beside the owning task.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    cli::AgentArgs,
    error_chain,
    flow::ring::FlowRing,
    hubble::{
        events::EventRing,
        origin::Origin,
        peers::PeerNodes,
        server::{self, Config, Observed, Running, SOCKET_NAME},
    },
};

/// The server, or why there is none.
#[derive(Debug)]
pub(super) struct Observing {
    server: Result<Running, String>,
    lost_in_kernel: Arc<AtomicU64>,
}

/// Starts the server. Policy is more than its flows: without it the agent goes on.
pub(super) fn start(
    args: &AgentArgs,
    node: &str,
    flows: FlowRing,
    events: EventRing,
    nodes: watch::Receiver<PeerNodes>,
    lost_by_clients: Counter,
) -> Observing {
    let tcp = args.hubble.listen();
    let lost_in_kernel = Arc::new(AtomicU64::new(0));
    let config = Config { socket: args.dirs.run_dir.join(SOCKET_NAME), tcp };
    let observed = Observed {
        origin: Origin::new(&args.hubble.cluster_name, node),
        flows,
        events,
        nodes,
        lost_in_kernel: Arc::clone(&lost_in_kernel),
        lost_by_clients,
    };
    let server = server::start(config, observed).map_err(|error| {
        let problem = error_chain(&error);
        warn!(problem, "going on without showing flows");
        problem
    });
    if let Ok(running) = &server
        && let Some(address) = running.tcp()
    {
        info!(%address, "flows are shown on the network");
    }
    Observing { server, lost_in_kernel }
}

impl Observing {
    /// What is wrong with it, a sentence each.
    pub(super) fn problems(&self) -> Vec<String> {
        match &self.server {
            Ok(running) => running.board().state().problems,
            Err(problem) => vec![problem.clone()],
        }
    }

    /// So many events were lost before the agent could read them.
    pub(super) fn lost_in_kernel(&self, lost: u64) {
        self.lost_in_kernel.store(lost, Ordering::Relaxed);
    }

    /// Ends it; its socket is gone then.
    pub(super) fn end(&mut self) {
        self.server = Err("the agent is ending".to_owned());
    }
}
