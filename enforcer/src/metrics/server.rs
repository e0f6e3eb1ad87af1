//! The HTTP server: `/metrics`, `/healthz` and `/readyz`.
//!
//! A connection serves one request and has ten seconds for all of it, so a client that is slow,
//! silent or hostile holds a task and a few KiB for that long at most. When all places are taken
//! the oldest connection makes room: whoever keeps connections open cannot keep a probe out.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    future::Future,
    io,
    net::{AddrParseError, SocketAddr},
    str::FromStr,
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{Metrics, snapshot::Snapshot, text::Format};

/// Connections at a time.
pub(super) const MOST_CLIENTS: usize = 32;
/// Connections that the kernel keeps for us before they are accepted.
const BACKLOG: u32 = 64;
/// How long a client may take for its request's header.
pub(super) const HEADER_TIME: Duration = Duration::from_secs(5);
/// How long a connection may last.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// How long the owner may take to answer: less than a scraper's usual ten seconds.
const SNAPSHOT_TIME: Duration = Duration::from_secs(5);
/// The least that the library takes, and several times a scraper's header.
const HEADER_BYTES: usize = 8 << 10;
/// Pause after a connection could not be accepted: the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PLAIN: &str = "text/plain; charset=utf-8";

/// Where metrics are served: the value of `--metrics-address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    /// Nowhere.
    Off,
    /// At an address and port.
    At(SocketAddr),
}

impl MetricsAddress {
    /// The default: on loopback, because the numbers say what is in force on the node, and with a
    /// port outside of the exporters' list (9100 to 9999), all of which is taken.
    pub const DEFAULT: &'static str = "127.0.0.1:10465";
}

impl FromStr for MetricsAddress {
    type Err = MetricsAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "" => Ok(Self::Off),
            text => text
                .parse()
                .map(Self::At)
                .map_err(|source| MetricsAddressError { text: text.to_owned(), source }),
        }
    }
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => Ok(()),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// An address that is none.
#[derive(Debug, thiserror::Error)]
#[error(
    "{text:?} is not ADDRESS:PORT; write for example {} or [::]:10465, or nothing to turn metrics \
     off",
    MetricsAddress::DEFAULT
)]
pub struct MetricsAddressError {
    text: String,
    #[source]
    source: AddrParseError,
}

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The address cannot be had.
    #[error(
        "cannot serve metrics at {address}; give --metrics-address an address of this node with a \
         free port, or nothing to turn metrics off"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Who answers a scrape: the owner of the state.
pub trait Scraped: Clone + Send + Sync + 'static {
    /// The numbers of this moment; `None` if the owner has gone. Dropped when it takes too long.
    fn snapshot(&self) -> impl Future<Output = Option<Snapshot>> + Send;
}

/// The server, listening.
#[derive(Debug)]
pub struct MetricsServer {
    listener: TcpListener,
}

impl MetricsServer {
    /// Listens at `address`; to be called within a tokio runtime. Another agent of the same user
    /// may listen there, too, so that one can take over from the other without a gap; the kernel
    /// then gives a connection to either. A process that is not root can never join.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn bind(address: SocketAddr) -> Result<Self, MetricsError> {
        let listen = || {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            socket.set_reuseaddr(true)?;
            socket.set_reuseport(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        };
        match listen() {
            Ok(listener) => Ok(Self { listener }),
            Err(source) => Err(MetricsError::Bind { address, source }),
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped.
    pub async fn serve(self, metrics: Metrics, scraped: impl Scraped) {
        let mut tasks = JoinSet::new();
        let mut clients: VecDeque<AbortHandle> = VecDeque::new();
        let mut failing = false;
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if !failing {
                        warn!(%error, "cannot accept a connection to the metrics; trying again");
                    }
                    failing = true;
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            failing = false;
            while tasks.try_join_next().is_some() {}
            clients.retain(|client| !client.is_finished());
            if clients.len() >= MOST_CLIENTS
                && let Some(oldest) = clients.pop_front()
            {
                oldest.abort();
            }
            clients.push_back(tasks.spawn(client(stream, metrics.clone(), scraped.clone())));
        }
    }
}

/// Serves one connection.
async fn client(stream: TcpStream, metrics: Metrics, scraped: impl Scraped) {
    let service = service_fn(|request: Request<Incoming>| {
        let (metrics, scraped) = (&metrics, &scraped);
        async move { Ok::<_, Infallible>(answer(&request, metrics, scraped).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a client of the metrics went wrong"),
        Err(_elapsed) => debug!("a client of the metrics took too long"),
    }
}

async fn answer(
    request: &Request<Incoming>,
    metrics: &Metrics,
    scraped: &impl Scraped,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD work here");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => {
            let accept: Vec<&str> =
                request.headers().get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
            let format = Format::accepted(&accept.join(","));
            let snapshot = timeout(SNAPSHOT_TIME, scraped.snapshot()).await.ok().flatten();
            match metrics.render(snapshot, format) {
                Ok(text) => response(StatusCode::OK, format.content_type(), text),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
            }
        }
        "/healthz" => health(metrics.health.alive(Instant::now())),
        "/readyz" => health(metrics.health.ready()),
        _ => plain(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz"),
    }
}

fn health(state: Result<(), String>) -> Response<Full<Bytes>> {
    match state {
        Ok(()) => plain(StatusCode::OK, "ok"),
        Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    response(status, PLAIN, format!("{text}\n"))
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
