//! The sockets, and one task a connection, each with bounded memory and time, so that a client that
//! stalls or sends nonsense harms nobody else.

use std::{
    convert::Infallible,
    fs::{self, Permissions},
    io,
    net::{self, SocketAddr},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net as net_unix,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{MissedTickBehavior, interval},
};

use super::{Board, Config, Security, router::Router, sentence, tls::Acceptor};

/// Clients at a time, of each socket.
const MOST_CLIENTS: usize = 64;
/// Calls at a time, of each client.
const MOST_CALLS: u32 = 64;
/// Longest headers, bytes.
const LONGEST_HEADERS: u32 = 16 << 10;
/// What may wait to be sent to a client, bytes a call.
const SEND_BUFFER: usize = 256 << 10;
/// How long a client may take until its first call.
const FIRST_CALL: Duration = Duration::from_secs(10);
/// How often a client that says nothing is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long it may take to say so.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often certificates are looked at.
const LOOK_AT_FILES: Duration = Duration::from_secs(30);

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Something else answers on the socket.
    #[error(
        "cannot serve flows on {}: another process listens there; stop it, or give this agent \
         another --run-dir",
        path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// What is there is no socket.
    #[error("cannot serve flows on {}: it is there and no socket; remove it", path.display())]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refused the unix socket.
    #[error("cannot {what} {} to serve flows; the agent must be able to write there",
        path.display())]
    Unix {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system refused the TCP socket.
    #[error(
        "cannot serve flows on {address}: is --hubble-listen an address of this node, and free?"
    )]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system refused something basic.
    #[error("cannot {operation}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The sockets, listening.
#[derive(Debug)]
pub(super) struct Listeners {
    unix: Unix,
    tcp: Option<(net::TcpListener, Option<Arc<Acceptor>>)>,
}

#[derive(Debug)]
struct Unix {
    listener: net_unix::UnixListener,
    path: PathBuf,
}

impl Drop for Unix {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the socket for flows was already gone");
        }
    }
}

impl Listeners {
    /// Opens the sockets.
    pub(super) fn open(config: &Config, board: &Board) -> Result<Self, ListenError> {
        let unix = open_unix(&config.socket)?;
        let tcp = match &config.tcp {
            None => None,
            Some((address, security)) => {
                let refused = |source| ListenError::Tcp { address: *address, source };
                let listener = net::TcpListener::bind(address).map_err(refused)?;
                listener.set_nonblocking(true).map_err(refused)?;
                let acceptor = match security {
                    Security::Insecure => None,
                    Security::MutualTls(files) => {
                        let acceptor = Acceptor::new(files.clone());
                        board.set(acceptor.look());
                        Some(Arc::new(acceptor))
                    }
                };
                Some((listener, acceptor))
            }
        };
        Ok(Self { unix, tcp })
    }

    /// The address on TCP, where there is one.
    pub(super) fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.0.local_addr().ok()
    }

    /// Serves until dropped.
    ///
    /// # Errors
    /// If the runtime cannot wait for the sockets.
    pub(super) async fn serve(self, router: Router, board: Board) -> io::Result<()> {
        let Self { unix, tcp } = self;
        // The guard of the path stays here.
        let listener = UnixListener::from_std(unix.listener.try_clone()?)?;
        let local = accept_unix(&listener, router.clone());
        match tcp {
            None => local.await,
            Some((listener, acceptor)) => {
                let listener = TcpListener::from_std(listener)?;
                tokio::join!(
                    local,
                    accept_tcp(&listener, acceptor.clone(), router),
                    look_at_files(acceptor, board)
                );
            }
        }
        Ok(())
    }
}

fn open_unix(path: &Path) -> Result<Unix, ListenError> {
    let failed = |what| {
        let path = path.to_owned();
        move |source| ListenError::Unix { what, path, source }
    };
    if net_unix::UnixStream::connect(path).is_ok() {
        return Err(ListenError::InUse { path: path.to_owned() });
    }
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(ListenError::NoSocket { path: path.to_owned() });
        }
        // A dead agent's.
        Ok(_) => fs::remove_file(path).map_err(failed("remove the old socket"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look at")(error)),
    }
    let listener = net_unix::UnixListener::bind(path).map_err(failed("listen on"))?;
    let unix = Unix { listener, path: path.to_owned() };
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed("set the mode of"))?;
    unix.listener.set_nonblocking(true).map_err(failed("listen on"))?;
    Ok(unix)
}

async fn accept_unix(listener: &UnixListener, router: Router) {
    let slots = Arc::new(Semaphore::new(MOST_CLIENTS));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Some(slot) = slot(&slots) {
                    tokio::spawn(serve(stream, router.clone(), slot));
                }
            }
            Err(error) => cannot_accept(&error).await,
        }
    }
}

async fn accept_tcp(listener: &TcpListener, acceptor: Option<Arc<Acceptor>>, router: Router) {
    let slots = Arc::new(Semaphore::new(MOST_CLIENTS));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                cannot_accept(&error).await;
                continue;
            }
        };
        let Some(slot) = slot(&slots) else { continue };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "flows may come late to a client");
        }
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            match acceptor {
                None => serve(stream, router, slot).await,
                Some(acceptor) => {
                    if let Some(stream) = acceptor.accept(stream, peer).await {
                        serve(stream, router, slot).await;
                    }
                }
            }
        });
    }
}

/// A place for a client; none if there are too many.
fn slot(slots: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let slot = Arc::clone(slots).try_acquire_owned().ok();
    if slot.is_none() {
        tracing::warn!(most = MOST_CLIENTS, "too many clients for flows; one was refused");
    }
    slot
}

async fn cannot_accept(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a client for flows");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Tells, from time to time, what is wrong with the certificates.
async fn look_at_files(acceptor: Option<Arc<Acceptor>>, board: Board) {
    let Some(acceptor) = acceptor else { return };
    let mut look = interval(LOOK_AT_FILES);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        board.set(acceptor.look());
    }
}

/// Serves one connection until either side ends it.
async fn serve<S>(stream: S, router: Router, slot: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let called = Arc::new(AtomicBool::new(false));
    let service = service_fn({
        let called = Arc::clone(&called);
        move |request| {
            called.store(true, Ordering::Relaxed);
            let router = router.clone();
            async move { Ok::<_, Infallible>(router.call(request).await) }
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_CALLS)
        .max_header_list_size(LONGEST_HEADERS)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = tokio::time::sleep(FIRST_CALL) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        // It came to occupy a place.
        None if !called.load(Ordering::Relaxed) => Ok(()),
        None => connection.await,
    };
    if let Err(error) = ended {
        tracing::debug!(error = sentence(&error), "a client of the observer went away");
    }
    drop(slot);
}
