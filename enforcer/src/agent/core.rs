//! The state that one task owns: the index, the kernel, the source, the names for flows.
//!
//! Every change goes the same way: events into the index, one plan out of it, the plan into the
//! kernel, its names into the directory before the kernel can tell events that carry them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::{
    break_glass::BreakGlass, bypass::Bypass, dns::ClusterDns, endpoints_file::EndpointsFile,
    found::Found, gaps::Gaps, holds::Hold, hooks::Cover, names,
};
use crate::{
    cli::StartMode,
    cluster::{
        Enforcement, Index, IndexConfig,
        event::{AdoptedInterface, Event, Interface, Sandbox, StartPolicy},
        plan::Plan,
    },
    dataplane::{
        self, DataplaneError, FoundEndpoint, Kernel, RingMaps,
        netlink::{DiscoveryEvent, conntrack},
    },
    flow::{decode, directory::Directory, event::enrich, pending::Pending, ring::FlowRing},
    gate::GateStatus,
    metrics::Metrics,
    rivals::Rival,
    source::{Source, SourceUpdate, cni::CniCache, manifests::Ignored, problem::Problem},
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
    rings: RingMaps,
    pub(super) source: Source,
    /// What was found on the node, until the first plan.
    found: Option<Found>,
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
    start: StartMode,
    /// Whether interfaces of nobody are audited only.
    audit: bool,
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
    pub(super) break_glass: BreakGlass,
    pub(super) endpoints_file: EndpointsFile,
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
    /// Where the socket is.
    pub(super) run_dir: PathBuf,
}

impl Core {
    /// Takes over what an earlier agent left, or starts from nothing.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { kernel, rings, source, cni, flows, wall_offset, run_dir, .. } = parts;
        let Parts { node, start, dns, metrics, not_pods, enforcement, .. } = parts;
        kernel.audit_unknown(enforcement == Enforcement::Audit);
        let index = Index::new(IndexConfig {
            class_key: kernel.class_key(),
            first_table: kernel.first_table(),
            node,
            start: start.policy(),
            enforcement,
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
            break_glass: BreakGlass::new(wall_offset),
            endpoints_file: EndpointsFile::new(&run_dir),
        }
    }

    /// Begins with what is on the node. The first plan follows at once if the source is usable,
    /// else when it is; until then what an earlier agent left stays in force. `told` is what the
    /// source has told already.
    ///
    /// # Errors
    /// If the kernel's maps cannot be read or written.
    pub(super) fn begin(&mut self, found: Found, told: Vec<Event>) -> Result<(), DataplaneError> {
        self.complete_attachments(&found);
        self.found = Some(found);
        let mut update = self.source.first();
        update.events.splice(0..0, told);
        self.source_changed(update)?;
        self.close_early();
        Ok(())
    }

    /// Brings the first complete plan into force: all objects and all interfaces are known.
    fn first_plan(&mut self, found: Found, update: SourceUpdate) -> Result<(), DataplaneError> {
        let Found { older, younger, node, outlets, .. } = found;
        self.outlets = outlets;
        self.kernel.set_node_addresses(node)?;
        let found: HashMap<u32, FoundEndpoint> =
            self.kernel.found().into_iter().map(|endpoint| (endpoint.ifindex, endpoint)).collect();
        let present: BTreeSet<u32> =
            older.iter().chain(&younger).map(|interface| interface.ifindex).collect();
        // An armed interface still has our programs; a new one under its index has not. The pod's
        // present addresses prove nothing: it can change them.
        let same = |ifindex: &u32| present.contains(ifindex) && self.kernel.carries_ours(*ifindex);
        let (found, gone): (HashMap<_, _>, HashMap<_, _>) =
            found.into_iter().partition(|(ifindex, _)| same(ifindex));
        let gone = gone.into_keys().collect();
        self.write(&Plan { endpoints_removed: gone, ..Plan::default() });
        self.refresh_sandboxes();
        let mut unarmed = Vec::new();
        let older = older.into_iter().map(|interface| (interface, false));
        for (interface, is_younger) in older.chain(younger.into_iter().map(|i| (i, true))) {
            if self.is_ignored(&interface) {
                continue;
            }
            self.note(&interface, is_younger);
            match found.get(&interface.ifindex) {
                // Nothing was decided of it.
                Some(FoundEndpoint { starting: true, .. }) => {
                    self.index.apply(Event::InterfaceAppeared(interface));
                }
                Some(bound) => {
                    let bound_addresses = bound.addresses.clone();
                    let adopted = AdoptedInterface { interface, bound_addresses };
                    self.index.apply(Event::InterfaceAdopted(adopted));
                }
                None if is_younger => self.index.apply(Event::InterfaceAppeared(interface)),
                None => {
                    unarmed.push(interface.ifindex);
                    self.index.apply(Event::InterfaceFound(interface));
                }
            }
        }
        self.take(update);
        // Decides everything that was taken in; the state is compared, so only names are needed.
        let named = self.index.take_plan();
        let renames = self.kernel.equal_tables(&self.index.snapshot());
        self.index.rename_tables(&renames);
        let state = self.index.snapshot();
        let first = !self.kernel.was_armed();
        if first {
            self.kernel.arrive(kernel_flows());
        }
        let mut plan = self.kernel.difference(&state)?;
        plan.names = named.names;
        plan.revision = named.revision;
        // What is judged where it leaves must find a hook there from the first packet on.
        self.cover(Cover::BeforePods);
        self.write(&plan);
        self.kernel.arrived();
        let unclaimed = self.kernel.close_unclaimed(&state);
        if !unclaimed.is_empty() {
            warn!(interfaces = ?unclaimed, "armed before, and no pod object speaks for them: closed");
        }
        self.kernel.set_armed()?;
        self.plan();
        self.cover(Cover::Changed);
        self.take_over();
        self.write_endpoints();
        self.look_at_switches();
        self.armed = true;
        self.metrics.health.set_ready(Ok(()));
        if !first {
            self.tell_unguarded(&unarmed);
            self.metrics.unprotected_starts.inc_by(self.unguarded.len() as u64);
        }
        info!(
            endpoints = state.endpoints.len(),
            tables_kept = renames.len(),
            rows_written = plan.rows_added.len(),
            first_arrival = first,
            "policy is in force"
        );
        Ok(())
    }

    /// Pods that were armed just now and ran before: nothing could attach to them while no agent
    /// was there.
    fn tell_unguarded(&mut self, unarmed: &[u32]) {
        let endpoints = self.index.status().endpoints;
        let late = endpoints.iter().filter(|endpoint| unarmed.contains(&endpoint.ifindex));
        self.unguarded = late.map(|e| format!("{}/{}", e.pod.namespace, e.pod.name)).collect();
        if !self.unguarded.is_empty() {
            warn!(
                pods = ?self.unguarded,
                "started while no agent was running and were not guarded until now"
            );
        }
    }

    /// Looks at what the network plugins tell.
    fn refresh_sandboxes(&mut self) {
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

    fn is_ignored(&self, interface: &Interface) -> bool {
        self.not_pods.iter().any(|pattern| names::matches(pattern, &interface.name))
    }

    fn note(&mut self, interface: &Interface, is_younger: bool) {
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
        self.plan_if_armed();
        Ok(())
    }

    fn take(&mut self, update: SourceUpdate) {
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
        for event in events {
            self.containers_started(&event);
            self.index.apply(event);
        }
    }

    /// Pods that start before the objects are known are closed all the same.
    fn close_early(&mut self) {
        let Some(found) = &self.found else { return };
        if self.start == StartMode::Open {
            return;
        }
        let starting: Vec<_> = found
            .younger
            .iter()
            .filter(|interface| interface.kind.as_ref() == "veth" && !self.is_ignored(interface))
            .filter(|interface| !self.kernel.knows_addresses(interface))
            .cloned()
            .collect();
        if starting.is_empty() {
            return;
        }
        for failure in self.kernel.close_starting(&starting, self.audit).failures {
            warn!("{failure}");
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
            if let Some(found) = &mut self.found {
                found.take(event);
            }
            self.close_early();
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
                self.kernel.set_node_addresses(addresses)?;
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
    fn plan(&mut self) {
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

    fn write(&mut self, plan: &Plan) {
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
        if !applied.failures.is_empty() {
            for failure in &applied.failures {
                warn!("{failure}");
            }
            self.failures = applied.failures;
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
        for told in to_services.overdue(dataplane::monotonic()) {
            flows.push(enrich(told, directory, *wall_offset));
        }
        rings.drain(|bytes| match decode::decode(bytes) {
            Ok(raw) => {
                if let Some(told) = to_services.take(raw) {
                    flows.push(enrich(told, directory, *wall_offset));
                }
            }
            Err(error) => {
                if *undecodable == 0 {
                    warn!(%error, "an event of the kernel makes no sense; more are counted only");
                }
                *undecodable += 1;
            }
        })
    }

    /// Ages flows and checks that the programs are where they were put.
    pub(super) fn maintain(&mut self) {
        let swept = self.kernel.sweep();
        debug!(live = swept.live, deleted = swept.deleted, "aged conntrack");
        self.put_back(Instant::now());
        self.cover(Cover::Displaced);
        self.backends_due = true;
        self.look_for_bypass();
    }

    /// Events that could not be decoded.
    pub(super) fn undecodable(&self) -> u64 {
        self.undecodable
    }
}

/// The node's own connections; `None` where it tracks none or does not tell.
fn kernel_flows() -> Option<Vec<conntrack::KernelFlow>> {
    match conntrack::dump() {
        Ok(flows) => flows,
        Err(error) => {
            warn!(%error, "the node's own conntrack cannot be read");
            None
        }
    }
}
