//! The gRPC server: `observer.Observer`, `peer.Peer`, health and reflection, on a unix socket of the
//! node and, where asked for, on TCP.
//!
//! It has a thread and a runtime of its own: whatever clients do, the task that enforces policy does
//! not wait for them. Each client has bounded buffers, and streams read the rings at their own pace;
//! who is slower than the flows is told how many it missed.

mod agent_events;
pub mod certificate;
mod flows;
mod listen;
mod observer;
mod peer;
mod range;
mod router;
mod status;
pub mod tls;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64, mpsc},
    thread::{self, JoinHandle},
    time::{Instant, SystemTime},
};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::{oneshot, watch};

pub use self::listen::ListenError;
use self::{listen::Listeners, router::Router, tls::TlsFiles};
use super::{
    events::EventRing,
    origin::Origin,
    peers::{PeerNodes, Reach},
};
use crate::{error_chain, flow::ring::FlowRing};

/// Name of the socket in the run directory.
pub const SOCKET_NAME: &str = "hubble.sock";

/// How the observer is reached over the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// Both sides show certificates.
    MutualTls(TlsFiles),
    /// Whoever reaches the port may read everything: said so in so many words.
    Insecure,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The unix socket; its folder is there.
    pub socket: PathBuf,
    /// TCP, where wanted.
    pub tcp: Option<(SocketAddr, Security)>,
}

/// What is observed.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The node and its cluster.
    pub origin: Origin,
    /// The last flows.
    pub flows: FlowRing,
    /// The last events of the agent.
    pub events: EventRing,
    /// The nodes of the cluster.
    pub nodes: watch::Receiver<PeerNodes>,
    /// Events that were lost between kernel and agent since the start, as far as that is known.
    pub lost_in_kernel: Arc<AtomicU64>,
    /// Flows that were overwritten before their clients came to them.
    pub lost_by_clients: Counter,
}

/// What tells the state of the server, for `enforcer status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerState {
    /// What does not work, in a sentence each.
    pub problems: Vec<String>,
}

/// A place for the state of the server; clones are handles to the same place.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<ServerState>>);

impl Board {
    /// The state of this moment.
    #[must_use]
    pub fn state(&self) -> ServerState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the problems of this moment, and logs those that are new.
    fn set(&self, problems: Vec<String>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for problem in problems.iter().filter(|problem| !state.problems.contains(problem)) {
            tracing::warn!("{problem}");
        }
        state.problems = problems;
    }
}

/// What all services share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    observed: Observed,
    reach: Reach,
    started: Instant,
}

/// A server that runs. It ends when this is dropped, and its socket goes with it.
#[derive(Debug)]
pub struct Running {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    board: Board,
    tcp: Option<SocketAddr>,
}

impl Running {
    /// How it does.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Where it listens on TCP: the port is the real one, if the configuration left it open.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        self.tcp
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The thread may have ended by itself.
        let _ended = self.end.take().map(|end| end.send(()));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the observer's thread ended by itself");
        }
    }
}

/// Starts the server.
///
/// # Errors
/// If it cannot listen or there is no thread for it; see [`ListenError`].
pub fn start(config: Config, observed: Observed) -> Result<Running, ListenError> {
    let failed =
        |source: io::Error| ListenError::System { operation: "start the observer", source };
    let board = Board::default();
    let listeners = Listeners::open(&config, &board)?;
    let tcp = listeners.tcp_address();
    let reach = match (&config.tcp, tcp) {
        (Some((_, security)), Some(address)) => Reach::Port {
            port: address.port(),
            tls: *security != Security::Insecure,
            own: Some(address.ip()).filter(|own| !own.is_unspecified()),
        },
        _ => Reach::Local(config.socket.clone()),
    };
    let shared = Shared { observed, reach, started: Instant::now() };
    let (end, ended) = oneshot::channel();
    let (tell, started) = mpsc::channel();
    let thread = thread::Builder::new().name("observer".to_owned()).spawn({
        let board = board.clone();
        // The runtime is made and dropped here: neither may happen within another one.
        move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Err(error) => tell_started(&tell, Err(error)),
            Ok(runtime) => {
                tell_started(&tell, Ok(()));
                runtime.block_on(run(listeners, &shared, board, ended));
            }
        }
    });
    let thread = thread.map_err(failed)?;
    let running = Running { end: Some(end), thread: Some(thread), board, tcp };
    started.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())).map_err(failed)?;
    Ok(running)
}

fn tell_started(tell: &mpsc::Sender<io::Result<()>>, result: io::Result<()>) {
    // Who started the thread waits for this.
    let _waits = tell.send(result).is_ok();
}

/// Serves until told to end; streams of clients end with the runtime.
async fn run(listeners: Listeners, shared: &Shared, board: Board, ended: oneshot::Receiver<()>) {
    let router = Router::new(shared).await;
    tokio::select! {
        served = listeners.serve(router, board.clone()) => if let Err(error) = served {
            board.set(vec![format!("flows are not served: {}", sentence(&error))]);
        },
        // Dropped is as good as told.
        _ = ended => {}
    }
}

/// Wall clock, ns since the epoch.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A sentence with its causes, for logs and status.
fn sentence(error: &dyn std::error::Error) -> String {
    error_chain(error)
}

#[cfg(test)]
mod tests;
