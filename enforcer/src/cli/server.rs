//! The way to a Hubble server: the agent of this node by its socket, or any other.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::Engine as _;
use clap::Args;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tonic::{
    Code, Request, Status,
    metadata::MetadataValue,
    transport::{Channel, Endpoint, Uri},
};

use super::{
    tls::{self, TlsError},
    watched::{Seen, Watched, What},
    when,
};
use crate::error_chain;

/// Longest message of an answer, bytes: one flow, however many policies it names.
pub const LONGEST: usize = 4 << 20;

/// Name of the observer's socket in the agent's run directory.
const SOCKET: &str = "hubble.sock";

/// Port of a server that is named without one: a relay's.
const PORT: u16 = 4245;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket of this node.
    Unix(PathBuf),
    /// `host:port`, and whether TLS is asked for by its form.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
        /// `tls://`
        tls: bool,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "must be HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH".into();
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::Unix(path.into())) };
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let tls = match scheme {
            "tcp" | "dns" | "passthrough" => false,
            "tls" => true,
            _ => return Err(wrong()),
        };
        let rest = rest.trim_start_matches('/');
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(wrong)?)),
            None if rest.starts_with('[') => return Err(wrong()),
            // Several colons without brackets are an IPv6 address.
            None => match rest.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') => (host, Some(port)),
                _ => (rest, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().ok().ok_or_else(|| format!("'{port}' is no port"))?,
            None => PORT,
        };
        if host.is_empty() || host.contains('/') {
            return Err(wrong());
        }
        Ok(Self::Tcp { host: host.to_owned(), port, tls })
    }
}

/// Who is asked, and how.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// A Hubble server: HOST:PORT, tls://HOST:PORT or unix:///PATH [default: this node's agent]
    #[arg(long, value_name = "ADDRESS", env = "ENFORCER_SERVER")]
    pub server: Option<Address>,
    /// Where the agent's socket is
    #[arg(long, value_name = "DIR", env = "ENFORCER_RUN_DIR", default_value = "/run/enforcer")]
    pub run_dir: PathBuf,
    /// Longest wait for a connection
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub timeout: Duration,
    /// Longest wait for an answer, where it is one
    #[arg(long, value_name = "TIME", default_value = "12s", value_parser = duration)]
    pub request_timeout: Duration,
    /// How the server is known to be who it is.
    #[command(flatten)]
    pub tls: tls::TlsArgs,
    /// Name for basic authentication
    #[arg(long, value_name = "NAME", requires = "basic_auth_password")]
    pub basic_auth_username: Option<String>,
    /// Password for it
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "ENFORCER_BASIC_AUTH_PASSWORD",
        hide_env_values = true
    )]
    pub basic_auth_password: Option<String>,
    /// Not here: `kubectl port-forward` does it
    #[arg(short = 'P', long, hide = true, value_parser = no_port_forward, num_args = 0..=1,
        require_equals = true, default_missing_value = "true")]
    port_forward: Option<String>,
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    let ns = when::duration(text).and_then(|ns| u64::try_from(ns).ok()).filter(|ns| *ns > 0);
    ns.map(Duration::from_nanos).ok_or("must be a time such as 5s or 1m")
}

fn no_port_forward(_: &str) -> Result<String, &'static str> {
    Err("is not done here; run `kubectl port-forward service/hubble-relay 4245:80` beside it, in \
         the relay's namespace, and use --server localhost:4245")
}

/// Why a server gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Nobody listens on the agent's socket.
    #[error(
        "no agent is running on this node (nothing answers at {}); start it with `enforcer agent`, \
         or name a server with --server",
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
    /// Nobody answers there.
    #[error("cannot connect to {address}; is a Hubble server there, and the address right?")]
    Connect {
        /// Where.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It does not answer in time.
    #[error("{address} does not answer within {timeout:?}; --timeout allows for more")]
    Timeout {
        /// Where.
        address: String,
        /// The time.
        timeout: Duration,
    },
    /// TLS.
    #[error("{address}: {reason}")]
    Tls {
        /// Where.
        address: String,
        /// What is wrong, and what to do.
        reason: TlsError,
    },
    /// It speaks something else.
    #[error("{address} does not speak Hubble's protocol{hint}")]
    Protocol {
        /// Where.
        address: String,
        /// What may help.
        hint: &'static str,
    },
    /// It refuses what it is asked.
    #[error("{address} refuses this: {reason}")]
    Refused {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// It does not serve that.
    #[error("{address} does not serve this: {reason}")]
    NotServed {
        /// Where.
        address: String,
        /// Its words.
        reason: String,
    },
    /// It wants to know who asks.
    #[error(
        "{address} does not let this in: {reason}; use --tls-client-cert-file and \
         --tls-client-key-file, or --basic-auth-username"
    )]
    Denied {
        /// Where.
        address: String,
        /// Its words.
        reason: String,
    },
    /// It went away.
    #[error("{address} ended the connection before its answer was complete: {reason}")]
    Ended {
        /// Where.
        address: String,
        /// What was the last.
        reason: String,
    },
}

impl ServerArgs {
    /// Where the server is.
    #[must_use]
    pub fn address(&self) -> Address {
        self.server.clone().unwrap_or_else(|| Address::Unix(self.run_dir.join(SOCKET)))
    }

    /// A question, with what the server wants to know of who asks.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(name) = &self.basic_auth_username {
            let password = self.basic_auth_password.as_deref().unwrap_or_default();
            let word =
                base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
            let value = MetadataValue::try_from(format!("Basic {word}"));
            let value = value.expect("base64 has no letter that a header may not have");
            request.metadata_mut().insert("authorization", value);
        }
        request
    }

    /// A question that has one answer.
    pub fn short_request<T>(&self, message: T) -> Request<T> {
        let mut request = self.request(message);
        request.set_timeout(self.request_timeout);
        request
    }

    fn tls_hint(&self) -> &'static str {
        match self.address() {
            Address::Tcp { tls: false, .. } if !self.tls.wanted() => "; if it wants TLS, add --tls",
            _ => "",
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to a server.
#[derive(Debug)]
pub struct Connection {
    /// For questions.
    pub channel: Channel,
    /// Where it leads, for messages.
    pub name: String,
    seen: Seen,
    /// Over TLS, whether we have shown a certificate.
    tls: Option<bool>,
    hint: &'static str,
    request_timeout: Duration,
}

impl Connection {
    /// What it means that a question has no answer.
    #[must_use]
    pub fn refused(&self, status: &Status) -> ServerError {
        let address = self.name.clone();
        let reason = status.message().to_owned();
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => {
                ServerError::Refused { address, reason }
            }
            Code::Unimplemented => ServerError::NotServed { address, reason },
            Code::Unauthenticated | Code::PermissionDenied => {
                ServerError::Denied { address, reason }
            }
            Code::DeadlineExceeded => {
                ServerError::Timeout { address, timeout: self.request_timeout }
            }
            _ => match self.seen.what() {
                // With TLS 1.3 a server says only now what it thinks of a certificate.
                What::Failed(error) => {
                    ServerError::Tls { address, reason: tls::of_io(&error, &self.name) }
                }
                What::Silence if self.tls.is_some() => {
                    let shown = self.tls == Some(true);
                    ServerError::Tls { address, reason: TlsError::HungUp { shown } }
                }
                What::Strange | What::Silence => ServerError::Protocol { address, hint: self.hint },
                What::Http2 => ServerError::Ended { address, reason },
            },
        }
    }
}

/// Connects to the server.
///
/// # Errors
/// If nobody answers, or TLS fails.
pub async fn connect(args: &ServerArgs) -> Result<Connection, ServerError> {
    let address = args.address();
    let name = address.to_string();
    let opened = tokio::time::timeout(args.timeout, open(args, &address, &name)).await;
    let stream = opened
        .ok()
        .ok_or_else(|| ServerError::Timeout { address: name.clone(), timeout: args.timeout })??;
    let seen = Seen::default();
    let hint = args.tls_hint();
    let over_tls = matches!(&address, Address::Tcp { tls, .. } if *tls || args.tls.wanted());
    let shows = over_tls.then_some(args.tls.tls_client_cert_file.is_some());
    // One connection for one command: when it has ended, so has the answer.
    let stream = Arc::new(Mutex::new(Some(Watched::new(stream, seen.clone()))));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            stream.map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
        }
    });
    // The name in the URI is what the server sees as the authority.
    let endpoint = Endpoint::from_static("http://localhost");
    let endpoint = endpoint.http2_keep_alive_interval(Duration::from_secs(30));
    match endpoint.connect_with_connector(connector).await {
        Ok(channel) => {
            let request_timeout = args.request_timeout;
            Ok(Connection { channel, name, seen, tls: shows, hint, request_timeout })
        }
        Err(_) => Err(match seen.what() {
            // A server may say as late as here that it wants a certificate, or another one.
            What::Failed(error) => {
                let reason = tls::of_io(&error, &name);
                ServerError::Tls { address: name, reason }
            }
            What::Silence if shows.is_some() => {
                let shown = shows == Some(true);
                ServerError::Tls { address: name, reason: TlsError::HungUp { shown } }
            }
            What::Silence | What::Strange | What::Http2 => {
                ServerError::Protocol { address: name, hint }
            }
        }),
    }
}

async fn open(
    args: &ServerArgs,
    address: &Address,
    name: &str,
) -> Result<Box<dyn Stream>, ServerError> {
    match address {
        Address::Unix(path) => {
            let stream =
                UnixStream::connect(path).await.map_err(|error| unix_error(path, error))?;
            Ok(Box::new(stream))
        }
        Address::Tcp { host, port, tls } => {
            let failed = |source| ServerError::Connect { address: name.to_owned(), source };
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            if !tls && !args.tls.wanted() {
                return Ok(Box::new(stream));
            }
            let failed = |reason| ServerError::Tls { address: name.to_owned(), reason };
            let stream = args.tls.connect(host, stream).await.map_err(failed)?;
            Ok(Box::new(stream))
        }
    }
}

fn unix_error(path: &Path, error: io::Error) -> ServerError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ServerError::NoAgent { path },
        io::ErrorKind::PermissionDenied => ServerError::NoPermission { path },
        _ => ServerError::Connect { address: path.display().to_string(), source: error },
    }
}

/// Runs a command's future on a runtime of its own.
///
/// # Errors
/// If the system gives no runtime.
pub(super) fn block_on<T>(command: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(command))
}

/// Says what went wrong, in one line.
pub(super) fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("enforcer: {}", one_line(&error_chain(error)));
    ExitCode::FAILURE
}

/// Says what is strange, in one line.
pub(super) fn warn(what: &str) {
    eprintln!("enforcer: {}", one_line(what));
}

fn one_line(text: &str) -> String {
    super::terminal::clean(text)
}

#[cfg(test)]
mod tests;
