//! One node: kubelet, containerd and kube-proxy in namespaces of their own (network, mount,
//! process, host name, IPC) on a root file system of their own.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::Path,
    process::Command,
};

use crate::{
    ClusterError, Layout, Options, cgroups, kubeconfig, network, node_config,
    pki::Pki,
    plan::{API_ADDRESS, API_PORT, NodePlan},
    processes, program,
};

/// Makes the node's file system, then runs [`RUN`].
const BOOT: &str = include_str!("boot.sh");
/// Starts the node's programs.
const RUN: &str = include_str!("run.sh");

/// Folders of a node's state; they outlive a restart of the node as a disk does.
const FOLDERS: [&str; 8] = ["upper", "work", "root", "conf", "log", "containerd", "kubelet", "cni"];

/// Writes the node's configuration, as an installer would.
pub(crate) fn install(
    layout: &Layout,
    node: NodePlan,
    options: Options,
) -> Result<(), ClusterError> {
    let (state, pki) = (layout.node(&node.name()), Pki::of(layout));
    for folder in FOLDERS {
        let path = state.join(folder);
        fs::create_dir_all(&path).map_err(ClusterError::file("create", &path))?;
    }
    let conf = state.join("conf");
    kubeconfig::write(&pki, &node.name(), &conf.join("kubelet.kubeconfig"))?;
    kubeconfig::write(&pki, "proxy", &conf.join("proxy.kubeconfig"))?;
    for (source, name) in [
        (pki.certificate("ca"), "ca.crt".to_owned()),
        (pki.certificate(&node.name()), format!("{}.crt", node.name())),
        (pki.key(&node.name()), format!("{}.key", node.name())),
    ] {
        let to = conf.join(name);
        fs::copy(&source, &to).map_err(ClusterError::file("write", &to))?;
    }
    for (path, text) in [
        (conf.join("kubelet.json"), node_config::kubelet(node).to_string()),
        (conf.join("proxy.json"), node_config::proxy(node, options).to_string()),
        (conf.join("containerd.toml"), node_config::CONTAINERD.to_owned()),
        // No server: names are not resolved in this cluster.
        (conf.join("resolv.conf"), "options ndots:5\n".to_owned()),
        (conf.join("run.sh"), RUN.to_owned()),
        (state.join("cni/10-enforcer.conflist"), node_config::network(node).to_string()),
    ] {
        fs::write(&path, text).map_err(ClusterError::file("write", &path))?;
    }
    Ok(())
}

/// Starts an installed node that does not run.
pub(crate) fn start(layout: &Layout, node: NodePlan, options: Options) -> Result<(), ClusterError> {
    let (netns, state) = (node.netns(), layout.node(&node.name()));
    let all: Vec<NodePlan> = options.node_plans().collect();
    network::make_node(node, &all)?;
    let groups: Vec<String> =
        cgroups::make(&netns)?.iter().map(|group| group.display().to_string()).collect();
    let addresses: Vec<String> = node.addresses().iter().map(ToString::to_string).collect();
    let environment = [
        ("NODE", node.name()),
        ("STATE", state.display().to_string()),
        ("LOWER", layout.node_root().display().to_string()),
        ("BIN", layout.bin().display().to_string()),
        ("IMG", layout.images().display().to_string()),
        ("GROUPS_", groups.join(" ")),
        ("ADDRESSES", addresses.join(",")),
        ("API", format!("https://{API_ADDRESS}:{API_PORT}")),
    ];
    let mut command: Vec<OsString> = network::enter(&netns).map(OsString::from).into();
    for word in ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"] {
        command.push(word.into());
    }
    for word in ["sh", "-c", BOOT, "node-boot"] {
        command.push(word.into());
    }
    let command: Vec<&OsStr> = command.iter().map(OsString::as_os_str).collect();
    program::detach(&command, &environment, &state.join("log/boot.log"))
}

/// Ends all of a node's processes at once and removes its namespaces and control groups, as a
/// machine that loses its power. What it has on its disk stays.
pub(crate) fn kill(netns: &str) -> Result<(), ClusterError> {
    // The first process takes all others of its namespace with it, pods' too.
    processes::kill_all(netns, |_| true)?;
    network::remove(netns)?;
    cgroups::remove(netns)
}

/// A command that runs `words` in all namespaces of the node.
pub(crate) fn enter(node: NodePlan, words: &[&str]) -> Result<Command, ClusterError> {
    let init =
        processes::node_init(&node.netns()).ok_or_else(|| ClusterError::NodeDown(node.name()))?;
    let mut command = Command::new("nsenter");
    command
        .args(["--target", &init.to_string()])
        .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd", "--"])
        .args(["env", "-u", "KUBECONFIG"])
        .arg("PATH=/opt/kubernetes:/usr/sbin:/usr/bin:/sbin:/bin")
        .args(words);
    Ok(command)
}

/// Which of a node's programs do not run.
pub(crate) fn missing(node: NodePlan) -> Vec<&'static str> {
    let running: Vec<String> =
        processes::in_namespace(&node.netns()).into_iter().map(|process| process.program).collect();
    ["containerd", "kubelet", "kube-proxy"]
        .into_iter()
        .filter(|name| {
            !running.iter().any(|path| Path::new(path).file_name() == Some(OsStr::new(name)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_are_good_shell() {
        for (shell, script) in [("sh", BOOT), ("bash", RUN)] {
            let mut command = Command::new(shell);
            program::feed(command.args(["-n", "/dev/stdin"]), script, shell).unwrap();
        }
    }
}
