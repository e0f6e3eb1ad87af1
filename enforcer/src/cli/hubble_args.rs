//! Flags of the agent for the server of flows.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use crate::hubble::{
    origin::DEFAULT_CLUSTER,
    server::{Security, tls::TlsFiles},
};

/// How flows are shown to others.
#[derive(Clone, Debug, Args)]
pub struct HubbleArgs {
    /// Name of the cluster, as flows name it
    #[arg(
        long,
        value_name = "NAME",
        env = "ENFORCER_CLUSTER_NAME",
        default_value = DEFAULT_CLUSTER,
        value_parser = cluster_name
    )]
    pub cluster_name: String,
    /// Where Hubble's clients and relays reach this agent, beside its unix socket; with
    /// certificates on both sides
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "ENFORCER_HUBBLE_LISTEN",
        requires = "hubble_security"
    )]
    pub hubble_listen: Option<SocketAddr>,
    /// This agent's certificate for it, in PEM; read again when it changes, as the other two
    #[arg(
        long,
        value_name = "FILE",
        env = "ENFORCER_HUBBLE_TLS_CERT",
        requires_all = ["hubble_tls_key", "hubble_tls_client_ca"],
        group = "hubble_security"
    )]
    pub hubble_tls_cert: Option<PathBuf>,
    /// The certificate's key
    #[arg(
        long,
        value_name = "FILE",
        env = "ENFORCER_HUBBLE_TLS_KEY",
        requires = "hubble_tls_cert"
    )]
    pub hubble_tls_key: Option<PathBuf>,
    /// Who signs the certificates of clients
    #[arg(
        long,
        value_name = "FILE",
        env = "ENFORCER_HUBBLE_TLS_CLIENT_CA",
        requires = "hubble_tls_cert"
    )]
    pub hubble_tls_client_ca: Option<PathBuf>,
    /// No certificates: whoever reaches --hubble-listen may read all flows
    #[arg(long, env = "ENFORCER_HUBBLE_LISTEN_INSECURE", group = "hubble_security")]
    pub hubble_listen_insecure: bool,
}

fn cluster_name(text: &str) -> Result<String, &'static str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    if !text.is_empty() && text.len() <= 63 && text.chars().all(is_name) {
        Ok(text.to_owned())
    } else {
        Err("must be a name of lower case letters, digits, hyphens and dots, 63 at most")
    }
}

impl HubbleArgs {
    /// Where to listen on the network, if anywhere.
    #[must_use]
    pub fn listen(&self) -> Option<(SocketAddr, Security)> {
        let Self { hubble_tls_cert, hubble_tls_key, hubble_tls_client_ca, .. } = self;
        let security = match (hubble_tls_cert, hubble_tls_key, hubble_tls_client_ca) {
            (Some(certificate), Some(key), Some(client_ca)) => Security::MutualTls(TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                client_ca: client_ca.clone(),
            }),
            _ => Security::Insecure,
        };
        // Without certificates it must have been said in so many words.
        let said = security != Security::Insecure || self.hubble_listen_insecure;
        self.hubble_listen.filter(|_| said).map(|address| (address, security))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn listen(flags: &str) -> Result<Option<(SocketAddr, Security)>, i32> {
        let line = format!("enforcer agent --manifests /m {flags}");
        match Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command) {
            Ok(Command::Agent(args)) => Ok(args.hubble.listen()),
            Ok(_) => panic!("another command"),
            Err(error) => Err(error.exit_code()),
        }
    }

    #[test]
    fn the_network_needs_certificates_or_the_word_insecure() {
        let address: SocketAddr = "0.0.0.0:4244".parse().unwrap();
        assert_eq!(listen(""), Ok(None));
        assert_eq!(listen("--hubble-listen 0.0.0.0:4244"), Err(2));
        assert_eq!(
            listen("--hubble-listen 0.0.0.0:4244 --hubble-listen-insecure"),
            Ok(Some((address, Security::Insecure)))
        );
        assert_eq!(listen("--hubble-listen 0.0.0.0:4244 --hubble-tls-cert /c"), Err(2));
        let files = "--hubble-tls-cert /c --hubble-tls-key /k --hubble-tls-client-ca /a";
        let security = Security::MutualTls(TlsFiles {
            certificate: "/c".into(),
            key: "/k".into(),
            client_ca: "/a".into(),
        });
        assert_eq!(
            listen(&format!("--hubble-listen 0.0.0.0:4244 {files}")),
            Ok(Some((address, security)))
        );
        assert_eq!(
            listen(&format!("--hubble-listen 0.0.0.0:4244 --hubble-listen-insecure {files}")),
            Err(2)
        );
        assert_eq!(listen("--hubble-listen 4244 --hubble-listen-insecure"), Err(2));
        assert_eq!(listen("--cluster-name a/b"), Err(2));
    }
}
