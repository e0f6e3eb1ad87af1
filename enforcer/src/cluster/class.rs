//! Address classes: sets of atoms that addresses match, under ids that survive a restart.

use std::{
    collections::{HashMap, HashSet},
    hash::Hasher,
    sync::Arc,
};

use enforcer_common::abi::ClassId;
use siphasher::sip::SipHasher24;

use super::atom::{AtomId, Atoms};

/// One thing that is so of the addresses of a class.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Member {
    /// They match this peer.
    Peer(AtomId),
    /// Their pod has this number under this port name.
    Port(AtomId, u16),
}

impl Member {
    /// The atom that it answers.
    pub(super) fn atom(self) -> AtomId {
        match self {
            Self::Peer(id) | Self::Port(id, _) => id,
        }
    }
}

/// Members, sorted and without duplicates.
pub(super) type Members = Arc<[Member]>;

#[derive(Debug)]
struct Class {
    members: Members,
    /// Addresses, prefixes and backends of this class.
    references: usize,
}

/// The classes in use.
#[derive(Debug)]
pub(super) struct Classes {
    key: [u64; 2],
    ids: HashMap<Members, ClassId>,
    classes: HashMap<ClassId, Class>,
    created: Vec<ClassId>,
    /// Classes that have lost their last reference since the last [`Self::sweep`].
    loose: HashSet<ClassId>,
}

impl Classes {
    pub(super) fn new(key: [u64; 2]) -> Self {
        Self {
            key,
            ids: HashMap::new(),
            classes: HashMap::new(),
            created: Vec::new(),
            loose: HashSet::new(),
        }
    }

    /// The class of these members, which it puts in order, with one reference more. The empty set
    /// is class 0.
    pub(super) fn acquire(&mut self, members: &mut Vec<Member>, atoms: &Atoms) -> ClassId {
        if members.is_empty() {
            return 0;
        }
        members.sort_unstable();
        members.dedup();
        let id = match self.ids.get(&members[..]) {
            Some(id) => *id,
            None => self.create(members[..].into(), atoms),
        };
        if let Some(class) = self.classes.get_mut(&id) {
            class.references += 1;
        }
        id
    }

    fn create(&mut self, members: Members, atoms: &Atoms) -> ClassId {
        // By content and not by the process's numbers, so that a later process agrees.
        let mut codes: Vec<(&[u8], Option<u16>)> = members
            .iter()
            .map(|member| match *member {
                Member::Peer(id) => (atoms.code(id), None),
                Member::Port(id, number) => (atoms.code(id), Some(number)),
            })
            .collect();
        codes.sort_unstable();
        let mut hasher = SipHasher24::new_with_keys(self.key[0], self.key[1]);
        hasher.write(&(codes.len() as u64).to_be_bytes());
        for (code, number) in codes {
            hasher.write(&(code.len() as u64).to_be_bytes());
            hasher.write(code);
            hasher.write(&number.unwrap_or(0).to_be_bytes());
        }
        // Another set under the same number is astronomically rare, and must still not be wrong.
        let mut id = hasher.finish();
        let mut attempt = 0u64;
        while id == 0 || self.classes.contains_key(&id) {
            attempt += 1;
            let mut again = hasher;
            again.write(&attempt.to_be_bytes());
            id = again.finish();
        }
        self.ids.insert(Arc::clone(&members), id);
        self.classes.insert(id, Class { members, references: 0 });
        self.created.push(id);
        id
    }

    /// One reference more to a class in use.
    pub(super) fn hold(&mut self, id: ClassId) {
        if let Some(class) = self.classes.get_mut(&id) {
            class.references += 1;
        }
    }

    /// One reference less. The class stays until [`Self::sweep`].
    pub(super) fn release(&mut self, id: ClassId) {
        if let Some(class) = self.classes.get_mut(&id) {
            class.references -= 1;
            if class.references == 0 {
                self.loose.insert(id);
            }
        }
    }

    /// The class of these members; class 0 if it is not in use.
    pub(super) fn find(&self, mut members: Vec<Member>) -> ClassId {
        members.sort_unstable();
        members.dedup();
        self.ids.get(&members[..]).copied().unwrap_or(0)
    }

    /// What a class in use consists of.
    pub(super) fn members(&self, id: ClassId) -> Members {
        self.classes.get(&id).map_or_else(|| Arc::from([]), |class| Arc::clone(&class.members))
    }

    /// Whether some address or prefix has the class.
    pub(super) fn is_referenced(&self, id: ClassId) -> bool {
        id == 0 || self.classes.get(&id).is_some_and(|class| class.references > 0)
    }

    /// All classes that some address or prefix has.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ClassId, &[Member])> {
        self.classes
            .iter()
            .filter(|(_, class)| class.references > 0)
            .map(|(id, class)| (*id, &*class.members))
    }

    /// Classes made since the last call that something has.
    pub(super) fn take_created(&mut self) -> Vec<ClassId> {
        let mut created = std::mem::take(&mut self.created);
        created.retain(|id| self.is_referenced(*id));
        created
    }

    /// Forgets the classes that nothing has any more, and says which.
    pub(super) fn sweep(&mut self) -> Vec<(ClassId, Members)> {
        let mut gone = Vec::new();
        for id in std::mem::take(&mut self.loose) {
            if !self.is_referenced(id)
                && let Some(class) = self.classes.remove(&id)
            {
                self.ids.remove(&class.members);
                gone.push((id, class.members));
            }
        }
        gone
    }

    pub(super) fn len(&self) -> usize {
        self.classes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::{atom::Atom, event::Protocol},
        policy::peer::{IpBlock, Peer},
    };

    fn block(cidr: &str) -> Atom {
        Atom::Peer(Arc::new(Peer::Block(IpBlock::new(cidr.parse().unwrap(), []).unwrap())))
    }

    #[test]
    fn equal_content_has_an_equal_id_whatever_came_first() {
        let names =
            [block("10.0.0.0/8"), block("fd00::/8"), Atom::PortName(Protocol::Tcp, "web".into())];
        let id_of = |order: [usize; 3], key, number| {
            let mut atoms = Atoms::default();
            let mut ids = [0; 3];
            for at in order {
                ids[at] = atoms.intern(&names[at]);
            }
            let mut members =
                vec![Member::Port(ids[2], number), Member::Peer(ids[1]), Member::Peer(ids[0])];
            Classes::new(key).acquire(&mut members, &atoms)
        };
        let id = id_of([0, 1, 2], [1, 2], 80);
        assert_eq!(id, id_of([2, 0, 1], [1, 2], 80));
        assert_ne!(id, id_of([0, 1, 2], [1, 3], 80));
        assert_ne!(id, id_of([0, 1, 2], [1, 2], 81));
    }

    #[test]
    fn a_class_lives_as_long_as_something_has_it() {
        let mut atoms = Atoms::default();
        let id = atoms.intern(&block("10.0.0.0/8"));
        let mut classes = Classes::new([0, 0]);
        assert_eq!(classes.acquire(&mut vec![], &atoms), 0);
        let class = classes.acquire(&mut vec![Member::Peer(id), Member::Peer(id)], &atoms);
        assert_eq!(classes.acquire(&mut vec![Member::Peer(id)], &atoms), class);
        assert_eq!(classes.take_created(), [class]);
        classes.release(class);
        assert!(classes.sweep().is_empty());
        classes.release(class);
        assert_eq!(
            classes.acquire(&mut vec![Member::Peer(id)], &atoms),
            class,
            "back before the sweep"
        );
        assert!(classes.sweep().is_empty());
        classes.release(class);
        assert_eq!(classes.sweep().len(), 1);
        assert_eq!(classes.len(), 0);
    }
}
