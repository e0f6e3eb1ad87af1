//! Which API server, and as whom: a service account, or a kubeconfig.

use std::{
    hash::Hash as _,
    path::{Path, PathBuf},
    time::Duration,
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::error_chain;

/// A server that does not take a connection within this is not there.
const CONNECT: Duration = Duration::from_secs(5);

/// Why no API server can be asked.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named is of no use.
    #[error(
        "the kubeconfig {} cannot be used: {reason}; correct it or name another with --kubeconfig",
        file.display()
    )]
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The pod's own credentials are of no use.
    #[error(
        "the pod's service account cannot be used: {0}; mount its token (automountServiceAccountToken) \
         or give --kubeconfig"
    )]
    ServiceAccount(String),
    /// Nothing says where the API server is.
    #[error(
        "no API server is known: {0}; run the agent in a pod with a service account, or give \
         --kubeconfig FILE or --manifests DIR"
    )]
    Unknown(String),
}

/// An API server and the credentials for it.
#[derive(Clone)]
pub struct ApiServer {
    client: Client,
    url: String,
    authorities: Vec<String>,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("url", &self.url).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// The server that `kubeconfig` names; without it the one of the pod's service account, else
    /// of `$KUBECONFIG` or `~/.kube/config`. Connects to nothing.
    ///
    /// # Errors
    /// If no usable configuration is there.
    pub async fn find(kubeconfig: Option<&Path>) -> Result<Self, ConfigError> {
        let options = KubeConfigOptions::default();
        if let Some(file) = kubeconfig {
            let wrong = |reason: String| ConfigError::Kubeconfig { file: file.to_owned(), reason };
            let read = Kubeconfig::read_from(file).map_err(|error| wrong(error_chain(&error)))?;
            let config = Config::from_custom_kubeconfig(read, &options)
                .await
                .map_err(|error| wrong(error_chain(&error)))?;
            return Self::new(config).map_err(wrong);
        }
        if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
            let config = Config::incluster()
                .map_err(|error| ConfigError::ServiceAccount(error_chain(&error)))?;
            return Self::new(config).map_err(ConfigError::ServiceAccount);
        }
        let config = Config::from_kubeconfig(&options)
            .await
            .map_err(|error| ConfigError::Unknown(error_chain(&error)))?;
        Self::new(config).map_err(ConfigError::Unknown)
    }

    /// The server of a configuration.
    ///
    /// # Errors
    /// What is wrong with its certificates or keys.
    pub fn new(mut config: Config) -> Result<Self, String> {
        config.connect_timeout = Some(CONNECT);
        // Whoever asks waits and tries again at its own pace, and shows meanwhile what is wrong.
        config.default_retry = false;
        let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let authorities = config.root_cert.iter().flatten().map(|one| digest(one)).collect();
        let client = Client::try_from(config).map_err(|error| error_chain(&error))?;
        Ok(Self { client, url, authorities })
    }

    /// Address of the server.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What tells the certificate authorities that the server is trusted by from others.
    #[must_use]
    pub fn authorities(&self) -> &[String] {
        &self.authorities
    }

    /// The client for whoever wants typed calls.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }
}

/// A certificate's digest. It tells clusters apart; it does not prove anything.
fn digest(certificate: &[u8]) -> String {
    let mut hasher = SipHasher13::new();
    certificate.hash(&mut hasher);
    format!("{:032x}", hasher.finish128().as_u128())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn find(text: &str) -> Result<ApiServer, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeconfig");
        std::fs::write(&file, text).unwrap();
        ApiServer::find(Some(&file)).await
    }

    #[tokio::test]
    async fn a_kubeconfig_names_the_server() {
        let config = "{clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1/'}}], users: [], \
                      contexts: [{name: x, context: {cluster: c, user: ''}}], current-context: x}";
        assert_eq!(find(config).await.unwrap().url(), "http://127.0.0.1:1");
    }

    #[tokio::test]
    async fn a_bad_kubeconfig_is_refused_with_a_sentence() {
        for text in [
            "{clusters: [",
            "{}",
            "{clusters: [{name: c, cluster: {}}], contexts: [{name: x, context: {cluster: c}}], \
             current-context: x}",
            "{clusters: [], contexts: [], current-context: nowhere}",
        ] {
            let error = find(text).await.unwrap_err().to_string();
            assert!(error.contains("cannot be used: "), "{error}");
            assert!(error.ends_with("; correct it or name another with --kubeconfig"), "{error}");
        }
        let error = ApiServer::find(Some(Path::new("/nowhere/at/all"))).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
}
