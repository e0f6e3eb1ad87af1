//! Taking everything out of the kernel again.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    DataplaneError,
    attach::made_clsact,
    netlink::{
        links::{Link, Links},
        tc, tcx,
    },
    program_pins,
};

/// Removes links, filters, qdiscs that were made for them, and map pins of every ABI version
/// under `bpf_dir`. Returns the ids of the programs that were attached.
///
/// # Errors
/// If something that is there cannot be removed.
pub fn remove(bpf_dir: &Path, state_dir: &Path) -> Result<Vec<u32>, DataplaneError> {
    let mut programs = Vec::new();
    for version in entries(bpf_dir)? {
        programs.extend(program_pins::ids(&version.join("programs"))?);
        for link in entries(&version.join("links"))? {
            delete(&link)?;
        }
    }
    remove_filters(&programs, state_dir)?;
    for version in entries(bpf_dir)? {
        for folder in entries(&version)? {
            for pin in entries(&folder)? {
                delete(&pin)?;
            }
        }
    }
    Ok(programs)
}

fn remove_filters(programs: &[u32], state_dir: &Path) -> Result<(), DataplaneError> {
    for link in links()? {
        let ifindex = link.ifindex;
        if !tc::has_clsact(ifindex)? {
            continue;
        }
        delete_filters(ifindex, programs)?;
        delete_unused_clsact(ifindex, state_dir)?;
    }
    Ok(())
}

/// Removes an interface's clsact qdisc if it was made for our filters and has none any more, and
/// the note of that. One that was there before, or that another has come to use, stays.
pub(super) fn delete_unused_clsact(ifindex: u32, state_dir: &Path) -> Result<(), DataplaneError> {
    let note = made_clsact(state_dir, ifindex);
    if !note.exists() {
        return Ok(());
    }
    if tc::has_clsact(ifindex)? {
        for parent in [tc::Parent::Ingress, tc::Parent::Egress] {
            if !tc::filters(ifindex, parent)?.is_empty() {
                return Ok(());
            }
        }
        tc::delete_clsact(ifindex)?;
    }
    delete(&note)
}

/// Forgets the qdiscs of interfaces that are gone: another may come to have their number.
pub(super) fn forget_absent_clsacts(state_dir: &Path) -> Result<(), DataplaneError> {
    let present: BTreeSet<PathBuf> =
        links()?.iter().map(|link| made_clsact(state_dir, link.ifindex)).collect();
    let Some(folder) = made_clsact(state_dir, 0).parent().map(Path::to_owned) else {
        return Ok(());
    };
    for note in entries(&folder)? {
        if !present.contains(&note) {
            delete(&note)?;
        }
    }
    Ok(())
}

/// Removes the clsact filters of these programs from an interface; nothing where there are none.
pub(super) fn delete_filters(ifindex: u32, programs: &[u32]) -> Result<(), DataplaneError> {
    if !tc::has_clsact(ifindex)? {
        return Ok(());
    }
    for parent in [tc::Parent::Ingress, tc::Parent::Egress] {
        for filter in tc::filters(ifindex, parent)? {
            if filter.program_id.is_some_and(|id| programs.contains(&id)) {
                tc::delete_filter(ifindex, parent, filter.priority, filter.handle)?;
            }
        }
    }
    Ok(())
}

/// Whether any of `programs` is still on a hook of this network namespace.
///
/// # Errors
/// If the interfaces cannot be listed.
pub fn attached_anywhere(programs: &[u32]) -> Result<bool, DataplaneError> {
    for link in links()? {
        for hook in [tcx::Hook::Ingress, tcx::Hook::Egress] {
            if tcx::query(link.ifindex, hook)
                .is_ok_and(|found| found.programs.iter().any(|id| programs.contains(id)))
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn links() -> Result<Vec<Link>, DataplaneError> {
    Ok(Links::open()?.dump()?)
}

/// What is in a folder; nothing if there is none.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataplaneError> {
    let failed = |source| DataplaneError::Io { operation: "list", path: folder.to_owned(), source };
    match fs::read_dir(folder) {
        Ok(entries) => {
            entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
        }
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(failed(error)),
    }
}

pub(super) fn delete(path: &Path) -> Result<(), DataplaneError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DataplaneError::Io { operation: "delete", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
