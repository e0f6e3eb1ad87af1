//! The agent's socket: one task a client, each with bounded memory and time, so that a client that
//! stalls or sends nonsense harms nobody else.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    future::Future,
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Semaphore,
    time::timeout,
};

use super::api::{Reply, Request, SOCKET_NAME, StatusReply, StatusRequest};

/// Name of the lock in the run directory.
const LOCK_NAME: &str = "enforcer.lock";
/// Clients at a time.
const MOST_CLIENTS: usize = 64;
/// Longest request, bytes.
const LONGEST_REQUEST: u64 = 64 << 10;
/// How long a client may take to send its request.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// How long a client may leave its answer lying.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// What the agent gives to the socket.
pub trait Service: Clone + Send + Sync + 'static {
    /// Answers a status request, after the wait that it asks for. Dropped when the client goes.
    fn status(&self, request: StatusRequest) -> impl Future<Output = StatusReply> + Send;
    /// Tells the owner of the state that another agent is ready to take its place.
    fn give_way(&self) -> impl Future<Output = ()> + Send;
}

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent has it.
    #[error(
        "another agent is running on this node (it holds {}); stop it first, or give this one \
         another --run-dir",
        path.display()
    )]
    AnotherAgent {
        /// What it holds.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {what} {}: {error}; the agent needs a run directory that root can write to",
        path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The node's lock: who holds it looks after the node. The kernel lets go of it when the process
/// dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock in `run_dir`, which is made if it is not there.
    ///
    /// # Errors
    /// If an agent has it or the system refuses.
    pub fn take(run_dir: &Path) -> Result<Self, SocketError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(run_dir)
            .map_err(failed("make the directory", run_dir))?;
        fs::set_permissions(run_dir, Permissions::from_mode(0o700))
            .map_err(failed("set the mode of", run_dir))?;
        let path = run_dir.join(LOCK_NAME);
        let file = open_lock(&path).map_err(failed("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(SocketError::AnotherAgent { path }),
            Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
        }
    }

    /// Whether nobody has the lock in `run_dir` at this moment.
    #[must_use]
    pub fn is_free(run_dir: &Path) -> bool {
        open_lock(&run_dir.join(LOCK_NAME)).is_ok_and(|lock| lock.try_lock().is_ok())
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError + use<> {
    let path = path.to_owned();
    move |error| SocketError::Io { what, path, error }
}

/// The socket, listening.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Held for as long as the agent lives.
    _lock: Lock,
}

impl Server {
    /// Takes the socket in `run_dir`, which is made if it is not there. To be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// If another agent has it or the system refuses.
    pub fn bind(run_dir: &Path) -> Result<Self, SocketError> {
        let lock = Lock::take(run_dir)?;
        let path = run_dir.join(SOCKET_NAME);
        // With the lock ours, a socket that still answers belongs to something without the lock.
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(SocketError::AnotherAgent { path });
        }
        match fs::remove_file(&path) {
            Ok(()) => tracing::debug!(path = %path.display(), "removed a dead agent's socket"),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("remove the old socket", &path)(error)),
        }
        let listener = UnixListener::bind(&path).map_err(failed("listen on", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))
            .map_err(failed("set the mode of", &path))?;
        Ok(Self { listener, path, _lock: lock })
    }

    /// Serves until dropped.
    pub async fn serve<S: Service>(self, service: S) {
        let slots = Arc::new(Semaphore::new(MOST_CLIENTS));
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                        tracing::warn!(most = MOST_CLIENTS, "too many clients; one was refused");
                        // Best effort: a new socket's buffer takes it.
                        let said = stream.try_write(b"{\"error\":\"too many clients\"}\n");
                        tracing::trace!(said = said.is_ok(), "refused");
                        continue;
                    };
                    let service = service.clone();
                    tokio::spawn(async move {
                        if let Err(error) = client(stream, &service).await {
                            tracing::debug!(%error, "a client of the socket went away");
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the socket was already gone");
        }
    }
}

async fn client<S: Service>(stream: UnixStream, service: &S) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    let mut bounded = (&mut read).take(LONGEST_REQUEST);
    match timeout(REQUEST_TIME, bounded.read_until(b'\n', &mut line)).await {
        Ok(Ok(0)) => return Ok(()),
        Ok(read) => drop(read?),
        Err(_) => return send(&mut write, &Reply::Error("no request came".into())).await,
    }
    let request = match serde_json::from_slice(&line) {
        Ok(request) => request,
        Err(e) => {
            let reason = format!("the request is not understood: {e}");
            return send(&mut write, &Reply::Error(reason)).await;
        }
    };
    match request {
        Request::Status(request) => {
            let reply = tokio::select! {
                reply = service.status(request) => reply,
                () = gone(&mut read) => return Ok(()),
            };
            send(&mut write, &Reply::Status(Box::new(reply))).await
        }
        Request::GiveWay {} => {
            send(&mut write, &Reply::GivingWay {}).await?;
            service.give_way().await;
            Ok(())
        }
    }
}

/// Ends when the client closes its side, or sends what it has no business to send.
async fn gone(read: &mut BufReader<OwnedReadHalf>) {
    let mut more = [0];
    if let Err(error) = read.read(&mut more).await {
        tracing::trace!(%error, "client reset");
    }
}

async fn send(write: &mut OwnedWriteHalf, reply: &impl Serialize) -> io::Result<()> {
    let mut bytes = Vec::new();
    line(&mut bytes, reply)?;
    send_bytes(write, &bytes).await
}

fn line(bytes: &mut Vec<u8>, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *bytes, value)?;
    bytes.push(b'\n');
    Ok(())
}

async fn send_bytes(write: &mut OwnedWriteHalf, bytes: &[u8]) -> io::Result<()> {
    match timeout(WRITE_TIME, write.write_all(bytes)).await {
        Ok(written) => written,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")),
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
