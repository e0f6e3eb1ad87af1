//! Addresses of interfaces, as `RTM_NEWADDR` messages carry them (`linux/if_addr.h`).

use std::net::IpAddr;

use libc::{IFA_ADDRESS, IFA_LOCAL, RTM_DELADDR, RTM_GETADDR, RTM_NEWADDR};

use super::wire::{Attributes, Request, i32_at, u32_at};

/// Bytes of `struct ifaddrmsg`.
const HEADER: usize = 8;
/// Not in every libc's list (`linux/if_addr.h`).
const IFA_TARGET_NETNSID: u16 = 10;

/// `AF_INET` and `AF_INET6` as one byte: the families that have addresses here.
pub(super) const FAMILIES: [u8; 2] = [libc::AF_INET as u8, libc::AF_INET6 as u8];

/// One address of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The interface.
    pub ifindex: u32,
    /// Its own address (of a point-to-point link not the other end's).
    pub address: IpAddr,
    /// Bits of the prefix: an interface can have one address with two of them.
    pub prefix: u8,
}

/// An address message: the address, the namespace that the kernel was asked to look into if it
/// did, and whether the address is there (or gone).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressMessage {
    pub(super) address: Address,
    pub(super) netnsid: Option<i32>,
    pub(super) gone: bool,
}

/// Reads an address message; `None` for any other.
pub(super) fn parse(kind: u16, payload: &[u8]) -> Option<AddressMessage> {
    let gone = match kind {
        RTM_NEWADDR => false,
        RTM_DELADDR => true,
        _ => return None,
    };
    let prefix = *payload.get(1)?;
    let ifindex = u32_at(payload, 4)?;
    let attributes = Attributes::after(payload, HEADER);
    // IPv4 puts the other end of a point-to-point link into IFA_ADDRESS, and IPv6 has IFA_LOCAL
    // only where there is another end.
    let bytes =
        attributes.clone().find(IFA_LOCAL).or_else(|| attributes.clone().find(IFA_ADDRESS))?;
    let address = ip(bytes)?;
    let netnsid = attributes.find(IFA_TARGET_NETNSID).and_then(|value| i32_at(value, 0));
    Some(AddressMessage { address: Address { ifindex, address, prefix }, netnsid, gone })
}

/// An address of 4 or 16 bytes.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match *bytes {
        [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

/// Asks for the addresses of this namespace.
pub(super) fn request_own(family: u8) -> Request {
    Request::new(RTM_GETADDR, super::wire::DUMP, &header(family, 0))
}

/// Asks for the addresses of one interface of another namespace.
pub(super) fn request_of(family: u8, netnsid: i32, ifindex: u32) -> Request {
    Request::new(RTM_GETADDR, super::wire::DUMP, &header(family, ifindex))
        .attribute(IFA_TARGET_NETNSID, &netnsid.to_ne_bytes())
}

fn header(family: u8, ifindex: u32) -> [u8; HEADER] {
    let [a, b, c, d] = ifindex.to_ne_bytes();
    [family, 0, 0, 0, a, b, c, d]
}

/// Whether this is an IPv6 link-local address (`fe80::/10`).
pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_own_end_of_a_point_to_point_link_is_the_address() {
        let mut request = Request::new(RTM_NEWADDR, 0, &[2, 32, 0, 0, 7, 0, 0, 0])
            .attribute(IFA_ADDRESS, &[10, 0, 0, 2])
            .attribute(IFA_LOCAL, &[10, 0, 0, 1]);
        let bytes = request.finish(0).to_vec();
        let message = parse(RTM_NEWADDR, &bytes[16..]).unwrap();
        assert_eq!(
            message,
            AddressMessage {
                address: Address { ifindex: 7, address: [10, 0, 0, 1].into(), prefix: 32 },
                netnsid: None,
                gone: false
            }
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            let found = parse(RTM_DELADDR, &bytes);
            prop_assert!(found.is_none_or(|m| m.gone && bytes.len() >= HEADER + 8));
        }
    }
}
