//! Flags of all commands. Each flag of the agent is also an `ENFORCER_…` environment variable.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{
    completion::CompletionArgs,
    list::{ListArgs, WatchArgs},
    terminal::Color,
};
pub use super::{
    dirs::DirArgs,
    export_args::ExportArgs,
    flow_args::FlowArgs,
    hubble_args::HubbleArgs,
    observe::args::ObserveArgs,
    switch_args::{DisableArgs, EnableArgs, Target},
};
use crate::{
    cluster::{
        Enforcement, NodePortAddresses,
        event::{ObjectKey, StartPolicy},
    },
    dataplane::{AttachMode, FlowEvents},
    gate,
    metrics::MetricsAddress,
};

/// Kubernetes NetworkPolicy, enforced in eBPF beside any CNI.
#[derive(Clone, Debug, Parser)]
#[command(name = "enforcer", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the node agent
    Agent(Box<AgentArgs>),
    /// Show what is enforced, what is not, and why
    Status(StatusArgs),
    /// Show flows with the policies that decided them, of this node or any Hubble server
    Observe(Box<ObserveArgs>),
    /// List what a Hubble server knows
    List(ListArgs),
    /// Follow what a Hubble server knows
    Watch(WatchArgs),
    /// Print what a shell needs to complete these commands
    Completion(CompletionArgs),
    /// Switch enforcement off for a time, with or without an agent: nothing is dropped meanwhile
    Disable(DisableArgs),
    /// Switch enforcement on again before its time
    Enable(EnableArgs),
    /// Remove programs, maps and state from this node
    Uninstall(UninstallArgs),
}

/// Form of the agent's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// Without time and colour, for a journal that adds its own
    Journal,
}

/// What a pod may do that starts while the agent runs, until its policy is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StartMode {
    /// Nothing, but to be reached by its own node
    #[default]
    Closed,
    /// Everything
    Open,
    /// Ask the cluster's DNS for names
    ClosedExceptDns,
}

impl StartMode {
    /// As the index knows it; where the cluster's DNS is, it is told later.
    #[must_use]
    pub fn policy(self) -> StartPolicy {
        match self {
            Self::Closed => StartPolicy::Closed,
            Self::Open => StartPolicy::Open,
            Self::ClosedExceptDns => StartPolicy::ClosedExceptDns(Vec::new()),
        }
    }
}

/// `enforcer agent`.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// Directory of Kubernetes manifests that takes the API server's place
    #[arg(long, value_name = "DIR", env = "ENFORCER_MANIFESTS", conflicts_with = "kubeconfig")]
    pub manifests: Option<PathBuf>,
    /// How to reach the API server; if not given the pod's service account, or where there is none
    /// $KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE", env = "ENFORCER_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Where things are
    #[command(flatten)]
    pub dirs: DirArgs,
    /// Remove the taint enforcer.io/agent-not-ready from this node when policy is in force
    #[arg(long, env = "ENFORCER_REMOVE_TAINT", conflicts_with = "manifests")]
    pub remove_taint: bool,
    /// Name of this node's Node object; the host name if not given
    #[arg(long, value_name = "NAME", env = "ENFORCER_NODE_NAME")]
    pub node_name: Option<String>,
    /// What a pod may do that starts now, until its policy is in force
    #[arg(long, value_enum, env = "ENFORCER_START", default_value_t)]
    pub start: StartMode,
    /// The cluster's DNS Service, for --start=closed-except-dns
    #[arg(
        long,
        value_name = "NS/NAME",
        env = "ENFORCER_DNS_SERVICE",
        default_value = "kube-system/kube-dns",
        value_parser = service_name
    )]
    pub dns_service: ObjectKey,
    /// Address of a DNS cache on every node, likewise
    #[arg(
        long,
        value_name = "IP",
        env = "ENFORCER_NODE_LOCAL_DNS",
        default_value = "169.254.20.10"
    )]
    pub node_local_dns: IpAddr,
    /// Hold pods that start until their policy is in force
    #[arg(long, value_enum, env = "ENFORCER_GATE", default_value_t)]
    pub gate: GateMode,
    /// The container runtime's NRI socket
    #[arg(long, value_name = "PATH", env = "ENFORCER_NRI_SOCKET", default_value = gate::DEFAULT_SOCKET)]
    pub nri_socket: PathBuf,
    /// Where metrics are served; nothing for nowhere
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "ENFORCER_METRICS_ADDRESS",
        default_value = MetricsAddress::DEFAULT
    )]
    pub metrics_address: MetricsAddress,
    /// The result cache of libcni, which tells whose a new interface is [default with the API
    /// server: /var/lib/cni/results]
    #[arg(long, value_name = "DIR", env = "ENFORCER_CNI_CACHE_DIR")]
    pub cni_cache_dir: Option<PathBuf>,
    /// Interfaces that are no pods' though their other end is elsewhere (* for any characters)
    #[arg(long, value_name = "GLOB", env = "ENFORCER_IGNORE_INTERFACE", value_delimiter = ',')]
    pub ignore_interface: Vec<String>,
    /// Take the node over from an agent that runs already, when this one is ready
    #[arg(long, env = "ENFORCER_TAKE_OVER")]
    pub take_over: bool,
    /// Name of this agent among several on the node, for `status --ready`
    #[arg(long, value_name = "ID", env = "ENFORCER_INSTANCE")]
    pub instance: Option<String>,
    /// How programs are attached
    #[arg(long, value_enum, env = "ENFORCER_ATTACH", default_value_t)]
    pub attach: AttachMode,
    /// What is done with packets that policy denies; the label enforcer.io/enforcement of a
    /// namespace overrides it for that namespace's pods
    #[arg(long, value_enum, env = "ENFORCER_ENFORCEMENT", default_value_t)]
    pub enforcement: Enforcement,
    /// Connections that conntrack can hold, for each IP version
    #[arg(
        long,
        value_name = "N",
        env = "ENFORCER_CONNTRACK_ENTRIES",
        default_value_t = 262_144,
        value_parser = clap::value_parser!(u32).range(1024..=1 << 26)
    )]
    pub conntrack_entries: u32,
    /// Addresses and ports of Services that the node can know; namespaces share them
    #[arg(
        long,
        value_name = "N",
        env = "ENFORCER_SERVICE_ENTRIES",
        default_value_t = 65_536,
        value_parser = clap::value_parser!(u32).range(64..=1 << 24)
    )]
    pub service_entries: u32,
    /// Addresses of this node that serve node ports: what kube-proxy's --nodeport-addresses says
    #[arg(long, value_enum, env = "ENFORCER_NODEPORT_ADDRESSES", default_value_t)]
    pub nodeport_addresses: NodePortAddresses,
    /// How flows are shown to others
    #[command(flatten)]
    pub hubble: HubbleArgs,
    /// Flows that are kept for `enforcer observe`
    #[arg(
        long,
        value_name = "N",
        env = "ENFORCER_FLOW_BUFFER",
        default_value_t = 65_535,
        value_parser = clap::value_parser!(u32).range(1..=1 << 24)
    )]
    pub flow_buffer: u32,
    /// Which flow events the kernel tells
    #[arg(long, value_enum, env = "ENFORCER_FLOW_EVENTS", default_value_t)]
    pub flow_events: FlowEvents,
    /// Of how many allowed flows one is told, and its replies and end; drops always are
    #[arg(
        long,
        value_name = "N",
        env = "ENFORCER_FLOW_SAMPLING",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub flow_sampling: u32,
    /// Hold up to N of the kernel's verdicts a second against the objects; 0 for none
    #[arg(
        long,
        value_name = "N",
        env = "ENFORCER_SELF_CHECK",
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(..=1000)
    )]
    pub self_check: u32,
    /// What is made of flows
    #[command(flatten)]
    pub flows: FlowArgs,
    /// Where flows are written to
    #[command(flatten)]
    pub export: ExportArgs,
    /// What is logged: error, warn, info, debug, trace, or directives such as enforcer::source=debug
    #[arg(long, value_name = "LEVEL", env = "ENFORCER_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// Form of the log
    #[arg(long, value_enum, env = "ENFORCER_LOG_FORMAT", default_value_t)]
    pub log_format: LogFormat,
}

/// Whether starting pods are held until their policy is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GateMode {
    /// No
    #[default]
    None,
    /// As a plugin of the container runtime (NRI)
    Nri,
}

fn service_name(text: &str) -> Result<ObjectKey, &'static str> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(ObjectKey { namespace: namespace.into(), name: name.into() })
        }
        _ => Err("must be NAMESPACE/NAME"),
    }
}

/// Where libcni keeps its results if it is not told otherwise.
const CNI_CACHE_DIR: &str = "/var/lib/cni/results";

impl AgentArgs {
    /// Where the network plugins' results are; `None` if nobody asks them.
    #[must_use]
    pub fn cni_cache_dir(&self) -> Option<&Path> {
        // Manifests may describe pods that no runtime has made.
        let usual = self.manifests.is_none().then_some(Path::new(CNI_CACHE_DIR));
        self.cni_cache_dir.as_deref().or(usual)
    }

    /// The node's name: the flag, or the host's.
    ///
    /// # Errors
    /// If the host's name cannot be read.
    pub fn node(&self) -> std::io::Result<String> {
        match &self.node_name {
            Some(name) => Ok(name.clone()),
            None => std::fs::read_to_string("/proc/sys/kernel/hostname")
                // As the kubelet makes a node's name of it.
                .map(|name| name.trim().to_lowercase()),
        }
    }
}

/// `enforcer uninstall`.
#[derive(Clone, Debug, Args)]
pub struct UninstallArgs {
    /// Where things are
    #[command(flatten)]
    pub dirs: DirArgs,
    /// Stay until told to end, for a pod that shows that its node is clean
    #[arg(long)]
    pub stay: bool,
}

/// Form of a status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StatusOutput {
    /// For people
    #[default]
    Text,
    /// One JSON object
    Json,
}

/// `enforcer status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Wait until everything written before this call is in force, for at most so many seconds
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "60"
    )]
    pub wait: Option<u64>,
    /// Ask about one policy only
    #[arg(long = "for", value_name = "policy/NS/NAME", value_parser = policy_name)]
    pub only: Option<String>,
    /// Interfaces that cannot be enforced on are no failure
    #[arg(long)]
    pub ignore_unenforceable: bool,
    /// Print nothing; yes if a complete plan is in force, by the agent that --instance names
    #[arg(long, conflicts_with_all = ["wait", "only", "output"])]
    pub ready: bool,
    /// With --ready: the agent that must answer
    #[arg(long, value_name = "ID", env = "ENFORCER_INSTANCE")]
    pub instance: Option<String>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: StatusOutput,
    /// Colours
    #[arg(long, value_enum, default_value_t)]
    pub color: Color,
    /// Where the agent's socket is
    #[arg(long, value_name = "DIR", env = "ENFORCER_RUN_DIR", default_value = "/run/enforcer")]
    pub run_dir: PathBuf,
}

fn policy_name(text: &str) -> Result<String, &'static str> {
    let parts: Vec<&str> = text.split('/').collect();
    match parts[..] {
        ["policy", namespace, name] if !namespace.is_empty() && !name.is_empty() => {
            Ok(text.to_owned())
        }
        _ => Err("must be policy/NAMESPACE/NAME"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(args.split(' ')).map(|cli| cli.command)
    }

    #[test]
    fn the_definitions_hold() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let Command::Agent(agent) = parse("enforcer agent --manifests /m").unwrap() else {
            panic!("another command")
        };
        assert_eq!(agent.dirs.run_dir, PathBuf::from("/run/enforcer"));
        assert_eq!(agent.dirs.bpf_dir, PathBuf::from("/sys/fs/bpf/enforcer"));
        assert_eq!(agent.dirs.state_dir, PathBuf::from("/var/lib/enforcer"));
        assert_eq!((agent.conntrack_entries, agent.flow_buffer), (262_144, 65_535));
        assert_eq!(agent.attach, AttachMode::Auto);
        assert!(agent.node().is_ok_and(|name| !name.is_empty()));
    }

    #[test]
    fn wait_takes_seconds_only_after_an_equals_sign() {
        for (args, expected) in [
            ("enforcer status", None),
            ("enforcer status --wait", Some(60)),
            ("enforcer status --wait=5 --for policy/a/b", Some(5)),
        ] {
            let Command::Status(status) = parse(args).unwrap() else { panic!("{args}") };
            assert_eq!(status.wait, expected, "{args}");
        }
    }

    #[test]
    fn wrong_usage_ends_with_2() {
        for args in [
            "enforcer",
            "enforcer agent --manifests /m --kubeconfig /k",
            "enforcer status --wait 5",
            "enforcer status --for a/b",
            "enforcer observe --last 1 --all",
            "enforcer observe --first 1 --follow",
            "enforcer observe --not",
            "enforcer observe --verdict dropped",
            "enforcer observe --server ftp://x",
            "enforcer observe -P",
            "enforcer observe --since yesterday",
            "enforcer observe -o xml",
            "enforcer agent --manifests /m --conntrack-entries 0",
        ] {
            assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args}");
        }
    }
}
