//! The client side of the agent's socket.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::agent::api::{Request, SOCKET_NAME};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no agent is running on this node (nothing answers at {}); start it with `enforcer agent`",
        path.display()
    )]
    NoAgent {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is root's.
    #[error("no permission to use {}; run this as root", path.display())]
    NoPermission {
        /// The socket.
        path: PathBuf,
    },
    /// Something else went wrong with the socket.
    #[error("cannot talk to the agent at {}: {error}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The agent refused.
    #[error("{0}")]
    Refused(String),
    /// The agent's answer makes no sense.
    #[error("the agent's answer is not understood ({0}); are agent and command of one version?")]
    NotUnderstood(serde_json::Error),
    /// The agent ended in the middle.
    #[error("the agent ended the connection before its answer was complete; see its log")]
    Ended,
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
}

impl ClientError {
    /// Why the socket at `path` does not connect.
    pub(super) fn connecting(path: PathBuf, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::NoAgent { path },
            io::ErrorKind::PermissionDenied => Self::NoPermission { path },
            _ => Self::Io { path, error },
        }
    }

    /// Whether the reader of our output has gone, which is no failure.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// A connection with its request sent.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    read: BufReader<OwnedReadHalf>,
    /// Closing it would tell the agent that nobody waits for the answer.
    _write: OwnedWriteHalf,
    line: String,
}

impl Client {
    /// Connects and sends `request`.
    ///
    /// # Errors
    /// If there is no agent to talk to.
    pub async fn ask(run_dir: &Path, request: &Request) -> Result<Self, ClientError> {
        let path = run_dir.join(SOCKET_NAME);
        let sent = async {
            let (read, mut write) = UnixStream::connect(&path).await?.into_split();
            let mut line = serde_json::to_vec(request)?;
            line.push(b'\n');
            match write.write_all(&line).await {
                // An agent that refuses a client says why before it closes.
                Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
                _ => Ok((BufReader::new(read), write)),
            }
        };
        match sent.await {
            Ok((read, write)) => Ok(Self { path, read, _write: write, line: String::new() }),
            Err(error) => Err(ClientError::connecting(path, error)),
        }
    }

    /// The next line of the answer.
    ///
    /// # Errors
    /// If the agent ended the connection.
    pub async fn next(&mut self) -> Result<&str, ClientError> {
        self.line.clear();
        match self.read.read_line(&mut self.line).await {
            Ok(n) if n > 0 && self.line.ends_with('\n') => Ok(self.line.trim_end()),
            Ok(_) => Err(ClientError::Ended),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Err(ClientError::Ended),
            Err(error) => Err(ClientError::Io { path: self.path.clone(), error }),
        }
    }
}

/// Runs a command's future to its end and makes an exit code of it.
pub(super) fn run(
    command: impl Future<Output = Result<bool, ClientError>>,
) -> std::process::ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => Err(ClientError::Io { path: PathBuf::from("runtime"), error }),
    };
    match done {
        Ok(yes) => u8::from(!yes).into(),
        Err(e) if e.is_broken_pipe() => 0.into(),
        Err(e) => {
            eprintln!("enforcer: {e}");
            1.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::agent::api::StatusRequest;

    #[tokio::test]
    async fn without_an_agent_one_sentence_says_so() {
        let dir = TempDir::new().unwrap();
        let request = Request::Status(StatusRequest::default());
        let error = Client::ask(dir.path(), &request).await.unwrap_err().to_string();
        assert!(
            error.starts_with("no agent is running on this node (nothing answers at "),
            "{error}"
        );
        assert!(error.ends_with("start it with `enforcer agent`"), "{error}");
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET_NAME)).unwrap());
        let error = Client::ask(dir.path(), &request).await.unwrap_err();
        assert!(matches!(error, ClientError::NoAgent { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_refusal_is_read_even_if_the_agent_did_not_listen() {
        let dir = TempDir::new().unwrap();
        let listener = tokio::net::UnixListener::bind(dir.path().join(SOCKET_NAME)).unwrap();
        let refuse = async {
            let mut stream = listener.accept().await.unwrap().0;
            stream.write_all(b"{\"error\":\"too many clients\"}\n").await.unwrap();
        };
        let path = dir.path().join(SOCKET_NAME);
        let (early, ()) = tokio::join!(UnixStream::connect(&path), refuse);
        let (read, mut write) = early.unwrap().into_split();
        assert!(write.write_all(b"x").await.is_err(), "the agent has closed");
        let mut client =
            Client { path, read: BufReader::new(read), _write: write, line: String::new() };
        assert_eq!(client.next().await.unwrap(), "{\"error\":\"too many clients\"}");
    }

    #[tokio::test]
    async fn an_agent_that_dies_in_between_is_noticed() {
        let dir = TempDir::new().unwrap();
        let listener = tokio::net::UnixListener::bind(dir.path().join(SOCKET_NAME)).unwrap();
        let request = Request::Status(StatusRequest::default());
        let mut client = Client::ask(dir.path(), &request).await.unwrap();
        drop(listener.accept().await.unwrap());
        assert!(matches!(client.next().await, Err(ClientError::Ended)));
    }
}
