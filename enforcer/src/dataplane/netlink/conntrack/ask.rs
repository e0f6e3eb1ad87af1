//! One connection at a time: where the node sends what was sent to another address.

use std::net::IpAddr;

use super::{GET, NEW, Tuple, parse};
use crate::dataplane::netlink::{
    error::NetlinkError,
    socket::{Family, Requests},
    wire::{ACK, Request},
};

/// Questions about single connections.
#[derive(Debug)]
pub struct Connections {
    requests: Requests,
}

impl Connections {
    /// Opens a socket in the calling thread's network namespace, and stays in that namespace.
    ///
    /// # Errors
    /// If there is none to be had.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { requests: Requests::open(Family::Netfilter)? })
    }

    /// What replies to the connection with this original direction look like when they come: their
    /// source is whoever gets its packets. `None` if the node does not track it.
    ///
    /// # Errors
    /// If the kernel refuses, or has no conntrack.
    pub fn reply(&mut self, original: &Tuple) -> Result<Option<Tuple>, NetlinkError> {
        let mut found = None;
        let mut request = request(original);
        let answer = self.requests.exchange("look up a connection", &mut request, |message| {
            if message.kind == NEW
                && let Some(flow) = parse::flow(message.payload)
            {
                found = Some(flow.reply);
            }
        });
        match answer {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
            Ok(_) => Ok(found),
        }
    }
}

fn request(original: &Tuple) -> Request {
    let empty = || Request::new(0, 0, &[]);
    // CTA_IP_V4_{SRC, DST}, CTA_IP_V6_{SRC, DST}.
    let (family, addresses) = match (original.source, original.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let addresses = empty().attribute(1, &source.octets());
            (libc::AF_INET, addresses.attribute(2, &destination.octets()))
        }
        (source, destination) => {
            let octets = |address| match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            let addresses = empty().attribute(3, &octets(source));
            (libc::AF_INET6, addresses.attribute(4, &octets(destination)))
        }
    };
    // CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT.
    let protocol = empty()
        .attribute(1, &[original.protocol])
        .attribute(2, &original.source_port.to_be_bytes())
        .attribute(3, &original.destination_port.to_be_bytes());
    let tuple =
        empty().nested(parse::CTA_TUPLE_IP, &addresses).nested(parse::CTA_TUPLE_PROTO, &protocol);
    let header = [u8::try_from(family).unwrap_or(0), 0, 0, 0];
    Request::new(GET, ACK, &header).nested(parse::CTA_TUPLE_ORIG, &tuple)
}
