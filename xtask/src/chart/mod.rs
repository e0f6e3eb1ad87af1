//! The Helm chart: `cargo xtask manifests` renders the plain manifests from it, and the check sees
//! that they are in step, that wrong values are refused, and that everything below `deploy` is
//! readable.

mod helm;
#[cfg(test)]
mod tests;
mod values;
mod yaml;

use std::{fs, io, path::PathBuf};

use self::helm::Helm;
use crate::{console, process::ProcessError, workspace::Workspace};

/// The chart.
const CHART: &str = "deploy/helm/enforcer";
/// The manifests that are made of it.
const MANIFESTS: &str = "deploy/manifests";
/// The namespace that the manifests are for; the chart goes to any.
const NAMESPACE: &str = "enforcer-system";
/// The cluster that the manifests are for: fields that came later are not in them.
const KUBERNETES: &str = "1.33.0";

/// Each file with the values that it is made with, beside the namespace.
const VARIANTS: [(&str, &[&str]); 5] = [
    ("enforcer.yaml", &[]),
    ("enforcer-gate.yaml", &["gate=nri"]),
    ("enforcer-taint.yaml", &["removeTaint=true"]),
    (
        "enforcer-hubble.yaml",
        &["hubble.listenAddress=0.0.0.0:4244", "hubble.tlsSecret=enforcer-hubble"],
    ),
    ("remove.yaml", &["mode=remove"]),
];

/// Why the chart or its manifests are not as they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChartError {
    /// Helm could not be built, or refused.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file could not be read or written.
    #[error("cannot {operation} {path}: {reason}; check that this user may do that")]
    File { operation: &'static str, path: String, reason: io::Error },
    /// Something was found.
    #[error("{0}")]
    Findings(String),
}

/// Writes every manifest anew.
pub(crate) fn write_manifests(workspace: &Workspace) -> Result<(), ChartError> {
    let helm = Helm::ensure(workspace)?;
    for (name, set) in VARIANTS {
        let path = workspace.root().join(MANIFESTS).join(name);
        let text = render(&helm, name, set)?;
        fs::write(&path, text).map_err(|reason| ChartError::File {
            operation: "write",
            path: workspace.show(&path),
            reason,
        })?;
        console::detail(&format!("written: {MANIFESTS}/{name}"));
    }
    Ok(())
}

/// Looks at everything below `deploy`.
pub(crate) fn check(workspace: &Workspace) -> Result<(), ChartError> {
    let helm = Helm::ensure(workspace)?;
    let mut findings = yaml::check(workspace)?;
    findings.extend(version(workspace)?);
    for (name, set) in VARIANTS {
        let path = workspace.root().join(MANIFESTS).join(name);
        if fs::read_to_string(&path).ok() != Some(render(&helm, name, set)?) {
            findings.push(format!(
                "{MANIFESTS}/{name} is not what the chart renders: run `cargo xtask manifests`"
            ));
        }
    }
    findings.extend(values::check(&helm)?);
    if findings.is_empty() {
        return Ok(());
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    Err(ChartError::Findings(format!("the chart breaks its rules ({} found)", findings.len())))
}

fn render(helm: &Helm, name: &str, set: &[&str]) -> Result<String, ProcessError> {
    let mut values = vec!["namespace.create=true"];
    values.extend(set);
    let rendered = helm.template(&values)?;
    let how = match set {
        [] => String::new(),
        set => format!(" with {}", set.join(", ")),
    };
    let what = match name {
        "remove.yaml" => {
            "# Delete the manifest of the agent first, then apply this one: docs/install.md.\n"
        }
        _ => "# Set the image's name to where your nodes can pull it from: docs/install.md.\n",
    };
    let rendered: String = rendered
        .lines()
        // The manifests are applied by kubectl, whatever rendered them.
        .filter(|line| line.trim() != "app.kubernetes.io/managed-by: Helm")
        .flat_map(|line| [line.trim_end(), "\n"])
        .collect();
    Ok(format!("# Rendered from {CHART}{how} by `cargo xtask manifests`.\n{what}{rendered}"))
}

/// Chart and daemon are released together.
fn version(workspace: &Workspace) -> Result<Option<String>, ChartError> {
    let path = workspace.root().join(CHART).join("Chart.yaml");
    let text = fs::read_to_string(&path).map_err(|reason| ChartError::File {
        operation: "read",
        path: workspace.show(&path),
        reason,
    })?;
    let ours = env!("CARGO_PKG_VERSION");
    let says = |name: &str| {
        text.lines().any(|line| {
            line.strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(':'))
                .is_some_and(|value| value.trim().trim_matches('"') == ours)
        })
    };
    Ok((!says("version") || !says("appVersion")).then(|| {
        format!("{CHART}/Chart.yaml: version and appVersion must be the workspace's, {ours}")
    }))
}

/// The chart's folder.
fn chart(workspace: &Workspace) -> PathBuf {
    workspace.root().join(CHART)
}
