//! Virtual addresses of Services into their map.
//!
//! One that is missing would be judged as a plain address, which an ipBlock can match, and one that
//! is not up to date may not know of a process of this node behind it. So while one cannot be
//! written, whoever is isolated for egress takes no new flow.

use std::collections::BTreeSet;

use enforcer_common::abi::{Direction, MAP_SERVICES, Service, ServiceKey};

use super::{
    DataplaneError, Kernel,
    apply::Applied,
    error::chain,
    maps::{absent_is_fine, failed},
};
use crate::cluster::plan::Plan;

impl Kernel {
    pub(super) fn set_services(
        &mut self,
        services: impl IntoIterator<Item = (ServiceKey, Service)>,
        applied: &mut Applied,
    ) {
        let mut first = None;
        for (key, service) in services {
            self.pending.services.remove(&key);
            self.pending.stale_services.remove(&key);
            self.kept_services.remove(&key);
            if let Err(error) = self.maps.services.insert(key, service, 0) {
                first.get_or_insert(failed("write to", MAP_SERVICES, error));
                self.pending.services.insert(key, service);
            }
        }
        // There can be very many of them, and they have one reason.
        if let Some(error) = first {
            applied.failures.push(format!(
                "{}: {} addresses and ports of Services are missing, and pods that are isolated \
                 for egress take no new flows until they fit (see --service-entries)",
                chain(&error),
                self.pending.services.len()
            ));
            self.lock_egress();
        }
    }

    pub(super) fn remove_services(
        &mut self,
        keys: impl IntoIterator<Item = ServiceKey>,
        applied: &mut Applied,
    ) {
        for key in keys {
            self.pending.stale_services.remove(&key);
            self.kept_services.remove(&key);
            if let Err(error) = absent_is_fine(self.maps.services.remove(&key)) {
                applied.failures.push(chain(&failed("delete from", MAP_SERVICES, error)));
                // It opens nothing: what goes there is judged behind the translation.
                self.pending.stale_services.insert(key);
            }
        }
    }

    fn lock_egress(&mut self) {
        let isolated = self.endpoints.by_ifindex.iter();
        let isolated: Vec<u32> = isolated
            .filter(|(_, armed)| armed.word.isolated(Direction::Egress))
            .map(|(ifindex, _)| *ifindex)
            .collect();
        for ifindex in isolated {
            self.endpoints.lock(&self.maps, ifindex, true);
        }
    }

    /// Keeps the Services that a plan for the start would remove: they are not known yet, and the
    /// node's proxy still translates them. What an earlier agent knew of the classes behind them may
    /// be wrong by now, so it is the hook behind the translation that judges.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn keep_services(&mut self, plan: &mut Plan) -> Result<Applied, DataplaneError> {
        let mut applied = Applied::default();
        let kept: BTreeSet<_> = std::mem::take(&mut plan.services_removed).into_iter().collect();
        let have = self.services()?;
        let known =
            have.into_iter().filter(|(key, service)| service.pair_count != 0 && kept.contains(key));
        let unknown = known.map(|(key, service)| {
            (key, Service { pairs: Default::default(), pair_count: 0, ..service })
        });
        self.set_services(unknown.collect::<Vec<_>>(), &mut applied);
        self.kept_services = kept;
        Ok(applied)
    }

    /// All Services are known now: those that were kept and that no plan has named since go.
    pub fn forget_kept_services(&mut self) -> Applied {
        let mut applied = Applied::default();
        let kept = std::mem::take(&mut self.kept_services);
        self.remove_services(kept, &mut applied);
        applied
    }
}
