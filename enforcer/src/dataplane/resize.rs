//! Maps of an earlier agent that have another number of entries than they should.
//!
//! The kernel cannot change that of a map. This agent's programs are loaded with another one, which
//! gets what the old one holds and takes its place among the pins when the agent owns the node.
//! Programs that are attached have the old one, which nobody writes any more, until ours take their
//! places, with the first plan: until then no agent would have written it either.

use std::{fs, path::Path};

use aya::{
    Pod,
    maps::{HashMap, Map, MapData, MapInfo},
};
use enforcer_common::abi::{
    Addr, MAP_NODE_ADDRS, MAP_SERVICES, NODE_ADDRESSES, Service, ServiceKey,
};

use super::{
    DataplaneError,
    maps::{self, SHAPES, failed},
    object::{self, PinPaths, Sizes},
    remove,
};

/// The sizes that the maps can have: as wanted, but where what is held would not fit, as before. And
/// the maps that are pinned with another size than that.
pub(super) fn fitting(
    pins: &PinPaths,
    wanted: Sizes,
) -> Result<(Sizes, Vec<&'static str>), DataplaneError> {
    let (mut sizes, mut other) = (wanted, Vec::new());
    for (name, entries) in [(MAP_SERVICES, wanted.services), (MAP_NODE_ADDRS, NODE_ADDRESSES)] {
        let path = pins.maps.join(name);
        if !path.exists() {
            continue;
        }
        if let Some(shape) = SHAPES.iter().find(|shape| shape.name == name) {
            object::check_pin(&path, shape)?;
        }
        let info = MapInfo::from_pin(&path).map_err(|error| failed("open", name, error))?;
        let before = info.max_entries();
        if before == entries {
            continue;
        }
        let held = match name {
            MAP_SERVICES => read::<ServiceKey, Service>(&path, name)?.len(),
            _ => read::<Addr, u8>(&path, name)?.len(),
        };
        if fits(held, entries) {
            other.push(name);
            continue;
        }
        tracing::warn!(
            map = name,
            entries,
            before,
            held,
            "the map keeps its size: what it holds would not fit"
        );
        if name == MAP_SERVICES {
            sizes.services = before;
        }
    }
    Ok((sizes, other))
}

/// Puts a map in the place of the one that is pinned, with all that it holds. `false` if it is not
/// one whose size changes, or this one has no room for that.
pub(super) fn replace(
    map: &mut Map,
    name: &'static str,
    pins: &PinPaths,
) -> Result<bool, DataplaneError> {
    match name {
        MAP_SERVICES => replace_typed::<ServiceKey, Service>(map, name, pins),
        MAP_NODE_ADDRS => replace_typed::<Addr, u8>(map, name, pins),
        _ => Ok(false),
    }
}

fn replace_typed<K: Pod, V: Pod>(
    map: &mut Map,
    name: &'static str,
    pins: &PinPaths,
) -> Result<bool, DataplaneError> {
    // bpffs takes no dots in names.
    let (path, draft) = (pins.maps.join(name), pins.maps.join(format!("{name}-new")));
    // An agent that died over it left what may not be whole.
    remove::delete(&draft)?;
    let held = read::<K, V>(&path, name)?;
    let entries = maps::data(map)
        .ok_or(DataplaneError::Missing { what: "map", name })?
        .info()
        .map_err(|error| failed("read", name, error))?
        .max_entries();
    let mut new: HashMap<&mut MapData, K, V> =
        map.try_into().map_err(|error| failed("open", name, error))?;
    // A map that was made for this is empty. One that was pinned when it was opened, and is not any
    // more, holds what nobody keeps up to date.
    if new.iter().next().is_some() {
        return Ok(false);
    }
    if !fits(held.len(), entries) {
        return Ok(false);
    }
    for (key, value) in held {
        new.insert(key, value, 0).map_err(|error| failed("write to", name, error))?;
    }
    new.pin(&draft)
        .map_err(|source| DataplaneError::Pin { path: draft.clone(), source: Box::new(source) })?;
    swap(&draft, &path)?;
    tracing::info!(map = name, entries, "the map has another size");
    Ok(true)
}

fn fits(held: usize, entries: u32) -> bool {
    held <= usize::try_from(entries).unwrap_or(usize::MAX)
}

fn read<K: Pod, V: Pod>(path: &Path, name: &'static str) -> Result<Vec<(K, V)>, DataplaneError> {
    let map = MapData::from_pin(path).map_err(|error| failed("open", name, error))?;
    let map: HashMap<MapData, K, V> =
        Map::HashMap(map).try_into().map_err(|error| failed("open", name, error))?;
    map.iter().collect::<Result<_, _>>().map_err(|error| failed("read", name, error))
}

fn swap(draft: &Path, path: &Path) -> Result<(), DataplaneError> {
    fs::rename(draft, path).map_err(|source| DataplaneError::Io {
        operation: "put a map in the place of",
        path: path.to_owned(),
        source,
    })
}
