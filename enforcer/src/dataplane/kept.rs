//! What is pinned, held open as well. As long as the agent lives, a pin that another hand removes
//! (or the whole BPF filesystem, unmounted) takes nothing out of force; and the pin is made again, so
//! that the next agent finds it.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use super::{
    DataplaneError, Kernel,
    attach::{self, Link},
    bpf,
    maps::SHAPES,
    object::PinPaths,
};

/// A map, a program or a link, and where it is pinned.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    fd: OwnedFd,
}

impl Kept {
    /// What is pinned there.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let fd = bpf::pinned(&path)?;
        Ok(Self { path, fd })
    }

    /// What was pinned there just now.
    pub(super) fn new(path: PathBuf, fd: OwnedFd) -> Self {
        Self { path, fd }
    }

    fn is_pinned(&self) -> bool {
        self.path.exists()
    }
}

/// The pins of maps and of this agent's programs.
pub(super) fn open(pins: &PinPaths, programs: &[u32]) -> Result<Vec<Kept>, DataplaneError> {
    let maps = SHAPES.iter().map(|shape| pins.maps.join(shape.name));
    let names = attach::PROGRAMS.into_iter().zip(programs);
    let programs = names.map(|(name, id)| attach::program_path(pins, name, *id));
    maps.chain(programs)
        .map(|path| {
            let failed = |path: &Path, source| DataplaneError::Io {
                operation: "open the pin",
                path: path.to_owned(),
                source,
            };
            Kept::open(path.clone()).map_err(|source| failed(&path, source))
        })
        .collect()
}

impl Kernel {
    fn kept(&self) -> impl Iterator<Item = &Kept> {
        let links = self.attached.values().flat_map(|attachment| &attachment.links);
        let links = links.chain(self.uplinks.links()).filter_map(Link::kept);
        self.kept.iter().chain(links).chain(self.input.kept())
    }

    /// Makes pins again that are gone, and returns how many. Until that has succeeded, what is in
    /// force goes with the agent.
    ///
    /// # Errors
    /// If there is no BPF filesystem any more, or it takes no pins.
    pub fn restore_pins(&self) -> Result<usize, DataplaneError> {
        let Some(pins) = &self.pins else { return Ok(0) };
        let gone: Vec<&Kept> = self.kept().filter(|kept| !kept.is_pinned()).collect();
        if gone.is_empty() {
            return Ok(0);
        }
        pins.create()?;
        for Kept { path, fd } in &gone {
            bpf::pin(fd.as_fd(), path).map_err(|source| DataplaneError::Io {
                operation: "make the pin again",
                path: path.clone(),
                source,
            })?;
        }
        Ok(gone.len())
    }
}
