//! Where the cluster's files are.

use std::path::{Path, PathBuf};

/// The folder with all that a cluster is made of and all that it writes: `target/cluster`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The files below this folder, which must be an absolute path: nodes mount parts of it.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Programs: Kubernetes' own and kubectl.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// One of the programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin().join(name)
    }

    /// The nodes' root file system, which they share and do not write.
    #[must_use]
    pub fn node_root(&self) -> PathBuf {
        self.root.join("node-root")
    }

    /// Image archives that every node imports when it starts.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.root.join("img")
    }

    /// What the cluster that runs has written.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Keys, certificates and kubeconfigs.
    #[must_use]
    pub fn pki(&self) -> PathBuf {
        self.run().join("pki")
    }

    /// The administrator's kubeconfig. It works on the host and needs no other file.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.run().join("kubeconfig")
    }

    /// The control plane's logs, one file a program.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.run().join("log")
    }

    /// What one node has written; below it, `log` has its logs.
    #[must_use]
    pub fn node(&self, name: &str) -> PathBuf {
        self.run().join(name)
    }

    /// The options that the cluster was started with.
    pub(crate) fn options(&self) -> PathBuf {
        self.run().join("options.json")
    }
}
