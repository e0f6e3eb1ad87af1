//! TLS in which both sides show certificates, from files that may be replaced at any time.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
        server::{VerifierBuilderError, WebPkiClientVerifier},
    },
    server::TlsStream,
};

use super::{certificate, now, sentence};
use crate::hubble::convert::timestamp;

/// How long a client may take to show its certificate.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How often it is told that a client was refused.
const BETWEEN_REFUSALS: Duration = Duration::from_secs(10);

/// Where certificates are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate, and those between it and a root.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who may sign the certificates of clients.
    pub client_ca: PathBuf,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {} for TLS", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file has not in it what it should.
    #[error("{} has no {wanted} in PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should have.
        wanted: &'static str,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// The certificate of the authority for clients cannot be one.
    #[error("{} cannot vouch for clients", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: VerifierBuilderError,
    },
    /// Certificate and key do not go together, or are of a kind that is not supported.
    #[error("{} and {} cannot be used together", certificate.display(), key.display())]
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
}

/// What a file was when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

fn version(path: &Path) -> Option<Version> {
    let known = fs::metadata(path).ok()?;
    let changed = (known.mtime(), known.mtime_nsec());
    Some(Version { inode: known.ino(), size: known.size(), changed })
}

/// What is in the files.
#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// Until when our certificate is good, ns since the epoch; `None` if that cannot be read.
    until: Option<i64>,
}

#[derive(Debug, Default)]
struct State {
    read: Option<[Option<Version>; 3]>,
    /// The last that could be used.
    loaded: Option<Loaded>,
    failure: Option<String>,
    refused: Option<Instant>,
}

/// Makes TLS of connections.
#[derive(Debug)]
pub(super) struct Acceptor {
    files: TlsFiles,
    state: Mutex<State>,
}

impl Acceptor {
    pub(super) fn new(files: TlsFiles) -> Self {
        Self { files, state: Mutex::default() }
    }

    /// Reads the files if they have changed; says in sentences what is wrong.
    pub(super) fn look(&self) -> Vec<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut state);
        let mut problems = Vec::new();
        if let Some(failure) = &state.failure {
            let still = match state.loaded {
                Some(_) => "the certificate that was there before is still in use",
                None => "flows are not served on the network until it can be used",
            };
            problems.push(format!("{failure}; {still}"));
        }
        let until = state.loaded.as_ref().and_then(|loaded| loaded.until);
        if let Some(until) = until.filter(|until| *until <= now()) {
            let certificate = self.files.certificate.display();
            let until = timestamp(until);
            problems.push(format!(
                "the certificate {certificate} has expired ({until}): clients will refuse it; \
                 replace the file, it is read again"
            ));
        }
        problems
    }

    fn refresh(&self, state: &mut State) {
        let TlsFiles { certificate, key, client_ca } = &self.files;
        // Before the files are read: what changes meanwhile is read again.
        let versions = [certificate, key, client_ca].map(|path| version(path));
        if state.read == Some(versions) {
            return;
        }
        state.read = Some(versions);
        match load(&self.files) {
            Ok(loaded) => {
                state.loaded = Some(loaded);
                state.failure = None;
            }
            Err(error) => state.failure = Some(sentence(&error)),
        }
    }

    /// The connection, encrypted, of a client that has shown a certificate; `None` if it has not.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Option<TlsStream<TcpStream>> {
        let config = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            self.refresh(&mut state);
            Arc::clone(&state.loaded.as_ref()?.config)
        };
        let reason = match timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => sentence(&error),
            Err(_late) => "it took too long".to_owned(),
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever scans ports must not fill the log.
        if state.refused.is_none_or(|refused| refused.elapsed() >= BETWEEN_REFUSALS) {
            state.refused = Some(Instant::now());
            tracing::info!(%peer, reason, "a client for flows was refused");
        }
        None
    }
}

fn load(files: &TlsFiles) -> Result<Loaded, TlsError> {
    let TlsFiles { certificate, key, client_ca } = files;
    let chain = certificates(certificate)?;
    let until = chain.first().and_then(|first| certificate::not_after(first));
    let text = read(key)?;
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|source| TlsError::Pem {
        path: key.clone(),
        wanted: "private key",
        source,
    })?;
    let authority = |source| TlsError::Authority { path: client_ca.clone(), source };
    let pair =
        |source| TlsError::Pair { certificate: certificate.clone(), key: key.clone(), source };
    let mut roots = RootCertStore::empty();
    let (_used, _ignored) = roots.add_parsable_certificates(certificates(client_ca)?);
    let provider: Arc<CryptoProvider> = ring::default_provider().into();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
        .build()
        .map_err(authority)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, private)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Loaded { config: Arc::new(config), until })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem { path: path.to_owned(), wanted: "certificate", source };
    let text = read(path)?;
    let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(failed)?;
    if chain.is_empty() {
        return Err(failed(pem::Error::NoItemsFound));
    }
    Ok(chain)
}
