//! The BPF filesystem: where pins are kept. systemd mounts it on every machine that it starts; a
//! container or a bare sandbox may lack it.

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    mount::{MsFlags, mount, umount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::{
    LabError,
    cleanup::{self, BPF_DIR},
};

/// This process has mounted it.
static MOUNTED: AtomicBool = AtomicBool::new(false);

/// The BPF filesystem is there for as long as this lives. Taken off again at the end if it was
/// mounted for it and nothing is pinned there by then.
#[derive(Debug)]
pub struct Bpffs(());

impl Bpffs {
    /// Mounts it on `/sys/fs/bpf`, visible to all, unless that has been done.
    ///
    /// # Errors
    /// If this process may not mount, or its kernel has no BPF filesystem.
    pub fn ensure() -> Result<Self, LabError> {
        cleanup::clean_up_on_signals()?;
        if !is_mounted()? {
            mount(Some("bpf"), BPF_DIR, Some("bpf"), MsFlags::empty(), None::<&str>)
                .map_err(|errno| LabError::io(format!("mount {BPF_DIR}"))(errno.into()))?;
            MOUNTED.store(true, Ordering::SeqCst);
        }
        Ok(Self(()))
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        unmount();
    }
}

/// Takes the filesystem off if this process has mounted it and nobody uses it.
pub(crate) fn unmount() {
    // Two iterators may be there from the beginning (`kernel/bpf/preload`).
    let own = |name: &OsStr| name == "maps.debug" || name == "progs.debug";
    let empty = || {
        fs::read_dir(BPF_DIR)
            .is_ok_and(|names| names.flatten().all(|entry| own(&entry.file_name())))
    };
    if MOUNTED.swap(false, Ordering::SeqCst) && empty() {
        // Nothing is lost if it stays: it is empty, and where it belongs.
        umount(BPF_DIR).ok();
    }
}

fn is_mounted() -> Result<bool, LabError> {
    let found = statfs(Path::new(BPF_DIR))
        .map_err(|errno| LabError::io(format!("look at {BPF_DIR}"))(errno.into()))?;
    Ok(found.filesystem_type() == BPF_FS_MAGIC)
}
