//! A place's wire: whole frames sent and seen, echo requests, and what the kernel learnt of a path.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{read, write},
};

use crate::{Lab, LabError, Netns, Place, packet, sockets};

/// A packet socket: it sends and sees whole frames of one interface.
#[derive(Debug)]
pub struct Wire {
    fd: OwnedFd,
}

impl Wire {
    /// Opens the interface. From now on frames are kept for [`Self::wait_for`].
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn open(netns: &Netns, interface: &str) -> Result<Self, LabError> {
        let fd = netns
            .run(|| sockets::packet(interface))?
            .map_err(LabError::io(format!("open {interface} in {}", netns.name())))?;
        Ok(Self { fd })
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// If the interface does not take it.
    pub fn send(&self, frame: &[u8]) -> Result<(), LabError> {
        write(&self.fd, frame)
            .map(|_| ())
            .map_err(|errno| LabError::io("send a frame")(errno.into()))
    }

    /// The first frame, of those sent or seen here, for which `wanted` is true.
    ///
    /// # Errors
    /// If the interface is gone.
    pub fn wait_for(
        &self,
        patience: Duration,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, LabError> {
        let deadline = Instant::now() + patience;
        let mut buffer = vec![0; 65_536];
        loop {
            match read(&self.fd, &mut buffer) {
                Ok(length) if wanted(&buffer[..length]) => {
                    return Ok(Some(buffer[..length].to_vec()));
                }
                Ok(_) => continue,
                Err(nix::errno::Errno::EAGAIN) => {}
                Err(errno) => return Err(LabError::io("read a frame")(errno.into())),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let wait = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(wait))
                .map_err(|errno| LabError::io("wait for a frame")(errno.into()))?;
        }
    }
}

/// The IP packet in a frame, if it has these addresses.
#[must_use]
pub fn packet_between(frame: &[u8], src: IpAddr, dst: IpAddr) -> Option<&[u8]> {
    let packet = frame.get(14..)?;
    let (from, to): (IpAddr, IpAddr) = match (packet.first()? >> 4, src) {
        (4, IpAddr::V4(_)) => (
            <[u8; 4]>::try_from(packet.get(12..16)?).ok()?.into(),
            <[u8; 4]>::try_from(packet.get(16..20)?).ok()?.into(),
        ),
        (6, IpAddr::V6(_)) => (
            <[u8; 16]>::try_from(packet.get(8..24)?).ok()?.into(),
            <[u8; 16]>::try_from(packet.get(24..40)?).ok()?.into(),
        ),
        _ => return None,
    };
    (from == src && to == dst).then_some(packet)
}

impl Lab {
    /// Whether an echo request (ping) is answered within `patience`; one repetition.
    ///
    /// # Errors
    /// If a place does not exist or a socket cannot be made.
    pub fn ping(
        &self,
        from: &Place,
        to: &Place,
        v6: bool,
        patience: Duration,
    ) -> Result<bool, LabError> {
        let (netns, local) = self.locate(from, v6)?;
        let (_, remote) = self.locate(to, v6)?;
        let socket = netns
            .run(|| sockets::raw_icmp(local))?
            .map_err(LabError::io(format!("make a raw socket in {}", netns.name())))?;
        let operation = || format!("ping from {from} to {to}");
        let (request, reply) = if v6 { (128, 129) } else { (8, 0) };
        // The identifier is the socket's own: two pings at once are told apart.
        let [.., high, low] = socket.as_raw_fd().to_be_bytes();
        for sequence in 1..=2 {
            let rest = [high, low, 0, sequence];
            let message = packet::icmp(local, remote, request, 0, rest, b"echo");
            match socket.send_to(&message, SocketAddr::new(remote, 0)) {
                Ok(_) => {}
                // As a program would see it: not allowed is no answer.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
                Err(error) => return Err(LabError::io(operation())(error)),
            }
            let deadline = Instant::now() + patience / 2;
            if wait_for_reply(&socket, deadline, remote, reply, [high, low])
                .map_err(LabError::io(operation()))?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn wait_for_reply(
    socket: &UdpSocket,
    deadline: Instant,
    remote: IpAddr,
    kind: u8,
    identifier: [u8; 2],
) -> io::Result<bool> {
    let mut buffer = [0; 2048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        let (length, from) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        // A raw IPv4 socket gives the IP header as well.
        let header = if remote.is_ipv4() { usize::from(buffer[0] & 0x0f) * 4 } else { 0 };
        if from.ip() == remote
            && length >= header + 8
            && buffer[header] == kind
            && buffer[header + 4..header + 6] == identifier
        {
            return Ok(true);
        }
    }
}

/// A UDP flow from a pod to the outside that the kernel keeps a path MTU for.
#[derive(Debug)]
pub struct PathFlow {
    socket: UdpSocket,
    local: SocketAddr,
    remote: SocketAddr,
}

impl PathFlow {
    /// Opens the flow: a first datagram is sent and its answer awaited.
    ///
    /// # Errors
    /// If a place does not exist, or nothing comes back.
    pub fn open(
        lab: &Lab,
        from: &Place,
        to: &Place,
        port: u16,
        v6: bool,
    ) -> Result<Self, LabError> {
        let failed = || format!("open a UDP flow from {from} to {to}");
        let remote = lab.answer(to, v6, port, crate::Protocol::Udp)?;
        let (netns, ip) = lab.locate(from, v6)?;
        let socket = netns
            .run(|| sockets::start_udp(SocketAddr::new(ip, 0), remote))?
            .map_err(LabError::io(failed()))?;
        let exchange = || {
            socket.set_nonblocking(false)?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            socket.send(b"first")?;
            socket.recv(&mut [0; 16])?;
            socket.local_addr()
        };
        let local = exchange().map_err(LabError::io(failed()))?;
        Ok(Self { socket, local, remote })
    }

    /// The pod's side.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The other side.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Largest packet, in bytes, that the pod's kernel believes to fit the path.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn path_mtu(&self) -> Result<u32, LabError> {
        let (level, name) = if self.local.is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_MTU)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU)
        };
        let mut mtu = [0; 4];
        sockets::option(self.socket.as_raw_fd(), level, name, &mut mtu)
            .map_err(LabError::io("read a path's MTU"))?;
        Ok(u32::from_ne_bytes(mtu))
    }
}

/// Sends a router's message that a packet of this flow was too big, from outside.
///
/// # Errors
/// If the socket cannot be made or does not take it.
pub fn send_too_big(
    lab: &Lab,
    inner_src: SocketAddr,
    inner_dst: SocketAddr,
    mtu: u16,
) -> Result<(), LabError> {
    let v6 = inner_src.is_ipv6();
    let router = lab.router_address(v6);
    let (src, dst) = (inner_src, inner_dst);
    let datagram = packet::udp((src.ip(), src.port()), (dst.ip(), dst.port()), &[0; 64]);
    let inner = packet::ip(src.ip(), dst.ip(), packet::protocol::UDP, &datagram);
    let [high, low] = mtu.to_be_bytes();
    let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
    let message = packet::icmp(router, src.ip(), kind, code, [0, 0, high, low], &inner);
    lab.outside()
        .run(|| {
            let socket = sockets::raw_icmp(router)?;
            socket.send_to(&message, SocketAddr::new(src.ip(), 0)).map(|_| ())
        })?
        .map_err(LabError::io("send an ICMP error from outside"))
}
