//! Which backend a flow to a Service has, noted while the flow lives: so that a changed policy is
//! asked about it at the sender, for both directions, and not only behind the translation.
//!
//! The data path is right without: what has no note is judged behind the translation, packet by
//! packet, and a note carries the flow that it is of. So it does not matter when notes are written,
//! and they are by a thread of their own: all flows are looked at for it, which can be very many.
//! The node's own connection tracking is what knows.

use std::{collections::HashMap, io, net::IpAddr};

use aya::maps::{HashMap as BpfHashMap, MapData};
use enforcer_common::{
    abi::{Addr, Backend, CT_SERVICE, CtEntry, CtKey4, CtKey6, MAP_BACKENDS, MAP_CT4, MAP_CT6},
    conntrack::{SEEN, expired},
    verdict::proto::TCP,
};

use super::{
    DataplaneError, Kernel, batch,
    maps::{absent_is_fine, addr, failed, ip, second_handle},
    netlink::conntrack::{Connections, Tuple},
    sys,
};

/// Flows that are asked about in one go, at most: a question takes some microseconds.
const MOST: usize = 4_096;

/// The key of a flow in [`MAP_BACKENDS`].
pub(super) fn wide(key: &CtKey4) -> CtKey6 {
    CtKey6 {
        ifindex: key.ifindex,
        local: Addr::v4(key.local).0,
        remote: Addr::v4(key.remote).0,
        local_port: key.local_port,
        remote_port: key.remote_port,
        proto: key.proto,
    }
}

/// What is noted of a flow.
pub(super) fn noted(key: CtKey6, created: u64, address: IpAddr, port: u16) -> Backend {
    Backend { created, addr: addr(address), port, _pad: [0; 3], key, _end: 0 }
}

/// A flow as the pod opened it.
fn original(key: &CtKey6) -> Tuple {
    Tuple {
        source: ip(Addr(key.local)),
        destination: ip(Addr(key.remote)),
        protocol: key.proto as u8,
        source_port: key.local_port,
        destination_port: key.remote_port,
        icmp: None,
    }
}

/// What notes backends: handles of the maps, for a thread of its own.
#[derive(Debug)]
pub struct BackendNotes {
    ct4: BpfHashMap<MapData, CtKey4, CtEntry>,
    ct6: BpfHashMap<MapData, CtKey6, CtEntry>,
    backends: BpfHashMap<MapData, CtKey6, Backend>,
}

impl Kernel {
    /// What notes backends, independently of this.
    ///
    /// # Errors
    /// If the maps cannot be opened once more.
    pub fn backend_notes(&self) -> Result<BackendNotes, DataplaneError> {
        Ok(BackendNotes {
            ct4: second_handle(&self.maps.ct4, MAP_CT4)?,
            ct6: second_handle(&self.maps.ct6, MAP_CT6)?,
            backends: second_handle(&self.maps.backends, MAP_BACKENDS)?,
        })
    }
}

impl BackendNotes {
    /// Notes the backends of living flows to Services that have none noted, and forgets those of
    /// flows that are over. Takes about a microsecond for each flow of the node.
    ///
    /// # Errors
    /// If the node's connection tracking cannot be asked, or a map not be written.
    pub fn update(&mut self) -> Result<(), DataplaneError> {
        // Before the flows: a note of one that opens meanwhile is not known to be of none.
        let failed_to_read = |source| DataplaneError::System { operation: "reading flows", source };
        let noted = self.noted().map_err(failed_to_read)?;
        let living = self.living().map_err(failed_to_read)?;
        let over = noted.iter().filter(|(key, at)| living.get(*key) != Some(*at));
        for (key, _) in over {
            self.forget(key)?;
        }
        // The translation of what is not TCP may have been renewed; what is not noted comes first.
        let is_noted = |key: &CtKey6, at: &u64| noted.get(key) == Some(at);
        let first = living.iter().filter(|(key, at)| !is_noted(key, at));
        let again =
            living.iter().filter(|(key, at)| is_noted(key, at) && key.proto != u32::from(TCP));
        let asked: Vec<_> = first.chain(again).take(MOST).collect();
        if asked.is_empty() {
            return Ok(());
        }
        let mut connections = Connections::open()?;
        for (key, created) in asked {
            match connections.reply(&original(key))? {
                Some(reply) => self.note(*key, *created, reply.source, reply.source_port)?,
                // Its next packet is translated anew, perhaps otherwise.
                None => self.forget(key)?,
            }
        }
        Ok(())
    }

    /// Flows to Services that live, and when they were opened.
    fn living(&self) -> io::Result<HashMap<CtKey6, u64>> {
        let now = sys::monotonic();
        let lives = |proto: u32, entry: &CtEntry| {
            entry.service & CT_SERVICE != 0
                && entry.seen_reply & SEEN != 0
                && !expired(proto as u8, entry, now)
        };
        let mut living = HashMap::new();
        batch::each(&self.ct4, |key: CtKey4, entry| {
            if lives(key.proto, &entry) {
                living.insert(wide(&key), entry.created);
            }
        })?;
        batch::each(&self.ct6, |key: CtKey6, entry| {
            if lives(key.proto, &entry) {
                living.insert(key, entry.created);
            }
        })?;
        Ok(living)
    }

    /// What the map says.
    fn noted(&self) -> io::Result<HashMap<CtKey6, u64>> {
        let mut noted = HashMap::new();
        batch::each(&self.backends, |key, backend: Backend| {
            noted.insert(key, backend.created);
        })?;
        Ok(noted)
    }

    fn note(
        &mut self,
        key: CtKey6,
        created: u64,
        address: IpAddr,
        port: u16,
    ) -> Result<(), DataplaneError> {
        let backend = noted(key, created, address, port);
        let written = self.backends.insert(key, backend, 0);
        written.map_err(|error| failed("write to", MAP_BACKENDS, error))
    }

    fn forget(&mut self, key: &CtKey6) -> Result<(), DataplaneError> {
        absent_is_fine(self.backends.remove(key))
            .map_err(|error| failed("delete from", MAP_BACKENDS, error))
    }
}
