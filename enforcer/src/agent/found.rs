//! What is found on the node before the first plan, which takes it in all at once.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{cluster::event::Interface, dataplane::netlink::DiscoveryEvent};

/// Interfaces and addresses of the node.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Interfaces that were there before the agent.
    pub(super) older: Vec<Interface>,
    /// Interfaces that came while it made itself ready.
    pub(super) younger: Vec<Interface>,
    pub(super) node: Vec<IpAddr>,
    /// Interfaces by which packets can leave.
    pub(super) outlets: BTreeMap<u32, Arc<str>>,
    complete: bool,
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
    /// Takes in what discovery tells; of an interface it may tell again, when more is known of it.
    pub(super) fn take(&mut self, event: DiscoveryEvent) -> Look {
        match event {
            DiscoveryEvent::Found(interface) => {
                let mut known = self.older.iter_mut().chain(&mut self.younger);
                match known.find(|one| one.ifindex == interface.ifindex) {
                    Some(one) => *one = interface,
                    None if self.complete => self.younger.push(interface),
                    None => self.older.push(interface),
                }
            }
            DiscoveryEvent::Lost(ifindex) => {
                self.older.retain(|interface| interface.ifindex != ifindex);
                self.younger.retain(|interface| interface.ifindex != ifindex);
            }
            DiscoveryEvent::NodeAddresses(all) => self.node = all,
            DiscoveryEvent::Outlets(all) => self.outlets = all,
            DiscoveryEvent::FirstComplete => {
                self.complete = true;
                return Look::Complete;
            }
        }
        Look::Going
    }
}
