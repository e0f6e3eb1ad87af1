//! What is found on the node before the first plan, which takes it in all at once.

use std::net::IpAddr;

use crate::{cluster::event::Interface, dataplane::netlink::DiscoveryEvent};

/// Interfaces and addresses of the node.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) interfaces: Vec<Interface>,
    pub(super) node: Vec<IpAddr>,
}

/// Whether there is more to be found at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// There may be.
    Going,
    /// All that was there has been told.
    Complete,
}

impl Found {
    /// Takes in what discovery tells.
    pub(super) fn take(&mut self, event: DiscoveryEvent) -> Look {
        match event {
            DiscoveryEvent::Found(interface) => {
                // Told again when more is known of it: the last word counts.
                self.interfaces.retain(|one| one.ifindex != interface.ifindex);
                self.interfaces.push(interface);
            }
            DiscoveryEvent::Lost(ifindex) => {
                self.interfaces.retain(|interface| interface.ifindex != ifindex);
            }
            DiscoveryEvent::NodeAddresses(all) => self.node = all,
            DiscoveryEvent::FirstComplete => return Look::Complete,
        }
        Look::Going
    }
}
