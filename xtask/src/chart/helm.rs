//! The helm command line, built from the Go module beside this crate: the version that the chart is
//! rendered with is a part of the repository.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use sha2::{Digest as _, Sha256};

use super::{ChartError, KUBERNETES, NAMESPACE};
use crate::{
    console,
    process::{self, ProcessError, Purpose},
    workspace::Workspace,
};

/// The module, below the repository.
const MODULE: &str = "xtask/helm";
/// What is built of it.
const PACKAGE: &str = "helm.sh/helm/v4/cmd/helm";

/// A helm that is there, and the chart that it works on.
#[derive(Debug)]
pub(super) struct Helm {
    program: PathBuf,
    chart: PathBuf,
    /// Its caches and configuration: never this user's own.
    home: PathBuf,
}

impl Helm {
    /// The helm of this version of the module, built if it is not there.
    pub(super) fn ensure(workspace: &Workspace) -> Result<Self, ChartError> {
        let module = workspace.root().join(MODULE);
        let folder = workspace.tools().join(format!("helm-{}", fingerprint(workspace, &module)?));
        let program = folder.join("helm");
        if !program.is_file() {
            console::step("building helm (some minutes, once)");
            process::run(
                Command::new("go")
                    .current_dir(&module)
                    .args(["build", "-trimpath", "-mod=readonly", "-ldflags=-s -w", "-o"])
                    .arg(&program)
                    .arg(PACKAGE)
                    .env("CGO_ENABLED", "0"),
                &Purpose::new(
                    "building helm",
                    format!(
                        "it needs Go 1.26 or newer and its module proxy; see {MODULE}/go.mod, or \
                         put a helm of that version at {}",
                        workspace.show(&program)
                    ),
                ),
            )?;
        }
        Ok(Self { program, chart: super::chart(workspace), home: folder.join("home") })
    }

    /// The chart with these values.
    pub(super) fn template(&self, values: &[&str]) -> Result<String, ProcessError> {
        let purpose = Purpose::new(
            format!("rendering the chart with {}", values.join(", ")),
            "see the template or the schema that it names",
        );
        let output = self.try_template(values)?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(process::quiet_failure(&output, &purpose))
        }
    }

    /// The same, whatever comes of it.
    pub(super) fn try_template(&self, values: &[&str]) -> Result<Output, ProcessError> {
        let mut command = self.command();
        command.args(["template", "enforcer"]).arg(&self.chart).args([
            "--namespace",
            NAMESPACE,
            "--kube-version",
            KUBERNETES,
        ]);
        for value in values {
            command.args(["--set", value]);
        }
        process::output(&mut command, &Purpose::new("rendering the chart", "see its message"))
    }

    /// Helm's own look at the chart.
    pub(super) fn lint(&self) -> Result<Output, ProcessError> {
        let mut command = self.command();
        command.args(["lint", "--strict", "--quiet"]).arg(&self.chart);
        process::output(&mut command, &Purpose::new("helm lint", "see its message"))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, &self.home);
        }
        command
    }
}

/// Changes when another helm is asked for.
fn fingerprint(workspace: &Workspace, module: &Path) -> Result<String, ChartError> {
    let mut hash = Sha256::new();
    for name in ["go.mod", "go.sum"] {
        let path = module.join(name);
        let error = |reason: io::Error| ChartError::File {
            operation: "read",
            path: workspace.show(&path),
            reason,
        };
        hash.update(fs::read(&path).map_err(error)?);
    }
    Ok(hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}
