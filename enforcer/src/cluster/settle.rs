//! From what has changed to the plan.
//!
//! Order: give endpoints their tables, which may bring new atoms; forget the atoms that were last
//! named by tables which the last plan replaced; class the addresses and prefixes concerned by all
//! that, and the backends of Services; make the rows that (new table, any class) and (any table, new class) need; compare.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use enforcer_common::abi::{ClassId, Direction, TableId};

use super::{
    atom::Atom,
    binding::Binding,
    class::{Member, Members},
    compose::{Composition, compose},
    enforcement::Enforcement,
    event::{Labels, NamedPort, Pod},
    index::{Dirty, Index},
    interfaces::{Installed, Named},
    plan::{EndpointPlan, NameChange, Plan, PodIdentity},
    table::Content,
};
use crate::policy::{
    peer::Peer,
    rule::{Isolating, Policy},
};

/// What addresses may have lost.
#[derive(Default)]
struct Losses {
    /// Addresses went from these members to those.
    moves: HashSet<(Members, Members)>,
    /// Addresses with these members went to another pod.
    handed_over: HashSet<Members>,
    /// Addresses that were judged by themselves are Services' now.
    to_services: bool,
}

/// An endpoint's table before, if it had one, and now.
struct Switch {
    ifindex: u32,
    old: Option<TableId>,
    new: TableId,
    /// Something else of the plan's entry changed.
    altered: bool,
    /// The number belonged to another interface in the last plan.
    reused: bool,
}

/// Pods with the same policies and the same named ports have the same table: compiled once a plan.
type Compiled = HashMap<(Vec<*const Policy>, Vec<NamedPort>), Content>;

impl Index {
    /// What must change in the kernel since the last call; empty if nothing must.
    ///
    /// A plan that replaces tables is followed by one more, which forgets what only the old tables
    /// asked of addresses: call until the plan is empty.
    pub fn take_plan(&mut self) -> Plan {
        if self.dirty.is_empty()
            && !self.atoms.has_released()
            && !self.rules.has_released()
            && self.services.is_settled()
        {
            return Plan { revision: self.revision, ..Plan::default() };
        }
        let mut plan = Plan::default();
        let dirty = &mut self.dirty;
        let endpoints = std::mem::take(&mut dirty.endpoints);
        let gone = std::mem::take(&mut dirty.gone);
        let switches = self.settle_endpoints(endpoints, &gone, &mut plan);
        // After the endpoints: what a table has taken up again stays.
        for atom in self.atoms.sweep().into_iter().chain(self.atoms.take_added()) {
            self.mark(&atom);
        }
        plan.names.extend(self.rules.sweep().into_iter().map(NameChange::RuleGone));
        let rules = self.rules.take_added().into_iter();
        plan.names.extend(rules.map(|(id, identity)| NameChange::Rule(id, identity)));

        plan.names.extend(self.services.take_names());

        let mut losses = self.settle_addresses(&mut plan);
        self.settle_prefixes(&mut plan);
        losses.to_services = self.settle_services(&mut plan);
        self.settle_rows(&mut plan);
        self.set_endpoints(switches, &losses, &mut plan);
        self.forget(&mut plan);

        // The same change has the same plan, whatever the hash maps' order.
        plan.rows_added.sort_unstable_by_key(|(key, _)| *key);
        plan.rows_removed.sort_unstable();
        if !plan.is_empty() {
            self.revision += 1;
        }
        plan.revision = self.revision;
        plan
    }

    /// Whatever an atom concerns must be classed anew.
    fn mark(&mut self, atom: &Atom) {
        let Dirty { addresses, prefixes, .. } = &mut self.dirty;
        self.objects.addresses_of(atom, |address| {
            addresses.insert(address);
        });
        if let Atom::Peer(peer) = atom
            && let Peer::Block(block) = &**peer
        {
            // The block's own may be no nodes any more.
            prefixes.insert(block.cidr());
            prefixes.extend(block.except());
            prefixes.extend(self.atoms.blocks().nodes_within(block.cidr()));
        }
    }

    fn settle_endpoints(
        &mut self,
        endpoints: BTreeSet<u32>,
        gone: &BTreeMap<u32, Installed>,
        plan: &mut Plan,
    ) -> Vec<Switch> {
        let mut compiled = Compiled::new();
        let mut switches = Vec::new();
        for ifindex in endpoints {
            let Some(entry) = self.interfaces.entries.get(&ifindex) else { continue };
            let (content, addresses, named, audit) = match &entry.binding {
                Binding::Waiting | Binding::Unenforceable { .. } => continue,
                Binding::Closed { addresses, .. } => {
                    let audit = self.enforcement == Enforcement::Audit;
                    (Content::closed(), addresses.clone(), None, audit)
                }
                Binding::Starting { addresses, sandbox, .. } => {
                    let (addresses, sandbox) = (addresses.clone(), sandbox.clone());
                    let audit = match &sandbox {
                        Some(sandbox) => self.audits(&sandbox.pod.namespace),
                        None => self.enforcement == Enforcement::Audit,
                    };
                    let named = sandbox.map(|sandbox| Named::of_sandbox(&sandbox));
                    (self.start_content(), addresses, named, audit)
                }
                Binding::Bound { pod, addresses, .. } => {
                    let (pod, addresses) = (Arc::clone(pod), addresses.clone());
                    let (content, isolating) = self.content_for(&pod, &mut compiled);
                    let audit = self.audits(&pod.key.namespace);
                    let namespace_labels = self.objects.namespace_labels(&pod.key.namespace);
                    let named = Named { pod, namespace_labels, isolating };
                    (content, addresses, Some(named), audit)
                }
            };
            let (table, is_new) = self.tables.acquire(content);
            if is_new && let Some(table_now) = self.tables.get(table) {
                let content = Arc::clone(&table_now.content);
                content.atoms().for_each(|atom| self.atoms.hold(atom, table));
                content.rule_ids().for_each(|rule| self.rules.hold(rule));
            }
            let Some(entry) = self.interfaces.entries.get_mut(&ifindex) else { continue };
            let name = Arc::clone(&entry.interface.name);
            let starting = matches!(entry.binding, Binding::Starting { .. });
            let installed = Installed { name, addresses, table, audit, starting };
            let interface = Arc::clone(&installed.name);
            let old = entry.installed.replace(installed.clone());
            let altered = old.as_ref() != Some(&installed);
            let renamed = old.as_ref().is_some_and(|old| old.name != interface);
            if let Some(named) = named
                && (renamed || !entry.named.as_ref().is_some_and(|old| same_name(old, &named)))
            {
                let isolating = named.isolating.clone();
                let identity = Arc::new(identity(&named.pod, &named.namespace_labels));
                plan.names.push(NameChange::Endpoint(ifindex, interface, identity, isolating));
                entry.named = Some(named);
            }
            let old = old.map(|old| old.table);
            if let Some(old) = old {
                self.tables.release(old);
            }
            let reused = gone.contains_key(&ifindex);
            switches.push(Switch { ifindex, old, new: table, altered, reused });
        }
        for (ifindex, installed) in gone {
            self.tables.release(installed.table);
            let entry = self.interfaces.entries.get(ifindex);
            if entry.is_none_or(|entry| entry.installed.is_none()) {
                plan.endpoints_removed.push(*ifindex);
            }
            if entry.is_none_or(|entry| entry.named.is_none()) {
                plan.names.push(NameChange::EndpointGone(*ifindex));
            }
        }
        switches
    }

    /// The table that a pod must have, and the policies that isolate it.
    fn content_for(&mut self, pod: &Pod, compiled: &mut Compiled) -> (Content, [Isolating; 2]) {
        let policies: Vec<Arc<Policy>> = self
            .objects
            .namespaces
            .get(&pod.key.namespace)
            .into_iter()
            .flat_map(|namespace| namespace.policies.values())
            .filter(|policy| policy.subject.as_ref().is_some_and(|s| s.matches(&pod.labels)))
            .cloned()
            .collect();
        let isolating = Direction::BOTH
            .map(|direction| policies.iter().filter(|p| p.isolates(direction)).cloned().collect());
        let key = (policies.iter().map(Arc::as_ptr).collect(), pod.ports.clone());
        let (atoms, rules) = (&mut self.atoms, &mut self.rules);
        let content = compiled.entry(key).or_insert_with(|| {
            compose(&policies, &mut Composition { atoms, rules, ports: &pod.ports })
        });
        (content.clone(), isolating)
    }

    fn settle_addresses(&mut self, plan: &mut Plan) -> Losses {
        let mut losses = Losses::default();
        let mut seen = HashSet::new();
        for address in std::mem::take(&mut self.dirty.addresses) {
            let Some(entry) = self.objects.addresses.get(&address) else { continue };
            let owner = entry.winner().cloned();
            let old_owner = entry.owner.clone();
            let old = entry.class;
            let old_labels = entry.owner_namespace.clone();
            let labels =
                owner.as_ref().map(|pod| self.objects.namespace_labels(&pod.key.namespace));
            let mut members = Vec::new();
            if let (Some(pod), Some(labels)) = (&owner, &labels) {
                self.atoms.match_pod(pod, labels, &mut members);
            }
            let has_entry = !members.is_empty();
            self.atoms.match_address(address, &mut members);
            // By selectors and names it is nobody's: the prefixes say the same as an entry would.
            let new = has_entry.then(|| self.classes.acquire(&mut members, &self.atoms));

            let handed_over = match (&old_owner, &owner) {
                (Some(old), Some(new)) => (&old.key, &old.uid) != (&new.key, &new.uid),
                _ => false,
            };
            // Most addresses of a large change make the same move.
            let mut is_new_move = || new.is_none() || seen.insert((old, new));
            if handed_over || (old.is_some() && old != new && is_new_move()) {
                members.sort_unstable();
                members.dedup();
                let now: Members = members.into();
                let before = old.map_or_else(|| Arc::clone(&now), |old| self.classes.members(old));
                if handed_over {
                    losses.handed_over.insert(Arc::clone(&before));
                }
                losses.moves.insert((before, now));
            }
            if let Some(old) = old {
                self.classes.release(old);
            }
            if old != new {
                self.services.class_changed(address);
            }
            match (old, new) {
                (old, Some(new)) if old != Some(new) => plan.peers_set.push((address, new)),
                (Some(_), None) => plan.peers_removed.push(address),
                _ => {}
            }
            let named = |pod, labels| Option::zip(pod, labels);
            let before = named(old_owner.as_deref(), old_labels.as_ref());
            let now = named(owner.as_deref(), labels.as_ref());
            plan.names.extend(name_address(address, before, now));
            if let Some(entry) = self.objects.addresses.get_mut(&address) {
                entry.owner = owner;
                entry.owner_namespace = labels;
                entry.class = new;
                if entry.claims.is_empty() {
                    self.objects.addresses.remove(&address);
                }
            }
        }
        losses
    }

    fn settle_prefixes(&mut self, plan: &mut Plan) {
        for prefix in std::mem::take(&mut self.dirty.prefixes) {
            let old = self.prefixes.get(&prefix).copied();
            let is_node = self.atoms.blocks().is_node(&prefix);
            if old.is_none() && !is_node {
                continue;
            }
            let mut members = Vec::new();
            self.atoms.match_prefix(&prefix, &mut members);
            let new = self.classes.acquire(&mut members, &self.atoms);
            if old != Some(new) || !is_node {
                self.services.classes_changed(&prefix);
            }
            // One that goes is set all the same: until it is removed it hides the prefix around
            // it, and must say what that one says.
            if old != Some(new) {
                plan.cidrs_set.push((prefix, new));
            }
            if let Some(old) = old {
                self.classes.release(old);
            }
            if is_node {
                self.prefixes.insert(prefix, new);
            } else {
                plan.cidrs_removed.push(prefix);
                self.prefixes.remove(&prefix);
                self.classes.release(new);
            }
        }
    }

    fn settle_rows(&mut self, plan: &mut Plan) {
        self.tables.fill_created(&self.classes, &mut plan.rows_added);
        for class in self.classes.take_created() {
            let members = self.classes.members(class);
            for table in self.tables_naming(&members) {
                self.tables.add_class(table, class, &members, &mut plan.rows_added);
            }
        }
    }

    /// Tables for which a class of these members may be more than class 0.
    fn tables_naming(&self, members: &[Member]) -> HashSet<TableId> {
        members.iter().flat_map(|member| self.atoms.tables(member.atom())).collect()
    }

    fn set_endpoints(&self, switches: Vec<Switch>, losses: &Losses, plan: &mut Plan) {
        let lossy = self.lossy_tables(losses);
        let in_use = |class: ClassId| self.classes.is_referenced(class);
        let mut wider = HashMap::new();
        let mut rejudge: BTreeMap<u32, bool> = BTreeMap::new();
        for Switch { ifindex, old, new, altered, reused } in switches {
            let loses = reused
                || old.is_some_and(|old| {
                    let is_subset = *wider.entry((old, new)).or_insert_with(|| {
                        old == new
                            || match (self.tables.get(old), self.tables.get(new)) {
                                (Some(old), Some(new)) => old.is_subset(new, in_use),
                                _ => false,
                            }
                    });
                    !is_subset || lossy.contains(&old)
                });
            if altered || loses {
                rejudge.insert(ifindex, loses);
            }
        }
        if !lossy.is_empty() {
            for (ifindex, entry) in &self.interfaces.entries {
                if entry.installed.as_ref().is_some_and(|now| lossy.contains(&now.table)) {
                    rejudge.entry(*ifindex).or_insert(true);
                }
            }
        }
        if losses.to_services {
            for (ifindex, entry) in &self.interfaces.entries {
                let table = entry.installed.as_ref().and_then(|now| self.tables.get(now.table));
                if table.is_some_and(|table| table.isolated()[Direction::Egress as usize]) {
                    rejudge.insert(*ifindex, true);
                }
            }
        }
        plan.endpoints_set =
            rejudge.into_iter().filter_map(|(i, rejudge)| self.endpoint_plan(i, rejudge)).collect();
    }

    /// What the plan must say of an interface; nothing of one that is not enforced on.
    pub(super) fn endpoint_plan(&self, ifindex: u32, rejudge: bool) -> Option<EndpointPlan> {
        let entry = self.interfaces.entries.get(&ifindex)?;
        let Installed { name, addresses, table, audit, starting } = entry.installed.clone()?;
        let isolated = self.tables.get(table)?.isolated();
        let interface = name;
        Some(EndpointPlan {
            ifindex,
            interface,
            addresses,
            table,
            isolated,
            audit,
            rejudge,
            starting,
        })
    }

    /// Tables under which some address is allowed less than before.
    fn lossy_tables(&self, losses: &Losses) -> HashSet<TableId> {
        let mut lossy = HashSet::new();
        for (old, new) in &losses.moves {
            let lost: Vec<_> =
                old.iter().filter(|m| new.binary_search(m).is_err()).copied().collect();
            for id in self.tables_naming(&lost) {
                if !lossy.contains(&id)
                    && self.tables.get(id).is_some_and(|table| table.loses(old, new))
                {
                    lossy.insert(id);
                }
            }
        }
        for members in &losses.handed_over {
            let allowing = self.tables.iter().filter(|(_, table)| table.allows_some(members));
            lossy.extend(allowing.map(|(id, _)| id));
        }
        lossy
    }

    /// Tables and classes that nothing has any more go, and their rows after the grace period.
    fn forget(&mut self, plan: &mut Plan) {
        for (id, table) in self.tables.sweep() {
            plan.rows_removed.extend(table.all_rows(id).map(|(key, _)| key));
            table.content.atoms().for_each(|atom| self.atoms.release(atom, id));
            table.content.rule_ids().for_each(|rule| self.rules.release(rule));
        }
        for (class, members) in self.classes.sweep() {
            for table in self.tables_naming(&members) {
                self.tables.remove_class(table, class, &mut plan.rows_removed);
            }
        }
    }
}

/// A pod and the labels of its namespace.
type PodAndNamespace<'a> = (&'a Pod, &'a Arc<Labels>);

fn name_address(
    address: IpAddr,
    old: Option<PodAndNamespace<'_>>,
    new: Option<PodAndNamespace<'_>>,
) -> Option<NameChange> {
    match (old, new) {
        (Some(_), None) => Some(NameChange::AddressGone(address)),
        (Some(old), Some(new)) if same_identity(old, new) => None,
        (_, Some((pod, labels))) => {
            Some(NameChange::Address(address, Arc::new(identity(pod, labels))))
        }
        (None, None) => None,
    }
}

fn same_name(old: &Named, new: &Named) -> bool {
    same_identity((&old.pod, &old.namespace_labels), (&new.pod, &new.namespace_labels))
        && old.isolating == new.isolating
}

/// Whether flows say the same of both.
fn same_identity((a, a_labels): PodAndNamespace<'_>, (b, b_labels): PodAndNamespace<'_>) -> bool {
    (&a.key, &a.uid, &a.labels, &a.ports) == (&b.key, &b.uid, &b.labels, &b.ports)
        && (&a.node, &a.workload) == (&b.node, &b.workload)
        && a_labels == b_labels
}

fn identity(pod: &Pod, namespace_labels: &Arc<Labels>) -> PodIdentity {
    PodIdentity {
        key: pod.key.clone(),
        uid: Arc::clone(&pod.uid),
        labels: pod.labels.clone(),
        namespace_labels: Arc::clone(namespace_labels),
        ports: pod.ports.clone(),
        node: pod.node.clone(),
        workload: pod.workload.clone(),
    }
}
