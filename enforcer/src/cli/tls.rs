//! TLS of the commands that ask a server over the network.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError,
    RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How the server is known to be who it is.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Server")]
pub struct TlsArgs {
    /// Use TLS
    #[arg(
        long, num_args = 0..=1, require_equals = true, value_name = "BOOL",
        hide_possible_values = true,
        default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set
    )]
    pub tls: bool,
    /// Do not check who the server is: anybody in between can read and change what it says
    #[arg(long)]
    pub tls_allow_insecure: bool,
    /// Certificate authorities that the server's certificate may be from [default: the system's]
    #[arg(long, value_name = "FILE", value_delimiter = ',', env = "ENFORCER_TLS_CA_CERT_FILES")]
    pub tls_ca_cert_files: Vec<PathBuf>,
    /// Our certificate
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_client_key_file",
        env = "ENFORCER_TLS_CLIENT_CERT_FILE"
    )]
    pub tls_client_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_client_cert_file",
        env = "ENFORCER_TLS_CLIENT_KEY_FILE"
    )]
    pub tls_client_key_file: Option<PathBuf>,
    /// Name that the server's certificate must be for [default: the server's]
    #[arg(long, value_name = "NAME")]
    pub tls_server_name: Option<String>,
}

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {} ({what}): {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why not.
        source: pem::Error,
    },
    /// Nobody is trusted.
    #[error("no certificate authority is trusted; name one with --tls-ca-cert-files")]
    NoAuthorities,
    /// Certificate and key do not go together.
    #[error("--tls-client-cert-file and --tls-client-key-file cannot be used: {0}")]
    Pair(RustlsError),
    /// A name that no certificate can be for.
    #[error("'{0}' is no name that a certificate can be for; give one with --tls-server-name")]
    Name(String),
    /// The server's certificate is another's.
    #[error(
        "the server's certificate is not from an authority that is trusted; name its authority with \
         --tls-ca-cert-files"
    )]
    Issuer,
    /// The certificate is for another name.
    #[error(
        "the server's certificate is not for '{0}'; give the name that it is for with \
         --tls-server-name"
    )]
    OtherName(String),
    /// The certificate's time is over, or not yet come.
    #[error("the server's certificate {0}; it must be renewed, or a clock is wrong")]
    Time(&'static str),
    /// The server wants a certificate of ours.
    #[error(
        "the server wants a certificate of the client's: use --tls-client-cert-file and \
         --tls-client-key-file"
    )]
    ClientCertificate,
    /// The server does not accept ours.
    #[error("the server does not accept our certificate ({0}); see --tls-client-cert-file")]
    ClientRefused(&'static str),
    /// The server hung up on us, and what it said of it did not come through.
    #[error(
        "the server hung up after TLS was agreed, most likely because {}; see --tls-client-cert-file",
        probably(*shown)
    )]
    HungUp {
        /// We have shown a certificate.
        shown: bool,
    },
    /// The server speaks something else.
    #[error("the server does not speak TLS; leave --tls out, or tls:// in its address")]
    NoTls,
    /// Something else.
    #[error("TLS failed: {0}")]
    Other(String),
}

/// Why a server hangs up right after the handshake.
const fn probably(shown: bool) -> &'static str {
    if shown {
        "it does not accept our certificate"
    } else {
        "it wants a certificate of the client's"
    }
}

impl TlsArgs {
    /// Whether a flag asks for TLS.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.tls || self.tls_allow_insecure || self.tls_client_cert_file.is_some()
    }

    /// TLS over a connection.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, TlsError> {
        let name = self.tls_server_name.as_deref().unwrap_or(host).to_owned();
        let Ok(server) = ServerName::try_from(name.clone()) else {
            return Err(TlsError::Name(name));
        };
        let connector = TlsConnector::from(Arc::new(self.config()?));
        connector.connect(server, stream).await.map_err(|error| of_io(&error, &name))
    }

    fn config(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Other(error.to_string()))?;
        let builder = if self.tls_allow_insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        } else {
            builder.with_root_certificates(self.authorities()?)
        };
        let mut config =
            match (&self.tls_client_cert_file, &self.tls_client_key_file) {
                (Some(certificate), Some(key)) => {
                    let chain = certificates(certificate, "the client's certificate")?;
                    let key = PrivateKeyDer::from_pem_file(key).map_err(|source| {
                        TlsError::File { path: key.clone(), what: "the client's key", source }
                    })?;
                    builder.with_client_auth_cert(chain, key).map_err(TlsError::Pair)?
                }
                _ => builder.with_no_client_auth(),
            };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    fn authorities(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        if self.tls_ca_cert_files.is_empty() {
            // One that cannot be read is one that is not trusted.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        for path in &self.tls_ca_cert_files {
            let read = certificates(path, "certificate authorities")?;
            roots.add_parsable_certificates(read);
        }
        if roots.is_empty() { Err(TlsError::NoAuthorities) } else { Ok(roots) }
    }
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { path: path.to_owned(), what, source };
    let read = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let read: Vec<_> = read.collect::<Result<_, _>>().map_err(failed)?;
    if read.is_empty() { Err(failed(pem::Error::NoItemsFound)) } else { Ok(read) }
}

/// What a TLS error of a connection means.
pub(super) fn of_io(error: &io::Error, name: &str) -> TlsError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>());
    match inner {
        Some(error) => of_rustls(error, name),
        None if error.kind() == io::ErrorKind::UnexpectedEof => TlsError::NoTls,
        None => TlsError::Other(error.to_string()),
    }
}

fn of_rustls(error: &RustlsError, name: &str) -> TlsError {
    match error {
        RustlsError::InvalidCertificate(wrong) => match wrong {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsError::Issuer,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsError::OtherName(name.to_owned())
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                TlsError::Time("has expired")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                TlsError::Time("is not valid yet")
            }
            other => TlsError::Other(other.to_string()),
        },
        RustlsError::InvalidMessage(_) => TlsError::NoTls,
        RustlsError::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure => {
                TlsError::ClientCertificate
            }
            AlertDescription::UnknownCA | AlertDescription::DecryptError => {
                TlsError::ClientRefused("it does not know its authority")
            }
            AlertDescription::CertificateExpired => TlsError::ClientRefused("it has expired"),
            AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::UnsupportedCertificate => TlsError::ClientRefused("it is not fit"),
            other => TlsError::Other(format!("the server says {other:?}")),
        },
        other => TlsError::Other(other.to_string()),
    }
}

/// Takes any server for the right one, as --tls-allow-insecure asks.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
