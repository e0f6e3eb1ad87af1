//! The whole of what the kernel must hold, and taking over what an earlier agent left there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use enforcer_common::{
    abi::{ClassId, Direction, Interval, RowKey, Service, ServiceKey, TableId},
    verdict::{port_key, search},
};
use ipnet::IpNet;

use super::{index::Index, plan::EndpointPlan};

/// The contents of the maps that plans write.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelState {
    /// Rows.
    pub rows: BTreeMap<RowKey, Arc<[Interval]>>,
    /// Prefixes.
    pub cidrs: BTreeMap<IpNet, ClassId>,
    /// Pod addresses.
    pub peers: BTreeMap<IpAddr, ClassId>,
    /// Virtual addresses of Services.
    pub services: BTreeMap<ServiceKey, Service>,
    /// Endpoints by host-side interface index; `rejudge` is false.
    pub endpoints: BTreeMap<u32, EndpointPlan>,
}

impl KernelState {
    /// The class of an address, as the programs find it.
    #[must_use]
    pub fn class(&self, address: IpAddr) -> ClassId {
        let known = self.peers.get(&address).copied();
        known.unwrap_or_else(|| self.class_by_prefix(address))
    }

    /// The class of an address of which it is not known whose it is.
    #[must_use]
    pub fn class_by_prefix(&self, address: IpAddr) -> ClassId {
        let prefixes = self.cidrs.iter().filter(|(prefix, _)| prefix.contains(&address));
        let longest = prefixes.max_by_key(|(prefix, _)| prefix.prefix_len());
        longest.map_or(0, |(_, class)| *class)
    }

    /// What a table says of a class, a protocol and a destination port.
    #[must_use]
    pub fn interval(
        &self,
        table: TableId,
        direction: Direction,
        class: ClassId,
        (protocol, port): (u8, u16),
    ) -> Option<&Interval> {
        let key = RowKey { class, table, direction: direction as u32 };
        let row = self.rows.get(&key).or_else(|| self.rows.get(&RowKey { class: 0, ..key }))?;
        search(row, port_key(protocol, port))
    }
}

impl Index {
    /// What the kernel holds when every plan taken so far is in force.
    #[must_use]
    pub fn snapshot(&self) -> KernelState {
        let rows = self.tables.iter().flat_map(|(id, table)| table.all_rows(id));
        let addresses = self.objects.addresses.iter();
        let interfaces = self.interfaces.entries.keys();
        KernelState {
            rows: rows.map(|(key, row)| (key, Arc::clone(row))).collect(),
            cidrs: self.prefixes.clone(),
            peers: addresses.filter_map(|(at, entry)| Some((*at, entry.class?))).collect(),
            services: self.services.written().collect(),
            endpoints: interfaces
                .filter_map(|ifindex| Some((*ifindex, self.endpoint_plan(*ifindex, false)?)))
                .collect(),
        }
    }

    /// Gives tables the numbers under which the kernel has the same content already. For the
    /// start: after [`Index::take_plan`], before anything of it is written.
    ///
    /// Renames that would give two tables one number are no renames of equal content: then
    /// nothing is renamed, and the tables keep their own, new numbers.
    pub fn rename_tables(&mut self, renames: &BTreeMap<TableId, TableId>) {
        let rename = |id: TableId| renames.get(&id).copied().unwrap_or(id);
        let numbers: BTreeSet<_> = self.tables.iter().map(|(id, _)| rename(id)).collect();
        if numbers.len() < self.tables.iter().count() {
            return;
        }
        self.tables.rename(rename);
        self.atoms.rename_tables(rename);
        for entry in self.interfaces.entries.values_mut() {
            if let Some(installed) = &mut entry.installed {
                installed.table = rename(installed.table);
            }
        }
        for installed in self.dirty.gone.values_mut() {
            installed.table = rename(installed.table);
        }
    }
}
