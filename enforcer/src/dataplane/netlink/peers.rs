//! The addresses at the other end of a link, asked for from this side of it.
//!
//! `RTM_GETADDR` with `IFA_TARGET_NETNSID` lists addresses of another namespace; `CAP_NET_ADMIN`
//! over that namespace is enough.

use std::net::IpAddr;

use super::{
    address::{self, FAMILIES},
    error::NetlinkError,
    links::{Link, Links, PeerNamespace},
};

/// What is known of the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAddresses {
    /// Its addresses now, sorted, link-local IPv6 ones left out.
    Known(Vec<IpAddr>),
    /// It cannot be asked: its namespace has no id here or is not ours to ask, or the link is
    /// not what it was when it was looked at.
    Unknown,
}

impl Links {
    /// Asks for the addresses at the other end of `link`.
    ///
    /// The answer is about the interface that `link` named when it was read. To know that it still
    /// is that link's other end, read the link again afterwards and compare
    /// [`Link::peer`] and [`Link::peer_ifindex`]: an id goes to another namespace only when the
    /// first one is torn down, and then its links lead nowhere.
    pub fn peer_addresses(&mut self, link: &Link) -> Result<PeerAddresses, NetlinkError> {
        let (PeerNamespace::Id(netnsid), Some(ifindex)) = (link.peer, link.peer_ifindex) else {
            return Ok(PeerAddresses::Unknown);
        };
        let mut addresses: Vec<IpAddr> = Vec::new();
        for family in FAMILIES {
            let request = address::request_of(family, netnsid, ifindex);
            let found = self.requests().dump("list a peer's addresses", &request, |message| {
                address::parse(message.kind, message.payload)
                    // Without the id the answer would be about this namespace.
                    .filter(|found| !found.gone && found.netnsid == Some(netnsid))
                    .map(|found| found.address)
            });
            match found {
                Ok(found) => addresses.extend(
                    found
                        .into_iter()
                        .filter(|found| found.ifindex == ifindex)
                        .map(|found| found.address)
                        .filter(|address| !address::is_link_local(*address)),
                ),
                // No such namespace (any more), not ours to ask, or no such interface there.
                Err(error)
                    if matches!(
                        error.errno(),
                        Some(libc::EINVAL | libc::EACCES | libc::EPERM | libc::ENODEV)
                    ) =>
                {
                    return Ok(PeerAddresses::Unknown);
                }
                Err(error) => return Err(error),
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        Ok(PeerAddresses::Known(addresses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::netlink::testing::{Namespace, keep_only_net_admin, sh};

    fn link(links: &mut Links, name: &str) -> Link {
        links.dump().unwrap().into_iter().find(|link| &*link.name == name).unwrap()
    }

    #[test]
    fn both_families_of_the_right_interface_with_one_capability() {
        let (node, pod) = (Namespace::new(), Namespace::new());
        let thread = pod.thread;
        node.run(move || {
            sh(&format!("ip link add h0 type veth peer name eth0 netns {thread}"));
            sh(&format!("ip link add h1 type veth peer name eth1 netns {thread}"));
            sh("ip addr add 192.0.2.1/24 dev h0; ip link set h0 up; ip link set h1 up");
        });
        pod.run(|| {
            sh("ip addr add 10.7.0.5/32 dev eth0; ip addr add 10.7.0.6/24 dev eth0");
            sh("ip addr add fd07::5/64 dev eth0 nodad; ip addr add 10.7.9.9/24 dev eth1");
            sh("ip link set eth0 up; ip link set eth1 up");
        });
        node.run(|| {
            keep_only_net_admin();
            let mut links = Links::open().unwrap();
            let (first, second) = (link(&mut links, "h0"), link(&mut links, "h1"));
            let expected: Vec<IpAddr> =
                ["10.7.0.5", "10.7.0.6", "fd07::5"].map(|address| address.parse().unwrap()).into();
            assert_eq!(links.peer_addresses(&first).unwrap(), PeerAddresses::Known(expected));
            let expected = vec!["10.7.9.9".parse().unwrap()];
            assert_eq!(links.peer_addresses(&second).unwrap(), PeerAddresses::Known(expected));
        });
    }

    #[test]
    fn what_cannot_be_asked_is_unknown() {
        let node = Namespace::new();
        node.run(|| {
            sh("ip link add h0 type veth peer name p0");
            let mut links = Links::open().unwrap();
            let here = link(&mut links, "h0");
            assert_eq!(links.peer_addresses(&here).unwrap(), PeerAddresses::Unknown);
            let nowhere = Link { peer: PeerNamespace::Id(4711), ..here };
            assert_eq!(links.peer_addresses(&nowhere).unwrap(), PeerAddresses::Unknown);
        });
        let (pod, thread) = (Namespace::new(), node.thread);
        pod.run(move || sh(&format!("ip link add eth0 type veth peer name h1 netns {thread}")));
        node.run(|| {
            let mut links = Links::open().unwrap();
            let link = Link { peer_ifindex: Some(9999), ..link(&mut links, "h1") };
            assert_eq!(links.peer_addresses(&link).unwrap(), PeerAddresses::Unknown);
        });
    }
}
