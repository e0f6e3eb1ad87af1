//! Which backend a flow to a Service has, noted while the flow lives: so that a changed policy is
//! asked about it at the sender, for both directions, and not only behind the translation.
//!
//! The data path is right without: what has no note is judged behind the translation, packet by
//! packet. The node's own connection tracking is what knows.

use std::{collections::HashMap, net::IpAddr};

use enforcer_common::{
    abi::{Addr, Backend, CT_SERVICE, CtEntry, CtKey4, CtKey6, MAP_BACKENDS},
    conntrack::{SEEN, expired},
    verdict::proto::TCP,
};

use super::{
    DataplaneError, Kernel,
    maps::{absent_is_fine, addr, failed, ip},
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

impl Kernel {
    /// Notes the backends of living flows to Services that have none noted, and forgets those of
    /// flows that are over.
    ///
    /// # Errors
    /// If the node's connection tracking cannot be asked, or a map not be written.
    pub fn note_backends(&mut self) -> Result<(), DataplaneError> {
        let now = sys::monotonic();
        let lives = |proto: u32, entry: &CtEntry| {
            entry.service & CT_SERVICE != 0
                && entry.seen_reply & SEEN != 0
                && !expired(proto as u8, entry, now)
        };
        let four = self.maps.ct4.iter().flatten();
        let four = four
            .filter(|(key, entry)| lives(key.proto, entry))
            .map(|(key, entry)| (wide(&key), entry.created));
        let six = self.maps.ct6.iter().flatten();
        let six = six
            .filter(|(key, entry)| lives(key.proto, entry))
            .map(|(key, entry)| (key, entry.created));
        let living: HashMap<CtKey6, u64> = four.chain(six).collect();
        let noted = self.noted_backends.iter();
        let over: Vec<CtKey6> =
            noted.filter(|(key, at)| living.get(key) != Some(at)).map(|(key, _)| *key).collect();
        for key in over {
            self.forget_backend(&key)?;
        }
        // The translation of what is not TCP may have been renewed; what is not noted comes first.
        let is_noted = |key: &CtKey6| self.noted_backends.contains_key(key);
        let first = living.iter().filter(|(key, _)| !is_noted(key));
        let again = living.iter().filter(|(key, _)| is_noted(key) && key.proto != u32::from(TCP));
        let asked: Vec<(CtKey6, u64)> =
            first.chain(again).take(MOST).map(|(key, created)| (*key, *created)).collect();
        if asked.is_empty() {
            return Ok(());
        }
        let mut connections = Connections::open()?;
        for (key, created) in asked {
            match connections.reply(&original(&key))? {
                Some(reply) => self.note_backend(key, created, reply.source, reply.source_port)?,
                // Its next packet is translated anew, perhaps otherwise.
                None => self.forget_backend(&key)?,
            }
        }
        Ok(())
    }

    /// What the map says.
    pub(super) fn read_backends(&self) -> HashMap<CtKey6, u64> {
        let all = self.maps.backends.iter().flatten();
        all.map(|(key, backend)| (key, backend.created)).collect()
    }

    fn note_backend(
        &mut self,
        key: CtKey6,
        created: u64,
        address: IpAddr,
        port: u16,
    ) -> Result<(), DataplaneError> {
        let backend = noted(key, created, address, port);
        let written = self.maps.backends.insert(key, backend, 0);
        written.map_err(|error| failed("write to", MAP_BACKENDS, error))?;
        self.noted_backends.insert(key, created);
        Ok(())
    }

    fn forget_backend(&mut self, key: &CtKey6) -> Result<(), DataplaneError> {
        absent_is_fine(self.maps.backends.remove(key))
            .map_err(|error| failed("delete from", MAP_BACKENDS, error))?;
        self.noted_backends.remove(key);
        Ok(())
    }

    /// Forgets what is noted of flows of interfaces that are gone.
    pub(super) fn forget_backends(&mut self, interfaces: &[u32]) -> Result<(), DataplaneError> {
        let gone = self.noted_backends.keys().filter(|key| interfaces.contains(&key.ifindex));
        for key in gone.copied().collect::<Vec<_>>() {
            self.forget_backend(&key)?;
        }
        Ok(())
    }
}
