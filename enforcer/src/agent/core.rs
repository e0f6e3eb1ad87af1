//! The state that one task owns: the index, the kernel, the source, the names for flows.
//!
//! Every change goes the same way: events into the index, one plan out of it, the plan into the
//! kernel, its names to the thread that reads flows before the kernel can tell events with them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::{
    backends::Backends, break_glass::BreakGlass, bypass::Bypass, dns::ClusterDns,
    endpoints_file::EndpointsFile, found::Found, gaps::Gaps, holds::Hold, lingering::Lingering,
    names, self_check::SelfCheck, spare, told::Told, uncovered::Uncovered,
};
use crate::{
    cli::{StartMode, args::DirArgs},
    cluster::{
        Enforcement, Index, IndexConfig, NodePortAddresses,
        event::{Event, Interface, Sandbox, StartPolicy},
        plan::Plan,
    },
    dataplane::{
        self, Cover, DataplaneError, FlowEvents, Kernel,
        netlink::{DiscoveryEvent, conntrack},
    },
    flow::{nodes::Nodes, thread::FlowsThread},
    gate::GateStatus,
    metrics::Metrics,
    rivals::Rival,
    source::{
        Source, SourceUpdate, cni::CniCache, manifests::Ignored, problem::Problem, unsaved::Journal,
    },
};

/// An interface that was found this long before it is armed has a past to take over.
const HAS_A_PAST: Duration = Duration::from_secs(1);

/// How long attaching is tried again without a pause.
const RETRIED_AT_ONCE: Duration = Duration::from_secs(2);

/// Plans that follow from one change, at most.
const MOST_PLANS: usize = 8;

/// An interface that is there.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: Arc<str>,
    /// Since when it is known.
    pub(super) since: Instant,
    /// It came while the agent was there, and its pod's policy was not in force yet.
    pub(super) starting: bool,
}

/// What the owning task owns.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) index: Index,
    pub(super) kernel: Kernel,
    pub(super) source: Source,
    /// What was found on the node, until the first plan.
    pub(super) found: Option<Found>,
    pub(super) problems: Vec<Problem>,
    pub(super) ignored: Vec<Ignored>,
    pub(super) settled: bool,
    pub(super) flows: FlowsThread,
    pub(super) nodes: Nodes,
    wall_offset: Duration,
    /// What the network plugins tell of sandboxes, where they are asked.
    pub(super) cni: Option<CniCache>,
    /// Interfaces that are there.
    pub(super) interfaces: HashMap<u32, Known>,
    /// Names of interfaces that are no pods'.
    not_pods: Vec<String>,
    /// Pods that started while no agent was there to guard them.
    pub(super) unguarded: Vec<String>,
    pub(super) revision: u64,
    pub(super) armed: bool,
    /// What failed at the last write, until it succeeds.
    pub(super) failures: Vec<String>,
    /// When our programs were put back, in the last minute, by interface.
    pub(super) displaced: HashMap<u32, Vec<Instant>>,
    pub(super) bypass: Bypass,
    /// Pods on which nothing is enforced because their interface cannot be seen.
    pub(super) uncovered: Uncovered,
    /// Interfaces by which packets can leave.
    pub(super) outlets: BTreeMap<u32, Arc<str>>,
    /// Flows to Services may have backends that are not noted.
    pub(super) backends_due: bool,
    /// The thread that notes them.
    pub(super) backends: Backends,
    /// Since when Services that are gone linger.
    lingering: Lingering,
    pub(super) metrics: Metrics,
    pub(super) start: StartMode,
    /// Whether interfaces of nobody are audited only.
    pub(super) audit: bool,
    dns: ClusterDns,
    pub(super) gaps: Gaps,
    /// Since when an interface waits for its programs.
    unattached_since: Option<Instant>,
    /// Other enforcers on the node.
    pub(super) rivals: Vec<Rival>,
    /// Programs after ours that may take marks away, by interface.
    pub(super) marks_at_risk: BTreeMap<u32, Vec<String>>,
    /// What the gate says of itself, where there is one.
    pub(super) gate: Option<watch::Receiver<GateStatus>>,
    /// Sandboxes that wait for their interface.
    pub(super) holds: Vec<Hold>,
    /// Sandboxes that only the gate has told of, the oldest first.
    pub(super) gate_told: VecDeque<Arc<str>>,
    changes: u64,
    /// What is in force and not saved yet, where something is saved.
    pub(super) unsaved: Option<Journal>,
    pub(super) break_glass: BreakGlass,
    pub(super) endpoints_file: EndpointsFile,
    /// What is told of the agent's own doing.
    pub(super) told: Told,
    /// What is wrong with the server of flows.
    pub(super) observer_problems: Vec<String>,
    /// Holds verdicts against the objects, where that is asked for.
    self_check: Option<SelfCheck>,
    /// Pins are gone and cannot be made again: why.
    pub(super) pins_lost: Option<String>,
    /// What must survive a reboot cannot be saved: where, and why.
    pub(super) not_saved: Option<String>,
}

/// What a [`Core`] is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) kernel: Kernel,
    pub(super) source: Source,
    pub(super) cni: Option<CniCache>,
    /// The thread that reads flows, which is told their names.
    pub(super) flows: FlowsThread,
    /// The cluster's nodes, for whoever asks.
    pub(super) nodes: Nodes,
    /// Wall clock less the clock of events.
    pub(super) wall_offset: Duration,
    /// This node's name, where objects name the node that a pod is on.
    pub(super) node: Option<Arc<str>>,
    /// What a pod may do whose policy is not in force yet.
    pub(super) start: StartMode,
    /// Where the cluster's DNS is.
    pub(super) dns: ClusterDns,
    /// What is counted.
    pub(super) metrics: Metrics,
    /// Names of interfaces that are no pods', with `*` for any characters.
    pub(super) not_pods: Vec<String>,
    /// What holds for pods whose namespace says nothing.
    pub(super) enforcement: Enforcement,
    /// Which events the kernel tells, and of how many allowed flows one.
    pub(super) told: (FlowEvents, u32),
    /// Holds verdicts against the objects.
    pub(super) self_check: Option<SelfCheck>,
    /// Which of the node's addresses serve node ports.
    pub(super) node_ports: NodePortAddresses,
    /// Where the socket is, and what must survive.
    pub(super) dirs: DirArgs,
}

impl Core {
    /// Takes over what an earlier agent left, or starts from nothing.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { kernel, source, cni, flows, nodes, wall_offset, dirs, self_check, .. } = parts;
        let Parts { node, start, dns, metrics, not_pods, enforcement, told, node_ports, .. } =
            parts;
        let unsaved = match &source {
            Source::Kubernetes(source) => {
                Some(Journal::open(&dirs.run_dir, &dirs.state_dir, &source.identity().boot))
            }
            Source::Manifests(_) => None,
        };
        kernel.audit_unknown(enforcement == Enforcement::Audit);
        let (events, one_of) = told;
        kernel.tell_flows(events, one_of);
        let index = Index::new(IndexConfig {
            class_key: kernel.class_key(),
            first_table: kernel.first_table(),
            node,
            start: start.policy(),
            enforcement,
            node_ports,
            service_entries: Some(kernel.service_entries()),
        });
        Self {
            index,
            kernel,
            source,
            cni,
            not_pods,
            unguarded: Vec::new(),
            found: None,
            problems: Vec::new(),
            ignored: Vec::new(),
            settled: true,
            flows,
            nodes,
            wall_offset,
            interfaces: HashMap::new(),
            revision: 0,
            armed: false,
            failures: Vec::new(),
            displaced: HashMap::new(),
            bypass: Bypass::default(),
            uncovered: Uncovered::default(),
            outlets: BTreeMap::new(),
            backends_due: false,
            backends: Backends::default(),
            lingering: Lingering::default(),
            metrics,
            start,
            audit: enforcement == Enforcement::Audit,
            dns,
            gaps: Gaps::default(),
            unattached_since: None,
            rivals: Vec::new(),
            marks_at_risk: BTreeMap::new(),
            gate: None,
            holds: Vec::new(),
            gate_told: VecDeque::new(),
            changes: 0,
            unsaved,
            break_glass: BreakGlass::new(wall_offset),
            endpoints_file: EndpointsFile::new(&dirs.run_dir),
            told: Told::default(),
            observer_problems: Vec::new(),
            pins_lost: None,
            not_saved: None,
            self_check,
        }
    }

    /// Looks at what the network plugins tell.
    pub(super) fn refresh_sandboxes(&mut self) {
        for event in self.cni.as_mut().map(CniCache::refresh).unwrap_or_default() {
            self.index.apply(event);
        }
    }

    /// Takes in what is told of a sandbox otherwise.
    pub(super) fn tell_sandbox(&mut self, sandbox: Sandbox) {
        self.index.apply(Event::SandboxFound(sandbox));
        self.plan_if_armed();
    }

    /// A sandbox's word is needed no more.
    pub(super) fn forget_sandbox(&mut self, id: Arc<str>) {
        self.index.apply(Event::SandboxLost(id));
        self.plan_if_armed();
    }

    fn plan_if_armed(&mut self) {
        if self.armed {
            self.plan();
        }
    }

    /// The network plugins have told something: brings it into force.
    pub(super) fn sandboxes_changed(&mut self) {
        self.refresh_sandboxes();
        self.plan_if_armed();
    }

    pub(super) fn is_ignored(&self, interface: &Interface) -> bool {
        self.not_pods.iter().any(|pattern| names::matches(pattern, &interface.name))
    }

    pub(super) fn note(&mut self, interface: &Interface, is_younger: bool) {
        let known = self.interfaces.entry(interface.ifindex).or_insert_with(|| Known {
            name: Arc::clone(&interface.name),
            since: Instant::now(),
            starting: is_younger,
        });
        known.name = Arc::clone(&interface.name);
    }

    /// Takes in what the source brought and brings it into force.
    ///
    /// # Errors
    /// If the kernel's maps cannot be read or written for the first plan.
    pub(super) fn source_changed(&mut self, update: SourceUpdate) -> Result<(), DataplaneError> {
        if self.source.is_usable()
            && let Some(found) = self.found.take()
        {
            self.first_plan(found, update)?;
            // The lists as they came, what they were compared with, and the plan's own needs.
            spare::give_back();
            return Ok(());
        }
        self.take(update);
        if self.armed {
            self.settle_node_addresses();
            self.plan();
        }
        Ok(())
    }

    /// Brings it into the kernel which addresses are the node's own, and what they are for.
    pub(super) fn settle_node_addresses(&mut self) {
        if let Some(addresses) = self.index.take_node_addresses() {
            let applied = self.kernel.set_node_addresses(addresses);
            self.note_failures(applied.failures);
        }
    }

    /// Has the index know of something that verdicts may depend on.
    pub(super) fn apply(&mut self, event: Event) {
        if let Some(check) = &self.self_check {
            check.changes(&event);
        }
        self.index.apply(event);
    }

    /// How many verdicts of the kernel were not what the objects say.
    pub(super) fn wrong_verdicts(&self) -> u64 {
        self.self_check.as_ref().map_or(0, SelfCheck::differences)
    }

    /// Tells the self-check that what it was told of has been written.
    pub(super) fn is_written(&self) {
        if let Some(check) = &self.self_check {
            check.is_written(self.armed && !self.kernel.incomplete());
        }
    }

    pub(super) fn take(&mut self, update: SourceUpdate) {
        let SourceUpdate { events, problems, ignored, changed, settled } = update;
        if changed {
            for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
                warn!("{problem}");
            }
        }
        self.settled = settled;
        self.problems = problems;
        self.ignored = ignored;
        self.changes += u64::from(!events.is_empty());
        self.note_unsaved(&events);
        self.nodes.take(&events);
        self.told.objects(&events, self.revision);
        for event in events {
            self.containers_started(&event);
            self.apply(event);
        }
    }

    /// Takes in what happened to interfaces.
    pub(super) fn discovered(&mut self, event: DiscoveryEvent) {
        if self.found.is_some() {
            if let DiscoveryEvent::Lost(ifindex) = event {
                self.write(&Plan { endpoints_removed: vec![ifindex], ..Plan::default() });
            }
            let outlets = matches!(event, DiscoveryEvent::Outlets(_));
            if let Some(found) = &mut self.found {
                found.take(event);
            }
            self.close_early();
            if outlets {
                self.cover_early();
            }
            return;
        }
        match event {
            DiscoveryEvent::Found(interface) if self.is_ignored(&interface) => {}
            DiscoveryEvent::Found(interface) => {
                self.note(&interface, true);
                self.index.apply(Event::InterfaceAppeared(interface));
            }
            DiscoveryEvent::Lost(ifindex) => {
                self.interfaces.remove(&ifindex);
                self.index.apply(Event::InterfaceLost(ifindex));
                // One that was closed without a pod is not the index's to remove.
                self.write(&Plan { endpoints_removed: vec![ifindex], ..Plan::default() });
            }
            DiscoveryEvent::NodeAddresses(addresses) => {
                self.apply(Event::NodeAddressesFound(addresses));
                self.settle_node_addresses();
            }
            DiscoveryEvent::Outlets(outlets) => {
                self.outlets = outlets;
                if self.armed {
                    self.cover(Cover::Changed);
                }
            }
            DiscoveryEvent::FirstComplete => {}
        }
        self.plan();
    }

    /// Brings what the index wants into force. A plan that replaces tables is followed by one that
    /// forgets the old ones; there is never more than that, but the limit costs nothing.
    pub(super) fn plan(&mut self) {
        if self.start == StartMode::ClosedExceptDns {
            let addresses = self.dns.addresses(self.index.services());
            let policy = StartPolicy::ClosedExceptDns(addresses);
            self.index.apply(Event::StartPolicyChanged(policy));
        }
        for _ in 0..MOST_PLANS {
            let plan = self.index.take_plan();
            if plan.is_empty() {
                break;
            }
            let endpoints = !(plan.endpoints_set.is_empty() && plan.endpoints_removed.is_empty());
            self.bring_into_force(&plan);
            if endpoints && self.armed {
                self.cover(Cover::Changed);
                self.write_endpoints();
            }
        }
        self.is_written();
    }

    fn bring_into_force(&mut self, plan: &Plan) {
        let has_a_past = plan.endpoints_set.iter().any(|endpoint| {
            !self.kernel.is_attached(endpoint.ifindex)
                && self
                    .interfaces
                    .get(&endpoint.ifindex)
                    .is_some_and(|known| !known.starting && known.since.elapsed() > HAS_A_PAST)
        });
        if has_a_past {
            self.kernel.arrive(kernel_flows());
        }
        self.write(plan);
        self.kernel.arrived();
    }

    /// Counts what may have changed what must survive a reboot.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn write(&mut self, plan: &Plan) {
        self.changes += 1;
        // Before events can carry them.
        self.flows.rename(plan.names.clone());
        let applied = self.kernel.apply(plan);
        self.backends_due |= plan.endpoints_set.iter().any(|endpoint| endpoint.rejudge);
        self.revision = self.revision.max(plan.revision);
        for (ifindex, interface) in &applied.armed {
            debug!(ifindex, %interface, "armed");
        }
        for endpoint in plan.endpoints_set.iter().filter(|endpoint| !endpoint.starting) {
            if let Some(known) = self.interfaces.get_mut(&endpoint.ifindex)
                && self.kernel.is_attached(endpoint.ifindex)
                && std::mem::take(&mut known.starting)
            {
                let since = known.since.elapsed();
                let wall = self.wall_offset + Duration::from_nanos(dataplane::monotonic());
                self.came_into_force(endpoint.ifindex, since, wall);
            }
        }
        self.told.names(&plan.names, applied.failures.first().map(String::as_str));
        self.note_failures(applied.failures);
    }

    pub(super) fn note_failures(&mut self, failures: Vec<String>) {
        if !failures.is_empty() {
            for failure in &failures {
                warn!("{failure}");
            }
            self.failures = failures;
        }
    }

    /// Tries again at once, for a while, what leaves an interface open: a link that is on its way
    /// out holds the hook for a moment.
    pub(super) fn retry_attaching(&mut self, now: Instant) {
        if !self.kernel.unattached() {
            self.unattached_since = None;
            return;
        }
        let since = *self.unattached_since.get_or_insert(now);
        if now.saturating_duration_since(since) < RETRIED_AT_ONCE {
            self.retry();
        }
    }

    /// Tries again what could not be written.
    pub(super) fn retry(&mut self) {
        self.take_over();
        if !self.kernel.incomplete() {
            self.failures.clear();
            return;
        }
        let applied = self.kernel.retry();
        self.failures = applied.failures;
        self.is_written();
        if !self.kernel.incomplete() {
            info!("what could not be written before is in force now");
        }
    }

    /// Wall clock less the clock of events is this by now.
    pub(super) fn note_wall_offset(&mut self, offset: Duration) {
        self.wall_offset = offset;
        self.break_glass.note_wall_offset(offset);
    }

    /// Ages flows and checks that the programs are where they were put.
    pub(super) fn maintain(&mut self) {
        let swept = self.kernel.sweep();
        debug!(live = swept.live, deleted = swept.deleted, "aged conntrack");
        // First: what is attached again needs them.
        self.look_after_pins();
        self.put_back(Instant::now());
        // Before the first plan nothing is known to be no outlet.
        if self.found.is_none() {
            self.cover(Cover::Displaced);
        } else {
            self.cover_early();
        }
        self.backends_due = true;
        self.look_for_bypass();
        if self.armed {
            self.uncovered.look(self.index.covered(), Instant::now());
        }
        self.look_after_marks();
        self.forget_services(Instant::now());
    }

    /// Forgets Services that proxies have had time to forget.
    fn forget_services(&mut self, now: Instant) {
        // Before all Services are known, those that no object names may be there.
        let lingers = self.armed && self.source.is_live() && self.index.services().lingers();
        if self.lingering.is_over(lingers, now) {
            self.index.apply(Event::ProxiesHadTime);
            self.plan();
        }
    }

    /// Events that could not be decoded.
    pub(super) fn undecodable(&self) -> u64 {
        self.flows.counts().undecodable.load(Ordering::Relaxed)
    }
}

/// The node's own connections; `None` where it tracks none or does not tell.
pub(super) fn kernel_flows() -> Option<Vec<conntrack::KernelFlow>> {
    match conntrack::dump() {
        Ok(flows) => flows,
        Err(error) => {
            warn!(%error, "the node's own conntrack cannot be read");
            None
        }
    }
}
