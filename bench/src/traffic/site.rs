//! A node with two pods and one variant on it. Each variant has its own, all of them at one time, so
//! that to take turns nothing has to be switched.

use std::{fs, io, net::SocketAddr, time::Duration};

use enforcer_tests::{Agent, AgentOptions, Lab, LabError, Manifests, Mode, Netns};
use nix::unistd::Pid;

use super::{
    baseline::Baseline,
    cpu::{self, Processor},
    error::TrafficError,
    load::{Ends, Load},
    nft,
    policy::{Policy, SERVER},
    probe,
    ruleset::ruleset,
    variant::Variant,
};

/// For both pods: no port is used a second time before connection tracking has forgotten the first,
/// a connection that is dropped ends soon, and the machine's choice of a congestion control, which
/// may wait between segments, is not measured.
const SETTINGS: [(&str, &str); 3] = [
    ("ip_local_port_range", "1024 65535"),
    ("tcp_syn_retries", "2"),
    ("tcp_congestion_control", "reno"),
];

/// What is at the pods' interfaces, for as long as it is held.
#[derive(Debug)]
enum Guard {
    /// Nothing, or what goes with the namespace.
    None,
    Baseline(Box<Baseline>),
    Agent(Box<Agent>, Pid),
}

/// A node with a variant.
#[derive(Debug)]
pub(crate) struct Site {
    name: String,
    policy: Policy,
    // Before the laboratory: it goes first.
    guard: Guard,
    lab: Lab,
}

impl Site {
    /// Makes the node, and holds what is on it against the policy.
    pub(crate) fn new(name: &str, variant: &Variant, policy: Policy) -> Result<Self, TrafficError> {
        let mut lab = Lab::new(Mode::PointToPoint)?;
        lab.add_pods(&Policy::pods())?;
        for pod in lab.pods() {
            configure(pod.netns())?;
        }
        // Before anything is enforced: both ends learn their neighbours.
        probe::check(name, false, &lab, policy)?;
        keep_neighbours(lab.node())?;
        for pod in lab.pods() {
            keep_neighbours(pod.netns())?;
        }
        let guard = guard(&lab, variant, policy)?;
        probe::check(name, variant.enforces(), &lab, policy)?;
        Ok(Self { name: name.to_owned(), policy, guard, lab })
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Between whom a load runs.
    pub(crate) fn ends(&self, server_on: Processor) -> Result<Ends<'_>, LabError> {
        Ok(Ends {
            client: self.lab.pod("bench/client")?.netns(),
            server: self.lab.pod("bench/server")?.netns(),
            address: SocketAddr::new(SERVER.into(), self.policy.last_port()),
            server_on,
        })
    }

    /// What must be done before a turn, and is not measured.
    pub(crate) fn prepare(&mut self, load: Load) -> Result<(), TrafficError> {
        match &mut self.guard {
            Guard::Baseline(baseline) if load == Load::Connect => baseline.renew(self.lab.node()),
            Guard::Agent(agent, _) => {
                if agent.runs() {
                    return Ok(());
                }
                let what = "has ended while it was measured".to_owned();
                Err(LabError::Agent { what, log: agent.log() }.into())
            }
            _ => Ok(()),
        }
    }

    /// Processor time of its agent, if it has one.
    pub(crate) fn agent_time(&self) -> Result<Option<Duration>, LabError> {
        let Guard::Agent(_, pid) = self.guard else { return Ok(None) };
        let failed = |source| LabError::Io { operation: "read the agent's clock".into(), source };
        cpu::time_of(pid).map(Some).map_err(failed)
    }
}

fn guard(lab: &Lab, variant: &Variant, policy: Policy) -> Result<Guard, TrafficError> {
    match variant {
        Variant::Nothing => Ok(Guard::None),
        Variant::Baseline(program) => {
            let interfaces = lab.pods().map(|pod| pod.host_interface().to_owned()).collect();
            let baseline = Baseline::attach(lab.node(), program, interfaces)?;
            Ok(Guard::Baseline(Box::new(baseline)))
        }
        Variant::Enforcer { binary, flags } => {
            let manifests = Manifests::new(lab.dir())?;
            for (name, text) in policy.manifests() {
                manifests.write(&name, &text)?;
            }
            let agent = Agent::start(
                lab,
                &manifests,
                AgentOptions {
                    binary: Some(binary.clone()),
                    flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
                    ..AgentOptions::default()
                },
            )?;
            let pid = agent.process_status("Pid")?.parse().map_err(
                |error: std::num::ParseIntError| LabError::Io {
                    operation: "read the agent's number".into(),
                    source: io::Error::new(io::ErrorKind::InvalidData, error),
                },
            )?;
            Ok(Guard::Agent(Box::new(agent), Pid::from_raw(pid)))
        }
        Variant::Nftables(form) => {
            nft::load(lab.node(), &ruleset(policy, *form))?;
            Ok(Guard::None)
        }
    }
}

fn configure(pod: &Netns) -> Result<(), LabError> {
    let written = pod.run(|| {
        SETTINGS
            .iter()
            .try_for_each(|(name, value)| fs::write(format!("/proc/sys/net/ipv4/{name}"), value))
    })?;
    written.map_err(|source| LabError::Io { operation: "configure a pod".into(), source })
}

/// Makes what is known of neighbours permanent, so that no turn has to ask, and so that a baseline
/// program, which passes IP only, is in nobody's way.
fn keep_neighbours(netns: &Netns) -> Result<(), LabError> {
    let known = netns.command("ip", &["-4", "neigh", "show"])?;
    for line in known.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        // `ADDRESS dev INTERFACE lladdr ADDRESS …`
        if let [address, _, interface, "lladdr", hardware, ..] = words[..] {
            let link = ["dev", interface, "lladdr", hardware, "nud", "permanent"];
            netns.command("ip", &[&["neigh", "replace", address], &link[..]].concat())?;
        }
    }
    Ok(())
}
