//! The cluster's certificates, made by openssl for each start anew.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    ClusterError, Layout,
    plan::{API_ADDRESS, API_SERVICE, NodePlan, Options},
    program,
};

/// Longer than any cluster lives, in days.
const DAYS: &str = "3650";
/// openssl's own configuration would add extensions.
const CONFIG: &str = "[req]\ndistinguished_name = name\n[name]\n";

/// A folder of keys and certificates.
#[derive(Clone, Debug)]
pub(crate) struct Pki {
    folder: PathBuf,
}

impl Pki {
    /// Makes all that a cluster with these options needs.
    pub(crate) fn make(layout: &Layout, options: Options) -> Result<Self, ClusterError> {
        let pki = Self::of(layout);
        fs::create_dir_all(&pki.folder).map_err(ClusterError::file("create", &pki.folder))?;
        fs::set_permissions(&pki.folder, fs::Permissions::from_mode(0o700))
            .map_err(ClusterError::file("protect", &pki.folder))?;
        let config = pki.config();
        fs::write(&config, CONFIG).map_err(ClusterError::file("write", &config))?;
        pki.authority()?;
        pki.token_key()?;
        let names = format!(
            "subjectAltName=IP:127.0.0.1,IP:{API_ADDRESS},IP:{API_SERVICE},DNS:localhost,\
             DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
             DNS:kubernetes.default.svc.cluster.local"
        );
        pki.issue("apiserver", "/CN=kube-apiserver", Some(&names))?;
        for (file, subject) in [
            ("admin", "/O=system:masters/CN=admin"),
            ("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client"),
            ("controller-manager", "/CN=system:kube-controller-manager"),
            ("scheduler", "/CN=system:kube-scheduler"),
            ("proxy", "/CN=system:kube-proxy"),
        ] {
            pki.issue(file, subject, None)?;
        }
        options.node_plans().try_for_each(|node| pki.node(node))?;
        Ok(pki)
    }

    /// The one that was made for the cluster that runs.
    pub(crate) fn of(layout: &Layout) -> Self {
        Self { folder: layout.pki() }
    }

    /// Path of a certificate.
    pub(crate) fn certificate(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.crt"))
    }

    /// Path of a key.
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }

    /// Path of the public key of service account tokens.
    pub(crate) fn token_public_key(&self) -> PathBuf {
        self.folder.join("service-account.pub")
    }

    fn config(&self) -> PathBuf {
        self.folder.join("openssl.cnf")
    }

    fn authority(&self) -> Result<(), ClusterError> {
        let mut command = self.request("ca", "/CN=enforcer-cluster");
        command.args(["-addext", "basicConstraints=critical,CA:TRUE"]);
        command.args(["-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"]);
        // Certificates signed by it name it by this.
        command.args(["-addext", "subjectKeyIdentifier=hash"]);
        program::capture(&mut command, "making the certificate authority").map(drop)
    }

    fn token_key(&self) -> Result<(), ClusterError> {
        let key = self.key("service-account");
        let mut make = Command::new("openssl");
        make.args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"]).arg(&key);
        program::capture(&mut make, "making the service accounts' key")?;
        let mut publish = Command::new("openssl");
        publish.args(["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(self.token_public_key());
        program::capture(&mut publish, "making the service accounts' public key").map(drop)
    }

    fn node(&self, node: NodePlan) -> Result<(), ClusterError> {
        let name = node.name();
        let mut names = format!("subjectAltName=DNS:{name}");
        for address in node.addresses() {
            names.push_str(&format!(",IP:{address}"));
        }
        self.issue(&name, &format!("/O=system:nodes/CN=system:node:{name}"), Some(&names))
    }

    fn issue(
        &self,
        name: &str,
        subject: &str,
        extension: Option<&str>,
    ) -> Result<(), ClusterError> {
        let mut command = self.request(name, subject);
        command.arg("-CA").arg(self.certificate("ca")).arg("-CAkey").arg(self.key("ca"));
        command.args(["-addext", "basicConstraints=CA:FALSE"]);
        command.args(["-addext", "keyUsage=critical,digitalSignature,keyEncipherment"]);
        command.args(["-addext", "extendedKeyUsage=serverAuth,clientAuth"]);
        if let Some(extension) = extension {
            command.args(["-addext", extension]);
        }
        program::capture(&mut command, &format!("making the certificate {name}")).map(drop)
    }

    /// An openssl that makes a key and a certificate for it.
    fn request(&self, name: &str, subject: &str) -> Command {
        let mut command = Command::new("openssl");
        command
            .args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt"])
            .args(["ec_paramgen_curve:P-256", "-days", DAYS, "-subj", subject, "-config"])
            .arg(self.config())
            .arg("-keyout")
            .arg(self.key(name))
            .arg("-out")
            .arg(self.certificate(name));
        command
    }
}

/// Reads a file of the folder.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ClusterError> {
    fs::read(path).map_err(ClusterError::file("read", path))
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;
    use crate::Families;

    #[test]
    fn certificates_are_signed_by_the_authority_and_name_their_addresses() {
        let folder = env::temp_dir().join(format!("enforcer-pki-{}", process::id()));
        let layout = Layout::new(&folder);
        let options = Options { nodes: 1, families: Families::Dual, ..Options::default() };
        let pki = Pki::make(&layout, options).unwrap();
        for name in ["apiserver", "admin", "node1"] {
            let mut verify = Command::new("openssl");
            verify.args(["verify", "-x509_strict", "-CAfile"]).arg(pki.certificate("ca"));
            program::capture(verify.arg(pki.certificate(name)), name).unwrap();
        }
        let mut show = Command::new("openssl");
        show.args(["x509", "-noout", "-text", "-in"]).arg(pki.certificate("node1"));
        let text = program::capture(&mut show, "showing").unwrap();
        for part in ["10.211.0.11", "FD4E:F0CE:0:0:0:0:0:B", "CN = system:node:node1", "CA:FALSE"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
