//! System calls of BPF that the library has no form of: programs of netfilter, and pins of any kind.
#![expect(unsafe_code, reason = "system calls, each with its argument")]

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use super::code::Code;

/// An instruction, as the kernel takes it.
pub(super) type Instruction = [u8; 8];

/// `enum bpf_cmd`.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_BTF_LOAD: libc::c_long = 18;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_LINK_CREATE: libc::c_long = 28;
/// `BPF_PROG_TYPE_SCHED_CLS` (`enum bpf_prog_type`).
const CLASSIFIER_PROGRAM: u32 = 3;
/// `BPF_PROG_TYPE_NETFILTER`.
const NETFILTER_PROGRAM: u32 = 32;
/// `BPF_NETFILTER` (`enum bpf_attach_type`).
const NETFILTER: u32 = 45;
/// Bytes of the verifier's log.
const LOG: usize = 64 << 10;
/// `BPF_LOG_LEVEL1` and `BPF_LOG_STATS` (`include/linux/bpf_verifier.h`).
const LOG_STEPS: u32 = 1;
const LOG_STATISTICS: u32 = 4;

/// What `BPF_PROG_LOAD` takes of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
    types: u32,
    function_record: u32,
    functions: u64,
    functions_number: u32,
    line_record: u32,
}

/// What `BPF_BTF_LOAD` takes of it.
#[repr(C)]
#[derive(Default)]
struct TypesLoad {
    types: u64,
    log: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
    _pad: u32,
}

/// What `BPF_LINK_CREATE` takes of it.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    family: u32,
    hook: u32,
    priority: i32,
    netfilter_flags: u32,
}

/// What `BPF_OBJ_PIN` and `BPF_OBJ_GET` take of it.
#[repr(C)]
#[derive(Default)]
struct ObjectPin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// What `BPF_MAP_LOOKUP_BATCH` takes of it.
#[repr(C)]
#[derive(Default)]
struct MapBatch {
    from: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// A place among the hooks of netfilter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook {
    /// `NFPROTO_…`.
    pub(super) family: u32,
    /// `NF_INET_…`.
    pub(super) hook: u32,
    /// Lower runs first.
    pub(super) priority: i32,
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes have the layout that the command takes, their size is given, and what
    // they point to lives as long as the callers' borrows.
    let code = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}

fn descriptor(code: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(code).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given this descriptor to us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// A type of program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// On an interface.
    Classifier,
    /// On a hook of netfilter.
    Netfilter,
}

/// What `BPF_PROG_LOAD` is to have of a program, with the type information that the verifier needs to
/// check each global function by itself, once: without it every way to a call is gone anew.
fn program_load(kind: Kind, code: &Code) -> io::Result<(ProgramLoad, OwnedFd)> {
    let (kind, attach_type) = match kind {
        Kind::Classifier => (CLASSIFIER_PROGRAM, 0),
        Kind::Netfilter => (NETFILTER_PROGRAM, NETFILTER),
    };
    let functions = &code.functions;
    let types = load_types(&functions.types)?;
    let records = u32::try_from(functions.records.len()).unwrap_or(0);
    let mut attributes = ProgramLoad {
        kind,
        instructions: u32::try_from(code.instructions.len()).unwrap_or(u32::MAX),
        code: code.instructions.as_ptr() as u64,
        license: code.license.as_ptr() as u64,
        attach_type,
        types: number(types.as_fd()),
        functions: functions.records.as_ptr() as u64,
        function_record: functions.record,
        functions_number: records.checked_div(functions.record).unwrap_or(0),
        ..ProgramLoad::default()
    };
    // The last byte stays 0.
    for (to, from) in attributes.name.iter_mut().take(15).zip(code.name.to_bytes()) {
        *to = *from;
    }
    Ok((attributes, types))
}

/// Loads a program. With an error comes the end of the verifier's log.
pub(super) fn load(kind: Kind, code: &Code) -> Result<OwnedFd, (io::Error, String)> {
    let (mut attributes, _types) =
        program_load(kind, code).map_err(|error| (error, String::new()))?;
    let first = match bpf(BPF_PROG_LOAD, &mut attributes).and_then(descriptor) {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    // Again, to be told why; the log costs time, so not at first.
    let mut log = vec![0_u8; LOG];
    match with_log(&mut attributes, LOG_STEPS, &mut log) {
        Ok(fd) => Ok(fd),
        Err(_) => {
            let text = text(&log);
            let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
            // The last line counts, the one before the statistics says why.
            Err((first, lines[lines.len().saturating_sub(4)..].join("; ")))
        }
    }
}

/// Loads a program only to be told what the verifier says of its work. With an error comes all that
/// it said.
pub(super) fn verify(kind: Kind, code: &Code) -> Result<String, (io::Error, String)> {
    let (mut attributes, _types) =
        program_load(kind, code).map_err(|error| (error, String::new()))?;
    let mut log = vec![0_u8; LOG];
    match with_log(&mut attributes, LOG_STATISTICS, &mut log) {
        Ok(_loaded) => Ok(text(&log)),
        Err(error) => Err((error, text(&log))),
    }
}

/// `BPF_BTF_LOAD`.
fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    let mut attributes = TypesLoad {
        types: types.as_ptr() as u64,
        size: u32::try_from(types.len()).unwrap_or(0),
        ..TypesLoad::default()
    };
    bpf(BPF_BTF_LOAD, &mut attributes).and_then(descriptor)
}

fn with_log(attributes: &mut ProgramLoad, level: u32, log: &mut [u8]) -> io::Result<OwnedFd> {
    attributes.log_level = level;
    attributes.log_size = u32::try_from(log.len()).unwrap_or(0);
    attributes.log = log.as_mut_ptr() as u64;
    bpf(BPF_PROG_LOAD, attributes).and_then(descriptor)
}

fn text(log: &[u8]) -> String {
    CStr::from_bytes_until_nul(log).unwrap_or_default().to_string_lossy().into_owned()
}

/// Puts a program of netfilter on a hook of the calling thread's network namespace.
pub(super) fn link_netfilter(program: BorrowedFd<'_>, at: Hook) -> io::Result<OwnedFd> {
    let Hook { family, hook, priority } = at;
    let mut attributes = LinkCreate {
        program: number(program),
        attach_type: NETFILTER,
        family,
        hook,
        priority,
        ..LinkCreate::default()
    };
    bpf(BPF_LINK_CREATE, &mut attributes).and_then(descriptor)
}

/// Pins what a descriptor stands for.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes =
        ObjectPin { path: path.as_ptr() as u64, fd: number(fd), ..ObjectPin::default() };
    bpf(BPF_OBJ_PIN, &mut attributes).map(|_zero| ())
}

/// A descriptor of what is pinned there.
pub(super) fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjectPin { path: path.as_ptr() as u64, ..ObjectPin::default() };
    bpf(BPF_OBJ_GET, &mut attributes).and_then(descriptor)
}

/// A part of a hash map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// Elements that were read.
    pub(super) count: usize,
    /// Where the next part begins; `None` after the last one.
    pub(super) next: Option<u32>,
}

/// Reads up to `elements` elements of a hash map into the buffers for keys and for values, which
/// have room for them. `ENOSPC` if not even one of the map's buckets finds room.
pub(super) fn look_up_batch(
    map: BorrowedFd<'_>,
    from: Option<u32>,
    [keys, values]: [&mut [u8]; 2],
    elements: usize,
) -> io::Result<Batch> {
    // For hash maps a place is the number of a bucket (`kernel/bpf/hashtab.c`).
    let (begin, mut next) = (from.unwrap_or(0), 0_u32);
    let mut attributes = MapBatch {
        from: if from.is_some() { std::ptr::from_ref(&begin) as u64 } else { 0 },
        next: std::ptr::from_mut(&mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: u32::try_from(elements).unwrap_or(u32::MAX),
        map: number(map),
        ..MapBatch::default()
    };
    let next = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) {
        Ok(_zero) => Some(next),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
        Err(error) => return Err(error),
    };
    Ok(Batch { count: attributes.count as usize, next })
}
