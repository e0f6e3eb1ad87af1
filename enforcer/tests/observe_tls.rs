//! `enforcer observe` over TLS, the real command against a real server: it works with the right
//! certificates, and with any other says in one sentence what is wrong. A second or two.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use enforcer::{
    flow::{decode::RawFlow, directory::Directory, event::enrich, pending::Told, ring::FlowRing},
    hubble::{
        events::EventRing,
        origin::Origin,
        peers::PeerNodes,
        server::{self, Config, Observed, Running, Security, tls::TlsFiles},
    },
};
use enforcer_common::{abi::Event, reason::Reason};
use prometheus_client::metrics::counter::Counter;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::sync::watch;

/// The name that a relay would check.
const NAME: &str = "w1.default.hubble-grpc.cilium.io";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes a certificate and its key as `NAME.crt` and `NAME.key`.
fn certificate(dir: &Path, name: &str, authority: &Authority, until: i32) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let certificate = params.signed_by(&key, authority).unwrap();
    fs::write(dir.join(format!("{name}.crt")), certificate.pem()).unwrap();
    fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

/// A server with one flow, by the certificate of this name.
fn serve(dir: &Path, name: &str) -> (Running, SocketAddr) {
    let files = TlsFiles {
        certificate: dir.join(format!("{name}.crt")),
        key: dir.join(format!("{name}.key")),
        client_ca: dir.join("ca.crt"),
    };
    let flows = FlowRing::new(4);
    let event = Event { reason: Reason::NotIsolated as u8, src_port: 4711, ..Event::default() };
    let told = Told { raw: RawFlow::from(&event), service: None };
    flows.push(enrich(told, &Directory::default(), Duration::from_secs(1)));
    let observed = Observed {
        origin: Origin::new("default", "w1"),
        flows,
        events: EventRing::default(),
        nodes: watch::channel(PeerNodes::from([])).1,
        lost_in_kernel: Arc::default(),
        lost_by_clients: Counter::default(),
    };
    let tcp = Some(("127.0.0.1:0".parse().unwrap(), Security::MutualTls(files)));
    let config = Config { socket: dir.join(format!("{name}.sock")), tcp };
    let running = server::start(config, observed).unwrap();
    let address = running.tcp().unwrap();
    (running, address)
}

/// What the command says with these files; `None` leaves the flag out.
fn observe(
    dir: &Path,
    address: SocketAddr,
    ca: Option<&str>,
    client: Option<[&str; 2]>,
    more: &[&str],
) -> Output {
    let file = |name: &str| -> PathBuf { dir.join(name) };
    let mut command = Command::new(env!("CARGO_BIN_EXE_enforcer"));
    command.args(["observe", "--last=9", "-o", "json"]).arg(format!("--server={address}"));
    if let Some(ca) = ca {
        command.arg("--tls-ca-cert-files").arg(file(ca));
    }
    if let Some([certificate, key]) = client {
        command.arg("--tls-client-cert-file").arg(file(certificate));
        command.arg("--tls-client-key-file").arg(file(key));
    }
    command.args(more).env("RUST_BACKTRACE", "1").output().unwrap()
}

#[test]
fn the_right_certificates_show_flows_and_any_other_says_what_is_wrong() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let (ours, others) = (authority(), authority());
    fs::write(dir.join("ca.crt"), ours.pem()).unwrap();
    fs::write(dir.join("other-ca.crt"), others.pem()).unwrap();
    fs::write(dir.join("nonsense.crt"), "nonsense").unwrap();
    certificate(dir, "server", &ours, 2100);
    certificate(dir, "expired-server", &ours, 2001);
    certificate(dir, "client", &ours, 2100);
    certificate(dir, "expired", &ours, 2001);
    certificate(dir, "stranger", &others, 2100);
    let (_server, address) = serve(dir, "server");
    let (_expired, expired) = serve(dir, "expired-server");

    const OURS: Option<[&str; 2]> = Some(["client.crt", "client.key"]);
    let named = format!("--tls-server-name={NAME}");
    let tls: &[&str] = &["--tls", &named];
    let shown = observe(dir, address, Some("ca.crt"), OURS, tls);
    let (out, err) = (text(&shown.stdout), text(&shown.stderr));
    assert!(shown.status.success() && err.is_empty(), "{err}");
    assert!(out.lines().count() == 1 && out.contains("default/w1"), "{out}");

    let ca = Some("ca.crt");
    for (address, ca, client, more, part) in [
        (address, None, None, &[][..], "add --tls"),
        (address, ca, None, tls, "wants a certificate of the client's"),
        (address, Some("other-ca.crt"), OURS, tls, "not from an authority that is trusted"),
        (address, Some("nonsense.crt"), OURS, tls, "nonsense.crt"),
        (address, Some("absent.crt"), OURS, tls, "cannot read"),
        (address, ca, OURS, &["--tls"], "not for '127.0.0.1'"),
        (address, ca, OURS, &["--tls", "--tls-server-name=a b"], "no name that a certificate"),
        (address, ca, Some(["expired.crt", "expired.key"]), tls, "not accept our certificate"),
        (address, ca, Some(["stranger.crt", "stranger.key"]), tls, "not accept our certificate"),
        (address, ca, Some(["client.crt", "expired.key"]), tls, "cannot be used"),
        (expired, ca, OURS, tls, "the server's certificate has expired"),
    ] {
        let refused = observe(dir, address, ca, client, more);
        let (out, err) = (text(&refused.stdout), text(&refused.stderr));
        assert_eq!(refused.status.code(), Some(1), "{part}: {out}{err}");
        assert!(out.is_empty() && err.contains(part), "{part}: {out}{err}");
        assert_eq!(err.lines().count(), 1, "a sentence, and no stack: {err}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
