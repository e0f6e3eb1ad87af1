//! Kubernetes' own end-to-end tests, of the same version as the cluster, and what they need: the
//! program that runs them side by side, and the image of the pods that they make.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{kubernetes::KUBERNETES, module::Module, stamp};
use crate::{Architecture, ClusterError, Image, Layout, Progress};

/// All of Kubernetes' end-to-end tests in one program.
const SUITE: &str = "e2e.test";
/// Runs it, several processes at a time.
const RUNNER: &str = "ginkgo";
/// The tests' server and client, in the image of this name.
const PROGRAM: &str = "agnhost";
/// Where the tests look for their images, unless they are told otherwise.
const REGISTRY: &str = "registry.k8s.io/e2e-test-images";
/// The image's archive.
const ARCHIVE: &str = "agnhost.tar";

/// Kubernetes' own tests, ready to run.
#[derive(Clone, Debug)]
pub struct Upstream {
    folder: PathBuf,
}

impl Upstream {
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
        let module = Module::read(module, KUBERNETES)?;
        let stamp = module.stamp(layout.root().join("upstream.stamp"));
        if stamp.holds()
            && let Ok(found) = Self::find(layout)
        {
            return Ok(found);
        }
        progress.step(&format!(
            "building Kubernetes' own tests, {} (once; 4 minutes with two processors)",
            module.version
        ));
        let begun = Instant::now();
        let folder = folder(layout);
        stamp::clear(&folder)?;
        fs::create_dir_all(&folder).map_err(ClusterError::file("create", &folder))?;
        let [suite, program, runner] = packages();
        module.build(&["build"], &folder, &[program, runner])?;
        module.build(&["test", "-c"], &folder.join(SUITE), &[suite])?;
        let tag = module.source(&format!("test/images/{PROGRAM}/VERSION"))?;
        write_image(&folder, tag.trim())?;
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
        match [found.suite(), found.runner(), found.image()].iter().find(|path| !path.is_file()) {
            Some(missing) => Err(ClusterError::NoAsset(missing.display().to_string())),
            None => Ok(found),
        }
    }

    /// The program with the tests.
    #[must_use]
    pub fn suite(&self) -> PathBuf {
        self.folder.join(SUITE)
    }

    /// The program that runs the tests.
    #[must_use]
    pub fn runner(&self) -> PathBuf {
        self.folder.join(RUNNER)
    }

    /// The archive of the image that the tests' pods have, for [`crate::Cluster::import_image`].
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.folder.join(ARCHIVE)
    }
}

/// Go's names of the tests, of their pods' program and of what runs them.
fn packages() -> [String; 3] {
    [
        format!("{KUBERNETES}/test/e2e"),
        format!("{KUBERNETES}/test/images/{PROGRAM}"),
        format!("github.com/onsi/ginkgo/v2/{RUNNER}"),
    ]
}

fn folder(layout: &Layout) -> PathBuf {
    layout.root().join("upstream")
}

/// Packs the tests' program as its image has it; the rest of the image is what other tests need.
fn write_image(folder: &Path, tag: &str) -> Result<(), ClusterError> {
    let architecture = Architecture::own();
    let program = folder.join(PROGRAM);
    let content = fs::read(&program).map_err(ClusterError::file("read", &program))?;
    let image =
        Image::new(&format!("{REGISTRY}/{PROGRAM}:{tag}"), architecture, &[&format!("/{PROGRAM}")]);
    image.arguments(&["pause"]).program(PROGRAM, content).write(&folder.join(ARCHIVE))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_of_the_repository_has_what_is_built() {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes/go.mod");
        let manifest = fs::read_to_string(module).unwrap();
        for package in packages() {
            assert!(manifest.contains(&format!("\t{package}\n")), "{package}");
        }
    }
}
