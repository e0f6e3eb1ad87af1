//! The stream of changes to this namespace's interfaces and addresses.

use std::io;

use netlink_sys::Socket;
use tokio::io::unix::AsyncFd;
use tracing::debug;

use super::{
    address::{self, Address},
    error::NetlinkError,
    links::{self, Link, LinkMessage},
    socket::{BUFFER, Family, open, receive},
    sys,
    wire::Messages,
};

/// What changes are told of.
const GROUPS: [u32; 3] = [libc::RTNLGRP_LINK, libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR];
/// Bytes of notifications that may wait: several thousand interfaces' worth.
const RECEIVE_BUFFER: i32 = 8 << 20;
/// Datagrams that are read at once, so that a flood of changes does not keep what else is due.
const AT_ONCE: usize = 512;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// An interface is new or changed.
    Link(Link),
    /// The interface of this index is gone, or moved to another namespace.
    LinkGone(u32),
    /// An address is new or changed.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// Changes were lost: everything must be listed again.
    Overflow,
}

/// A subscription to changes.
#[derive(Debug)]
pub struct Changes {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
}

impl Changes {
    /// Subscribes in the calling thread's network namespace. What is listed after this call and
    /// the changes together are complete.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = open(Family::Route)?;
        // Refused without CAP_NET_ADMIN; then overflows are likelier, and dealt with.
        if let Err(error) = sys::force_receive_buffer(&socket, RECEIVE_BUFFER) {
            debug!(%error, "the receive buffer of the change stream stays small");
        }
        for group in GROUPS {
            socket.add_membership(group).map_err(|source| NetlinkError::Socket {
                operation: "subscribe to changes",
                source,
            })?;
        }
        let socket = sys::register(socket)
            .map_err(|source| NetlinkError::Socket { operation: "wait for changes", source })?;
        Ok(Self { socket, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Waits for changes, and returns all that have come (sometimes none). Safe to cancel.
    pub async fn changed(&mut self) -> Result<Vec<Changed>, NetlinkError> {
        let mut guard = self
            .socket
            .readable()
            .await
            .map_err(|source| NetlinkError::Socket { operation: "wait for changes", source })?;
        let mut found = Vec::new();
        if drain(self.socket.get_ref(), &mut self.buffer, &mut found)? {
            guard.clear_ready();
        }
        Ok(found)
    }

    /// The changes that have come already.
    pub fn waiting(&mut self) -> Result<Vec<Changed>, NetlinkError> {
        let mut found = Vec::new();
        drain(self.socket.get_ref(), &mut self.buffer, &mut found)?;
        Ok(found)
    }
}

/// Reads what waits, up to a bound; whether nothing is left.
fn drain(
    socket: &Socket,
    buffer: &mut Vec<u8>,
    found: &mut Vec<Changed>,
) -> Result<bool, NetlinkError> {
    let mut room = AT_ONCE;
    let mut overflow = false;
    // After an overflow the kernel drops all further changes, without a word, until nothing is
    // left to read: a list is whole only if it is asked for after that. So this ends.
    while room > 0 || overflow {
        room = room.saturating_sub(1);
        match receive(socket, buffer) {
            Ok(true) => found.extend(
                Messages(buffer).filter_map(|message| parse(message.kind, message.payload)),
            ),
            // Longer than any buffer of ours: what it says is read by listing.
            Ok(false) => found.push(Changed::Overflow),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                overflow = true;
                found.push(Changed::Overflow);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(NetlinkError::Socket { operation: "read changes", source });
            }
        }
    }
    Ok(false)
}

fn parse(kind: u16, payload: &[u8]) -> Option<Changed> {
    if let Some(message) = links::parse(kind, payload) {
        return Some(match message {
            LinkMessage::Is(link) => Changed::Link(link),
            LinkMessage::Gone(ifindex) => Changed::LinkGone(ifindex),
        });
    }
    let message = address::parse(kind, payload)?;
    Some(if message.gone {
        Changed::AddressGone(message.address)
    } else {
        Changed::Address(message.address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::netlink::testing::{Namespace, block_on, sh};

    #[test]
    fn interfaces_and_addresses_are_told_as_they_come_and_go() {
        Namespace::new().run(|| {
            block_on(async {
                let mut changes = Changes::open().unwrap();
                sh("ip link add d0 type bridge; ip addr add 10.1.2.3/24 dev d0");
                sh("ip addr del 10.1.2.3/24 dev d0; ip link del d0");
                let mut all = Vec::new();
                while !all.iter().any(|change| matches!(change, Changed::LinkGone(_))) {
                    all.extend(changes.changed().await.unwrap());
                }
                let Some(Changed::Link(link)) = all.first() else { panic!("{all:?}") };
                assert_eq!((&*link.name, &*link.kind), ("d0", "bridge"));
                let ifindex = link.ifindex;
                let address = "10.1.2.3".parse().unwrap();
                let address = Address { ifindex, address, prefix: 24 };
                let came = all.iter().position(|c| *c == Changed::Address(address)).unwrap();
                let went = all.iter().position(|c| *c == Changed::AddressGone(address)).unwrap();
                assert!(came < went);
                assert_eq!(all.last(), Some(&Changed::LinkGone(ifindex)));
                assert_eq!(changes.waiting().unwrap(), []);
            });
        });
    }

    #[test]
    fn a_full_buffer_is_an_overflow_and_then_the_stream_goes_on() {
        Namespace::new().run(|| {
            block_on(async {
                let mut changes = Changes::open().unwrap();
                changes.socket.get_ref().set_rx_buf_sz(2048_i32).unwrap();
                sh("for i in $(seq 20); do ip link add d$i type bridge; done");
                let mut lost = false;
                while !lost {
                    lost = changes.changed().await.unwrap().contains(&Changed::Overflow);
                }
                while !changes.waiting().unwrap().is_empty() {}
                sh("ip link del d7");
                let after = changes.changed().await.unwrap();
                assert!(after.iter().any(|c| matches!(c, Changed::LinkGone(_))), "{after:?}");
            });
        });
    }
}
