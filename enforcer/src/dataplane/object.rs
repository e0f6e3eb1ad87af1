//! The kernel object, and loading it over pinned maps.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{MapError, MapInfo},
    programs::{ProgramError, SchedClassifier},
    sys::SyscallError,
};
use enforcer_common::abi::{ABI_VERSION, MAP_BACKENDS, MAP_CT4, MAP_CT6, MAP_SERVICES};

use super::{
    DataplaneError, attach,
    input::{Input, Layout},
    maps, resize, sys,
};

/// The object that `cargo xtask build-ebpf` made, aligned as the loader wants it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("ENFORCER_BPF_OBJECT_PATH"));

/// Folders for pins: `<bpf_dir>/v<ABI>/{maps,links,programs}`.
#[derive(Clone, Debug)]
pub struct PinPaths {
    /// Folder of this ABI version.
    pub version: PathBuf,
    /// Maps by name.
    pub maps: PathBuf,
    /// TCX links by interface index and direction.
    pub links: PathBuf,
    /// The programs, so that a later agent knows which filters are ours.
    pub programs: PathBuf,
}

impl PinPaths {
    /// The folders under `bpf_dir`.
    #[must_use]
    pub fn new(bpf_dir: &Path) -> Self {
        Self::of(bpf_dir, ABI_VERSION)
    }

    /// Those of another version of the layouts.
    pub(super) fn of(bpf_dir: &Path, version: u32) -> Self {
        let version = bpf_dir.join(format!("v{version}"));
        Self {
            maps: version.join("maps"),
            links: version.join("links"),
            programs: version.join("programs"),
            version,
        }
    }

    /// Makes them, after checking that they are on a BPF filesystem.
    ///
    /// # Errors
    /// If there is no BPF filesystem or a folder cannot be made.
    pub fn create(&self) -> Result<(), DataplaneError> {
        let existing = self.version.ancestors().find(|path| path.exists());
        if !existing.is_some_and(sys::is_bpffs) {
            return Err(DataplaneError::Bpffs { path: self.version.clone() });
        }
        for path in [&self.maps, &self.links, &self.programs] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| {
                DataplaneError::Io { operation: "make the folder", path: path.clone(), source }
            })?;
        }
        Ok(())
    }
}

/// How many entries the maps have whose size depends on the node.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Flows of each family.
    pub conntrack: u32,
    /// Virtual addresses and ports of Services.
    pub services: u32,
}

/// The object in the kernel, verified, and nowhere in force. Making this is what takes long of an
/// agent's start (the verifier's work: a second and more), and changes nothing on the node.
#[derive(Debug)]
pub struct Loaded {
    pub(super) ebpf: Ebpf,
    /// The program of netfilter comes apart: the library has no type for it.
    pub(super) input: Input,
    pub(super) sizes: Sizes,
}

impl Loaded {
    /// Loads the object. With `pins`, maps that are pinned there with the right size are used;
    /// others are made, and get their pins in [`Self::place`].
    ///
    /// # Errors
    /// If a pinned map is not this version's or the kernel refuses.
    pub(super) fn load(pins: Option<&PinPaths>, sizes: Sizes) -> Result<Self, DataplaneError> {
        sys::raise_memlock();
        let layout = Layout::read();
        let mut loader = EbpfLoader::new();
        layout.put(&mut loader);
        let (sizes, resized) = match pins {
            Some(pins) => resize::fitting(pins, sizes)?,
            None => (sizes, Vec::new()),
        };
        let Sizes { conntrack, services } = sizes;
        loader.map_max_entries(MAP_CT4, conntrack).map_max_entries(MAP_CT6, conntrack);
        loader.map_max_entries(MAP_SERVICES, services).map_max_entries(MAP_BACKENDS, conntrack);
        for (pins, shape) in
            pins.into_iter().flat_map(|pins| maps::SHAPES.iter().map(move |s| (pins, s)))
        {
            let path = pins.maps.join(shape.name);
            check_pin(&path, shape)?;
            // Counters and rings are this load's own only if nothing of them is worth keeping:
            // counters go on, events that nobody read are told late rather than never.
            if path.exists() && !resized.contains(&shape.name) {
                loader.map_pin_path(shape.name, path);
            }
        }
        let mut ebpf = loader.load(OBJECT).map_err(load_error)?;
        for name in attach::PROGRAMS {
            program(&mut ebpf, name)?.load().map_err(|source| DataplaneError::Program {
                program: name,
                source: Box::new(source),
            })?;
        }
        let input = Input::prepare(&ebpf, layout);
        Ok(Self { ebpf, input, sizes })
    }

    /// Pins the maps that were made, and sees that the others are still those that are pinned. To
    /// be called by the owner of the node. Returns the pin of a map that is another one now: then
    /// the object has to be loaded anew.
    ///
    /// # Errors
    /// If a pinned map is not this version's or pins cannot be made.
    pub(super) fn place(&mut self, pins: &PinPaths) -> Result<Option<PathBuf>, DataplaneError> {
        pins.create()?;
        // What says that the maps are in force is the last of them.
        for shape in maps::SHAPES {
            let path = pins.maps.join(shape.name);
            let missing = DataplaneError::Missing { what: "map", name: shape.name };
            let map = self.ebpf.map_mut(shape.name).ok_or(missing)?;
            if !path.exists() {
                let pinned = map.pin(&path);
                pinned.map_err(|source| DataplaneError::Pin { path, source: Box::new(source) })?;
                continue;
            }
            check_pin(&path, shape)?;
            let is_that = maps::id(map, shape.name)? == maps::pinned_id(&path, shape.name)?;
            if !is_that && !resize::replace(map, shape.name, pins)? {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}

/// One of the object's programs.
///
/// # Errors
/// If the object has none of that name.
pub fn program<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, DataplaneError> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(DataplaneError::Missing { what: "program", name })
}

/// The library opens a pinned map of any shape and then writes past the end of a value: so every
/// pin is checked before its first use.
pub(super) fn check_pin(path: &Path, shape: &maps::Shape) -> Result<(), DataplaneError> {
    if !path.exists() {
        return Ok(());
    }
    let info = MapInfo::from_pin(path).map_err(|source| DataplaneError::Map {
        operation: "open",
        map: shape.name,
        source: Box::new(source),
    })?;
    let kind = info.map_type().map_or_else(|_| "unknown".to_owned(), |kind| format!("{kind:?}"));
    let entries = shape.entries.is_none_or(|entries| entries == info.max_entries());
    if kind == shape.kind
        && info.key_size() == shape.key
        && info.value_size() == shape.value
        && entries
    {
        return Ok(());
    }
    Err(DataplaneError::ForeignPin {
        path: path.to_owned(),
        found: format!(
            "{kind} with keys of {} and values of {} bytes, {} entries",
            info.key_size(),
            info.value_size(),
            info.max_entries()
        ),
    })
}

fn load_error(error: EbpfError) -> DataplaneError {
    let refused = match &error {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) => Some(io_error.kind()),
        EbpfError::MapError(MapError::SyscallError(SyscallError { io_error, .. }))
        | EbpfError::ProgramError(ProgramError::SyscallError(SyscallError { io_error, .. })) => {
            Some(io_error.kind())
        }
        _ => None,
    };
    if refused == Some(ErrorKind::PermissionDenied) || !sys::may_load() {
        return DataplaneError::Privilege;
    }
    DataplaneError::Load(Box::new(error))
}
