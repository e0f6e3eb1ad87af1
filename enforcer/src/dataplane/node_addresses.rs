//! The node's own addresses into their map.
//!
//! One that is missing would be judged as anybody's: a node port on it as a plain port, and what
//! comes from it as from outside, though a pod may be behind it. So while one cannot be written, isolated
//! pods take no new flows. One that is there and the node's no more is not harmless either: what
//! comes from it would match no selector. It is closed, not open, and tried again.

use std::{collections::BTreeMap, net::IpAddr};

use enforcer_common::abi::{MAP_NODE_ADDRS, NODE_SERVES_PORTS};

use super::{
    Kernel,
    apply::Applied,
    error::chain,
    maps::{absent_is_fine, addr, failed},
};
use crate::cluster::NodeAddress;

/// Value of every one of them.
const NODE_OWN: u8 = 1;

impl Kernel {
    /// Makes the node's addresses these. What fails is tried again by [`Kernel::retry`].
    pub fn set_node_addresses(&mut self, new: BTreeMap<IpAddr, NodeAddress>) -> Applied {
        self.wanted_node_addresses = new;
        let mut applied = Applied::default();
        self.write_node_addresses(&mut applied);
        self.unlock();
        applied
    }

    /// Whether the map does not say what it should.
    pub(super) fn lacks_node_addresses(&self) -> bool {
        self.node_addresses != self.wanted_node_addresses
    }

    /// Writes the difference between the map and what it should say.
    pub(super) fn write_node_addresses(&mut self, applied: &mut Applied) {
        let (have, want) = (&self.node_addresses, &self.wanted_node_addresses);
        let gone: Vec<IpAddr> = have.keys().filter(|ip| !want.contains_key(ip)).copied().collect();
        let new: Vec<(IpAddr, NodeAddress)> = want
            .iter()
            .filter(|(ip, purpose)| have.get(ip) != Some(purpose))
            .map(|(ip, purpose)| (*ip, *purpose))
            .collect();
        // There can be many, with one reason.
        let mut first = None;
        let mut failures = 0;
        let mut note = |operation, error| {
            failures += 1;
            first.get_or_insert_with(|| failed(operation, MAP_NODE_ADDRS, error));
        };
        // They make room.
        for ip in gone {
            match absent_is_fine(self.maps.node_addrs.remove(&addr(ip))) {
                Ok(()) => drop(self.node_addresses.remove(&ip)),
                Err(error) => note("delete from", error),
            }
        }
        for (ip, purpose) in new {
            let value = match purpose {
                NodeAddress::Plain => NODE_OWN,
                NodeAddress::NodePorts => NODE_OWN | NODE_SERVES_PORTS,
            };
            match self.maps.node_addrs.insert(addr(ip), value, 0) {
                Ok(()) => drop(self.node_addresses.insert(ip, purpose)),
                Err(error) => note("write to", error),
            }
        }
        if let Some(error) = first {
            applied.failures.push(format!(
                "{}: {failures} of the node's own {} addresses are not as they should be, and \
                 isolated pods take no new flows until they are; give the node fewer addresses",
                chain(&error),
                self.wanted_node_addresses.len(),
            ));
            self.lock_all();
        }
    }
}
