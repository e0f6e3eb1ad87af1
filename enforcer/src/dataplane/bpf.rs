//! System calls of BPF that the library has no form of: programs of netfilter, and pins of any kind.
#![expect(unsafe_code, reason = "system calls, each with its argument")]

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// An instruction, as the kernel takes it.
pub(super) type Instruction = [u8; 8];

/// `enum bpf_cmd`.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_CREATE: libc::c_long = 28;
/// `BPF_PROG_TYPE_NETFILTER` (`enum bpf_prog_type`).
const NETFILTER_PROGRAM: u32 = 32;
/// `BPF_NETFILTER` (`enum bpf_attach_type`).
const NETFILTER: u32 = 45;
/// Bytes of the verifier's log.
const LOG: usize = 64 << 10;

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

/// Loads a program of netfilter. With an error comes the end of the verifier's log.
pub(super) fn load_netfilter(
    name: &CStr,
    code: &[Instruction],
    license: &CStr,
) -> Result<OwnedFd, (io::Error, String)> {
    let mut attributes = ProgramLoad {
        kind: NETFILTER_PROGRAM,
        instructions: u32::try_from(code.len()).unwrap_or(u32::MAX),
        code: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        attach_type: NETFILTER,
        ..ProgramLoad::default()
    };
    // The last byte stays 0.
    for (to, from) in attributes.name.iter_mut().take(15).zip(name.to_bytes()) {
        *to = *from;
    }
    let first = match bpf(BPF_PROG_LOAD, &mut attributes).and_then(descriptor) {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    // Again, to be told why; the log costs time, so not at first.
    let mut log = vec![0_u8; LOG];
    attributes.log_level = 1;
    attributes.log_size = LOG as u32;
    attributes.log = log.as_mut_ptr() as u64;
    match bpf(BPF_PROG_LOAD, &mut attributes).and_then(descriptor) {
        Ok(fd) => Ok(fd),
        Err(_) => {
            let text = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy();
            let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
            // The last line counts, the one before the statistics says why.
            Err((first, lines[lines.len().saturating_sub(4)..].join("; ")))
        }
    }
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
