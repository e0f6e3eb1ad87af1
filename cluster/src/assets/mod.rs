//! What a cluster is made of: Kubernetes' programs, etcd, and the nodes' root file system. Each is
//! got once and kept with a stamp of what it was made from.

mod hubble;
mod kubernetes;
mod module;
mod packages;
mod stamp;
mod upstream;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{ClusterError, Layout, Progress};

pub use hubble::Hubble;
pub use upstream::Upstream;

/// Programs that must be on the machine, with the Debian packages that have them.
pub const HOST_PACKAGES: [(&str, &str); 8] = [
    ("mmdebstrap", "mmdebstrap"),
    ("openssl", "openssl"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
    ("unshare", "util-linux"),
    ("dpkg-deb", "dpkg"),
    ("hostname", "hostname"),
];

/// Assets that are complete.
#[derive(Clone, Debug)]
pub struct Assets {
    layout: Layout,
}

impl Assets {
    /// Gets what is missing: builds the Go module in the folder `module`, downloads Debian's
    /// packages, and puts `images` where nodes import them from. The first time takes minutes.
    ///
    /// # Errors
    /// If something cannot be built or downloaded.
    pub fn prepare(
        layout: &Layout,
        module: &Path,
        images: &[PathBuf],
        progress: &mut dyn Progress,
    ) -> Result<Self, ClusterError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(ClusterError::NotRoot);
        }
        kubernetes::ensure(layout, module, progress)?;
        packages::ensure_etcd(layout, progress)?;
        packages::ensure_node_root(layout, progress)?;
        offer_images(layout, images)?;
        Self::find(layout)
    }

    /// The assets that [`Self::prepare`] has left there.
    ///
    /// # Errors
    /// If something is missing.
    pub fn find(layout: &Layout) -> Result<Self, ClusterError> {
        let programs = kubernetes::PROGRAMS.iter().map(|name| layout.program(name));
        let others = [layout.program("etcd"), layout.node_root(), layout.images()];
        match programs.chain(others).find(|path| !path.exists()) {
            Some(missing) => Err(ClusterError::NoAsset(missing.display().to_string())),
            None => Ok(Self { layout: layout.clone() }),
        }
    }

    /// Where they are.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}

/// Copies archives to where nodes look, those that differ alone: a new time would make every node
/// import them anew.
fn offer_images(layout: &Layout, images: &[PathBuf]) -> Result<(), ClusterError> {
    let folder = layout.images();
    fs::create_dir_all(&folder).map_err(ClusterError::file("create", &folder))?;
    for image in images {
        let content = fs::read(image).map_err(ClusterError::file("read", image))?;
        let Some(name) = image.file_name() else { continue };
        let to = folder.join(name);
        if !fs::read(&to).is_ok_and(|present| present == content) {
            fs::write(&to, content).map_err(ClusterError::file("write", &to))?;
        }
    }
    Ok(())
}
