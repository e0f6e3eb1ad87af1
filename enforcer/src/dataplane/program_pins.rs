//! Pins of programs, by which an agent knows what earlier ones attached.
//!
//! Several agents' can be there at once: one that dies before all interfaces carry its programs
//! leaves others' on them. A pin goes when its program is on no interface any more, and not before.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aya::{Ebpf, programs::SchedClassifier};
use enforcer_common::abi::PROG_NODE_EGRESS;

use super::{
    DataplaneError, Kernel, attach,
    netlink::links::Links,
    object::{self, PinPaths},
    remove,
};

/// Ids of the programs that are pinned in a folder.
pub(super) fn ids(folder: &Path) -> Result<Vec<u32>, DataplaneError> {
    let pins = remove::entries(folder)?;
    Ok(pins.iter().filter_map(|pin| id(pin)).collect())
}

/// Those of them that are for interfaces that are no pods'.
pub(super) fn outlet_ids(folder: &Path) -> Result<Vec<u32>, DataplaneError> {
    let for_outlets = |pin: &PathBuf| {
        let name = pin.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(PROG_NODE_EGRESS)
    };
    let pins = remove::entries(folder)?;
    Ok(pins.iter().filter(|pin| for_outlets(pin)).filter_map(|pin| id(pin)).collect())
}

fn id(pin: &Path) -> Option<u32> {
    let program = SchedClassifier::from_pin(pin).ok()?;
    program.info().ok().map(|info| info.id())
}

/// Pins the programs beside those of earlier agents. Returns the earlier ones' ids and these.
pub(super) fn pin(
    ebpf: &mut Ebpf,
    pins: &PinPaths,
) -> Result<(Vec<u32>, Vec<u32>), DataplaneError> {
    let old = ids(&pins.programs)?;
    let new = attach::program_ids(ebpf)?;
    for (name, id) in attach::PROGRAMS.into_iter().zip(&new) {
        let path = attach::program_path(pins, name, *id);
        object::program(ebpf, name)?
            .pin(&path)
            .map_err(|source| DataplaneError::Pin { path, source: Box::new(source) })?;
    }
    Ok((old, new))
}

impl Kernel {
    /// Forgets earlier agents' programs that are on no interface any more.
    pub(super) fn forget_programs(&self) -> Result<(), DataplaneError> {
        let Some(pins) = &self.pins else { return Ok(()) };
        let interfaces = Links::open()?.dump()?;
        for pin in remove::entries(&pins.programs)? {
            let Some(id) = id(&pin).filter(|id| !self.programs.contains(id)) else { continue };
            if !interfaces.iter().any(|link| attach::on_some_hook(&[id], link.ifindex)) {
                // Next time is early enough.
                let _kept = fs::remove_file(pin);
            }
        }
        Ok(())
    }
}
