//! Kubernetes' own programs, built from the Go module that names their version.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use super::stamp::{self, Stamp};
use crate::{ClusterError, Layout, Progress, program};

/// What is built, each from `k8s.io/kubernetes/cmd/<name>`.
pub(super) const PROGRAMS: [&str; 6] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
];
/// Go's name of Kubernetes.
pub(super) const KUBERNETES: &str = "k8s.io/kubernetes";

/// Builds the programs unless they are there, of this very module and compiler.
pub(super) fn ensure(
    layout: &Layout,
    module: &Path,
    progress: &mut dyn Progress,
) -> Result<(), ClusterError> {
    let module = Module::read(module)?;
    let stamp = module.stamp(layout.root().join("bin.stamp"));
    if stamp.holds() && PROGRAMS.iter().all(|name| layout.program(name).is_file()) {
        return Ok(());
    }
    progress.step(&format!(
        "building Kubernetes {} (once; 5 minutes with two processors)",
        module.version
    ));
    let begun = Instant::now();
    let (bin, draft) = (layout.bin(), layout.root().join("bin.new"));
    stamp::clear(&draft)?;
    for folder in [&bin, &draft] {
        fs::create_dir_all(folder).map_err(ClusterError::file("create", folder))?;
    }
    let packages = PROGRAMS.map(|name| format!("{KUBERNETES}/cmd/{name}"));
    module.build(&["build"], &draft, &packages)?;
    for name in PROGRAMS {
        let to = bin.join(name);
        fs::rename(draft.join(name), &to).map_err(ClusterError::file("write", &to))?;
    }
    stamp::clear(&draft)?;
    stamp.write()?;
    progress.detail(&format!("built in {} s", begun.elapsed().as_secs()));
    Ok(())
}

/// The Go module in the repository that names the version of Kubernetes and of all that it needs.
#[derive(Debug)]
pub(super) struct Module {
    folder: PathBuf,
    /// Kubernetes' version, as Go writes it.
    pub(super) version: String,
    /// What programs are made from: the module's files and the compiler.
    parts: [String; 3],
}

impl Module {
    /// Reads the module in a folder, and which compiler there is.
    pub(super) fn read(folder: &Path) -> Result<Self, ClusterError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(ClusterError::file("read", &path))
        };
        let (manifest, sums) = (read("go.mod")?, read("go.sum")?);
        let version = version(&manifest).ok_or_else(|| ClusterError::Content {
            path: folder.join("go.mod").display().to_string(),
            reason: format!("it does not require {KUBERNETES}"),
            remedy: "restore it from the repository",
        })?;
        let version = version.to_owned();
        let compiler =
            program::capture(Command::new("go").arg("version").current_dir(folder), "go version")?;
        Ok(Self { folder: folder.to_owned(), version, parts: [manifest, sums, compiler] })
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
        program::capture(&mut command, "building Kubernetes (it needs the Go module proxy)")
            .map(drop)
    }

    /// A file of Kubernetes' own sources, in Go's cache of modules.
    pub(super) fn source(&self, path: &str) -> Result<String, ClusterError> {
        let mut list = Command::new("go");
        list.current_dir(&self.folder).args(["list", "-m", "-f", "{{.Dir}}", KUBERNETES]);
        let folder = program::capture(&mut list, "looking for Kubernetes' sources")?;
        let file = Path::new(folder.trim()).join(path);
        fs::read_to_string(&file).map_err(ClusterError::file("read", &file))
    }
}

/// The version of Kubernetes that a module requires.
fn version(manifest: &str) -> Option<&str> {
    manifest.lines().find_map(|line| {
        let line = line.trim();
        let rest = line.strip_prefix("require ").unwrap_or(line).strip_prefix(KUBERNETES)?;
        rest.strip_prefix(' ')?.split_whitespace().next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_module() {
        assert_eq!(version("module x\n\nrequire k8s.io/kubernetes v1.36.2\n"), Some("v1.36.2"));
        let block = "require (\n\tk8s.io/kubelet v0.1.0\n\tk8s.io/kubernetes v1.2.3 // x\n)\n";
        assert_eq!(version(block), Some("v1.2.3"));
        assert_eq!(version("module k8s.io/kubernetesx\n"), None);
    }

    #[test]
    fn the_module_of_the_repository_builds_every_program() {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes/go.mod");
        let manifest = fs::read_to_string(module).unwrap();
        assert!(version(&manifest).is_some_and(|version| version.starts_with("v1.")));
        for name in PROGRAMS {
            assert!(manifest.contains(&format!("{KUBERNETES}/cmd/{name}\n")), "{name}");
        }
    }
}
