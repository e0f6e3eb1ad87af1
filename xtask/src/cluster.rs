//! `cargo xtask cluster`: a real Kubernetes in namespaces of this machine.

use std::{
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use clap::{Subcommand, ValueEnum};
use enforcer_cluster::{
    Assets, Cluster, ClusterError, Families, HOST_PACKAGES, Hubble, Layout, Options, Progress,
    ProxyMode, Upstream,
};

use crate::{
    console,
    image::{self, ImageTaskError},
    setup::{self, SetupError},
    workspace::Workspace,
};

/// What can be done with the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Start one; what it is made of is built and downloaded the first time.
    Up {
        /// How many nodes; 0 for a control plane alone.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=9))]
        nodes: u8,
        /// Pods, Services and nodes with IPv6 addresses beside those of IPv4.
        #[arg(long)]
        dual_stack: bool,
        /// How kube-proxy does its work.
        #[arg(long, value_enum, default_value_t)]
        proxy_mode: ProxyModeName,
    },
    /// Remove it, and whatever one that was killed has left.
    Down,
    /// Run a command in a node.
    Exec {
        /// The node's name: node1, node2, ...
        node: String,
        /// The command.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Run kubectl with the administrator's rights.
    Kubectl {
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Print the path of the administrator's kubeconfig.
    Kubeconfig,
    /// Build Kubernetes' own tests, and Hubble's client and relay, for those who run tests of the
    /// cluster by hand.
    Upstream,
}

/// How kube-proxy does its work.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum ProxyModeName {
    /// With nftables.
    #[default]
    Nftables,
    /// With iptables.
    Iptables,
}

/// Why the cluster is not as asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterTaskError {
    /// Nobody should wait for builds to learn this.
    #[error(
        "a cluster is made of namespaces, mounts and cgroups, so run `cargo xtask cluster` as root"
    )]
    NotRoot,
    /// Kubernetes is written in Go.
    #[error(
        "Kubernetes is built from source, and there is no Go; install Go 1.26 or newer and put it \
         into PATH"
    )]
    NoGo,
    /// A package is missing.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The test image could not be made.
    #[error(transparent)]
    Image(#[from] ImageTaskError),
    /// The cluster itself failed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A program could not be started.
    #[error("cannot start {program}: {reason}; check that the cluster is up and whole")]
    Start { program: String, reason: std::io::Error },
}

/// Does what is asked for.
pub(crate) fn run(workspace: &Workspace, command: ClusterCommand) -> Result<(), ClusterTaskError> {
    if !setup::is_root() {
        return Err(ClusterTaskError::NotRoot);
    }
    let layout = layout(workspace);
    match command {
        ClusterCommand::Up { nodes, dual_stack, proxy_mode } => {
            let families = if dual_stack { Families::Dual } else { Families::V4 };
            let proxy = match proxy_mode {
                ProxyModeName::Nftables => ProxyMode::Nftables,
                ProxyModeName::Iptables => ProxyMode::Iptables,
            };
            up(workspace, Options { nodes, families, proxy })
        }
        ClusterCommand::Down => {
            let begun = Instant::now();
            if Cluster::down(&layout)? {
                let time = console::seconds(begun.elapsed());
                console::step(&format!("the cluster is gone ({time})"));
            } else {
                console::step("there was no cluster");
            }
            Ok(())
        }
        ClusterCommand::Exec { node, command } => {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            Err(replace_by(&mut Cluster::running(&layout)?.exec(&node, &words)?))
        }
        ClusterCommand::Kubectl { arguments } => {
            Err(replace_by(Cluster::running(&layout)?.kubectl().args(arguments)))
        }
        ClusterCommand::Kubeconfig => {
            println!("{}", Cluster::running(&layout)?.layout().kubeconfig().display());
            Ok(())
        }
        ClusterCommand::Upstream => {
            let upstream = prepare_upstream(workspace)?;
            console::step(&format!("they are in {}", workspace.show(&upstream.suite())));
            let hubble = prepare_hubble(workspace)?;
            console::step(&format!("Hubble's client is {}", workspace.show(&hubble.client())));
            Ok(())
        }
    }
}

/// Gets whatever a cluster is made of and is not there yet.
pub(crate) fn prepare(workspace: &Workspace) -> Result<Assets, ClusterTaskError> {
    setup::ensure_programs(&HOST_PACKAGES, "a cluster needs them")?;
    setup::ensure_offered(&["etcd-server"], "a cluster needs etcd")?;
    if setup::find_program("go").is_none() {
        return Err(ClusterTaskError::NoGo);
    }
    let workload = image::workload(workspace)?;
    Ok(Assets::prepare(&layout(workspace), &module(workspace), &[workload], &mut Console::new())?)
}

/// Gets Kubernetes' own tests, which a cluster of these assets can be tried with.
pub(crate) fn prepare_upstream(workspace: &Workspace) -> Result<Upstream, ClusterTaskError> {
    if setup::find_program("go").is_none() {
        return Err(ClusterTaskError::NoGo);
    }
    Ok(Upstream::prepare(&layout(workspace), &module(workspace), &mut Console::new())?)
}

/// Gets Hubble's own client and relay.
pub(crate) fn prepare_hubble(workspace: &Workspace) -> Result<Hubble, ClusterTaskError> {
    if setup::find_program("go").is_none() {
        return Err(ClusterTaskError::NoGo);
    }
    let module = workspace.root().join("cluster/hubble");
    Ok(Hubble::prepare(&layout(workspace), &module, &mut Console::new())?)
}

/// The Go module that Kubernetes is built from.
fn module(workspace: &Workspace) -> PathBuf {
    workspace.root().join("cluster/kubernetes")
}

/// Where the cluster's files are.
pub(crate) fn layout(workspace: &Workspace) -> Layout {
    let folder = workspace.cluster();
    // Programs are recognised by their paths, which the kernel gives without symbolic links.
    let parent = workspace.root().canonicalize().map(|root| root.join("target/cluster"));
    Layout::new(parent.unwrap_or(folder))
}

fn up(workspace: &Workspace, options: Options) -> Result<(), ClusterTaskError> {
    if Cluster::running(&layout(workspace)).is_ok() {
        return Err(ClusterError::AlreadyUp.into());
    }
    let begun = Instant::now();
    let assets = prepare(workspace)?;
    // Programs that build and download end with a Ctrl-C by themselves.
    enforcer_cluster::end_on_signals()?;
    let cluster = Cluster::up(&assets, options, &mut Console::new())?;
    let time = console::seconds(begun.elapsed());
    console::step(&format!("the cluster is up with {} ({time} in all)", nodes(options.nodes)));
    console::detail(&format!("export KUBECONFIG={}", cluster.layout().kubeconfig().display()));
    console::detail("or: cargo xtask cluster kubectl get pods --all-namespaces");
    console::detail("remove it: cargo xtask cluster down");
    Ok(())
}

fn nodes(count: u8) -> String {
    match count {
        0 => "no node".to_owned(),
        1 => "1 node".to_owned(),
        more => format!("{more} nodes"),
    }
}

/// Becomes another program; returns only if that fails.
fn replace_by(command: &mut Command) -> ClusterTaskError {
    let reason = command.exec();
    let program = command.get_program().to_string_lossy().into_owned();
    ClusterTaskError::Start { program, reason }
}

/// Progress on the terminal, with the time that long steps took.
struct Console {
    last: Instant,
}

impl Console {
    fn new() -> Self {
        Self { last: Instant::now() }
    }
}

impl Progress for Console {
    fn step(&mut self, text: &str) {
        console::step(text);
        self.last = Instant::now();
    }

    fn detail(&mut self, text: &str) {
        let elapsed = self.last.elapsed();
        if elapsed > Duration::from_millis(100) {
            console::detail(&format!("{text} ({})", console::seconds(elapsed)));
        } else {
            console::detail(text);
        }
    }
}
