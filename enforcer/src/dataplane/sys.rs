//! The system calls that no library in use offers: kept small, and apart.
#![expect(unsafe_code, reason = "system calls and shared memory; each with its argument")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr::NonNull,
    sync::atomic::{AtomicI64, AtomicU32, AtomicU64},
};

use super::DataplaneError;

/// `BPF_FS_MAGIC` (`include/uapi/linux/magic.h`).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Whether `path` is on a BPF filesystem.
pub(super) fn is_bpffs(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: an all-zero statfs is a value of it.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a C string and the buffer a statfs.
    let code = unsafe { libc::statfs(path.as_ptr(), &raw mut stat) };
    code == 0 && stat.f_type as i64 == BPF_FS_MAGIC
}

/// Lifts the locked-memory limit, which kernels before 5.11 charge maps to. Newer ones do not
/// look at it, so a refusal is no failure.
pub(super) fn raise_memlock() {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is to a rlimit that lives through the call.
    let _refused = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
}

/// Whether this process is root or has the capabilities to load programs, by its effective set.
#[must_use]
pub fn may_load() -> bool {
    const CAP_NET_ADMIN: u32 = 12;
    const CAP_SYS_ADMIN: u32 = 21;
    const CAP_PERFMON: u32 = 38;
    const CAP_BPF: u32 = 39;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |cap: u32| effective & (1 << cap) != 0;
    // Without PERFMON the verifier takes pointers for secrets, and refuses.
    has(CAP_NET_ADMIN) && ((has(CAP_BPF) && has(CAP_PERFMON)) || has(CAP_SYS_ADMIN))
}

/// Whether this process acts as root.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: the call has no preconditions and cannot fail.
    let user = unsafe { libc::geteuid() };
    user == 0
}

/// The user that started this process.
#[must_use]
pub fn user() -> u32 {
    // SAFETY: the call has no preconditions and cannot fail.
    unsafe { libc::getuid() }
}

/// `CLOCK_MONOTONIC`, ns: the clock of events and conntrack.
#[must_use]
pub fn monotonic() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that lives through the call.
    let code = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    if code != 0 {
        return 0;
    }
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// The bytes of a value, as it stands in a ring.
pub(super) fn bytes_of<T: aya::Pod>(value: &T) -> &[u8] {
    // SAFETY: Pod promises that there is no padding, so all of its bytes are initialised; they live
    // and stay unchanged as long as the borrow.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// The value whose bytes these are; `None` if there are more or fewer.
pub(crate) fn value_of<T: aya::Pod>(bytes: &[u8]) -> Option<T> {
    // SAFETY: of the value's size, at any address; Pod promises that any bytes are a value.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// A memory-mapped array map: stores into it are what the programs read.
#[derive(Debug)]
pub(super) struct SharedArray {
    base: NonNull<u8>,
    bytes: usize,
    stride: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and every access through this type
// is atomic.
unsafe impl Send for SharedArray {}
// SAFETY: as for Send.
unsafe impl Sync for SharedArray {}

impl SharedArray {
    /// Maps an array map made with `BPF_F_MMAPABLE`, of `entries` values of `stride` bytes
    /// (a multiple of 8).
    pub(super) fn map(fd: impl AsFd, entries: u32, stride: usize) -> Result<Self, DataplaneError> {
        // SAFETY: the call reads a limit and has no preconditions.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let bytes = (entries as usize * stride).next_multiple_of(page);
        // SAFETY: a fresh shared mapping of the map's own pages; nothing else is touched.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_fd().as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(DataplaneError::System {
                operation: "mapping the endpoint table",
                source: io::Error::last_os_error(),
            });
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| DataplaneError::System {
            operation: "mapping the endpoint table",
            source: io::Error::from(io::ErrorKind::InvalidData),
        })?;
        Ok(Self { base, bytes, stride })
    }

    fn at(&self, index: u32, offset: usize, size: usize) -> NonNull<u8> {
        let place = index as usize * self.stride + offset;
        assert!(place + size <= self.bytes && place.is_multiple_of(size), "inside, and aligned");
        // SAFETY: inside the mapping, as just checked.
        unsafe { self.base.add(place) }
    }

    /// A 64-bit word of a value.
    pub(super) fn u64(&self, index: u32, offset: usize) -> &AtomicU64 {
        // SAFETY: inside the mapping and aligned; the mapping lives as long as `self`, and both
        // sides treat the word as atomic.
        unsafe { AtomicU64::from_ptr(self.at(index, offset, 8).as_ptr().cast()) }
    }

    /// The same, signed.
    pub(super) fn i64(&self, index: u32, offset: usize) -> &AtomicI64 {
        // SAFETY: as for `u64`.
        unsafe { AtomicI64::from_ptr(self.at(index, offset, 8).as_ptr().cast()) }
    }

    /// A 32-bit word of a value.
    pub(super) fn u32(&self, index: u32, offset: usize) -> &AtomicU32 {
        // SAFETY: as for `u64`.
        unsafe { AtomicU32::from_ptr(self.at(index, offset, 4).as_ptr().cast()) }
    }
}

impl Drop for SharedArray {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `map` mapped; no reference outlives `self`.
        let _code = unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
