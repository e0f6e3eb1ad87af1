//! The system calls that the netlink socket library does not offer: kept small, and apart.
#![expect(unsafe_code, reason = "system calls, each with its argument")]

use std::{io, mem::size_of, os::fd::AsRawFd as _};

use netlink_sys::Socket;
use tokio::io::{Interest, unix::AsyncFd};

/// `BPF_PROG_QUERY` (`enum bpf_cmd`).
const BPF_PROG_QUERY: libc::c_long = 16;
/// `MEMBARRIER_CMD_GLOBAL` (`include/uapi/linux/membarrier.h`).
const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;

/// The `query` member of `union bpf_attr`.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct ProgQuery {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    pub(super) count: u32,
    _pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    pub(super) revision: u64,
}

impl ProgQuery {
    /// A question about a hook of an interface.
    pub(super) fn new(target_ifindex: u32, attach_type: u32) -> Self {
        Self { target_ifindex, attach_type, ..Self::default() }
    }
}

/// Asks for the ids of the programs on a hook: into `ids`, as many as fit. The kernel fails with
/// `ENOSPC` if there are more, and says in `count` how many there are.
pub(super) fn prog_query(query: &mut ProgQuery, ids: &mut [u32]) -> io::Result<()> {
    query.prog_ids = ids.as_mut_ptr() as u64;
    query.count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    // SAFETY: `query` has the layout of the union's member and its size is given; the kernel
    // writes at most `count` 32-bit ids to `prog_ids`, which is that long and lives through the
    // call; the other pointers are null, which means not asked for.
    let code = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_QUERY,
            std::ptr::from_mut(query),
            size_of::<ProgQuery>(),
        )
    };
    query.prog_ids = 0;
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `membarrier(MEMBARRIER_CMD_GLOBAL)`.
pub(super) fn membarrier_global() -> io::Result<()> {
    // SAFETY: the call takes numbers only and touches no memory of ours.
    let code = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0_u32, 0_i32) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How many processors are online; 1 if the system does not say.
pub(super) fn processors_online() -> i64 {
    // SAFETY: the call reads a number and has no preconditions.
    unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }
}

/// Enlarges a socket's receive buffer to `bytes` (doubled by the kernel for its bookkeeping),
/// beyond `net.core.rmem_max`, which takes `CAP_NET_ADMIN`.
pub(super) fn force_receive_buffer(socket: &Socket, bytes: i32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(4);
    // SAFETY: the descriptor is open as long as `socket`; the value is an int of the given length
    // that lives through the call.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const bytes).cast(),
            length,
        )
    };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Hands a socket to the runtime, to wait until it is readable.
pub(super) fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` owns its descriptor, never changes it and closes it when dropped, and
    // only the `AsyncFd` owns the socket from here on.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    registered.map_err(|refused| refused.into_parts().1)
}
