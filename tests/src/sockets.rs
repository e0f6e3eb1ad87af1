//! Sockets that the standard library cannot make: connections that are started and not waited for,
//! and raw ones.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect,
        recv, send, socket,
    },
};

use crate::{LabError, Protocol};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE` of linux/netfilter/nfnetlink.h; without a
/// tuple it deletes everything.
const CONNTRACK_DELETE: u16 = 0x0102;
/// `NLM_F_REQUEST | NLM_F_ACK` of linux/netlink.h.
const REQUEST_AND_ACK: u16 = 5;

/// A socket that the echo server serves.
#[derive(Debug)]
pub(crate) enum Listening {
    /// Connections.
    Tcp(TcpListener),
    /// Datagrams.
    Udp(UdpSocket),
}

/// A socket that answers at `address`, in the namespace of the calling thread.
pub(crate) fn listen(address: SocketAddr, protocol: Protocol) -> Result<Listening, LabError> {
    let made = match protocol {
        Protocol::Tcp => TcpListener::bind(address).and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(Listening::Tcp(socket))
        }),
        Protocol::Udp => UdpSocket::bind(address).and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(Listening::Udp(socket))
        }),
    };
    made.map_err(LabError::io(format!("listen at {address}")))
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// Starts a TCP connection from `local` (port 0 for any) and does not wait.
pub(crate) fn start_tcp(local: SocketAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family(local.ip()), SockType::Stream, flags, None)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(local))?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(remote)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(TcpStream::from(fd))
}

/// A UDP socket from `local` (port 0 for any) to `remote`.
pub(crate) fn start_udp(local: SocketAddr, remote: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    socket.set_nonblocking(true)?;
    socket.connect(remote)?;
    Ok(socket)
}

/// A raw ICMP or ICMPv6 socket. The standard library's UDP socket has just the calls it needs.
pub(crate) fn raw_icmp(local: IpAddr) -> io::Result<UdpSocket> {
    let protocol = if local.is_ipv4() { SockProtocol::Icmp } else { SockProtocol::IcmpV6 };
    let fd = socket(family(local), SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(local, 0)))?;
    Ok(UdpSocket::from(fd))
}

/// Reads a socket option into a buffer and gives the number of bytes.
pub(crate) fn option(fd: i32, level: i32, name: i32, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(buffer.len()).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: the buffer is valid for `length` bytes, which the kernel never exceeds.
    let result =
        unsafe { libc::getsockopt(fd, level, name, buffer.as_mut_ptr().cast(), &raw mut length) };
    Errno::result(result)?;
    Ok(usize::try_from(length).unwrap_or(0))
}

/// A packet socket on one interface of the calling thread's namespace: it sends and sees whole
/// frames.
pub(crate) fn packet(interface: &str) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
    let index = nix::net::if_::if_nametoindex(interface)?;
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap_or(0),
        sll_protocol: u16::try_from(libc::ETH_P_ALL).unwrap_or(0).to_be(),
        sll_ifindex: i32::try_from(index).unwrap_or(0),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or(0);
    // SAFETY: the address is a whole sockaddr_ll and `length` is its size.
    let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
    Errno::result(result)?;
    Ok(fd)
}

/// Empties the connection tracking of the calling thread's namespace.
pub(crate) fn forget_connections() -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let protocol = SockProtocol::NetlinkNetFilter;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    let [low, high] = CONNTRACK_DELETE.to_ne_bytes();
    let [ask, more] = REQUEST_AND_ACK.to_ne_bytes();
    // `struct nlmsghdr`: length, type, flags, sequence, port; then `struct nfgenmsg`, all families.
    let message =
        [&20_u32.to_ne_bytes()[..], &[low, high, ask, more], &[0; 8], &[0, 0, 0, 0]].concat();
    send(fd.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answer = [0; 64];
    let length = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // `struct nlmsgerr` follows the header: 0, or the error's number below 0.
    match answer[..length].get(16..20).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()) {
        Some([0, 0, 0, 0]) => Ok(()),
        Some(bytes) => Err(Errno::from_raw(-i32::from_ne_bytes(bytes)).into()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
