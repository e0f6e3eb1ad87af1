//! The node that is looked at: the interfaces of its pods, the index, the kernel's maps, and the
//! names that flows get.

use std::{net::IpAddr, process::Command, time::Instant};

use enforcer::{
    cluster::{
        Index, IndexConfig,
        event::{Event, Interface},
        plan::Plan,
    },
    dataplane::{AttachMode, Kernel, KernelConfig},
    flow::directory::Directory,
};
use serde_json::Value;

use super::{
    AnyError,
    cluster::Pod,
    counting::{Cost, cost},
};

/// As the agent's flags have them by default.
const CONNTRACK_ENTRIES: u32 = 262_144;
const SERVICE_ENTRIES: u32 = 65_536;

/// An index, what its plans are written to, and what tells flows their names.
pub(super) struct Node {
    pub(super) index: Index,
    kernel: Kernel,
    names: Directory,
}

/// What an event, or the first list, came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// Taking it in and planning.
    pub(super) plan: Cost,
    /// Writing to the maps.
    pub(super) write: Cost,
    /// Naming.
    pub(super) name: Cost,
    pub(super) plans: u32,
    /// Map entries written or deleted.
    pub(super) entries: usize,
}

impl Node {
    /// A node without anything, in this thread's network namespace.
    pub(super) fn new() -> Result<Self, AnyError> {
        let (kernel, _rings) = Kernel::open(&KernelConfig {
            bpf_dir: None,
            state_dir: None,
            attach: AttachMode::Auto,
            conntrack_entries: CONNTRACK_ENTRIES,
            service_entries: SERVICE_ENTRIES,
            class_key: [1, 2],
        })?;
        let index = Index::new(IndexConfig {
            class_key: kernel.class_key(),
            first_table: kernel.first_table(),
            node: Some("node-0".into()),
            service_entries: Some(kernel.service_entries()),
            ..IndexConfig::default()
        });
        Ok(Self { index, kernel, names: Directory::default() })
    }

    /// Makes an interface for each of these pods, and tells of them.
    pub(super) fn wire<'a>(&mut self, pods: impl Iterator<Item = &'a Pod>) -> Result<(), AnyError> {
        let addresses: Vec<IpAddr> = pods.map(|pod| pod.address).collect();
        for (number, address) in (0u32..).zip(addresses) {
            let name = format!("scale{number}");
            let interface = Interface {
                ifindex: make(&name)?,
                name: name.as_str().into(),
                peer_addresses: vec![address],
                kind: "veth".into(),
            };
            self.index.apply(Event::InterfaceFound(interface));
        }
        Ok(())
    }

    /// Takes these events in and brings what follows into force, as the owning task does.
    pub(super) fn take(&mut self, events: Vec<Event>) -> Result<Done, AnyError> {
        let mut done = Done::default();
        let ((), taken) = cost(|| events.into_iter().for_each(|event| self.index.apply(event)));
        done.plan.add(taken);
        loop {
            let (plan, planned) = cost(|| self.index.take_plan());
            done.plan.add(planned);
            if plan.is_empty() {
                return Ok(done);
            }
            done.plans += 1;
            done.entries += entries(&plan);
            let now = Instant::now();
            let ((), named) =
                cost(|| plan.names.iter().for_each(|name| self.names.apply(name, now)));
            done.name.add(named);
            let (applied, written) = cost(|| self.kernel.apply(&plan));
            done.write.add(written);
            if let Some(failure) = applied.failures.into_iter().next() {
                return Err(failure.into());
            }
        }
    }
}

/// A link with another end, and its index.
fn make(name: &str) -> Result<u32, AnyError> {
    let peer = format!("{name}p");
    ip(&["link", "add", name, "type", "veth", "peer", "name", &peer])?;
    let shown: Value = serde_json::from_slice(&ip(&["-j", "link", "show", name])?)?;
    let index = shown[0]["ifindex"].as_u64().ok_or("a link without an index")?;
    Ok(u32::try_from(index)?)
}

fn ip(args: &[&str]) -> Result<Vec<u8>, AnyError> {
    let output = Command::new("ip").args(args).output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr)).into())
}

/// Operations on maps that a plan asks for.
fn entries(plan: &Plan) -> usize {
    plan.rows_added.len()
        + plan.cidrs_set.len()
        + plan.peers_set.len()
        + plan.peers_removed.len()
        + plan.services_set.len()
        + plan.endpoints_set.len()
        + plan.endpoints_removed.len()
        + plan.cidrs_removed.len()
        + plan.services_removed.len()
        + plan.rows_removed.len()
}
