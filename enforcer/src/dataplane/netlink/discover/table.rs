//! What is known of the interfaces, and when each is looked at again: pure, without a kernel.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::links::{Link, PeerNamespace},
    DiscoveryEvent,
};
use crate::cluster::event::Interface;

/// Times between looks at an interface whose other end is being set up. The last one stays as long
/// as it has no address.
const SETTLING: [Duration; 9] = [
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
];
/// Time between looks at an interface whose other end has had the same addresses for a while: no
/// notification tells of a change there.
const SETTLED: Duration = Duration::from_secs(30);
/// The part of the time that looks at one interface may take: a pod can give its end any number of
/// addresses, and change them all the time.
const SHARE: u32 = 20;
/// Kinds whose other end is the pod's interface itself.
const PAIRED: [&str; 2] = ["veth", "netkit"];
/// Kinds that give a pod a part of another interface. Enforcement cannot be attached to them.
const CHILDREN: [&str; 4] = ["macvlan", "macvtap", "ipvlan", "ipvtap"];

#[derive(Debug)]
struct Entry {
    link: Link,
    addresses: Vec<IpAddr>,
    /// What was told of it, if anything.
    told: Option<Interface>,
    /// When it is looked at next, and at which place of [`SETTLING`] it is.
    look: Option<(Instant, usize)>,
    /// No look comes sooner than this after another: [`SHARE`] times what the last one took.
    pause: Duration,
}

/// The interfaces that matter, and the events about them that wait to be handed out.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: BTreeMap<u32, Entry>,
    agenda: BTreeSet<(Instant, u32)>,
    pub(super) events: VecDeque<DiscoveryEvent>,
}

fn is_paired(link: &Link) -> bool {
    PAIRED.contains(&&*link.kind)
}

/// Whether the addresses at the other end are a pod's.
fn has_peer_elsewhere(link: &Link) -> bool {
    is_paired(link) && link.peer != PeerNamespace::Here
}

/// Whether the interface is one to tell of.
fn matters(link: &Link) -> bool {
    link.peer != PeerNamespace::Here || CHILDREN.contains(&&*link.kind)
}

impl Table {
    /// The kernel tells that the interface is there, as `link`: new, or changed.
    pub(super) fn is(&mut self, link: Link, now: Instant) {
        let ifindex = link.ifindex;
        let known = self.entries.get(&ifindex).is_some_and(|entry| entry.look.is_some());
        self.read(link, now);
        if known && self.entries.get(&ifindex).is_some_and(|entry| entry.look.is_some()) {
            // A change of the link is a hint that its other end changes too. Not at once: a pod
            // that sets its end up and down must not keep us busy.
            self.look_at(ifindex, self.soon(ifindex, now), 0);
        }
    }

    /// The soonest that an interface is looked at again.
    fn soon(&self, ifindex: u32, now: Instant) -> Instant {
        let pause = self.entries.get(&ifindex).map_or(Duration::ZERO, |entry| entry.pause);
        later(now, pause.max(SETTLING[0]))
    }

    /// The interface is there, as `link`, which we read without being told of a change.
    pub(super) fn read(&mut self, link: Link, now: Instant) {
        let ifindex = link.ifindex;
        // An interface never changes its kind: this is another one under an old index.
        if self.entries.get(&ifindex).is_some_and(|entry| entry.link.kind != link.kind) {
            self.gone(ifindex);
        }
        // A pair within this namespace is kept in mind: one end may move.
        if !matters(&link) && !is_paired(&link) {
            self.gone(ifindex);
            return;
        }
        let elsewhere = has_peer_elsewhere(&link);
        let entry = self.entries.entry(ifindex).or_insert_with(|| Entry {
            link: link.clone(),
            addresses: Vec::new(),
            told: None,
            look: None,
            pause: Duration::ZERO,
        });
        let moved = entry.link.peer != link.peer || entry.link.peer_ifindex != link.peer_ifindex;
        let planned = entry.look.is_some();
        entry.link = link;
        if !elsewhere {
            entry.addresses.clear();
        }
        self.tell(ifindex);
        if !elsewhere {
            self.no_look(ifindex);
        } else if !planned {
            self.look_at(ifindex, now, 0);
        } else if moved {
            self.look_at(ifindex, self.soon(ifindex, now), 0);
        }
    }

    /// No interface of this index is in this namespace any more.
    pub(super) fn gone(&mut self, ifindex: u32) {
        self.no_look(ifindex);
        if self.entries.remove(&ifindex).is_some_and(|entry| entry.told.is_some()) {
            self.events.push_back(DiscoveryEvent::Lost(ifindex));
        }
    }

    /// A whole list: what it does not have is gone. `lost`: changes before it were lost.
    pub(super) fn all(&mut self, links: Vec<Link>, lost: bool, now: Instant) {
        let there: BTreeSet<u32> = links.iter().map(|link| link.ifindex).collect();
        let gone: Vec<u32> =
            self.entries.keys().copied().filter(|known| !there.contains(known)).collect();
        for ifindex in gone {
            self.gone(ifindex);
        }
        for link in links {
            // Whether an index was given to another interface meanwhile was among what was lost.
            // Taking one that was renamed for another is the harmless mistake: taking another for
            // the same would give it a binding that is not its own.
            let another = lost
                && self.entries.get(&link.ifindex).is_some_and(|entry| {
                    entry.link.name != link.name || entry.link.mac != link.mac
                });
            if another {
                self.gone(link.ifindex);
            }
            if lost {
                self.is(link, now);
            } else {
                self.read(link, now);
            }
        }
    }

    /// The other end of the interface has these addresses (`None`: it cannot be asked; what was
    /// known stays). To find that took the time from `since` to `now`.
    pub(super) fn looked(
        &mut self,
        ifindex: u32,
        found: Option<Vec<IpAddr>>,
        since: Instant,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(&ifindex) else {
            return;
        };
        let changed = found.as_ref().is_some_and(|found| *found != entry.addresses);
        entry.pause = now.saturating_duration_since(since).saturating_mul(SHARE);
        let pause = entry.pause;
        let step = entry.look.map_or(0, |(_, step)| step);
        if let Some(found) = found {
            entry.addresses = found;
        }
        let (wait, next) = match SETTLING.get(step) {
            // What changes once, changes again soon: the second family of addresses follows.
            _ if changed => (SETTLING[0], 1),
            Some(wait) => (*wait, step + 1),
            None if entry.addresses.is_empty() => (SETTLING[SETTLING.len() - 1], step),
            None => (SETTLED, step),
        };
        self.no_look(ifindex);
        self.look_at(ifindex, later(now, wait.max(pause)), next);
        self.tell(ifindex);
    }

    /// The link of an interface, if it is known.
    pub(super) fn link(&self, ifindex: u32) -> Option<&Link> {
        self.entries.get(&ifindex).map(|entry| &entry.link)
    }

    /// Whether these are the addresses that are known of its other end.
    pub(super) fn knows(&self, ifindex: u32, addresses: &[IpAddr]) -> bool {
        self.entries.get(&ifindex).is_some_and(|entry| entry.addresses == addresses)
    }

    /// The interfaces that are paired with `peer` within this namespace.
    pub(super) fn paired_here_with(&self, peer: u32) -> Vec<u32> {
        self.entries
            .values()
            .filter(|entry| entry.link.peer == PeerNamespace::Here)
            .filter(|entry| entry.link.peer_ifindex == Some(peer))
            .map(|entry| entry.link.ifindex)
            .collect()
    }

    /// When the next look is due.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.agenda.first().map(|(at, _)| *at)
    }

    /// The interfaces that are due to be looked at.
    pub(super) fn due(&self, now: Instant) -> Vec<u32> {
        self.agenda.iter().take_while(|(at, _)| *at <= now).map(|(_, ifindex)| *ifindex).collect()
    }

    /// Makes every look due now.
    pub(super) fn all_due(&mut self, now: Instant) {
        let planned = self.entries.iter().filter_map(|(ifindex, e)| Some((*ifindex, e.look?.1)));
        for (ifindex, step) in planned.collect::<Vec<_>>() {
            self.look_at(ifindex, now, step);
        }
    }

    /// Looks at an interface at `soonest`, or earlier if that was planned.
    fn look_at(&mut self, ifindex: u32, soonest: Instant, step: usize) {
        let Some(entry) = self.entries.get_mut(&ifindex) else {
            return;
        };
        let at = match entry.look.take() {
            Some((planned, _)) => {
                self.agenda.remove(&(planned, ifindex));
                planned.min(soonest)
            }
            None => soonest,
        };
        entry.look = Some((at, step));
        self.agenda.insert((at, ifindex));
    }

    fn no_look(&mut self, ifindex: u32) {
        if let Some(entry) = self.entries.get_mut(&ifindex)
            && let Some((at, _)) = entry.look.take()
        {
            self.agenda.remove(&(at, ifindex));
        }
    }

    /// Tells of an interface what was not told yet.
    fn tell(&mut self, ifindex: u32) {
        let Some(entry) = self.entries.get_mut(&ifindex) else {
            return;
        };
        if !matters(&entry.link) {
            if entry.told.take().is_some() {
                self.events.push_back(DiscoveryEvent::Lost(ifindex));
            }
            return;
        }
        let interface = Interface {
            ifindex,
            name: Arc::clone(&entry.link.name),
            peer_addresses: entry.addresses.clone(),
            kind: Arc::clone(&entry.link.kind),
        };
        if entry.told.as_ref() != Some(&interface) {
            entry.told = Some(interface.clone());
            self.events.push_back(DiscoveryEvent::Found(interface));
        }
    }
}

fn later(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
