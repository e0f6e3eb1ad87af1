//! Datagrams one way: whether anything at all gets from a pod to another one.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use crate::{LabError, lab::Pod, netns::Netns};

/// Port that is listened at.
const PORT: u16 = 9;
/// Time between two datagrams.
const EVERY: Duration = Duration::from_millis(2);

/// A socket that takes what comes, and answers nobody.
#[derive(Debug)]
pub struct Ear {
    socket: UdpSocket,
    address: SocketAddr,
}

impl Ear {
    /// Listens in a pod, at its IPv4 address.
    ///
    /// # Errors
    /// If the socket cannot be had.
    pub fn listen(pod: &Pod) -> Result<Self, LabError> {
        let address = SocketAddr::new(pod.address(false)?, PORT);
        let socket = pod.netns().run(|| {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })?;
        let socket = socket.map_err(LabError::io(format!("listen at {address}")))?;
        Ok(Self { socket, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who was heard since the last time.
    #[must_use]
    pub fn heard(&self) -> Vec<IpAddr> {
        let mut from = Vec::new();
        let mut byte = [0; 1];
        while let Ok((_, sender)) = self.socket.recv_from(&mut byte) {
            if !from.contains(&sender.ip()) {
                from.push(sender.ip());
            }
        }
        from
    }
}

/// Sends datagrams out of a namespace all the time that is given.
///
/// # Errors
/// If there is no socket to be had.
pub fn shout(from: &Netns, to: SocketAddr, time: Duration) -> Result<(), LabError> {
    let until = Instant::now() + time;
    let sent = from.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        while Instant::now() < until {
            // Without an answer to its ARP the kernel says so now and then.
            let _refused = socket.send_to(&[0], to);
            thread::sleep(EVERY);
        }
        Ok(())
    })?;
    sent.map_err(LabError::io(format!("send to {to}")))
}
