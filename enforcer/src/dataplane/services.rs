//! Virtual addresses of Services into their map.
//!
//! One that is missing would be judged as a plain address, which an ipBlock can match, and one that
//! is not up to date may not know of a process of this node behind it. So while one cannot be
//! written, whoever is isolated for egress takes no new flow.

use enforcer_common::abi::{
    CONTROL_REST, Direction, MAP_SERVICES, REST_OF_SERVICES, Service, ServiceKey,
};

use super::{
    Kernel,
    apply::Applied,
    error::chain,
    maps::{absent_is_fine, failed},
};

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
            if key == REST_OF_SERVICES {
                // Programs look for it only then.
                self.set_control(CONTROL_REST, true);
            }
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
            if let Err(error) = absent_is_fine(self.maps.services.remove(&key)) {
                applied.failures.push(chain(&failed("delete from", MAP_SERVICES, error)));
                // It opens nothing: what goes there is judged behind the translation.
                self.pending.stale_services.insert(key);
            } else if key == REST_OF_SERVICES {
                self.set_control(CONTROL_REST, false);
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
}
