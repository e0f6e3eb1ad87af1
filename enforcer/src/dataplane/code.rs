//! A program of the object put together by hand, over maps that are there already: for programs that
//! the library has no type for, and to be told what it does not tell.

use std::{
    collections::HashMap,
    ffi::CString,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
};

use aya::Ebpf;
use aya_obj::{
    Object,
    btf::{Btf, BtfFeatures},
};

use super::{bpf::Instruction, maps, object::OBJECT};

/// A program before the kernel has it.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) name: CString,
    pub(super) instructions: Vec<Instruction>,
    pub(super) license: CString,
    pub(super) functions: Functions,
    /// The maps that it uses: the kernel takes them by these descriptors.
    _maps: Vec<OwnedFd>,
}

/// What the verifier must know to check each global function by itself.
#[derive(Debug)]
pub(super) struct Functions {
    /// Type information of the object.
    pub(super) types: Vec<u8>,
    /// Where functions begin, and their types: `struct bpf_func_info`.
    pub(super) records: Vec<u8>,
    /// Size of one.
    pub(super) record: u32,
}

/// Kernels from 6.0 on have them all.
const FEATURES: BtfFeatures = BtfFeatures::new(true, true, true, true, true, true, true, true);

impl Code {
    /// Puts the program together over the maps of an object that the library has loaded.
    ///
    /// # Errors
    /// In words, if the object is not what it should be.
    pub(super) fn link(ebpf: &Ebpf, program: &str) -> Result<Self, String> {
        let mut object = Object::parse(OBJECT).map_err(|error| error.to_string())?;
        let mut fds: HashMap<String, OwnedFd> = HashMap::new();
        for (name, map) in ebpf.maps() {
            let Some(data) = maps::data(map) else { continue };
            let fd = data.fd().as_fd().try_clone_to_owned();
            fds.insert(name.to_owned(), fd.map_err(|error| error.to_string())?);
        }
        let types = object.fixup_and_sanitize_btf(&FEATURES).map_err(|error| error.to_string())?;
        let types = types.map_or_else(Vec::new, Btf::to_bytes);
        let shapes = object.maps.clone();
        let known: Vec<(&str, RawFd, &aya_obj::Map)> = shapes
            .iter()
            .filter_map(|(name, map)| Some((name.as_str(), fds.get(name)?.as_raw_fd(), map)))
            .collect();
        let sections = object.functions.keys().map(|(section, _)| *section).collect();
        object
            .relocate_maps(known.into_iter(), &sections)
            .and_then(|()| object.relocate_calls(&sections))
            .map_err(|error| error.to_string())?;
        let found = object.programs.get(program).ok_or_else(|| "it is not there".to_owned())?;
        let function = object
            .functions
            .get(&found.function_key())
            .ok_or_else(|| "it has no code".to_owned())?;
        Ok(Self {
            name: CString::new(program).unwrap_or_default(),
            instructions: function.instructions.iter().map(bytes).collect(),
            license: found.license.clone(),
            functions: Functions {
                types,
                records: function.func_info.func_info_bytes(),
                record: u32::try_from(function.func_info_rec_size).unwrap_or(0),
            },
            _maps: fds.into_values().collect(),
        })
    }
}

fn bytes(instruction: &aya_obj::generated::bpf_insn) -> Instruction {
    let [off0, off1] = instruction.off.to_ne_bytes();
    let [imm0, imm1, imm2, imm3] = instruction.imm.to_ne_bytes();
    // Little endian, as the object is.
    let registers = instruction.dst_reg() | instruction.src_reg() << 4;
    [instruction.code, registers, off0, off1, imm0, imm1, imm2, imm3]
}
