//! Why there is no gate, in words that say what to do.

use std::{io, path::PathBuf, time::Duration};

use thiserror::Error;

/// What a byte stream can do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// A connection id that NRI does not have.
    #[error("a frame for the unknown connection {0}")]
    Channel(u32),
    /// A length beyond the protocol's limit.
    #[error("a frame of {length} bytes, where {longest} are the most")]
    Length {
        /// Announced, bytes.
        length: u32,
        /// Allowed, bytes.
        longest: u32,
    },
    /// A stream id that a caller may not use.
    #[error("a call on stream {0}, which is even or not newer than the last one")]
    Stream(u32),
    /// Streaming, which NRI does not do.
    #[error("stream data for stream {0}, where only single calls are possible")]
    Data(u32),
    /// A frame that is no protobuf message.
    #[error("a frame that is no ttrpc message")]
    Message,
}

/// Why the gate is not, or no longer, in the runtime's way.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GateError {
    /// There is no socket.
    #[error(
        "there is no NRI socket {}: the container runtime is not running, has NRI off (containerd \
         before 2.0 needs `disable = false` in its NRI section), or has it elsewhere",
        path.display()
    )]
    Absent {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is not for us.
    #[error(
        "the NRI socket {} may not be opened: the agent must run as root on the node and see the \
         runtime's socket through a hostPath volume",
        path.display()
    )]
    Forbidden {
        /// The socket.
        path: PathBuf,
    },
    /// Nobody listens, or something else failed.
    #[error("nobody answers at the NRI socket {}: is the container runtime restarting?", path.display())]
    Unanswered {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The runtime does not want the plugin.
    #[error("the container runtime refuses the plugin {name}: {reason}")]
    Refused {
        /// Index and name.
        name: String,
        /// The runtime's words.
        reason: String,
    },
    /// The runtime closed the connection before it had taken the plugin in.
    #[error(
        "the container runtime closed the connection before the plugin was registered; its log \
         says why"
    )]
    Unwelcome,
    /// The runtime did not finish registration.
    #[error(
        "the container runtime did not register the plugin within {} s; its log says what it \
         waits for",
        .0.as_secs()
    )]
    Slow(Duration),
    /// The connection ended.
    #[error("the container runtime closed the connection, as it does when it stops")]
    Closed,
    /// The runtime takes no answers.
    #[error("the container runtime does not read what the plugin answers")]
    Stalled,
    /// The connection broke.
    #[error("the connection to the container runtime broke")]
    Broken(#[source] io::Error),
    /// The other end does not speak NRI.
    #[error("what the container runtime sent is not NRI, so the connection was closed")]
    Garbage(#[from] WireError),
}

impl GateError {
    /// Why `path` could not be connected to.
    pub(super) fn connecting(path: PathBuf, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::Absent { path },
            io::ErrorKind::PermissionDenied => Self::Forbidden { path },
            _ => Self::Unanswered { path, source },
        }
    }
}
