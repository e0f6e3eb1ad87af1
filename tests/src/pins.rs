//! Pins of another version: renamed, and their word of themselves changed.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::libc;

use crate::LabError;

/// `enum bpf_cmd` (`include/uapi/linux/bpf.h`).
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_OBJ_GET: libc::c_int = 7;

/// The part of `union bpf_attr` for elements of maps.
#[repr(C)]
struct Element {
    map: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part of it for pins.
#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `attr` must be the part of `union bpf_attr` that the command takes, and what it points to must
/// live through the call.
fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    let attr: *mut T = attr;
    // SAFETY: the callers give the attributes of their commands, whose size is passed.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Makes the pins of version `from` look like those of version `to`.
///
/// # Errors
/// If they cannot be renamed, or their META map cannot be written.
pub fn pretend_version(bpf_dir: &Path, from: u32, to: u32) -> Result<(), LabError> {
    let [old, new] = [from, to].map(|version| bpf_dir.join(format!("v{version}")));
    fs::rename(&old, &new).map_err(LabError::io(format!("rename {}", old.display())))?;
    write_version(&new.join("maps/META"), to).map_err(LabError::io("write to the META map"))
}

/// The version is the first word of the one element.
fn write_version(pin: &Path, version: u32) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut object = Object { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &mut object)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for us.
    let map = unsafe { OwnedFd::from_raw_fd(fd) };
    let key = 0_u32;
    let mut value = [0_u64; 3];
    let mut element = Element {
        map: u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?,
        _pad: 0,
        key: (&raw const key) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    bpf(BPF_MAP_LOOKUP_ELEM, &mut element)?;
    let [first, _, _] = &mut value;
    let mut bytes = first.to_ne_bytes();
    let [a, b, c, d, ..] = &mut bytes;
    [*a, *b, *c, *d] = version.to_ne_bytes();
    *first = u64::from_ne_bytes(bytes);
    element.value = value.as_ptr() as u64;
    bpf(BPF_MAP_UPDATE_ELEM, &mut element).map(|_| ())
}
