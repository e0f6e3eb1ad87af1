//! Verdict tables: a local pod's whole policy, shared by the pods with the same one, and its rows.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use enforcer_common::{
    abi::{ACTION_ALLOW, ClassId, Direction, Interval, RowKey, RuleId, TABLE_MASK, TableId},
    verdict::{port_key, search},
};

use super::{
    atom::AtomId,
    class::{Classes, Member},
    event::Protocol,
};
use crate::policy::{
    row::{Cover, KeyRange, allows_subset, build},
    rule::Action,
};

/// What a rule of a table covers.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum TablePorts {
    /// Everything.
    Any,
    /// Ranges, and names that the other address's class resolves.
    Of(Vec<KeyRange>, Vec<(Protocol, AtomId)>),
}

/// A rule, its peers as atoms.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct TableRule {
    pub(super) rule: RuleId,
    pub(super) action: Action,
    /// Sorted; `None` for everyone.
    pub(super) peers: Option<Vec<AtomId>>,
    pub(super) ports: TablePorts,
}

/// Rules in their order by [`Direction`]; `None` where the pod is not isolated.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Content(pub(super) [Option<Vec<TableRule>>; 2]);

impl Content {
    /// Nothing in either direction.
    pub(super) fn closed() -> Self {
        Self([Some(Vec::new()), Some(Vec::new())])
    }

    fn rules(&self) -> impl Iterator<Item = &TableRule> {
        self.0.iter().flatten().flatten()
    }

    /// Every atom that a rule names; may repeat.
    pub(super) fn atoms(&self) -> impl Iterator<Item = AtomId> {
        self.rules().flat_map(|rule| {
            let names = match &rule.ports {
                TablePorts::Any => &[][..],
                TablePorts::Of(_, names) => names,
            };
            rule.peers.iter().flatten().copied().chain(names.iter().map(|(_, id)| *id))
        })
    }

    /// The rules' numbers.
    pub(super) fn rule_ids(&self) -> impl Iterator<Item = RuleId> {
        self.rules().map(|rule| rule.rule)
    }
}

/// Which rules a class can reach at all.
#[derive(Debug, Default)]
struct Lookup {
    /// Rules that need nothing of the class.
    always: Vec<u32>,
    by_atom: HashMap<AtomId, Vec<u32>>,
}

impl Lookup {
    fn new(rules: &[TableRule]) -> Self {
        let mut lookup = Self::default();
        for (place, rule) in (0u32..).zip(rules) {
            let mut depends = |id: AtomId| lookup.by_atom.entry(id).or_default().push(place);
            match (&rule.peers, &rule.ports) {
                (Some(peers), _) => peers.iter().copied().for_each(depends),
                (None, TablePorts::Any) => lookup.always.push(place),
                (None, TablePorts::Of(ranges, names)) => {
                    names.iter().for_each(|(_, id)| depends(*id));
                    if !ranges.is_empty() {
                        lookup.always.push(place);
                    }
                }
            }
        }
        lookup
    }
}

/// A table and the rows that are in the kernel for it.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) content: Arc<Content>,
    /// Endpoints that use it.
    pub(super) endpoints: usize,
    lookup: [Lookup; 2],
    /// Class 0 always where isolated; another class where its row differs from class 0's.
    pub(super) rows: [BTreeMap<ClassId, Arc<[Interval]>>; 2],
}

impl Table {
    fn new(content: Arc<Content>) -> Self {
        let lookup = [0, 1].map(|d: usize| Lookup::new(content.0[d].as_deref().unwrap_or(&[])));
        Self { content, endpoints: 0, lookup, rows: Default::default() }
    }

    /// Isolated for ingress, for egress.
    pub(super) fn isolated(&self) -> [bool; 2] {
        [self.content.0[0].is_some(), self.content.0[1].is_some()]
    }

    /// The row of a set of members: a pure function of the rules and the members.
    pub(super) fn row(&self, direction: Direction, members: &[Member]) -> Arc<[Interval]> {
        let rules = self.content.0[direction as usize].as_deref().unwrap_or(&[]);
        let lookup = &self.lookup[direction as usize];
        let mut places = lookup.always.clone();
        for member in members {
            places.extend(lookup.by_atom.get(&member.atom()).into_iter().flatten());
        }
        places.sort_unstable();
        places.dedup();
        let mut covers = Vec::new();
        for place in places {
            let Some(rule) = rules.get(place as usize) else { continue };
            let is_peer = rule.peers.as_ref().is_none_or(|peers| {
                members
                    .iter()
                    .any(|m| matches!(m, Member::Peer(id) if peers.binary_search(id).is_ok()))
            });
            if !is_peer {
                continue;
            }
            let mut cover = |range| {
                covers.push(Cover { order: place, rule: rule.rule, action: rule.action, range });
            };
            match &rule.ports {
                TablePorts::Any => cover(KeyRange::ALL),
                TablePorts::Of(ranges, names) => {
                    ranges.iter().copied().for_each(&mut cover);
                    for member in members {
                        let Member::Port(id, number) = *member else { continue };
                        if let Some((protocol, _)) = names.iter().find(|(_, name)| *name == id) {
                            cover(KeyRange::ports(*protocol, number, number));
                        }
                    }
                }
            }
        }
        build(covers)
    }

    /// Makes the rows of a class, and hands out those that are new. Class 0's must come first.
    fn add_class(
        &mut self,
        id: TableId,
        class: ClassId,
        members: &[Member],
        added: &mut Vec<(RowKey, Arc<[Interval]>)>,
    ) {
        for direction in Direction::BOTH {
            let d = direction as usize;
            let concerns = class == 0
                || members.iter().any(|m| self.lookup[d].by_atom.contains_key(&m.atom()));
            if self.content.0[d].is_none() || !concerns || self.rows[d].contains_key(&class) {
                continue;
            }
            let row = self.row(direction, members);
            if class != 0 && self.rows[d].get(&0) == Some(&row) {
                continue;
            }
            added.push((key(id, direction, class), Arc::clone(&row)));
            self.rows[d].insert(class, row);
        }
    }

    /// Forgets the rows of a class, and hands out their keys.
    fn remove_class(&mut self, id: TableId, class: ClassId, removed: &mut Vec<RowKey>) {
        for direction in Direction::BOTH {
            if self.rows[direction as usize].remove(&class).is_some() {
                removed.push(key(id, direction, class));
            }
        }
    }

    /// The keys of all its rows, with the rows.
    pub(super) fn all_rows(&self, id: TableId) -> impl Iterator<Item = (RowKey, &Arc<[Interval]>)> {
        Direction::BOTH.into_iter().flat_map(move |direction| {
            self.rows[direction as usize]
                .iter()
                .map(move |(class, row)| (key(id, direction, *class), row))
        })
    }

    fn effective(&self, direction: usize, class: ClassId) -> &[Interval] {
        let rows = &self.rows[direction];
        rows.get(&class).or_else(|| rows.get(&0)).map_or(&[], |row| row)
    }

    /// Whether a new flow with a class passes.
    pub(super) fn allows(
        &self,
        direction: Direction,
        class: ClassId,
        protocol: u8,
        port: u16,
    ) -> bool {
        let d = direction as usize;
        self.content.0[d].is_none()
            || search(self.effective(d, class), port_key(protocol, port))
                .is_some_and(|interval| interval.action == ACTION_ALLOW)
    }

    /// Whether everything that this table allows to a class that is in use, `other` allows too.
    pub(super) fn is_subset(&self, other: &Self, in_use: impl Fn(ClassId) -> bool) -> bool {
        (0..2).all(|d| match (&self.content.0[d], &other.content.0[d]) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(_), Some(_)) => {
                let classes = self.rows[d].keys().chain(other.rows[d].keys());
                classes
                    .copied()
                    .filter(|class| in_use(*class))
                    .all(|class| allows_subset(self.effective(d, class), other.effective(d, class)))
            }
        })
    }

    /// Whether an address with the members `old` loses something when it has `new` instead.
    pub(super) fn loses(&self, old: &[Member], new: &[Member]) -> bool {
        Direction::BOTH.into_iter().any(|d| {
            self.content.0[d as usize].is_some()
                && !allows_subset(&self.row(d, old), &self.row(d, new))
        })
    }

    /// Whether an address with these members is allowed anything where the pod is isolated.
    pub(super) fn allows_some(&self, members: &[Member]) -> bool {
        Direction::BOTH.into_iter().any(|d| {
            self.content.0[d as usize].is_some()
                && self.row(d, members).iter().any(|interval| interval.action == ACTION_ALLOW)
        })
    }
}

fn key(table: TableId, direction: Direction, class: ClassId) -> RowKey {
    RowKey { class, table, direction: direction as u32 }
}

/// All tables.
#[derive(Debug)]
pub(super) struct Tables {
    by_content: HashMap<Arc<Content>, TableId>,
    tables: BTreeMap<TableId, Table>,
    next: TableId,
    created: Vec<TableId>,
}

impl Tables {
    pub(super) fn new(first: TableId) -> Self {
        Self {
            by_content: HashMap::new(),
            tables: BTreeMap::new(),
            next: first,
            created: Vec::new(),
        }
    }

    /// The table of this content, with one endpoint more; and whether it is new.
    pub(super) fn acquire(&mut self, content: Content) -> (TableId, bool) {
        let (id, is_new) = match self.by_content.get(&content) {
            Some(id) => (*id, false),
            None => (self.create(Arc::new(content)), true),
        };
        if let Some(table) = self.tables.get_mut(&id) {
            table.endpoints += 1;
        }
        (id, is_new)
    }

    fn create(&mut self, content: Arc<Content>) -> TableId {
        // After 2^30 tables the numbers begin again, around those still in use. 0 is left out:
        // it is what an endpoint that was never written says.
        let mut id = self.next & TABLE_MASK;
        while id == 0 || self.tables.contains_key(&id) {
            id = (id + 1) & TABLE_MASK;
        }
        self.next = id + 1;
        self.by_content.insert(Arc::clone(&content), id);
        self.tables.insert(id, Table::new(content));
        self.created.push(id);
        id
    }

    /// One endpoint less. The table stays until [`Self::sweep`].
    pub(super) fn release(&mut self, id: TableId) {
        if let Some(table) = self.tables.get_mut(&id) {
            table.endpoints -= 1;
        }
    }

    pub(super) fn get(&self, id: TableId) -> Option<&Table> {
        self.tables.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TableId, &Table)> {
        self.tables.iter().map(|(id, table)| (*id, table))
    }

    /// Makes the rows of tables made since the last call, for all these classes.
    pub(super) fn fill_created(
        &mut self,
        classes: &Classes,
        added: &mut Vec<(RowKey, Arc<[Interval]>)>,
    ) {
        for id in std::mem::take(&mut self.created) {
            let Some(table) = self.tables.get_mut(&id) else { continue };
            table.add_class(id, 0, &[], added);
            for (class, members) in classes.iter() {
                table.add_class(id, class, members, added);
            }
        }
    }

    /// Makes the rows of a class in one table.
    pub(super) fn add_class(
        &mut self,
        id: TableId,
        class: ClassId,
        members: &[Member],
        added: &mut Vec<(RowKey, Arc<[Interval]>)>,
    ) {
        if let Some(table) = self.tables.get_mut(&id) {
            table.add_class(id, class, members, added);
        }
    }

    /// Forgets the rows of a class in one table.
    pub(super) fn remove_class(&mut self, id: TableId, class: ClassId, removed: &mut Vec<RowKey>) {
        if let Some(table) = self.tables.get_mut(&id) {
            table.remove_class(id, class, removed);
        }
    }

    /// Forgets the tables that no endpoint uses any more, and hands them out.
    pub(super) fn sweep(&mut self) -> Vec<(TableId, Table)> {
        let unused: Vec<_> =
            self.iter().filter(|(_, table)| table.endpoints == 0).map(|(id, _)| id).collect();
        let mut gone = Vec::new();
        for id in unused {
            if let Some(table) = self.tables.remove(&id) {
                self.by_content.remove(&table.content);
                gone.push((id, table));
            }
        }
        gone
    }

    /// Gives tables other numbers; `rename` must keep different ones apart.
    pub(super) fn rename(&mut self, rename: impl Fn(TableId) -> TableId) {
        let tables = std::mem::take(&mut self.tables);
        self.tables = tables.into_iter().map(|(id, table)| (rename(id), table)).collect();
        for id in self.by_content.values_mut().chain(&mut self.created) {
            *id = rename(*id);
        }
    }
}
