//! The interfaces that lead to pods, and the node's own addresses, as they come and go.
//!
//! Changes of this namespace are told by the kernel. Those at the other end of a link are not
//! (`NETLINK_LISTEN_ALL_NSID` would take `CAP_NET_BROADCAST`), so an interface is looked at again:
//! after 2 ms first, then ever more rarely, and anew when its link changes.

mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use self::table::Table;
use super::{
    address::Address,
    error::NetlinkError,
    links::{Link, Links},
    peers::PeerAddresses,
    watch::{Changed, Changes},
};
use crate::cluster::event::Interface;

/// Time until a list that failed is asked for again.
const RETRY: Duration = Duration::from_secs(1);
/// How many portions of waiting changes are applied at once.
const WAITING: usize = 64;

/// Index of the loopback interface in every network namespace (`LOOPBACK_IFINDEX`, `net/flow.h`).
const LOOPBACK: u32 = 1;

/// What discovery finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoveryEvent {
    /// An interface is new, or its name or its peer's addresses changed.
    Found(Interface),
    /// The interface of this index is gone, moved to another namespace, or its peer came back
    /// into this one.
    Lost(u32),
    /// All addresses of this namespace's interfaces, sorted, without those of loopback
    /// (`127.0.0.0/8`, `::1`).
    NodeAddresses(Vec<IpAddr>),
    /// All interfaces by which packets can leave this namespace, by index: up, not loopback, not
    /// bridges, whose ports are interfaces of their own, and not `ifb`s. Those that lead to pods among them.
    Outlets(BTreeMap<u32, Arc<str>>),
    /// All that was there when discovery began has been told. Comes once.
    FirstComplete,
}

/// Finds interfaces.
#[derive(Debug)]
pub struct Discovery {
    changes: Changes,
    links: Links,
    table: Table,
    addresses: BTreeSet<Address>,
    told_addresses: Option<Vec<IpAddr>>,
    outlets: BTreeMap<u32, Arc<str>>,
    told_outlets: Option<BTreeMap<u32, Arc<str>>>,
    /// Whether `addresses` changed since they were told.
    addresses_changed: bool,
    /// When everything is to be listed (again).
    list_at: Option<Instant>,
    complete: bool,
}

impl Discovery {
    /// Subscribes in the calling thread's network namespace.
    ///
    /// # Errors
    /// If the sockets cannot be had.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open() -> Result<Self, NetlinkError> {
        // Subscribed before the first list, so that nothing falls between them.
        Ok(Self {
            changes: Changes::open()?,
            links: Links::open()?,
            table: Table::default(),
            addresses: BTreeSet::new(),
            told_addresses: None,
            outlets: BTreeMap::new(),
            told_outlets: None,
            addresses_changed: true,
            list_at: Some(Instant::now()),
            complete: false,
        })
    }

    /// Waits for the next event. Safe to cancel: nothing is lost.
    ///
    /// # Errors
    /// If the first list cannot be had or the change stream breaks. A later list or look that
    /// fails is tried again.
    pub async fn next(&mut self) -> Result<DiscoveryEvent, NetlinkError> {
        loop {
            if let Some(event) = self.table.events.pop_front() {
                return Ok(event);
            }
            self.catch_up()?;
            if !self.table.events.is_empty() {
                continue;
            }
            let due = [self.list_at, self.table.next_look()].into_iter().flatten().min();
            tokio::select! {
                changed = self.changes.changed() => {
                    let changed = changed?;
                    self.apply(changed);
                }
                () = sleep_until(due), if due.is_some() => {}
            }
        }
    }

    /// Lists and looks at everything now, and returns what was not told yet: what was there before
    /// the call counts afterwards.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn rescan(&mut self) -> Result<Vec<DiscoveryEvent>, NetlinkError> {
        // What was told before the list is older than the list.
        self.apply_waiting()?;
        self.list(self.list_at.is_some())?;
        self.table.all_due(Instant::now());
        self.catch_up()?;
        Ok(self.table.events.drain(..).collect())
    }

    /// Does what is due.
    fn catch_up(&mut self) -> Result<(), NetlinkError> {
        if self.list_at.is_some_and(|at| at <= Instant::now()) {
            // Only lost changes make a second list due.
            match self.list(true) {
                Ok(()) => {}
                Err(error) if self.complete => {
                    warn!(%error, "listing the interfaces failed; it is tried again");
                    self.list_at = Instant::now().checked_add(RETRY);
                }
                Err(error) => return Err(error),
            }
        }
        self.look();
        self.tell_addresses();
        self.tell_outlets();
        if !self.complete && self.list_at.is_none() {
            self.complete = true;
            self.table.events.push_back(DiscoveryEvent::FirstComplete);
        }
        Ok(())
    }

    /// Applies the changes that have come already (of a flood that does not end, a good part).
    fn apply_waiting(&mut self) -> Result<(), NetlinkError> {
        for _ in 0..WAITING {
            let waiting = self.changes.waiting()?;
            if waiting.is_empty() {
                break;
            }
            self.apply(waiting);
        }
        Ok(())
    }

    /// Lists everything; `lost` if changes before it were lost.
    fn list(&mut self, lost: bool) -> Result<(), NetlinkError> {
        let links = self.links.dump()?;
        let addresses = self.links.addresses()?;
        self.list_at = None;
        self.outlets = links.iter().filter_map(outlet).collect();
        self.table.all(links, lost, Instant::now());
        self.addresses = addresses.into_iter().collect();
        self.addresses_changed = true;
        Ok(())
    }

    fn apply(&mut self, changed: Vec<Changed>) {
        let now = Instant::now();
        for change in changed {
            match change {
                Changed::Link(link) => {
                    self.outlets.remove(&link.ifindex);
                    self.outlets.extend(outlet(&link));
                    self.table.is(link, now);
                }
                Changed::LinkGone(ifindex) => {
                    self.outlets.remove(&ifindex);
                    self.table.gone(ifindex);
                    self.addresses.retain(|address| address.ifindex != ifindex);
                    self.addresses_changed = true;
                    // Where one end of a pair moved, the other one is not always told of.
                    for other in self.table.paired_here_with(ifindex) {
                        self.read_again(other);
                    }
                }
                Changed::Address(address) => {
                    self.addresses_changed |= self.addresses.insert(address);
                }
                Changed::AddressGone(address) => {
                    self.addresses_changed |= self.addresses.remove(&address);
                }
                Changed::Overflow => {
                    debug!("changes of the interfaces were lost: all are listed again");
                    self.list_at = Some(now);
                }
            }
        }
    }

    /// Looks at the other ends that are due.
    fn look(&mut self) {
        for ifindex in self.table.due(Instant::now()) {
            let since = Instant::now();
            let Some(link) = self.table.link(ifindex).cloned() else {
                continue;
            };
            let found = match self.links.peer_addresses(&link) {
                Ok(PeerAddresses::Known(found)) if self.table.knows(ifindex, &found) => Some(found),
                Ok(PeerAddresses::Known(found)) => {
                    // It counts if the link still leads where it led before the question.
                    let still = self.read_again(ifindex);
                    let same = |(peer, index)| peer == link.peer && index == link.peer_ifindex;
                    still.is_some_and(same).then_some(found)
                }
                Ok(PeerAddresses::Unknown) => {
                    self.read_again(ifindex);
                    None
                }
                Err(error) => {
                    debug!(%error, ifindex, "a peer's addresses could not be read");
                    None
                }
            };
            self.table.looked(ifindex, found, since, Instant::now());
        }
    }

    /// Reads one link again; where it leads, if it is there.
    fn read_again(&mut self, ifindex: u32) -> Option<(super::links::PeerNamespace, Option<u32>)> {
        match self.links.get(ifindex) {
            Ok(Some(link)) => {
                let leads = (link.peer, link.peer_ifindex);
                self.table.read(link, Instant::now());
                Some(leads)
            }
            Ok(None) => {
                self.outlets.remove(&ifindex);
                self.table.gone(ifindex);
                None
            }
            Err(error) => {
                debug!(%error, ifindex, "an interface could not be read");
                None
            }
        }
    }

    fn tell_outlets(&mut self) {
        // After lost changes only the next list is whole.
        if self.list_at.is_none() && self.told_outlets.as_ref() != Some(&self.outlets) {
            self.told_outlets = Some(self.outlets.clone());
            self.table.events.push_back(DiscoveryEvent::Outlets(self.outlets.clone()));
        }
    }

    fn tell_addresses(&mut self) {
        // After lost changes only the next list is whole.
        if !self.addresses_changed || self.list_at.is_some() {
            return;
        }
        self.addresses_changed = false;
        let mut now: Vec<IpAddr> = self
            .addresses
            .iter()
            .map(|address| address.address)
            .filter(|address| !address.is_loopback())
            .collect();
        now.sort_unstable();
        now.dedup();
        if self.told_addresses.as_ref() != Some(&now) {
            self.told_addresses = Some(now.clone());
            self.table.events.push_back(DiscoveryEvent::NodeAddresses(now));
        }
    }
}

/// The index and name of an interface by which packets can leave.
fn outlet(link: &Link) -> Option<(u32, Arc<str>)> {
    // What is sent to an `ifb` is on its way in (a limit on what a pod sends), and not translated yet.
    let outlet = !matches!(&*link.kind, "bridge" | "ifb") && link.ifindex != LOOPBACK;
    // One that is down sends nothing: both ends of a pod's link are here and down at first.
    (outlet && link.up).then(|| (link.ifindex, Arc::clone(&link.name)))
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}

#[cfg(test)]
mod tests;
