//! The state that one task owns: the index, the kernel, the source, the names for flows.
//!
//! Every change goes the same way: events into the index, one plan out of it, the plan into the
//! kernel, its names into the directory before the kernel can tell events that carry them.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{debug, info, warn};

use super::{bypass::Bypass, found::Found, names};
use crate::{
    cluster::{
        Index, IndexConfig,
        event::{AdoptedInterface, Event, Interface, StartPolicy},
        plan::Plan,
    },
    dataplane::{
        self, DataplaneError, Kernel, RingMaps,
        netlink::{DiscoveryEvent, conntrack, links::Links},
    },
    error_chain,
    flow::{decode, directory::Directory, event::enrich, ring::FlowRing},
    source::{Source, SourceUpdate, cni::CniCache, manifests::Ignored, problem::Problem},
};

/// An interface that was found this long before it is armed has a past to take over.
const HAS_A_PAST: Duration = Duration::from_secs(1);

/// Plans that follow from one change, at most.
const MOST_PLANS: usize = 8;

/// Programs that were displaced are put back this often in a minute; then it is reported.
const MOST_REATTACHMENTS: usize = 3;

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
    wall_offset: Duration,
    /// What the network plugins tell of sandboxes, where they are asked.
    pub(super) cni: Option<CniCache>,
    /// Interfaces that are there, and since when they are known.
    pub(super) interfaces: HashMap<u32, (Arc<str>, Instant)>,
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
    displaced: HashMap<u32, Vec<Instant>>,
    bypass: Bypass,
    changes: u64,
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
    pub(super) start: StartPolicy,
    /// Names of interfaces that are no pods', with `*` for any characters.
    pub(super) not_pods: Vec<String>,
}

impl Core {
    /// Takes over what an earlier agent left, or starts from nothing.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { kernel, rings, source, cni, flows, wall_offset, node, start, not_pods } = parts;
        let index = Index::new(IndexConfig {
            class_key: kernel.class_key(),
            first_table: kernel.first_table(),
            node,
            start,
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
            wall_offset,
            interfaces: HashMap::new(),
            revision: 0,
            armed: false,
            failures: Vec::new(),
            undecodable: 0,
            displaced: HashMap::new(),
            bypass: Bypass::default(),
            changes: 0,
        }
    }

    /// Begins with what is on the node. The first plan follows at once if the source is usable,
    /// else when it is; until then what an earlier agent left stays in force. `told` is what the
    /// source has told already.
    ///
    /// # Errors
    /// If the kernel's maps cannot be read or written.
    pub(super) fn begin(&mut self, found: Found, told: Vec<Event>) -> Result<(), DataplaneError> {
        self.found = Some(found);
        let mut update = self.source.first();
        update.events.splice(0..0, told);
        self.source_changed(update)
    }

    /// Brings the first complete plan into force: all objects and all interfaces are known.
    fn first_plan(&mut self, found: Found, update: SourceUpdate) -> Result<(), DataplaneError> {
        let Found { older, younger, node, .. } = found;
        self.kernel.set_node_addresses(node)?;
        let found: HashMap<u32, Vec<IpAddr>> = self
            .kernel
            .found()
            .into_iter()
            .map(|endpoint| (endpoint.ifindex, endpoint.addresses))
            .collect();
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
            self.note(&interface);
            match found.get(&interface.ifindex) {
                Some(bound) => {
                    let bound_addresses = bound.clone();
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
        self.write(&plan);
        self.kernel.arrived();
        let unclaimed = self.kernel.close_unclaimed(&state);
        if !unclaimed.is_empty() {
            warn!(interfaces = ?unclaimed, "armed before, and no pod object speaks for them: closed");
        }
        self.kernel.set_armed()?;
        self.plan();
        self.armed = true;
        if !first {
            self.tell_unguarded(&unarmed);
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

    /// The network plugins have told something: brings it into force.
    pub(super) fn sandboxes_changed(&mut self) {
        self.refresh_sandboxes();
        self.plan();
    }

    fn is_ignored(&self, interface: &Interface) -> bool {
        self.not_pods.iter().any(|pattern| names::matches(pattern, &interface.name))
    }

    fn note(&mut self, interface: &Interface) {
        self.interfaces
            .entry(interface.ifindex)
            .or_insert_with(|| (Arc::clone(&interface.name), Instant::now()))
            .0 = Arc::clone(&interface.name);
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
            self.plan();
        }
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
            self.index.apply(event);
        }
    }

    /// Takes in what happened to interfaces.
    ///
    /// # Errors
    /// If the map of node addresses cannot be written.
    pub(super) fn discovered(&mut self, event: DiscoveryEvent) -> Result<(), DataplaneError> {
        if let Some(found) = &mut self.found {
            found.take(event);
            return Ok(());
        }
        match event {
            DiscoveryEvent::Found(interface) if self.is_ignored(&interface) => {}
            DiscoveryEvent::Found(interface) => {
                self.note(&interface);
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
            DiscoveryEvent::FirstComplete => {}
        }
        self.plan();
        Ok(())
    }

    /// Brings what the index wants into force. A plan that replaces tables is followed by one that
    /// forgets the old ones; there is never more than that, but the limit costs nothing.
    fn plan(&mut self) {
        for _ in 0..MOST_PLANS {
            let plan = self.index.take_plan();
            if plan.is_empty() {
                return;
            }
            self.bring_into_force(&plan);
        }
    }

    fn bring_into_force(&mut self, plan: &Plan) {
        let has_a_past = plan.endpoints_set.iter().any(|endpoint| {
            !self.kernel.is_attached(endpoint.ifindex)
                && self
                    .interfaces
                    .get(&endpoint.ifindex)
                    .is_some_and(|(_, since)| since.elapsed() > HAS_A_PAST)
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
        self.revision = self.revision.max(plan.revision);
        for (ifindex, interface) in &applied.armed {
            debug!(ifindex, %interface, "armed");
        }
        if !applied.failures.is_empty() {
            for failure in &applied.failures {
                warn!("{failure}");
            }
            self.failures = applied.failures;
        }
    }

    /// Tries again what could not be written.
    pub(super) fn retry(&mut self) {
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
        let Self { rings, directory, flows, wall_offset, undecodable, .. } = self;
        rings.drain(|bytes| match decode::decode(bytes) {
            Ok(raw) => flows.push(enrich(raw, directory, *wall_offset)),
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
        self.look_for_bypass();
    }

    fn look_for_bypass(&mut self) {
        let links = match Links::open().and_then(|mut links| links.dump()) {
            Ok(links) => links,
            Err(error) => {
                warn!(%error, "the interfaces' packet counters cannot be read");
                return;
            }
        };
        let kernel = &self.kernel;
        let armed =
            links.iter().filter(|link| kernel.is_attached(link.ifindex)).filter_map(|link| {
                Some((link.ifindex, link.rx_packets, kernel.last_egress(link.ifindex)?))
            });
        self.bypass.look(dataplane::monotonic(), armed);
        for ifindex in self.bypass.found() {
            warn!(ifindex, "the pod's packets go round our program: another one redirects them");
        }
    }

    /// Interfaces whose packets go round our programs.
    pub(super) fn bypassed(&self) -> Vec<Arc<str>> {
        let names = self.bypass.found().iter().filter_map(|ifindex| self.interfaces.get(ifindex));
        names.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Attaches again where another hand displaced our programs, but does not fight over a hook.
    fn put_back(&mut self, now: Instant) {
        self.displaced.retain(|ifindex, _| self.interfaces.contains_key(ifindex));
        for ifindex in self.kernel.displaced() {
            let Some((name, _)) = self.interfaces.get(&ifindex).cloned() else {
                // Its interface is going.
                continue;
            };
            let times = self.displaced.entry(ifindex).or_default();
            times.retain(|time| now.saturating_duration_since(*time) < Duration::from_secs(60));
            if times.len() >= MOST_REATTACHMENTS {
                continue;
            }
            times.push(now);
            match self.kernel.reattach(ifindex, &name) {
                Ok(()) => warn!(%name, "our programs had been displaced and are attached again"),
                Err(error) => {
                    warn!(%name, error = error_chain(&error), "our programs are displaced");
                }
            }
        }
    }

    /// Interfaces on which another program keeps displacing ours.
    pub(super) fn contested(&self) -> Vec<Arc<str>> {
        self.displaced
            .iter()
            .filter(|(_, times)| times.len() >= MOST_REATTACHMENTS)
            .filter_map(|(ifindex, _)| self.interfaces.get(ifindex))
            .map(|(name, _)| Arc::clone(name))
            .collect()
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
