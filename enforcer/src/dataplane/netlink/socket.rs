//! Questions to the kernel and their answers, over one socket.
//!
//! The kernel prepares an answer while it takes the request, and the next part of a dump while it
//! hands over the one before. So the socket does not block: where nothing is to be read, nothing
//! will come, and a lost answer is an error instead of a wait without end.

use std::{io, mem};

use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};

use super::{
    error::NetlinkError,
    wire::{self, Message, Messages, Request},
};

/// Larger than any datagram: the kernel makes dumps of at most 32 KiB a part.
pub(super) const BUFFER: usize = 64 * 1024;
/// How often a list that changes while it is read is read again.
const ATTEMPTS: u32 = 16;
/// Bound on what is read away after a failure.
const STALE_PARTS: usize = 1 << 16;

/// A netlink protocol.
#[derive(Clone, Copy, Debug)]
pub(super) enum Family {
    /// Interfaces, addresses, qdiscs.
    Route,
    /// Conntrack.
    Netfilter,
}

/// Opens and binds a socket that does not block.
pub(super) fn open(family: Family) -> Result<Socket, NetlinkError> {
    let (name, protocol) = match family {
        Family::Route => ("route", NETLINK_ROUTE),
        Family::Netfilter => ("netfilter", NETLINK_NETFILTER),
    };
    let mut socket =
        Socket::new(protocol).map_err(|source| NetlinkError::Open { family: name, source })?;
    let failed = |operation| move |source| NetlinkError::Socket { operation, source };
    let _address = socket.bind_auto().map_err(failed("bind"))?;
    socket.set_non_blocking(true).map_err(failed("turn off blocking"))?;
    if matches!(family, Family::Route) {
        // Without it the kernel ignores what narrows a dump: the target namespace, the interface.
        socket.set_netlink_get_strict_chk(true).map_err(failed("turn on strict checking"))?;
    }
    Ok(socket)
}

/// Reads one datagram of the kernel into `buffer`; `Ok(false)` if it was longer than that.
pub(super) fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        buffer.clear();
        buffer.reserve(BUFFER);
        let room = buffer.capacity();
        let (length, from) = socket.recv_from(buffer, libc::MSG_TRUNC)?;
        // Another process can send to this socket: only the kernel is port 0.
        if from.port_number() == 0 {
            return Ok(length <= room);
        }
    }
}

/// A socket for questions.
#[derive(Debug)]
pub(super) struct Requests {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Requests {
    /// A socket in the calling thread's network namespace.
    pub(super) fn open(family: Family) -> Result<Self, NetlinkError> {
        Ok(Self { socket: open(family)?, sequence: 0, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Asks for a list; `parse` makes an item of a message, or nothing. A list that changed while
    /// it was read is read again.
    pub(super) fn dump<T>(
        &mut self,
        operation: &'static str,
        request: &Request,
        mut parse: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut request = request.clone();
        for _ in 0..ATTEMPTS {
            let mut items = Vec::new();
            let whole = self.exchange(operation, &mut request, |m| items.extend(parse(m)))?;
            if whole {
                return Ok(items);
            }
        }
        Err(NetlinkError::Restless { operation, attempts: ATTEMPTS })
    }

    /// Sends a request and hands every message of the answer to `each`, up to the end of the dump
    /// or the acknowledgement (one of which the request's flags must ask for). `Ok(false)` if the
    /// list changed meanwhile.
    pub(super) fn exchange(
        &mut self,
        operation: &'static str,
        request: &mut Request,
        each: impl FnMut(&Message<'_>),
    ) -> Result<bool, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let kernel = SocketAddr::new(0, 0);
        let sent = self.socket.send_to(request.finish(self.sequence), &kernel, 0);
        sent.map_err(|source| NetlinkError::Refused { operation, source })?;
        let answer = self.answer(operation, each);
        // Of a refusal nothing is left; of an answer cut short there may be more, in the way of
        // the next one.
        if matches!(answer, Err(NetlinkError::Incomplete { .. })) {
            self.read_away();
        }
        answer
    }

    fn answer(
        &mut self,
        operation: &'static str,
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<bool, NetlinkError> {
        let mut whole = true;
        loop {
            let mut buffer = mem::take(&mut self.buffer);
            let received = receive(&self.socket, &mut buffer);
            self.buffer = buffer;
            if !received.is_ok_and(|complete| complete) {
                return Err(NetlinkError::Incomplete { operation });
            }
            for message in Messages(&self.buffer) {
                if message.sequence != self.sequence {
                    continue;
                }
                whole &= message.flags & wire::INTERRUPTED == 0;
                match message.kind {
                    wire::ERROR | wire::DONE => {
                        // Both begin with a negative error number; a DONE may have none.
                        return match wire::i32_at(message.payload, 0).unwrap_or(0) {
                            code if code < 0 => Err(NetlinkError::Refused {
                                operation,
                                source: io::Error::from_raw_os_error(code.wrapping_neg()),
                            }),
                            _ => Ok(whole),
                        };
                    }
                    _ => each(&message),
                }
            }
        }
    }

    fn read_away(&mut self) {
        for _ in 0..STALE_PARTS {
            match receive(&self.socket, &mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                _ => {}
            }
        }
    }
}
