//! Maps of an earlier agent that have another number of entries than they should.
//!
//! The kernel cannot change that of a map. Another one is filled with what the old one holds and
//! takes its place among the pins; this agent's programs are loaded with it. Those that are
//! attached have the old one, which nobody writes any more, until ours take their places, with the first
//! plan: until then no agent would have written it either.

use std::{fs, path::Path};

use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
};
use enforcer_common::abi::{Addr, MAP_NODE_ADDRS, MAP_SERVICES, Service, ServiceKey};

use super::{
    DataplaneError,
    maps::{SHAPES, failed},
    object::{self, PinPaths},
    remove,
};

/// `BPF_F_NO_PREALLOC` (`include/uapi/linux/bpf.h`), as the object has it for its hash maps.
const NO_PREALLOC: u32 = 1;

/// Gives the map of Services so many entries. Returns how many it has: as many as before where what
/// it holds would not fit.
pub(super) fn services(pins: &PinPaths, entries: u32) -> Result<u32, DataplaneError> {
    resize::<ServiceKey, Service>(pins, MAP_SERVICES, entries)
}

/// The same for the map of the node's own addresses.
pub(super) fn node_addresses(pins: &PinPaths, entries: u32) -> Result<u32, DataplaneError> {
    resize::<Addr, u8>(pins, MAP_NODE_ADDRS, entries)
}

fn resize<K: Pod, V: Pod>(
    pins: &PinPaths,
    name: &'static str,
    entries: u32,
) -> Result<u32, DataplaneError> {
    // bpffs takes no dots in names.
    let (path, draft) = (pins.maps.join(name), pins.maps.join(format!("{name}-new")));
    // An agent that died over it left what may not be whole.
    remove::delete(&draft)?;
    if !path.exists() {
        return Ok(entries);
    }
    if let Some(shape) = SHAPES.iter().find(|shape| shape.name == name) {
        object::check_pin(&path, shape)?;
    }
    let old = MapData::from_pin(&path).map_err(|error| failed("open", name, error))?;
    let before = old.info().map_err(|error| failed("read", name, error))?.max_entries();
    if before == entries {
        return Ok(entries);
    }
    let old: HashMap<MapData, K, V> =
        Map::HashMap(old).try_into().map_err(|error| failed("open", name, error))?;
    let held: Vec<(K, V)> =
        old.iter().collect::<Result<_, _>>().map_err(|error| failed("read", name, error))?;
    if held.len() > usize::try_from(entries).unwrap_or(usize::MAX) {
        tracing::warn!(
            map = name,
            entries,
            before,
            held = held.len(),
            "the map keeps its size: what it holds would not fit"
        );
        return Ok(before);
    }
    let mut new: HashMap<MapData, K, V> =
        HashMap::create(entries, NO_PREALLOC).map_err(|error| failed("make", name, error))?;
    for (key, value) in held {
        new.insert(key, value, 0).map_err(|error| failed("write to", name, error))?;
    }
    new.pin(&draft)
        .map_err(|source| DataplaneError::Pin { path: draft.clone(), source: Box::new(source) })?;
    swap(&draft, &path)?;
    tracing::info!(map = name, entries, before, "the map has another size");
    Ok(entries)
}

fn swap(draft: &Path, path: &Path) -> Result<(), DataplaneError> {
    fs::rename(draft, path).map_err(|source| DataplaneError::Io {
        operation: "put a map in the place of",
        path: path.to_owned(),
        source,
    })
}
