//! What the numbers and addresses in events mean, told by [`NameChange`]s.
//!
//! An event can be older than the change that took its names away, so what is gone is kept for a
//! while. A new owner of the same number or address counts at once.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use enforcer_common::abi::RuleId;

use crate::{
    cluster::{
        event::ObjectKey,
        plan::{NameChange, PodIdentity, RuleIdentity},
    },
    policy::rule::Isolating,
};

/// How long what is gone keeps its name: longer than an event can be on its way.
const GRACE: Duration = Duration::from_secs(60);
/// How many names of what is gone are kept, each of addresses, rules and interfaces.
const MOST_GONE: usize = 4096;

/// Whose interface it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointIdentity {
    /// The interface's name.
    pub interface: Arc<str>,
    /// The pod.
    pub pod: Arc<PodIdentity>,
    /// The policies that isolate it (ingress, egress).
    pub isolating: [Isolating; 2],
}

/// What an address is that is no pod's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A node's.
    Node(Arc<str>),
    /// A Service's.
    Service(Arc<ObjectKey>),
}

/// Names of addresses, rules and interfaces.
#[derive(Debug, Default)]
pub struct Directory {
    addresses: Names<IpAddr, Arc<PodIdentity>>,
    rules: Names<RuleId, Arc<RuleIdentity>>,
    endpoints: Names<u32, EndpointIdentity>,
    nodes: Names<IpAddr, Arc<str>>,
    services: Names<IpAddr, Arc<ObjectKey>>,
}

impl Directory {
    /// Takes one change.
    pub fn apply(&mut self, change: &NameChange, now: Instant) {
        match change {
            NameChange::Address(address, pod) => {
                self.addresses.set(address.to_canonical(), Arc::clone(pod));
            }
            NameChange::AddressGone(address) => self.addresses.gone(address.to_canonical(), now),
            NameChange::Rule(id, rule) => self.rules.set(*id, Arc::clone(rule)),
            NameChange::RuleGone(id) => self.rules.gone(*id, now),
            NameChange::Endpoint(ifindex, interface, pod, isolating) => {
                let (interface, isolating) = (Arc::clone(interface), isolating.clone());
                self.endpoints
                    .set(*ifindex, EndpointIdentity { interface, pod: Arc::clone(pod), isolating });
            }
            NameChange::EndpointGone(ifindex) => self.endpoints.gone(*ifindex, now),
            NameChange::Node(address, name) => self.nodes.set(*address, Arc::clone(name)),
            NameChange::NodeGone(address) => self.nodes.gone(*address, now),
            NameChange::Service(address, key) => self.services.set(*address, Arc::clone(key)),
            NameChange::ServiceGone(address) => self.services.gone(*address, now),
        }
    }

    /// Whose address it is.
    #[must_use]
    pub fn address(&self, address: IpAddr) -> Option<&Arc<PodIdentity>> {
        self.addresses.get(&address)
    }

    /// The pods that have addresses, and those that had one within the last minute; one with
    /// several comes several times.
    pub fn pods(&self, now: Instant) -> impl Iterator<Item = &Arc<PodIdentity>> {
        self.addresses.recent(now)
    }

    /// How many addresses were taken from pods so far.
    #[must_use]
    pub const fn departures(&self) -> u64 {
        self.addresses.count
    }

    /// What an address is that is no pod's.
    #[must_use]
    pub fn place(&self, address: IpAddr) -> Option<Place> {
        let service = || Some(Place::Service(Arc::clone(self.services.get(&address)?)));
        service().or_else(|| Some(Place::Node(Arc::clone(self.nodes.get(&address)?))))
    }

    /// Which rule a number means.
    #[must_use]
    pub fn rule(&self, id: RuleId) -> Option<&Arc<RuleIdentity>> {
        self.rules.get(&id)
    }

    /// Whose host-side interface it is.
    #[must_use]
    pub fn endpoint(&self, ifindex: u32) -> Option<&EndpointIdentity> {
        self.endpoints.get(&ifindex)
    }
}

/// Names with a grace for those that are gone.
#[derive(Debug)]
struct Names<K, V> {
    /// The value, and the number of its going if it is gone.
    names: HashMap<K, (V, Option<u64>)>,
    /// What is gone, oldest first. An entry whose number does not match has come back.
    gone: VecDeque<(Instant, u64, K)>,
    count: u64,
}

impl<K, V> Default for Names<K, V> {
    fn default() -> Self {
        Self { names: HashMap::new(), gone: VecDeque::new(), count: 0 }
    }
}

impl<K: Hash + Eq + Copy, V> Names<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.names.get(key).map(|(value, _)| value)
    }

    /// What is there, or was a grace ago.
    fn recent(&self, now: Instant) -> impl Iterator<Item = &V> {
        let still = |(at, ..): &&(Instant, u64, K)| now.saturating_duration_since(*at) <= GRACE;
        // They are numbered in the order of their going.
        let first = self.gone.iter().find(still).map_or(u64::MAX, |(_, number, _)| *number);
        let values = self.names.values();
        values.filter(move |(_, gone)| gone.is_none_or(|n| n >= first)).map(|(value, _)| value)
    }

    fn set(&mut self, key: K, value: V) {
        self.names.insert(key, (value, None));
    }

    fn gone(&mut self, key: K, now: Instant) {
        if let Some((_, gone @ None)) = self.names.get_mut(&key) {
            self.count += 1;
            *gone = Some(self.count);
            self.gone.push_back((now, self.count, key));
        }
        while let Some((at, number, key)) = self.gone.front()
            && (self.gone.len() > MOST_GONE || now.saturating_duration_since(*at) > GRACE)
        {
            if self.names.get(key).is_some_and(|(_, gone)| *gone == Some(*number)) {
                self.names.remove(key);
            }
            self.gone.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::event::tests::{isolating, pod};

    fn ip(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    fn name(directory: &Directory, n: u32) -> Option<&str> {
        directory.address(ip(n)).map(|pod| &*pod.key.name)
    }

    #[test]
    fn addresses_that_are_no_pods_are_nodes_or_services() {
        let (mut d, now) = (Directory::default(), Instant::now());
        let key = Arc::new(ObjectKey { namespace: "n".into(), name: "s".into() });
        d.apply(&NameChange::Node(ip(1), "w1".into()), now);
        d.apply(&NameChange::Service(ip(2), Arc::clone(&key)), now);
        assert_eq!(d.place(ip(1)), Some(Place::Node("w1".into())));
        assert_eq!(d.place(ip(2)), Some(Place::Service(key)));
        d.apply(&NameChange::NodeGone(ip(1)), now);
        d.apply(&NameChange::NodeGone(ip(9)), now + GRACE * 2);
        assert_eq!(d.place(ip(1)), None);
    }

    #[test]
    fn a_new_owner_counts_at_once_and_the_old_ones_going_takes_nothing_from_it() {
        let now = Instant::now();
        let mut d = Directory::default();
        d.apply(&NameChange::Address(ip(1), pod("n", "a")), now);
        d.apply(&NameChange::AddressGone(ip(1)), now);
        assert_eq!(name(&d, 1), Some("a"), "late events keep the name");
        d.apply(&NameChange::Address(ip(1), pod("n", "b")), now);
        assert_eq!(name(&d, 1), Some("b"));
        // The grace of the old owner ends; the new one stays.
        d.apply(&NameChange::AddressGone(ip(9)), now + GRACE * 2);
        assert_eq!(name(&d, 1), Some("b"));
    }

    #[test]
    fn grace_is_bounded_in_time_and_number() {
        let now = Instant::now();
        let mut d = Directory::default();
        d.apply(&NameChange::Address(ip(1), pod("n", "a")), now);
        d.apply(&NameChange::AddressGone(ip(1)), now);
        d.apply(&NameChange::AddressGone(ip(9)), now + GRACE);
        assert_eq!(name(&d, 1), Some("a"));
        d.apply(&NameChange::AddressGone(ip(9)), now + GRACE + Duration::from_millis(1));
        assert_eq!(name(&d, 1), None);

        let most = u32::try_from(MOST_GONE).unwrap();
        for n in 0..=most {
            d.apply(&NameChange::Address(ip(n), pod("n", "a")), now);
            d.apply(&NameChange::AddressGone(ip(n)), now);
        }
        assert_eq!((name(&d, 0), name(&d, 1)), (None, Some("a")));
        assert_eq!(d.addresses.names.len(), MOST_GONE);
    }

    #[test]
    fn pods_are_listed_until_a_minute_after_their_last_address() {
        let (mut d, now) = (Directory::default(), Instant::now());
        let listed = |d: &Directory, at| {
            let mut names: Vec<String> = d.pods(at).map(|pod| pod.key.name.to_string()).collect();
            names.sort();
            names.join(" ")
        };
        for (n, name) in [(1, "a"), (2, "b"), (3, "c")] {
            d.apply(&NameChange::Address(ip(n), pod("n", name)), now);
        }
        d.apply(&NameChange::AddressGone(ip(1)), now);
        d.apply(&NameChange::AddressGone(ip(2)), now + Duration::from_secs(30));
        assert_eq!(d.departures(), 2);
        assert_eq!(listed(&d, now + GRACE), "a b c");
        assert_eq!(listed(&d, now + GRACE + Duration::from_secs(1)), "b c");
        d.apply(&NameChange::Address(ip(1), pod("n", "a")), now);
        assert_eq!(listed(&d, now + 2 * GRACE), "a c");
    }

    #[test]
    fn rules_and_interfaces_have_names() {
        let now = Instant::now();
        let mut d = Directory::default();
        let rule = crate::flow::event::tests::rule("n", "p", 3);
        d.apply(&NameChange::Rule(16, Arc::clone(&rule)), now);
        let isolating = [isolating("n", &["p"]), Isolating::default()];
        d.apply(&NameChange::Endpoint(7, "veth7".into(), pod("n", "a"), isolating), now);
        assert_eq!(d.rule(16), Some(&rule));
        assert_eq!(d.endpoint(7).map(|e| e.isolating[0].iter().len()), Some(1));
        d.apply(&NameChange::RuleGone(16), now);
        d.apply(&NameChange::EndpointGone(7), now);
        assert!(d.rule(16).is_some() && d.endpoint(7).is_some());
        d.apply(&NameChange::RuleGone(16), now + GRACE * 2);
        d.apply(&NameChange::EndpointGone(7), now + GRACE * 2);
        assert!(d.rule(16).is_none() && d.endpoint(7).is_none());
    }
}
