//! Kubernetes' own programs, built from the Go module that names their version.

use std::{fs, path::Path, process::Command, time::Instant};

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
const KUBERNETES: &str = "k8s.io/kubernetes";

/// Builds the programs unless they are there, of this very module and compiler.
pub(super) fn ensure(
    layout: &Layout,
    module: &Path,
    progress: &mut dyn Progress,
) -> Result<(), ClusterError> {
    let read = |name: &str| {
        let path = module.join(name);
        fs::read_to_string(&path).map_err(ClusterError::file("read", &path))
    };
    let (manifest, sums) = (read("go.mod")?, read("go.sum")?);
    let compiler =
        program::capture(Command::new("go").arg("version").current_dir(module), "go version")?;
    let stamp = Stamp::new(
        layout.root().join("bin.stamp"),
        &[manifest.as_bytes(), sums.as_bytes(), compiler.as_bytes()],
    );
    if stamp.holds() && PROGRAMS.iter().all(|name| layout.program(name).is_file()) {
        return Ok(());
    }
    let version = version(&manifest).ok_or_else(|| ClusterError::Content {
        path: module.join("go.mod").display().to_string(),
        reason: format!("it does not require {KUBERNETES}"),
        remedy: "restore it from the repository",
    })?;
    progress.step(&format!("building Kubernetes {version} (once; 5 minutes with two processors)"));
    let begun = Instant::now();
    build(layout, module, version)?;
    stamp.write()?;
    progress.detail(&format!("built in {} s", begun.elapsed().as_secs()));
    Ok(())
}

fn build(layout: &Layout, module: &Path, version: &str) -> Result<(), ClusterError> {
    let (bin, draft) = (layout.bin(), layout.root().join("bin.new"));
    stamp::clear(&draft)?;
    for folder in [&bin, &draft] {
        fs::create_dir_all(folder).map_err(ClusterError::file("create", folder))?;
    }
    let mut command = Command::new("go");
    command
        .current_dir(module)
        // Static, so that they run in the nodes' file system as well as on the machine.
        .env("CGO_ENABLED", "0")
        .env("GOOS", "linux")
        .args(["build", "-trimpath", "-mod=readonly", "-ldflags"])
        .arg(format!("-s -w -X k8s.io/component-base/version.gitVersion={version}"))
        .arg("-o")
        .arg(&draft)
        .args(PROGRAMS.map(|name| format!("{KUBERNETES}/cmd/{name}")));
    program::capture(&mut command, "building Kubernetes (it needs the Go module proxy)")?;
    for name in PROGRAMS {
        let to = bin.join(name);
        fs::rename(draft.join(name), &to).map_err(ClusterError::file("write", &to))?;
    }
    stamp::clear(&draft)
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
