//! How an agent begins: from what is on the node, what an earlier agent left in the kernel, and the
//! first complete list of objects.

use std::collections::{BTreeSet, HashMap};

use tracing::{info, warn};

use super::{
    core::{Core, kernel_flows},
    found::Found,
};
use crate::{
    cli::StartMode,
    cluster::{
        event::{AdoptedInterface, Event},
        plan::Plan,
    },
    dataplane::{Cover, DataplaneError, FoundEndpoint},
    source::{Source, SourceUpdate, kubernetes::Enforced},
};

impl Core {
    /// Begins with what is on the node. The first plan follows at once if the source is usable,
    /// else when it is; until then what an earlier agent left stays in force. `told` is what the
    /// source has told already.
    ///
    /// # Errors
    /// If the kernel's maps cannot be read or written.
    pub(super) fn begin(&mut self, found: Found, told: Vec<Event>) -> Result<(), DataplaneError> {
        self.found = Some(found);
        // What came while the node changed hands is guarded before anything that takes longer.
        self.close_early();
        self.complete_attachments();
        if let Source::Kubernetes(source) = &mut self.source {
            let armed = self.kernel.was_armed();
            source.begin(if armed { Enforced::Something } else { Enforced::Nothing });
        }
        let mut update = self.source.first();
        update.events.splice(0..0, told);
        self.source_changed(update)?;
        self.cover_early();
        Ok(())
    }

    /// Brings the first complete plan into force: all objects and all interfaces are known.
    pub(super) fn first_plan(
        &mut self,
        found: Found,
        update: SourceUpdate,
    ) -> Result<(), DataplaneError> {
        let Found { older, younger, node, outlets, .. } = found;
        self.outlets = outlets;
        self.apply(Event::NodeAddressesFound(node));
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
        self.settle_node_addresses();
        // What went while no agent was there, and what is not known yet, is still translated.
        self.index.apply(Event::ServicesFound(self.kernel.services()?));
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
        self.cover_before_pods(state.endpoints.keys().copied());
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
        self.is_written();
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

    /// Pods that start before the objects are known are closed all the same.
    pub(super) fn close_early(&mut self) {
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
}
