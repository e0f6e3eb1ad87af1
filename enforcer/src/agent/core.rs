//! The state that one task owns: the index, the kernel, the source, the names for flows.
//!
//! Every change goes the same way: events into the index, one plan out of it, the plan into the
//! kernel, its names into the directory before the kernel can tell events that carry them.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{debug, info, warn};

use super::{
    break_glass::BreakGlass,
    bypass::Bypass,
    endpoints_file::{EndpointRecord, EndpointsFile},
};
use crate::{
    cluster::{
        Enforcement, Index, IndexConfig,
        event::{AdoptedInterface, Event, Interface},
        plan::Plan,
    },
    dataplane::{
        self, DataplaneError, Kernel, RingMaps,
        netlink::{DiscoveryEvent, conntrack, links::Links},
    },
    error_chain,
    flow::{decode, directory::Directory, event::enrich, ring::FlowRing},
    source::{
        manifests::{Ignored, ManifestSource, SourceUpdate},
        problem::Problem,
    },
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
    pub(super) source: ManifestSource,
    pub(super) problems: Vec<Problem>,
    pub(super) ignored: Vec<Ignored>,
    pub(super) settled: bool,
    directory: Directory,
    pub(super) flows: FlowRing,
    wall_offset: Duration,
    /// Interfaces that are there, and since when they are known.
    pub(super) interfaces: HashMap<u32, (Arc<str>, Instant)>,
    pub(super) revision: u64,
    pub(super) armed: bool,
    /// What failed at the last write, until it succeeds.
    pub(super) failures: Vec<String>,
    undecodable: u64,
    /// When our programs were put back, in the last minute, by interface.
    displaced: HashMap<u32, Vec<Instant>>,
    bypass: Bypass,
    pub(super) break_glass: BreakGlass,
    endpoints_file: EndpointsFile,
}

impl Core {
    /// Takes over what an earlier agent left, or starts from nothing.
    pub(super) fn new(
        kernel: Kernel,
        rings: RingMaps,
        source: ManifestSource,
        flows: FlowRing,
        wall_offset: Duration,
        enforcement: Enforcement,
        run_dir: &Path,
    ) -> Self {
        kernel.audit_unknown(enforcement == Enforcement::Audit);
        let index = Index::new(IndexConfig {
            class_key: kernel.class_key(),
            first_table: kernel.first_table(),
            enforcement,
        });
        Self {
            index,
            kernel,
            rings,
            source,
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
            break_glass: BreakGlass::new(wall_offset),
            endpoints_file: EndpointsFile::new(run_dir),
        }
    }

    /// Brings the first complete plan into force: all objects and all interfaces are known.
    ///
    /// # Errors
    /// If the kernel's maps cannot be read or written.
    pub(super) fn first_plan(
        &mut self,
        interfaces: Vec<Interface>,
        node: Vec<IpAddr>,
    ) -> Result<(), DataplaneError> {
        self.kernel.set_node_addresses(node)?;
        let found: HashMap<u32, Vec<IpAddr>> = self
            .kernel
            .found()
            .into_iter()
            .map(|endpoint| (endpoint.ifindex, endpoint.addresses))
            .collect();
        let present: BTreeSet<u32> = interfaces.iter().map(|interface| interface.ifindex).collect();
        // An armed interface still has our programs; a new one under its index has not. The pod's
        // present addresses prove nothing: it can change them.
        let same = |ifindex: &u32| present.contains(ifindex) && self.kernel.carries_ours(*ifindex);
        let (found, gone): (HashMap<_, _>, HashMap<_, _>) =
            found.into_iter().partition(|(ifindex, _)| same(ifindex));
        let gone = gone.into_keys().collect();
        self.write(&Plan { endpoints_removed: gone, ..Plan::default() });
        for interface in interfaces {
            self.note(&interface);
            match found.get(&interface.ifindex) {
                Some(bound) => {
                    let bound_addresses = bound.clone();
                    let adopted = AdoptedInterface { interface, bound_addresses };
                    self.index.apply(Event::InterfaceAdopted(adopted));
                }
                None => self.index.apply(Event::InterfaceFound(interface)),
            }
        }
        let update = self.source.rescan();
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
        self.write_endpoints();
        self.look_at_switches();
        self.armed = true;
        info!(
            endpoints = state.endpoints.len(),
            tables_kept = renames.len(),
            rows_written = plan.rows_added.len(),
            first_arrival = first,
            "policy is in force"
        );
        Ok(())
    }

    fn note(&mut self, interface: &Interface) {
        self.interfaces
            .entry(interface.ifindex)
            .or_insert_with(|| (Arc::clone(&interface.name), Instant::now()))
            .0 = Arc::clone(&interface.name);
    }

    /// Takes in what the source brought and brings it into force.
    pub(super) fn source_changed(&mut self, update: SourceUpdate) {
        self.take(update);
        self.plan();
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
        for event in events {
            self.index.apply(event);
        }
    }

    /// Takes in what happened to interfaces.
    ///
    /// # Errors
    /// If the map of node addresses cannot be written.
    pub(super) fn discovered(&mut self, event: DiscoveryEvent) -> Result<(), DataplaneError> {
        match event {
            DiscoveryEvent::Found(interface) => {
                self.note(&interface);
                self.index.apply(Event::InterfaceFound(interface));
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

    /// Writes down which pod has which endpoint, if that has changed.
    fn write_endpoints(&mut self) {
        let status = self.index.status();
        let records = status.endpoints.into_iter().filter_map(|endpoint| {
            Some(EndpointRecord {
                pod: format!("{}/{}", endpoint.pod.namespace, endpoint.pod.name),
                slot: self.kernel.slot(endpoint.ifindex)?,
                ifindex: endpoint.ifindex,
                interface: endpoint.interface,
            })
        });
        if let Err(error) = self.endpoints_file.write(records.collect()) {
            warn!(%error, "the names of endpoints cannot be written: `enforcer disable --pod` needs them");
        }
    }

    /// Looks whether somebody has switched enforcement off, or it has come back.
    pub(super) fn look_at_switches(&mut self) {
        let disabled = self.kernel.disabled(dataplane::monotonic());
        if disabled == dataplane::Disabled::default() && self.break_glass.failure().is_none() {
            return;
        }
        let status = self.index.status();
        self.break_glass.look(&disabled, |ifindex| {
            let endpoint = status.endpoints.iter().find(|endpoint| endpoint.ifindex == ifindex);
            endpoint.map_or_else(
                || Arc::from(format!("interface {ifindex}")),
                |endpoint| Arc::from(format!("{}/{}", endpoint.pod.namespace, endpoint.pod.name)),
            )
        });
    }

    /// Brings what the index wants into force. A plan that replaces tables is followed by one that
    /// forgets the old ones; there is never more than that, but the limit costs nothing.
    fn plan(&mut self) {
        for _ in 0..MOST_PLANS {
            let plan = self.index.take_plan();
            if plan.is_empty() {
                break;
            }
            let endpoints = !(plan.endpoints_set.is_empty() && plan.endpoints_removed.is_empty());
            self.bring_into_force(&plan);
            if endpoints && self.armed {
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
                    .is_some_and(|(_, since)| since.elapsed() > HAS_A_PAST)
        });
        if has_a_past {
            self.kernel.arrive(kernel_flows());
        }
        self.write(plan);
        self.kernel.arrived();
    }

    fn write(&mut self, plan: &Plan) {
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
