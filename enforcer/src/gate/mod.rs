//! The gate: holds a new pod sandbox until its interface is armed, as a plugin of the container
//! runtime (NRI, the Node Resource Interface), inside the agent's own process.
//!
//! ```text
//! runtime --unix socket--> mux (two connections) --> ttrpc (calls) --> protocol --> session
//!                                                                       Arming <--- (holds)
//! ```
//!
//! The runtime asks after the CNI plugin has run and before the pod's first container is made. All
//! versions ask with `StateChange`; those with NRI 0.12 and newer ask with `RunPodSandbox` first.
//!
//! **Invariant: closed, never open, where the gate has a say.** Only [`Held::Armed`] lets a sandbox
//! run. What is not armed in time, not understood, or asked while the agent ends, is answered with
//! an error: the sandbox fails and the kubelet tries again. The answer comes before the runtime's
//! own time-out, because a plugin that exceeds it is cut off, and the sandbox runs. Where there is
//! no connection the gate has no say, and [`GateStatus`] says so.
//!
//! The runtime holds one lock around all plugins: while one sandbox waits here no other pod of the
//! node starts. The gate itself does not lean on that, and holds any number side by side.
#![forbid(unsafe_code)]

mod backoff;
mod error;
mod mux;
mod proto;
mod protocol;
mod sandbox;
mod session;
mod status;
#[cfg(test)]
mod tests;
mod ttrpc;

use std::{
    fmt,
    future::Future,
    path::PathBuf,
    str::FromStr,
    time::{Duration, SystemTime},
};

use tokio::{net::UnixStream, sync::watch};

pub use error::{GateError, WireError};
pub use sandbox::{Network, Sandbox};
pub use status::GateStatus;

use backoff::Backoff;
use session::End;
use status::Board;

/// Where container runtimes have their NRI socket.
pub const DEFAULT_SOCKET: &str = "/var/run/nri/nri.sock";
/// How long a sandbox is held by default: less than the 2 s that runtimes wait by default.
pub const DEFAULT_PATIENCE: Duration = Duration::from_millis(1500);

/// A plugin's place in the order in which the runtime calls them: 00 to 99.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PluginIndex(u8);

/// A plugin's index is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no index of an NRI plugin: write two digits, 00 to 99")]
pub struct PluginIndexError(String);

impl FromStr for PluginIndex {
    type Err = PluginIndexError;

    fn from_str(text: &str) -> Result<Self, PluginIndexError> {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let index = text.parse().ok().filter(|_index| digits);
        index.map(Self).ok_or_else(|| PluginIndexError(text.to_owned()))
    }
}

impl fmt::Display for PluginIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}", self.0)
    }
}

/// How the gate is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateConfig {
    /// The runtime's NRI socket.
    pub socket: PathBuf,
    /// Name that the runtime's log and its `required_plugins` know the agent by: letters, digits,
    /// and `_.+-`.
    pub plugin_name: String,
    /// Place among the runtime's plugins.
    pub index: PluginIndex,
    /// How long a sandbox is held at most. Shorter where the runtime waits less.
    pub patience: Duration,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            socket: DEFAULT_SOCKET.into(),
            plugin_name: "enforcer".to_owned(),
            index: PluginIndex::default(),
            patience: DEFAULT_PATIENCE,
        }
    }
}

/// What came of holding a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Its interfaces carry the programs and its policy is in force.
    Armed,
    /// They do not; with what is missing, for the pod's events.
    NotInTime(String),
}

/// The side that arms interfaces.
pub trait Arming: Clone + Send + 'static {
    /// Waits until the sandbox is armed. Called for several sandboxes at a time; dropped, and the
    /// sandbox refused, when it takes longer than `within`. Never called for sandboxes in the
    /// node's own network.
    fn armed(&self, sandbox: Sandbox, within: Duration) -> impl Future<Output = Held> + Send;

    /// Told after each registration: these sandboxes run, and were perhaps never held.
    fn running(&self, _sandboxes: Vec<Sandbox>) {}

    /// Told of every sandbox that was held, and for how long.
    fn decided(&self, _time: Duration, _held: &Held) {}
}

/// A gate that is not there yet.
#[derive(Debug)]
pub struct Gate {
    config: GateConfig,
    board: Board,
}

impl Gate {
    /// A gate, and where to read what it does.
    pub fn new(config: GateConfig) -> (Self, watch::Receiver<GateStatus>) {
        let (board, status) = Board::new(SystemTime::now());
        (Self { config, board }, status)
    }

    /// Stands in the runtime's way until `shutdown`, and comes back whenever the runtime does.
    /// Sandboxes that are held when it ends are refused. `random` spreads the attempts to connect.
    pub async fn run(
        self,
        arming: impl Arming,
        mut random: impl FnMut() -> u64,
        shutdown: impl Future<Output = ()>,
    ) {
        let Self { config, board } = self;
        let mut shutdown = std::pin::pin!(shutdown);
        let mut backoff = Backoff::default();
        loop {
            let end = match UnixStream::connect(&config.socket).await {
                Ok(trunk) => session::run(trunk, &config, &arming, &board, &mut shutdown).await,
                Err(error) => End::Lost {
                    error: GateError::connecting(config.socket.clone(), error),
                    lasted: None,
                },
            };
            let End::Lost { error, lasted } = end else {
                board.ended(SystemTime::now());
                return;
            };
            board.down(&error, SystemTime::now());
            let pause = backoff.next(lasted, random());
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}
