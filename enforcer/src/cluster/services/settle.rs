//! From what has changed of Services, nodes and classes to the plan's entries for Services.

use std::net::IpAddr;

use enforcer_common::abi::ClassId;

use super::frontends::{Change, Place};
use crate::cluster::{class::Member, index::Index, plan::Plan};

impl Index {
    /// After addresses and prefixes are classed: a backend is what the kernel's maps say it is.
    /// Whether an address has become a Service's: flows to it were judged by the address itself.
    pub(in crate::cluster) fn settle_services(&mut self, plan: &mut Plan) -> bool {
        let mut is_new = false;
        self.services.regroup();
        for (address, old, is_used) in self.services.frontends.take_unplaced() {
            if is_used {
                let place = self.place(address);
                self.services.frontends.put(address, place);
            } else {
                self.services.frontends.forget_backend(address);
            }
            // The new one is held already, so a class that stays is never without a holder.
            if let Some(Place::Other(class)) = old {
                self.classes.release(class);
            }
        }
        for (key, change) in self.services.frontends.take_changes() {
            match change {
                Change::New(service) => {
                    is_new = true;
                    plan.services_set.push((key, service));
                }
                Change::Set(service) => plan.services_set.push((key, service)),
                Change::Remove => plan.services_removed.push(key),
            }
        }
        is_new
    }

    /// What is at an address; its class with one reference more.
    fn place(&mut self, address: IpAddr) -> Place {
        if self.services.own.has(address) {
            return Place::Node;
        }
        if let Some(class) = self.objects.addresses.get(&address).and_then(|entry| entry.class) {
            self.classes.hold(class);
            return Place::Other(class);
        }
        Place::Other(self.class_by_prefix(address))
    }

    /// The class of the longest prefix around an address: that of the blocks that contain it.
    fn class_by_prefix(&mut self, address: IpAddr) -> ClassId {
        let mut members: Vec<Member> = Vec::new();
        self.atoms.match_address(address, &mut members);
        self.classes.acquire(&mut members, &self.atoms)
    }
}
