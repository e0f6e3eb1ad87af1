//! The state that one task owns: the index, the kernel, the source, the names for flows.
//!
//! Every change goes the same way: events into the index, one plan out of it, the plan into the
//! kernel, its names into the directory before the kernel can tell events that carry them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::{
    break_glass::BreakGlass, bypass::Bypass, dns::ClusterDns, endpoints_file::EndpointsFile,
    found::Found, gaps::Gaps, holds::Hold, names, told::Told,
};
use crate::{
    cli::{StartMode, args::DirArgs},
    cluster::{
        Enforcement, Index, IndexConfig, NodePortAddresses,
        event::{Event, Interface, Sandbox, StartPolicy},
        plan::Plan,
    },
    dataplane::{
        self, Cover, DataplaneError, Kernel, RingMaps,
        netlink::{DiscoveryEvent, conntrack},
    },
    flow::{decode, directory::Directory, event::enrich, pending::Pending, ring::FlowRing},
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

/// How long events are read without looking at anything else; the rest is read next time.
const READ_AT_MOST: Duration = Duration::from_millis(2);

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
    rings: RingMaps,
    pub(super) source: Source,
    /// What was found on the node, until the first plan.
    pub(super) found: Option<Found>,
    pub(super) problems: Vec<Problem>,
    pub(super) ignored: Vec<Ignored>,
    pub(super) settled: bool,
    directory: Directory,
    pub(super) flows: FlowRing,
    /// Flows to Services that wait for their verdict.
    to_services: Pending,
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
    undecodable: u64,
    /// When our programs were put back, in the last minute, by interface.
    pub(super) displaced: HashMap<u32, Vec<Instant>>,
    pub(super) bypass: Bypass,
    /// Interfaces by which packets can leave.
    pub(super) outlets: BTreeMap<u32, Arc<str>>,
    /// Flows to Services may have backends that are not noted.
    pub(super) backends_due: bool,
    /// When they were last noted.
    pub(super) backends_noted: Option<Instant>,
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
}

/// What a [`Core`] is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) kernel: Kernel,
    pub(super) rings: RingMaps,
    pub(super) source: Source,
    pub(super) cni: Option<CniCache>,
    pub(super) flows: FlowRing,
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
    /// Which of the node's addresses serve node ports.
    pub(super) node_ports: NodePortAddresses,
    /// Where the socket is, and what must survive.
    pub(super) dirs: DirArgs,
}

impl Core {
    /// Takes over what an earlier agent left, or starts from nothing.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { kernel, rings, source, cni, flows, wall_offset, dirs, .. } = parts;
        let Parts { node, start, dns, metrics, not_pods, enforcement, node_ports, .. } = parts;
        let unsaved = match &source {
            Source::Kubernetes(source) => {
                Some(Journal::open(&dirs.run_dir, &dirs.state_dir, &source.identity().boot))
            }
            Source::Manifests(_) => None,
        };
        kernel.audit_unknown(enforcement == Enforcement::Audit);
        let index = Index::new(IndexConfig {
            class_key: kernel.class_key(),
            first_table: kernel.first_table(),
            node,
            start: start.policy(),
            enforcement,
            node_ports,
        });
        Self {
            index,
            kernel,
            rings,
            source,
            cni,
            not_pods,
            unguarded: Vec::new(),
            found: None,
            problems: Vec::new(),
            ignored: Vec::new(),
            settled: true,
            directory: Directory::default(),
            flows,
            to_services: Pending::default(),
            wall_offset,
            interfaces: HashMap::new(),
            revision: 0,
            armed: false,
            failures: Vec::new(),
            undecodable: 0,
            displaced: HashMap::new(),
            bypass: Bypass::default(),
            outlets: BTreeMap::new(),
            backends_due: false,
            backends_noted: None,
            metrics,
            start,
            audit: enforcement == Enforcement::Audit,
            dns,
            gaps: Gaps::default(),
            unattached_since: None,
            rivals: Vec::new(),
            gate: None,
            holds: Vec::new(),
            gate_told: VecDeque::new(),
            changes: 0,
            unsaved,
            break_glass: BreakGlass::new(wall_offset),
            endpoints_file: EndpointsFile::new(&dirs.run_dir),
            told: Told::default(),
            observer_problems: Vec::new(),
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
            return self.first_plan(found, update);
        }
        self.take(update);
        if self.armed {
            self.settle_node_addresses()?;
            self.plan();
            if self.source.is_live() {
                let applied = self.kernel.forget_kept_services();
                self.note_failures(applied.failures);
            }
        }
        Ok(())
    }

    /// Brings it into the kernel which addresses are the node's own, and what they are for.
    pub(super) fn settle_node_addresses(&mut self) -> Result<(), DataplaneError> {
        match self.index.take_node_addresses() {
            Some(addresses) => self.kernel.set_node_addresses(addresses),
            None => Ok(()),
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
        self.told.objects(&events, self.revision);
        for event in events {
            self.containers_started(&event);
            self.index.apply(event);
        }
    }

    /// Takes in what happened to interfaces.
    ///
    /// # Errors
    /// If the map of node addresses cannot be written.
    pub(super) fn discovered(&mut self, event: DiscoveryEvent) -> Result<(), DataplaneError> {
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
            return Ok(());
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
                self.index.apply(Event::NodeAddressesFound(addresses));
                self.settle_node_addresses()?;
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
        Ok(())
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
        let now = Instant::now();
        // Events told before this plan carry the names before it.
        self.drain();
        for name in &plan.names {
            self.directory.apply(name, now);
        }
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
        if !self.kernel.incomplete() {
            info!("what could not be written before is in force now");
        }
    }

    /// Reads the event rings. Returns how many events there were.
    pub(super) fn drain(&mut self) -> usize {
        let Self { rings, directory, flows, wall_offset, undecodable, to_services, .. } = self;
        // What is overdue is told after reading: the verdict may be in a ring.
        let now = dataplane::monotonic();
        let mut tell = |told| flows.push(enrich(told, directory, *wall_offset));
        to_services.look(now, &mut tell, |take| {
            rings.drain(|bytes| match decode::decode(bytes) {
                Ok(raw) => take(raw),
                Err(error) => {
                    if *undecodable == 0 {
                        warn!(%error, "an event of the kernel makes no sense; more are counted only");
                    }
                    *undecodable += 1;
                }
            })
        })
    }

    /// Reads the event rings until they are empty, but not for long: whoever fills them faster
    /// than they are read must not keep policy from coming into force.
    pub(super) fn drain_for_a_while(&mut self) {
        read_until(Instant::now() + READ_AT_MOST, Instant::now, || self.drain());
    }

    /// Ages flows and checks that the programs are where they were put.
    pub(super) fn maintain(&mut self) {
        let swept = self.kernel.sweep();
        debug!(live = swept.live, deleted = swept.deleted, "aged conntrack");
        self.put_back(Instant::now());
        // Before the first plan nothing is known to be no outlet.
        if self.found.is_none() {
            self.cover(Cover::Displaced);
        } else {
            self.cover_early();
        }
        self.backends_due = true;
        self.look_for_bypass();
    }

    /// Events that could not be decoded.
    pub(super) fn undecodable(&self) -> u64 {
        self.undecodable
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

/// Reads batch after batch until one is empty or the time is over.
fn read_until(
    end: Instant,
    mut now: impl FnMut() -> Instant,
    mut read_batch: impl FnMut() -> usize,
) {
    while read_batch() > 0 && now() < end {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_come_faster_than_they_are_read_do_not_hold_the_agent() {
        let start = Instant::now();
        let mut clock = start;
        let tick = || {
            clock += Duration::from_millis(1);
            clock
        };
        let mut batches = 0;
        read_until(start + READ_AT_MOST, tick, || {
            batches += 1;
            assert!(batches < 10, "no end");
            1
        });
        assert_eq!(batches, 2);
    }

    #[test]
    fn all_that_is_there_is_read_where_there_is_time() {
        let start = Instant::now();
        let mut left = 5;
        read_until(
            start + READ_AT_MOST,
            || start,
            || {
                left -= 1;
                left
            },
        );
        assert_eq!(left, 0);
    }
}
