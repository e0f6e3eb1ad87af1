//! What the kernel holds, read back: after a restart it is compared with what it should hold.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc};

use enforcer_common::abi::{
    ABI_VERSION, Addr, ClassId, Interval, MAP_CIDRS4, MAP_META, MAP_NODE_ADDRS, MAP_PEERS,
    MAP_ROWS, MAP_SERVICES, Meta, NODE_SERVES_PORTS, Peer, Row, Service, ServiceKey,
};
use ipnet::IpNet;

use super::{
    DataplaneError, Kernel,
    maps::{self, Maps, absent_is_fine, failed},
};
use crate::cluster::NodeAddress;

impl Kernel {
    pub(super) fn read_rows(&mut self) -> Result<(), DataplaneError> {
        let mut broken = Vec::new();
        for entry in self.maps.rows.iter() {
            let (key, Row { place, .. }) =
                entry.map_err(|error| failed("read", MAP_ROWS, error))?;
            let row: Result<Arc<[Interval]>, _> = (place.first..place.first + place.count)
                .map(|index| self.maps.intervals.get(&index, 0))
                .collect();
            match row {
                Ok(row) if self.intervals.adopt(&row, place) => {
                    self.rows.insert(key, row);
                }
                _ => broken.push(key),
            }
        }
        // A row that cannot be read is as good as none: closed until it is written again.
        for key in broken {
            absent_is_fine(self.maps.rows.remove(&key))
                .map_err(|error| failed("delete from", MAP_ROWS, error))?;
        }
        Ok(())
    }

    /// Addresses and classes as the kernel has them.
    pub(super) fn read_peers(&self) -> Result<BTreeMap<IpAddr, ClassId>, DataplaneError> {
        self.maps
            .peers
            .iter()
            .map(|entry| entry.map(|(key, peer): (Addr, Peer)| (maps::ip(key), peer.class)))
            .collect::<Result<_, _>>()
            .map_err(|error| failed("read", MAP_PEERS, error))
    }

    /// Virtual addresses of Services as the kernel has them.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn services(&self) -> Result<BTreeMap<ServiceKey, Service>, DataplaneError> {
        self.maps
            .services
            .iter()
            .collect::<Result<_, _>>()
            .map_err(|error| failed("read", MAP_SERVICES, error))
    }

    /// The node's own addresses as the kernel has them.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn node_addresses(&self) -> Result<BTreeMap<IpAddr, NodeAddress>, DataplaneError> {
        let entries = self.maps.node_addrs.iter();
        entries
            .map(|entry| entry.map(|(key, value)| (maps::ip(key), purpose(value))))
            .collect::<Result<_, _>>()
            .map_err(|error| failed("read", MAP_NODE_ADDRS, error))
    }

    /// Prefixes and classes as the kernel has them.
    pub(super) fn read_cidrs(&self) -> Result<BTreeMap<IpNet, ClassId>, DataplaneError> {
        let mut found = BTreeMap::new();
        let length = |bits: u32| u8::try_from(bits).unwrap_or(u8::MAX);
        for entry in self.maps.cidrs4.iter() {
            let (key, class) = entry.map_err(|error| failed("read", MAP_CIDRS4, error))?;
            if let Ok(net) = IpNet::new(IpAddr::from(key.data()), length(key.prefix_len())) {
                found.insert(net, class);
            }
        }
        for entry in self.maps.cidrs6.iter() {
            let (key, class) = entry.map_err(|error| failed("read", MAP_CIDRS4, error))?;
            if let Ok(net) = IpNet::new(IpAddr::from(key.data()), length(key.prefix_len())) {
                found.insert(net, class);
            }
        }
        Ok(found)
    }
}

fn purpose(value: u8) -> NodeAddress {
    if value & NODE_SERVES_PORTS == 0 { NodeAddress::Plain } else { NodeAddress::NodePorts }
}

/// What the maps say of themselves; maps that were made just now get it written.
pub(super) fn read_meta(maps: &mut Maps, class_key: [u64; 2]) -> Result<Meta, DataplaneError> {
    let meta = maps.meta.get(&0, 0).map_err(|error| failed("read", MAP_META, error))?;
    match meta.abi {
        ABI_VERSION => Ok(meta),
        0 => {
            let fresh = Meta { abi: ABI_VERSION, armed: 0, class_key };
            maps.meta.set(0, fresh, 0).map_err(|error| failed("write to", MAP_META, error))?;
            Ok(fresh)
        }
        other => Err(DataplaneError::ForeignPin {
            path: PathBuf::from(MAP_META),
            found: format!("ABI version {other}"),
        }),
    }
}
