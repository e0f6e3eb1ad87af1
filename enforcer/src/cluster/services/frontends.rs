//! Virtual addresses and what is behind them, kept so that a change costs what it touches.
//!
//! A group is a port of a Service in one family: its virtual addresses have the same backends. It
//! counts its backends by class and target port, so that one pod's change of class is a step in
//! the groups that the pod is in. An entry of the kernel's map is the union of the groups that have
//! its address and port: usually of one, of two for node ports, of more where Services collide.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use enforcer_common::abi::{
    self, ClassId, ClassPort, NODE_BACKENDS, NodeBackend, REST_OF_SERVICES, SERVICE_PAIRS,
    SVC_NODE_MANY, SVC_OTHERS, ServiceKey,
};
use ipnet::IpNet;

use super::{
    few::Few,
    remains::{self, Lingering},
    targets::{Target, Wanted, addr},
};
use crate::cluster::event::ObjectKey;

pub(super) type GroupId = u64;

/// What a backend's address is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// One of this node's: a process of the node is behind it.
    Node,
    /// Something else, of this class.
    Other(ClassId),
}

#[derive(Debug)]
struct Group {
    service: ObjectKey,
    keys: BTreeSet<ServiceKey>,
    targets: BTreeSet<Target>,
    /// How many targets there are of a class and port.
    classes: BTreeMap<(ClassId, u16), usize>,
    /// Targets that are processes of this node.
    node: BTreeSet<Target>,
}

impl Group {
    fn enter(&mut self, target: Target, place: Option<Place>) {
        match place {
            Some(Place::Node) => {
                self.node.insert(target);
            }
            Some(Place::Other(class)) => {
                *self.classes.entry((class, target.port)).or_default() += 1;
            }
            None => {}
        }
    }

    fn leave(&mut self, target: Target, place: Option<Place>) {
        match place {
            Some(Place::Node) => {
                self.node.remove(&target);
            }
            Some(Place::Other(class)) => {
                let of = (class, target.port);
                if let Some(count) = self.classes.get_mut(&of) {
                    *count -= 1;
                    if *count == 0 {
                        self.classes.remove(&of);
                    }
                }
            }
            None => {}
        }
    }
}

/// An address with a backend on it.
#[derive(Debug, Default)]
struct Backend {
    /// `None` until it is looked at for the first time.
    place: Option<Place>,
    /// Groups that it is in, and the ports there.
    users: Few<(GroupId, u16)>,
}

/// An entry of the kernel's map.
#[derive(Debug, Default)]
struct Frontend {
    groups: Few<GroupId>,
    /// As the last plan left it.
    written: Option<abi::Service>,
    /// What a proxy may still do here, whatever the objects say now.
    remains: Option<Box<abi::Service>>,
}

/// All virtual addresses.
#[derive(Debug, Default)]
pub(super) struct Frontends {
    groups: HashMap<GroupId, Group>,
    next: GroupId,
    by_service: BTreeMap<ObjectKey, Vec<GroupId>>,
    entries: BTreeMap<ServiceKey, Frontend>,
    backends: BTreeMap<IpAddr, Backend>,
    /// Backends whose place may be another one now.
    unplaced: BTreeSet<IpAddr>,
    /// Entries that may say something else now.
    touched: BTreeSet<ServiceKey>,
    /// Entries with remains.
    lingering: Lingering,
    /// Entries at most, beside that of the rest.
    most: Option<usize>,
}

/// What the next plan must say of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// The address and port had none.
    New(abi::Service),
    Set(abi::Service),
    Remove,
}

impl Frontends {
    /// Nothing is known; the kernel's map has room for so many entries.
    pub(super) fn new(most: Option<usize>) -> Self {
        Self { most, ..Self::default() }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.unplaced.is_empty() && self.touched.is_empty()
    }

    /// How many entries the kernel has.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Makes the groups of a Service these.
    pub(super) fn set_service(&mut self, service: &ObjectKey, wanted: Vec<Wanted>) {
        let mut ids = self.by_service.remove(service).unwrap_or_default();
        let needed = wanted.len();
        while ids.len() < needed {
            ids.push(self.new_group(service));
        }
        let nothing = std::iter::repeat_with(Wanted::default);
        for (id, wanted) in ids.iter().zip(wanted.into_iter().chain(nothing)) {
            self.set_group(*id, wanted);
        }
        for id in ids.split_off(needed) {
            self.groups.remove(&id);
        }
        if !ids.is_empty() {
            self.by_service.insert(service.clone(), ids);
        }
    }

    fn new_group(&mut self, service: &ObjectKey) -> GroupId {
        let id = self.next;
        self.next += 1;
        let group = Group {
            service: service.clone(),
            keys: BTreeSet::new(),
            targets: BTreeSet::new(),
            classes: BTreeMap::new(),
            node: BTreeSet::new(),
        };
        self.groups.insert(id, group);
        id
    }

    fn set_group(&mut self, id: GroupId, wanted: Wanted) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Wanted { keys, targets } = wanted;
        if group.keys == keys && group.targets == targets {
            return;
        }
        self.touched.extend(group.keys.iter().chain(&keys));
        for key in group.keys.difference(&keys) {
            if let Some(entry) = self.entries.get_mut(key) {
                entry.groups.remove(&id);
            }
        }
        for key in keys.difference(&group.keys) {
            let entry = self.entries.entry(*key).or_default();
            entry.groups.insert(id);
            // Whoever has the address now is whom the proxy sends to.
            if *key != REST_OF_SERVICES && entry.remains.take().is_some() {
                self.lingering.remove(key);
            }
        }
        let gone: Vec<Target> = group.targets.difference(&targets).copied().collect();
        for target in gone {
            let Some(backend) = self.backends.get_mut(&target.address) else { continue };
            backend.users.remove(&(id, target.port));
            group.leave(target, backend.place);
            self.unplaced.insert(target.address);
        }
        let new: Vec<Target> = targets.difference(&group.targets).copied().collect();
        for target in new {
            let backend = self.backends.entry(target.address).or_default();
            backend.users.insert((id, target.port));
            group.enter(target, backend.place);
            if backend.place.is_none() {
                self.unplaced.insert(target.address);
            }
        }
        (group.keys, group.targets) = (keys, targets);
    }

    /// An address may have another place now.
    pub(super) fn look_at(&mut self, address: IpAddr) {
        if self.backends.contains_key(&address) {
            self.unplaced.insert(address);
        }
    }

    /// Every address in a prefix likewise.
    pub(super) fn look_within(&mut self, net: &IpNet) {
        let range = net.network()..=net.broadcast();
        self.unplaced.extend(self.backends.range(range).map(|(address, _)| *address));
    }

    /// Backends to be looked at: their place as it was, and whether something uses them still.
    pub(super) fn take_unplaced(&mut self) -> Vec<(IpAddr, Option<Place>, bool)> {
        let unplaced = std::mem::take(&mut self.unplaced).into_iter();
        let known = |address: IpAddr| {
            let backend = self.backends.get(&address)?;
            Some((address, backend.place, !backend.users.is_empty()))
        };
        unplaced.filter_map(known).collect()
    }

    /// An address that nothing uses any more.
    pub(super) fn forget_backend(&mut self, address: IpAddr) {
        self.backends.remove(&address);
    }

    /// Gives a backend its place.
    pub(super) fn put(&mut self, address: IpAddr, place: Place) {
        let Some(backend) = self.backends.get_mut(&address) else { return };
        let old = backend.place.replace(place);
        if old == Some(place) {
            return;
        }
        for (id, port) in &backend.users {
            let Some(group) = self.groups.get_mut(id) else { continue };
            let target = Target { address, port: *port };
            group.leave(target, old);
            group.enter(target, Some(place));
            self.touched.extend(&group.keys);
        }
    }

    /// Whether something remains of what no object speaks for.
    pub(super) fn lingers(&self) -> bool {
        !self.lingering.is_empty()
    }

    /// A while has passed: what was left over the last time already goes.
    pub(super) fn age(&mut self) {
        for key in self.lingering.age() {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.remains = None;
                self.touched.insert(key);
            }
        }
    }

    /// Takes over what the kernel has. Where an object speaks for an entry, what it says of this
    /// node's own processes counts besides for a while; the rest is left over.
    pub(super) fn adopt(&mut self, found: impl IntoIterator<Item = (ServiceKey, abi::Service)>) {
        for (key, service) in found {
            let entry = self.entries.entry(key).or_default();
            let is_named = !entry.groups.is_empty();
            if is_named && !remains::names_processes(&service) {
                continue;
            }
            entry.remains = Some(Box::new(remains::of(service)));
            if !is_named {
                entry.written = Some(service);
            }
            self.lingering.insert(key);
            self.touched.insert(key);
        }
    }

    /// What has changed of the kernel's entries since the last call.
    pub(super) fn take_changes(&mut self) -> BTreeMap<ServiceKey, Change> {
        let mut changes = BTreeMap::new();
        let mut touched = std::mem::take(&mut self.touched);
        let mut rest = touched.remove(&REST_OF_SERVICES);
        for key in touched {
            self.take_change(key, &mut changes);
        }
        for key in self.too_many() {
            let Some(entry) = self.entries.remove(&key) else { continue };
            self.lingering.remove(&key);
            changes.remove(&key);
            changes.extend(entry.written.map(|_| (key, Change::Remove)));
            self.add_to_rest(entry.remains.as_deref());
            rest = true;
        }
        if rest {
            self.take_change(REST_OF_SERVICES, &mut changes);
        }
        changes
    }

    fn take_change(&mut self, key: ServiceKey, changes: &mut BTreeMap<ServiceKey, Change>) {
        let mut now = self.value(key);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        // The proxy may go on for a while; but not one that has been given that while.
        if let Some(before) = entry.written
            && entry.groups.is_empty()
            && !self.lingering.is_over(&key)
        {
            let mut remains = remains::of(before);
            if let Some(others) = &entry.remains {
                remains::unite(&mut remains, others);
            }
            if entry.remains.as_deref() != Some(&remains) {
                self.lingering.insert(key);
                entry.remains = Some(Box::new(remains));
            }
            now = Some(remains);
        }
        self.lingering.settled(&key);
        match (entry.written, now) {
            (before, Some(now)) if before != Some(now) => {
                entry.written = Some(now);
                let change = if before.is_none() { Change::New(now) } else { Change::Set(now) };
                changes.insert(key, change);
            }
            (_, Some(_)) => {}
            (before, None) => {
                self.entries.remove(&key);
                changes.extend(before.map(|_| (key, Change::Remove)));
            }
        }
    }

    /// Entries of nobody that have to make room, those first that are left over for longest.
    fn too_many(&self) -> Vec<ServiceKey> {
        let own = self.entries.len() - usize::from(self.entries.contains_key(&REST_OF_SERVICES));
        let too_many = self.most.map_or(0, |most| own.saturating_sub(most));
        let is_nobodys =
            |key: &ServiceKey| self.entries.get(key).is_some_and(|entry| entry.groups.is_empty());
        let keys = self.lingering.keys().filter(|key| *key != REST_OF_SERVICES);
        keys.filter(is_nobodys).take(too_many).collect()
    }

    fn add_to_rest(&mut self, remains: Option<&abi::Service>) {
        let Some(remains) = remains else { return };
        let entry = self.entries.entry(REST_OF_SERVICES).or_default();
        let none = abi::Service { key: REST_OF_SERVICES, ..abi::Service::default() };
        let none = || Box::new(remains::of(none));
        remains::unite(entry.remains.get_or_insert_with(none), remains);
        self.lingering.insert(REST_OF_SERVICES);
    }

    /// What the kernel has when every plan so far is in force.
    pub(super) fn written(&self) -> impl Iterator<Item = (ServiceKey, abi::Service)> {
        self.entries.iter().filter_map(|(key, entry)| Some((*key, entry.written?)))
    }

    fn groups_of(&self, key: ServiceKey) -> impl Iterator<Item = &Group> {
        let ids = self.entries.get(&key).into_iter().flat_map(|entry| &entry.groups);
        ids.filter_map(|id| self.groups.get(id))
    }

    /// What an entry must say; `None` if nobody has the address and port any more.
    fn value(&self, key: ServiceKey) -> Option<abi::Service> {
        let mut is_there = false;
        let mut value = abi::Service { key, ..abi::Service::default() };
        let (mut pairs, mut node) = (BTreeSet::new(), BTreeSet::new());
        for group in self.groups_of(key) {
            is_there = true;
            // One more than fits is enough to know.
            pairs.extend(group.classes.keys().copied().take(SERVICE_PAIRS + 1));
            node.extend(group.node.iter().copied().take(NODE_BACKENDS + 1));
        }
        let remains = self.entries.get(&key).and_then(|entry| entry.remains.as_deref());
        if !is_there {
            return remains.copied();
        }
        if key == REST_OF_SERVICES {
            // It stands for addresses that are no Service's, too.
            pairs.clear();
            value.flags |= SVC_OTHERS;
        }
        if !pairs.is_empty() {
            value.flags |= SVC_OTHERS;
        }
        if pairs.len() <= SERVICE_PAIRS {
            for (slot, (class, port)) in value.pairs.iter_mut().zip(pairs) {
                *slot = ClassPort { class, port, ..ClassPort::default() };
                value.pair_count += 1;
            }
        }
        if node.len() > NODE_BACKENDS {
            value.flags |= SVC_NODE_MANY;
        }
        for (slot, Target { address, port }) in value.node.iter_mut().zip(node) {
            *slot = NodeBackend { addr: addr(address), port, ..NodeBackend::default() };
            value.node_count += 1;
        }
        if let Some(remains) = remains {
            remains::unite(&mut value, remains);
        }
        Some(value)
    }

    /// Addresses and ports that several Services have, and those Services.
    pub(super) fn shared(&self) -> impl Iterator<Item = (ServiceKey, BTreeSet<&ObjectKey>)> {
        let named = self.entries.iter().filter(|(key, _)| **key != REST_OF_SERVICES);
        let shared = named.filter(|(_, entry)| entry.groups.len() > 1);
        shared.filter_map(|(key, _)| {
            let services: BTreeSet<_> = self.groups_of(*key).map(|group| &group.service).collect();
            (services.len() > 1).then_some((*key, services))
        })
    }

    /// Entries with backends that are processes of this node: the Services, those backends, and
    /// classes and ports of the others.
    pub(super) fn mixed(&self) -> impl Iterator<Item = Mixed<'_>> {
        let named = self.entries.iter().filter(|(key, _)| **key != REST_OF_SERVICES);
        let mixed = named.filter(|(_, entry)| {
            entry.written.is_some_and(|now| now.node_count > 0 && now.flags & SVC_OTHERS != 0)
        });
        mixed.map(|(key, _)| Mixed {
            key: *key,
            services: self.groups_of(*key).map(|group| &group.service).collect(),
            node: self.groups_of(*key).flat_map(|group| &group.node).copied().collect(),
            others: self.groups_of(*key).flat_map(|group| group.classes.keys()).copied().collect(),
        })
    }
}

/// An entry with backends on this node, and others.
#[derive(Debug)]
pub(super) struct Mixed<'a> {
    pub(super) key: ServiceKey,
    pub(super) services: BTreeSet<&'a ObjectKey>,
    pub(super) node: BTreeSet<Target>,
    pub(super) others: BTreeSet<(ClassId, u16)>,
}
