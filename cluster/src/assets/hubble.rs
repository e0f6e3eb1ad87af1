//! Hubble's own command line and relay, of the version that the flows' interface follows: who reads
//! flows with them must notice no difference.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{module::Module, stamp};
use crate::{ClusterError, Layout, Progress};

/// Go's name of the module that has both.
const CILIUM: &str = "github.com/cilium/cilium";
/// The command line.
const CLIENT: &str = "hubble";
/// What asks several nodes at once.
const RELAY: &str = "hubble-relay";

/// The two programs, ready to run on the machine and in nodes.
#[derive(Clone, Debug)]
pub struct Hubble {
    folder: PathBuf,
}

impl Hubble {
    /// Builds them from the Go module in the folder `module`, unless they are there. The first time
    /// takes minutes.
    ///
    /// # Errors
    /// If something cannot be built or written.
    pub fn prepare(
        layout: &Layout,
        module: &Path,
        progress: &mut dyn Progress,
    ) -> Result<Self, ClusterError> {
        let module = Module::read(module, CILIUM)?;
        let stamp = module.stamp(layout.root().join("hubble.stamp"));
        if stamp.holds()
            && let Ok(found) = Self::find(layout)
        {
            return Ok(found);
        }
        progress.step(&format!(
            "building Hubble's client and relay, {} (once; 3 minutes with two processors)",
            module.version
        ));
        let begun = Instant::now();
        let folder = folder(layout);
        stamp::clear(&folder)?;
        fs::create_dir_all(&folder).map_err(ClusterError::file("create", &folder))?;
        let packages = [CLIENT, RELAY].map(|name| format!("{CILIUM}/{name}"));
        module.build(&["build"], &folder, &packages)?;
        stamp.write()?;
        progress.detail(&format!("built in {} s", begun.elapsed().as_secs()));
        Self::find(layout)
    }

    /// What [`Self::prepare`] has left there.
    ///
    /// # Errors
    /// If something is missing.
    pub fn find(layout: &Layout) -> Result<Self, ClusterError> {
        let found = Self { folder: folder(layout) };
        match [found.client(), found.relay()].iter().find(|path| !path.is_file()) {
            Some(missing) => Err(ClusterError::NoAsset(missing.display().to_string())),
            None => Ok(found),
        }
    }

    /// The command line.
    #[must_use]
    pub fn client(&self) -> PathBuf {
        self.folder.join(CLIENT)
    }

    /// The relay.
    #[must_use]
    pub fn relay(&self) -> PathBuf {
        self.folder.join(RELAY)
    }
}

fn folder(layout: &Layout) -> PathBuf {
    layout.root().join("hubble")
}
