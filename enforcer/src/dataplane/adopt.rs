//! After a restart: what the kernel holds against what it should hold, and only the difference.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use enforcer_common::abi::{ClassId, Interval, RowKey, TableId};
use ipnet::IpNet;

use super::{DataplaneError, Kernel, kernel::CLOSED_TABLE};
use crate::cluster::{KernelState, plan::Plan};

/// A table's rows by direction and class.
type Content<'a> = BTreeMap<(u32, ClassId), &'a [Interval]>;

fn contents<'a>(
    rows: impl Iterator<Item = (&'a RowKey, &'a Arc<[Interval]>)>,
) -> BTreeMap<TableId, Content<'a>> {
    let mut tables: BTreeMap<TableId, Content<'a>> = BTreeMap::new();
    for (key, row) in rows {
        tables.entry(key.table).or_default().insert((key.direction, key.class), row);
    }
    tables
}

impl Kernel {
    /// Tables that the kernel has already under another number: desired number to kernel's.
    #[must_use]
    pub fn equal_tables(&self, desired: &KernelState) -> BTreeMap<TableId, TableId> {
        let mut have: BTreeMap<Content<'_>, TableId> =
            contents(self.rows.iter()).into_iter().map(|(table, rows)| (rows, table)).collect();
        contents(desired.rows.iter())
            .into_iter()
            .filter_map(|(table, rows)| have.remove(&rows).map(|found| (table, found)))
            .collect()
    }

    /// The plan that leads from what the kernel holds to `desired`, right at every instant.
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub fn difference(&self, desired: &KernelState) -> Result<Plan, DataplaneError> {
        let peers = self.read_peers()?;
        let cidrs = self.read_cidrs()?;
        let services = self.services()?;
        let mut plan = Plan {
            rows_added: missing(
                desired
                    .rows
                    .iter()
                    .filter(|(key, row)| self.rows.get(key).is_none_or(|have| have != *row)),
            ),
            cidrs_set: changed(&cidrs, &desired.cidrs),
            peers_set: changed(&peers, &desired.peers),
            peers_removed: absent(&peers, &desired.peers),
            cidrs_removed: absent(&cidrs, &desired.cidrs),
            services_set: changed(&services, &desired.services),
            services_removed: absent(&services, &desired.services),
            ..Plan::default()
        };
        // What the agent before had written already, and its generations not, is no difference.
        let shared = self.interrupted
            || !(plan.cidrs_set.is_empty()
                && plan.peers_set.is_empty()
                && plan.peers_removed.is_empty()
                && plan.cidrs_removed.is_empty())
            || plan.services_set.iter().any(|(key, _)| !services.contains_key(key));
        self.bridge(&peers, &cidrs, desired, &mut plan);
        for (ifindex, endpoint) in &desired.endpoints {
            let mut endpoint = endpoint.clone();
            if let Some(armed) = self.endpoints.by_ifindex.get(ifindex) {
                // Whether an allow became a deny while nobody watched is not known: judge again.
                endpoint.rejudge = shared
                    || armed.word.table() != endpoint.table
                    || enforcer_common::abi::Direction::BOTH.map(|d| armed.word.isolated(d))
                        != endpoint.isolated;
            }
            plan.endpoints_set.push(endpoint);
        }
        plan.rows_removed = self
            .rows
            .keys()
            .chain(plan.rows_added.iter().map(|(key, _)| key))
            .filter(|key| !desired.rows.contains_key(*key))
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        Ok(plan)
    }

    /// Rows for the tables that are in force now and the classes that addresses are about to get:
    /// until an endpoint has switched, its old table must go on saying what it said.
    fn bridge(
        &self,
        peers: &BTreeMap<IpAddr, ClassId>,
        cidrs: &BTreeMap<IpNet, ClassId>,
        desired: &KernelState,
        plan: &mut Plan,
    ) {
        let old_peer = |ip: &IpAddr| {
            peers.get(ip).copied().or_else(|| {
                // No entry of its own yet: its longest prefix speaks for it.
                cidrs
                    .iter()
                    .filter(|(net, _)| net.contains(ip))
                    .max_by_key(|(net, _)| net.prefix_len())
                    .map(|(_, class)| *class)
            })
        };
        let mut moves = BTreeSet::new();
        for (ip, class) in &plan.peers_set {
            moves.insert((old_peer(ip).unwrap_or(0), *class));
        }
        for (net, class) in &plan.cidrs_set {
            let old = cidrs.get(net).copied().or_else(|| {
                cidrs
                    .iter()
                    .filter(|(have, _)| have.contains(net))
                    .max_by_key(|(have, _)| have.prefix_len())
                    .map(|(_, class)| *class)
            });
            moves.insert((old.unwrap_or(0), *class));
        }
        let tables: BTreeSet<TableId> = self
            .endpoints
            .by_ifindex
            .values()
            .map(|armed| armed.word.table())
            .filter(|table| *table != CLOSED_TABLE)
            .collect();
        let mut added = BTreeSet::new();
        for table in tables {
            for direction in 0..2 {
                for (old, new) in &moves {
                    let from = RowKey { class: *old, table, direction };
                    let to = RowKey { class: *new, table, direction };
                    let known = self.rows.contains_key(&to) || desired.rows.contains_key(&to);
                    if let Some(row) = self.rows.get(&from)
                        && !known
                        && *new != 0
                        && added.insert(to)
                    {
                        plan.rows_added.push((to, Arc::clone(row)));
                    }
                }
            }
        }
    }

    /// Closes what an earlier agent armed and no object speaks for any more.
    pub fn close_unclaimed(&mut self, desired: &KernelState) -> Vec<u32> {
        let mut unclaimed: Vec<u32> = self
            .endpoints
            .by_ifindex
            .keys()
            .filter(|ifindex| !desired.endpoints.contains_key(ifindex))
            .copied()
            .collect();
        for ifindex in &unclaimed {
            self.close(*ifindex);
        }
        unclaimed.extend(self.close_old_unclaimed(desired));
        unclaimed
    }
}

fn missing<'a>(
    rows: impl Iterator<Item = (&'a RowKey, &'a Arc<[Interval]>)>,
) -> Vec<(RowKey, Arc<[Interval]>)> {
    rows.map(|(key, row)| (*key, Arc::clone(row))).collect()
}

fn changed<K: Ord + Copy, V: PartialEq + Copy>(
    have: &BTreeMap<K, V>,
    want: &BTreeMap<K, V>,
) -> Vec<(K, V)> {
    want.iter()
        .filter(|(key, value)| have.get(key) != Some(value))
        .map(|(key, value)| (*key, *value))
        .collect()
}

fn absent<K: Ord + Copy, V>(have: &BTreeMap<K, V>, want: &BTreeMap<K, V>) -> Vec<K> {
    have.keys().filter(|key| !want.contains_key(key)).copied().collect()
}
