//! Go modules of the repository: each names the version of something that the cluster's programs
//! are built from, and of all that it needs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::stamp::Stamp;
use crate::{ClusterError, program};

/// A module that is there for what it requires.
#[derive(Debug)]
pub(super) struct Module {
    folder: PathBuf,
    /// What it is there for, by Go's name.
    main: &'static str,
    /// Its version, as Go writes it.
    pub(super) version: String,
    /// What programs are made from: the module's files and the compiler.
    parts: [String; 3],
}

impl Module {
    /// Reads the module in a folder, which requires `main`, and which compiler there is.
    pub(super) fn read(folder: &Path, main: &'static str) -> Result<Self, ClusterError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(ClusterError::file("read", &path))
        };
        let (manifest, sums) = (read("go.mod")?, read("go.sum")?);
        let version = version(&manifest, main).ok_or_else(|| ClusterError::Content {
            path: folder.join("go.mod").display().to_string(),
            reason: format!("it does not require {main}"),
            remedy: "restore it from the repository",
        })?;
        let version = version.to_owned();
        let compiler =
            program::capture(Command::new("go").arg("version").current_dir(folder), "go version")?;
        Ok(Self { folder: folder.to_owned(), main, version, parts: [manifest, sums, compiler] })
    }

    /// The stamp of what is made of this module.
    pub(super) fn stamp(&self, path: PathBuf) -> Stamp {
        Stamp::new(path, &self.parts.each_ref().map(|part| part.as_bytes()))
    }

    /// Builds programs, which can run in the nodes' file system as well as on the machine; `how` is
    /// Go's command, `to` the file or the folder that they go into.
    pub(super) fn build(
        &self,
        how: &[&str],
        to: &Path,
        packages: &[String],
    ) -> Result<(), ClusterError> {
        let mut command = Command::new("go");
        command
            .current_dir(&self.folder)
            // Static.
            .env("CGO_ENABLED", "0")
            .env("GOOS", "linux")
            .args(how)
            .args(["-trimpath", "-mod=readonly", "-ldflags"])
            .arg(format!("-s -w -X k8s.io/component-base/version.gitVersion={}", self.version))
            .arg("-o")
            .arg(to)
            .args(packages);
        let what = format!("building {} (it needs the Go module proxy)", self.main);
        program::capture(&mut command, &what).map(drop)
    }

    /// A file of its sources, in Go's cache of modules.
    pub(super) fn source(&self, path: &str) -> Result<String, ClusterError> {
        let mut list = Command::new("go");
        list.current_dir(&self.folder).args(["list", "-m", "-f", "{{.Dir}}", self.main]);
        let folder =
            program::capture(&mut list, &format!("looking for the sources of {}", self.main))?;
        let file = Path::new(folder.trim()).join(path);
        fs::read_to_string(&file).map_err(ClusterError::file("read", &file))
    }
}

/// The version of `main` that a module requires.
fn version<'a>(manifest: &'a str, main: &str) -> Option<&'a str> {
    manifest.lines().find_map(|line| {
        let line = line.trim();
        let rest = line.strip_prefix("require ").unwrap_or(line).strip_prefix(main)?;
        rest.strip_prefix(' ')?.split_whitespace().next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_module() {
        let main = "k8s.io/kubernetes";
        let version = |manifest| version(manifest, main);
        assert_eq!(version("module x\n\nrequire k8s.io/kubernetes v1.36.2\n"), Some("v1.36.2"));
        let block = "require (\n\tk8s.io/kubelet v0.1.0\n\tk8s.io/kubernetes v1.2.3 // x\n)\n";
        assert_eq!(version(block), Some("v1.2.3"));
        assert_eq!(version("module k8s.io/kubernetesx\n"), None);
    }
}
