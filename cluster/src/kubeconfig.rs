//! Kubeconfigs that hold keys and certificates themselves, so that one file is enough anywhere.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    ClusterError,
    pki::{self, Pki},
    plan::{API_ADDRESS, API_PORT},
};

/// Writes the kubeconfig of whoever the certificate `user` is for.
pub(crate) fn write(pki: &Pki, user: &str, path: &Path) -> Result<(), ClusterError> {
    let config = render(
        &pki::read(&pki.certificate("ca"))?,
        &pki::read(&pki.certificate(user))?,
        &pki::read(&pki.key(user))?,
    );
    // JSON is YAML.
    fs::write(path, config.to_string()).map_err(ClusterError::file("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(ClusterError::file("protect", path))
}

fn render(authority: &[u8], certificate: &[u8], key: &[u8]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "enforcer",
        "contexts": [{"name": "enforcer", "context": {"cluster": "enforcer", "user": "user"}}],
        "clusters": [{"name": "enforcer", "cluster": {
            "server": format!("https://{API_ADDRESS}:{API_PORT}"),
            "certificate-authority-data": STANDARD.encode(authority),
        }}],
        "users": [{"name": "user", "user": {
            "client-certificate-data": STANDARD.encode(certificate),
            "client-key-data": STANDARD.encode(key),
        }}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_holds_all_it_needs() {
        let config = render(b"ca", b"cert", b"key");
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://10.211.0.1:6443");
        assert_eq!(config["clusters"][0]["cluster"]["certificate-authority-data"], "Y2E=");
        assert_eq!(config["users"][0]["user"]["client-key-data"], "a2V5");
        assert_eq!(config["contexts"][0]["name"], config["current-context"]);
    }
}
