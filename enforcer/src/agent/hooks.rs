//! Whether our programs are where they were put, and see what passes there.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::warn;

use super::core::Core;
use crate::{
    cluster::event::Interface,
    dataplane::{self, Cover, Covered, netlink::links::Links},
    error_chain,
};

/// Programs that were displaced are put back this often in a minute; then it is reported.
const MOST_REATTACHMENTS: usize = 3;

impl Core {
    pub(super) fn look_for_bypass(&mut self) {
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

    /// Looks for programs that could take away the mark by which a Service's backend is judged.
    pub(super) fn look_after_marks(&mut self) {
        let found = self.kernel.marks_at_risk();
        for (ifindex, programs) in &found {
            if self.marks_at_risk.get(ifindex) != Some(programs) {
                let programs = programs.join(", ");
                warn!(
                    ifindex,
                    programs,
                    "another program runs after ours on the pod's hook: if it sets tc_index, or \
                     accepts packets with a class of its own, the pod's policy is not asked about \
                     the backends of Services"
                );
            }
        }
        self.marks_at_risk = found;
    }

    /// Has every interface that is no pod's judge what pods sent to Services.
    pub(super) fn cover(&mut self, cover: Cover<'_>) {
        let outlets = self.outlets.clone();
        self.cover_these(&outlets, cover);
    }

    /// The same before the first plan: an earlier agent's programs leave the judging of Services'
    /// backends to interfaces that came since, too.
    pub(super) fn cover_early(&mut self) {
        let Some(found) = &self.found else { return };
        if !self.kernel.in_force() {
            return;
        }
        let outlets = found.outlets.clone();
        let pods = outlets.keys().copied().filter(|one| self.kernel.carries_ours(*one)).collect();
        self.cover_these(&outlets, Cover::Except(&pods));
    }

    /// The same before pods are armed: what is to be a pod's is left as it is.
    pub(super) fn cover_before_pods(&mut self, to_arm: impl Iterator<Item = u32>) {
        let armed = self.outlets.keys().copied().filter(|one| self.kernel.carries_ours(*one));
        let pods = armed.chain(to_arm).collect();
        self.cover(Cover::Except(&pods));
    }

    fn cover_these(&mut self, outlets: &BTreeMap<u32, Arc<str>>, cover: Cover<'_>) {
        for covered in self.kernel.cover(outlets, cover) {
            match covered {
                Covered::Failed(name, error) => warn!(
                    %name,
                    error = error_chain(&error),
                    "Services' backends cannot be judged on this interface: pods' flows to \
                     Services are closed unless every backend is allowed"
                ),
                Covered::Again(name) => warn!(%name, "Services' backends are judged here again"),
                Covered::NoInput(why) => warn!(
                    why,
                    "what pods send to Services and processes of this node get is not judged where \
                     it gets there: only backends that slices name are judged, before"
                ),
            }
        }
    }

    /// Has it noted which backends flows to Services have; soon after a plan that has flows judged
    /// anew.
    pub(super) fn note_backends(&mut self, now: Instant) {
        if !self.backends_due {
            return;
        }
        let kernel = &self.kernel;
        self.backends_due = !self.backends.begin(now, || kernel.backend_notes());
    }

    /// Interfaces whose packets go round our programs.
    pub(super) fn bypassed(&self) -> Vec<Arc<str>> {
        let names = self.bypass.found().iter().filter_map(|ifindex| self.interfaces.get(ifindex));
        names.map(|known| Arc::clone(&known.name)).collect()
    }

    /// Attaches what is missing where the agent before died between the two programs of an
    /// interface.
    pub(super) fn complete_attachments(&mut self) {
        let Some(found) = &self.found else { return };
        for Interface { ifindex, name, .. } in found.older.iter().chain(&found.younger) {
            // What fails is tried again with the first plan.
            if let Err(error) = self.kernel.complete_attachment(*ifindex, name) {
                warn!(%name, error = error_chain(&error), "only half attached");
            }
        }
    }

    /// Attaches again where another hand displaced our programs, but does not fight over a hook.
    pub(super) fn put_back(&mut self, now: Instant) {
        self.displaced.retain(|ifindex, _| self.interfaces.contains_key(ifindex));
        for ifindex in self.kernel.displaced() {
            let Some(name) = self.interfaces.get(&ifindex).map(|known| Arc::clone(&known.name))
            else {
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
            .map(|known| Arc::clone(&known.name))
            .collect()
    }
}
