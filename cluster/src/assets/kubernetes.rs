//! Kubernetes' own programs, built from the Go module that names their version.

use std::{fs, path::Path, time::Instant};

use super::{module::Module, stamp};
use crate::{ClusterError, Layout, Progress};

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
    let module = Module::read(module, KUBERNETES)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_of_the_repository_builds_every_program() {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes/go.mod");
        let manifest = fs::read_to_string(module).unwrap();
        for name in PROGRAMS {
            assert!(manifest.contains(&format!("{KUBERNETES}/cmd/{name}\n")), "{name}");
        }
    }
}
