//! Atoms: what the tables in use ask of an address. A peer selector, an ipBlock, or a port name.
//!
//! Only atoms that a table names are known, so the work and the kernel's maps grow with the
//! policies of local pods and not with the cluster. An atom that its last table has left stays
//! for one more plan: until that plan's endpoints are switched, packets still meet the old table,
//! and its classes must still know the atom.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use enforcer_common::abi::TableId;
use ipnet::IpNet;

use super::{
    blocks::Blocks,
    class::Member,
    event::{Labels, Pod, Protocol},
};
use crate::policy::{
    encode::Encoder,
    peer::{NamespacePeer, Peer, PeerSelector},
    selector::Selector,
};

/// Process-local number of an atom; never used again.
pub(super) type AtomId = u64;

/// One question about an address.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Atom {
    /// Does it match the peer?
    Peer(Arc<Peer>),
    /// Which numbers has its pod under this name?
    PortName(Protocol, Arc<str>),
}

impl Atom {
    /// Bytes that are the same for the same content in every process.
    fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        match self {
            Self::Peer(peer) => {
                out.tag(0);
                peer.encode(&mut out);
            }
            Self::PortName(protocol, name) => {
                out.tag(match protocol {
                    Protocol::Tcp => 1,
                    Protocol::Udp => 2,
                    Protocol::Sctp => 3,
                });
                out.text(name);
            }
        }
        out.finish()
    }
}

#[derive(Debug)]
struct Entry {
    atom: Atom,
    code: Arc<[u8]>,
    /// Tables that name it, those on their way out included.
    tables: BTreeSet<TableId>,
}

/// Selectors by a label that whoever they match must have.
#[derive(Debug, Default)]
struct Bucket<T> {
    hooked: HashMap<Arc<str>, HashMap<Arc<str>, T>>,
    /// Those that need no particular label.
    rest: T,
}

impl<T: Default> Bucket<T> {
    fn slots(&mut self, selector: &Selector, mut visit: impl FnMut(&mut T)) {
        match selector.hook() {
            None => visit(&mut self.rest),
            Some((key, values)) => {
                let by_value = self.hooked.entry(Arc::clone(key)).or_default();
                for value in values {
                    visit(by_value.entry(Arc::clone(value)).or_default());
                }
            }
        }
    }

    /// Drops what [`Self::slots`] has left empty.
    fn prune(&mut self, selector: &Selector, is_empty: impl Fn(&T) -> bool) {
        let Some((key, _)) = selector.hook() else { return };
        if let Some(by_value) = self.hooked.get_mut(key) {
            by_value.retain(|_, slot| !is_empty(slot));
            if by_value.is_empty() {
                self.hooked.remove(key);
            }
        }
    }

    fn is_empty(&self, rest_is_empty: impl Fn(&T) -> bool) -> bool {
        self.hooked.is_empty() && rest_is_empty(&self.rest)
    }

    fn visit(&self, labels: &Labels, mut visit: impl FnMut(&T)) {
        visit(&self.rest);
        if self.hooked.is_empty() {
            return;
        }
        for (key, value) in labels.iter() {
            if let Some(slot) = self.hooked.get(key).and_then(|values| values.get(value)) {
                visit(slot);
            }
        }
    }
}

type PodBucket = Bucket<Vec<AtomId>>;

/// All atoms in use.
#[derive(Debug, Default)]
pub(super) struct Atoms {
    ids: HashMap<Atom, AtomId>,
    entries: HashMap<AtomId, Entry>,
    next: AtomId,
    /// Pod selectors by their namespace's name, for peers of the policy's own namespace.
    same: HashMap<Arc<str>, PodBucket>,
    /// Pod selectors by namespace selector.
    selected: Bucket<PodBucket>,
    blocks: Blocks,
    port_names: HashMap<Arc<str>, Vec<(Protocol, AtomId)>>,
    added: Vec<AtomId>,
    released: HashSet<AtomId>,
}

impl Atoms {
    /// The atom's number; it is in use from now on.
    pub(super) fn intern(&mut self, atom: &Atom) -> AtomId {
        if let Some(id) = self.ids.get(atom) {
            return *id;
        }
        let id = self.next;
        self.next += 1;
        match atom {
            Atom::PortName(protocol, name) => {
                self.port_names.entry(Arc::clone(name)).or_default().push((*protocol, id));
            }
            Atom::Peer(peer) => match &**peer {
                Peer::Block(block) => self.blocks.insert(id, block.clone()),
                Peer::Pods(selector) => self.pod_slots(selector, |slot| slot.push(id)),
            },
        }
        let entry =
            Entry { atom: atom.clone(), code: atom.encode().into(), tables: BTreeSet::new() };
        self.entries.insert(id, entry);
        self.ids.insert(atom.clone(), id);
        self.added.push(id);
        id
    }

    fn pod_slots(&mut self, selector: &PeerSelector, mut visit: impl FnMut(&mut Vec<AtomId>)) {
        match &selector.namespace {
            NamespacePeer::Same(name) => {
                self.same.entry(Arc::clone(name)).or_default().slots(&selector.pod, visit);
            }
            NamespacePeer::Selected(namespaces) => {
                self.selected
                    .slots(namespaces, |bucket| bucket.slots(&selector.pod, |slot| visit(slot)));
            }
        }
    }

    /// A table names the atom.
    pub(super) fn hold(&mut self, id: AtomId, table: TableId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.tables.insert(table);
        }
    }

    /// A table that names the atom is gone; without any other the atom goes with the next plan.
    pub(super) fn release(&mut self, id: AtomId, table: TableId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.tables.remove(&table);
            if entry.tables.is_empty() {
                self.released.insert(id);
            }
        }
    }

    /// Tables that name the atom.
    pub(super) fn tables(&self, id: AtomId) -> impl Iterator<Item = TableId> + '_ {
        self.entries.get(&id).into_iter().flat_map(|entry| entry.tables.iter().copied())
    }

    /// Gives tables other numbers.
    pub(super) fn rename_tables(&mut self, rename: impl Fn(TableId) -> TableId) {
        for entry in self.entries.values_mut() {
            entry.tables = entry.tables.iter().map(|id| rename(*id)).collect();
        }
    }

    /// The canonical bytes of an atom in use.
    pub(super) fn code(&self, id: AtomId) -> &[u8] {
        self.entries.get(&id).map_or(&[], |entry| &entry.code)
    }

    /// Atoms that came into use since the last call.
    pub(super) fn take_added(&mut self) -> Vec<Atom> {
        let added = std::mem::take(&mut self.added);
        added.iter().filter_map(|id| Some(self.entries.get(id)?.atom.clone())).collect()
    }

    /// Whether [`Self::sweep`] has something to look at.
    pub(super) fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    /// Forgets the atoms that no table names any more, and says which.
    pub(super) fn sweep(&mut self) -> Vec<Atom> {
        let mut gone = Vec::new();
        for id in std::mem::take(&mut self.released) {
            if self.entries.get(&id).is_none_or(|entry| !entry.tables.is_empty()) {
                continue;
            }
            let Some(Entry { atom, .. }) = self.entries.remove(&id) else { continue };
            self.ids.remove(&atom);
            match &atom {
                Atom::PortName(_, name) => {
                    if let Some(list) = self.port_names.get_mut(name) {
                        list.retain(|(_, other)| *other != id);
                        if list.is_empty() {
                            self.port_names.remove(name);
                        }
                    }
                }
                Atom::Peer(peer) => match &**peer {
                    Peer::Block(block) => self.blocks.remove(id, block),
                    Peer::Pods(selector) => {
                        self.pod_slots(selector, |slot| slot.retain(|other| *other != id));
                        self.prune(selector);
                    }
                },
            }
            gone.push(atom);
        }
        gone
    }

    fn prune(&mut self, selector: &PeerSelector) {
        match &selector.namespace {
            NamespacePeer::Same(name) => {
                if let Some(bucket) = self.same.get_mut(name) {
                    bucket.prune(&selector.pod, Vec::is_empty);
                    if bucket.is_empty(Vec::is_empty) {
                        self.same.remove(name);
                    }
                }
            }
            NamespacePeer::Selected(namespaces) => {
                self.selected.slots(namespaces, |bucket| {
                    bucket.prune(&selector.pod, Vec::is_empty);
                });
                self.selected.prune(namespaces, |bucket| bucket.is_empty(Vec::is_empty));
            }
        }
    }

    /// The prefixes of the ipBlocks in use.
    pub(super) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Adds what a pod is to the tables in use, wherever its addresses are: selectors that match
    /// it, and the numbers of its named ports. The pod must be one that selectors can match.
    pub(super) fn match_pod(&self, pod: &Pod, namespace_labels: &Labels, out: &mut Vec<Member>) {
        let mut check = |candidates: &Vec<AtomId>| {
            for id in candidates {
                if let Some(Entry { atom: Atom::Peer(peer), .. }) = self.entries.get(id)
                    && let Peer::Pods(selector) = &**peer
                    && selects(selector, pod, namespace_labels)
                {
                    out.push(Member::Peer(*id));
                }
            }
        };
        if let Some(bucket) = self.same.get(&pod.key.namespace) {
            bucket.visit(&pod.labels, &mut check);
        }
        self.selected.visit(namespace_labels, |bucket| bucket.visit(&pod.labels, &mut check));
        for port in &pod.ports {
            for (protocol, id) in self.port_names.get(&port.name).into_iter().flatten() {
                if *protocol == port.protocol {
                    out.push(Member::Port(*id, port.number));
                }
            }
        }
    }

    /// Adds the ipBlocks in use that contain an address.
    pub(super) fn match_address(&self, address: IpAddr, out: &mut Vec<Member>) {
        self.match_prefix(&IpNet::from(address), out);
    }

    /// Adds the ipBlocks in use that contain the whole of a prefix.
    pub(super) fn match_prefix(&self, prefix: &IpNet, out: &mut Vec<Member>) {
        self.blocks.containing(prefix, |id| out.push(Member::Peer(id)));
    }
}

/// Whether a peer selector matches a pod that selectors can match.
pub(super) fn selects(selector: &PeerSelector, pod: &Pod, namespace_labels: &Labels) -> bool {
    let namespace = match &selector.namespace {
        NamespacePeer::Same(name) => *name == pod.key.namespace,
        NamespacePeer::Selected(selector) => selector.matches(namespace_labels),
    };
    namespace && selector.pod.matches(&pod.labels)
}
