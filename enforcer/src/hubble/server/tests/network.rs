//! TCP: certificates on both sides, and files that change.

use std::{fs, path::Path};

use enforcer_hubble::observer::ServerStatusRequest;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    },
};
use tonic::transport::{Endpoint, Uri};
use tower::service_fn;

use super::*;

/// The name that a relay would check.
const NAME: &str = "w1.default.hubble-grpc.cilium.io";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, in PEM.
fn certificate(authority: &Authority, until: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn write(dir: &Path, authority: &Authority, until: i32) -> TlsFiles {
    let files = TlsFiles {
        certificate: dir.join("tls.crt"),
        key: dir.join("tls.key"),
        client_ca: dir.join("ca.crt"),
    };
    let (certificate, key) = certificate(authority, until);
    fs::write(&files.certificate, certificate).unwrap();
    fs::write(&files.key, key).unwrap();
    fs::write(&files.client_ca, authority.pem()).unwrap();
    files
}

/// Asks for the status over TLS, with a certificate if there is one.
async fn ask(
    address: SocketAddr,
    trusted: &Authority,
    shown: Option<&(String, String)>,
) -> Result<String, String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let connect = service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from(NAME).unwrap();
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    });
    let said = |error: &dyn std::error::Error| error_chain(error);
    let endpoint = Endpoint::from_static("http://w1").timeout(Duration::from_secs(20));
    let channel = endpoint.connect_with_connector(connect).await.map_err(|error| said(&error))?;
    let mut client = ObserverClient::new(channel);
    let status = client.server_status(ServerStatusRequest {}).await;
    status.map(|status| status.into_inner().version).map_err(|error| said(&error))
}

fn lab(files: &TlsFiles) -> (Lab, SocketAddr) {
    let any = "127.0.0.1:0".parse().unwrap();
    let lab = Lab::listening(10, Some((any, Security::MutualTls(files.clone()))));
    let address = lab.server.as_ref().unwrap().tcp().unwrap();
    (lab, address)
}

fn problems(lab: &Lab) -> Vec<String> {
    lab.server.as_ref().unwrap().board().state().problems
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_authority_are_served() {
    let dir = TempDir::new().unwrap();
    let ours = authority();
    let files = write(dir.path(), &ours, 2100);
    let (lab, address) = lab(&files);
    assert_eq!(problems(&lab), Vec::<String>::new());
    let good = certificate(&ours, 2100);
    assert!(ask(address, &ours, Some(&good)).await.unwrap().starts_with("enforcer v"));
    ask(address, &ours, None).await.unwrap_err();
    let strange = certificate(&authority(), 2100);
    ask(address, &ours, Some(&strange)).await.unwrap_err();
    let expired = certificate(&ours, 2001);
    // With TLS 1.3 it may be hung up on before it has read why.
    ask(address, &ours, Some(&expired)).await.unwrap_err();
    // Without TLS there is no answer either.
    let plain = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let plain = plain.timeout(Duration::from_secs(20)).connect_lazy();
    ObserverClient::new(plain).server_status(ServerStatusRequest {}).await.unwrap_err();
    assert!(ask(address, &ours, Some(&good)).await.is_ok());
}

#[tokio::test]
async fn files_that_are_replaced_count_at_once_and_bad_ones_do_not() {
    let dir = TempDir::new().unwrap();
    let (first, second) = (authority(), authority());
    let files = write(dir.path(), &first, 2100);
    let (_lab, address) = lab(&files);
    let (of_first, of_second) = (certificate(&first, 2100), certificate(&second, 2100));
    ask(address, &first, Some(&of_first)).await.unwrap();
    write(dir.path(), &second, 2100);
    ask(address, &second, Some(&of_second)).await.unwrap();
    ask(address, &first, Some(&of_first)).await.unwrap_err();
    // A replacement that cannot be used leaves the one before in use.
    fs::write(&files.key, "nonsense").unwrap();
    ask(address, &second, Some(&of_second)).await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_certificates_is_said() {
    let dir = TempDir::new().unwrap();
    let ours = authority();
    let expired = write(dir.path(), &ours, 2001);
    let (of_expired, address) = lab(&expired);
    let [problem] = &problems(&of_expired)[..] else { panic!("{:?}", problems(&of_expired)) };
    assert!(problem.contains("has expired (2001-01-01T00:00:00Z)"), "{problem}");
    let error = ask(address, &ours, Some(&certificate(&ours, 2100))).await.unwrap_err();
    assert!(error.to_lowercase().contains("expired"), "{error}");
    for (file, content, part) in [
        ("tls.key", "nonsense", "tls.key has no private key in PEM"),
        ("tls.crt", "nonsense", "tls.crt has no certificate in PEM"),
        ("ca.crt", "", "ca.crt has no certificate in PEM"),
    ] {
        let files = write(dir.path(), &ours, 2100);
        fs::write(dir.path().join(file), content).unwrap();
        let (of_broken, address) = lab(&files);
        let [problem] = &problems(&of_broken)[..] else { panic!("{file}") };
        assert!(problem.contains(part), "{problem}");
        assert!(problem.ends_with("not served on the network until it can be used"), "{problem}");
        ask(address, &ours, Some(&certificate(&ours, 2100))).await.unwrap_err();
        // Who is on the node is served meanwhile.
        of_broken.push(0..1);
        assert_eq!(times(&of_broken, GetFlowsRequest::default()).await, [0]);
    }
    // A key that belongs to another certificate.
    let files = write(dir.path(), &ours, 2100);
    fs::write(&files.key, certificate(&ours, 2100).1).unwrap();
    let (of_mixed, _) = lab(&files);
    assert!(
        problems(&of_mixed)[0].contains("cannot be used together"),
        "{:?}",
        problems(&of_mixed)
    );
    fs::remove_file(&files.key).unwrap();
    let (of_missing, _) = lab(&files);
    assert!(problems(&of_missing)[0].contains("cannot read"), "{:?}", problems(&of_missing));
}

#[tokio::test]
async fn a_port_that_is_taken_is_said() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let dir = TempDir::new().unwrap();
    let config =
        Config { socket: dir.path().join(SOCKET_NAME), tcp: Some((address, Security::Insecure)) };
    let observed = Observed {
        origin: Origin::new("default", "w1"),
        flows: FlowRing::new(1),
        events: EventRing::default(),
        nodes: watch::channel(PeerNodes::from([])).1,
        lost_in_kernel: Arc::default(),
        lost_by_clients: Counter::default(),
    };
    let error = start(config, observed).unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("free?"), "{error}");
    // The socket that was opened before is gone.
    assert!(!dir.path().join(SOCKET_NAME).exists());
}
