//! The interfaces of this namespace (`RTM_GETLINK`, `linux/if_link.h`).

use std::sync::Arc;

use libc::{
    IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINK, IFLA_LINK_NETNSID, IFLA_LINKINFO,
    IFLA_MASTER, IFLA_STATS64, RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK,
};

use super::{
    address::{self, Address, FAMILIES},
    error::NetlinkError,
    socket::{Family, Requests},
    wire::{ACK, Attributes, DUMP, Message, Request, i32_at, text, u32_at, u64_at},
};

/// Bytes of `struct ifinfomsg`.
const HEADER: usize = 16;
/// `IFF_UP`, of flags that are unsigned here.
const UP: u32 = libc::IFF_UP as u32;

/// Where the other end of a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerNamespace {
    /// In this namespace, or there is no other end.
    Here,
    /// In the namespace that this one knows by this id.
    Id(i32),
    /// In another namespace, which has no id (any more): it is being torn down, or the kernel
    /// could not give it one.
    Unknown,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in this namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: Arc<str>,
    /// `IFLA_INFO_KIND`: `veth`, `netkit`, `bridge`, …; empty for devices without one.
    pub kind: Arc<str>,
    /// Where its other end is (`IFLA_LINK_NETNSID`).
    pub peer: PeerNamespace,
    /// Index of its other end or lower device there (`IFLA_LINK`).
    pub peer_ifindex: Option<u32>,
    /// Hardware address; empty if it has none.
    pub mac: Vec<u8>,
    /// Whether it is set up.
    pub up: bool,
    /// Index of the bridge or other master that it belongs to.
    pub master: Option<u32>,
    /// Packets received by the node on it, so: sent by a pod behind it.
    pub rx_packets: u64,
    /// Packets sent by the node on it.
    pub tx_packets: u64,
}

/// What a link message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LinkMessage {
    /// The interface is there, as this.
    Is(Link),
    /// The interface of this index is not in this namespace any more.
    Gone(u32),
}

/// Reads a link message; `None` for any other.
pub(super) fn parse(kind: u16, payload: &[u8]) -> Option<LinkMessage> {
    // Messages of a family are about a role of the interface: a port that leaves its bridge is an
    // RTM_DELLINK of AF_BRIDGE.
    if i32::from(*payload.first()?) != libc::AF_UNSPEC {
        return None;
    }
    let ifindex = u32_at(payload, 4)?;
    match kind {
        RTM_DELLINK => return Some(LinkMessage::Gone(ifindex)),
        RTM_NEWLINK => {}
        _ => return None,
    }
    let mut link = Link {
        ifindex,
        name: Arc::from(""),
        kind: Arc::from(""),
        peer: PeerNamespace::Here,
        peer_ifindex: None,
        mac: Vec::new(),
        up: u32_at(payload, 8)? & UP != 0,
        master: None,
        rx_packets: 0,
        tx_packets: 0,
    };
    for (kind, value) in Attributes::after(payload, HEADER) {
        match kind {
            IFLA_ADDRESS => link.mac = value.to_vec(),
            IFLA_IFNAME => link.name = text(value).into(),
            // 0 is a lower device that is gone.
            IFLA_LINK => link.peer_ifindex = u32_at(value, 0).filter(|index| *index != 0),
            IFLA_MASTER => link.master = u32_at(value, 0),
            IFLA_LINKINFO => {
                if let Some(name) = Attributes(value).find(IFLA_INFO_KIND) {
                    link.kind = text(name).into();
                }
            }
            IFLA_STATS64 => {
                link.rx_packets = u64_at(value, 0).unwrap_or(0);
                link.tx_packets = u64_at(value, 8).unwrap_or(0);
            }
            IFLA_LINK_NETNSID => {
                link.peer = match i32_at(value, 0) {
                    Some(id) if id >= 0 => PeerNamespace::Id(id),
                    _ => PeerNamespace::Unknown,
                };
            }
            _ => {}
        }
    }
    // Every interface has a name: without, it is a wireless event or the like.
    (!link.name.is_empty()).then_some(LinkMessage::Is(link))
}

/// Questions about interfaces.
#[derive(Debug)]
pub struct Links {
    requests: Requests,
}

impl Links {
    /// Opens a socket in the calling thread's network namespace, and stays in that namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { requests: Requests::open(Family::Route)? })
    }

    /// All interfaces. Asking gives an id to every namespace that a link leads to.
    pub fn dump(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let request = Request::new(RTM_GETLINK, DUMP, &[0; HEADER]);
        self.requests.dump("list the interfaces", &request, there)
    }

    /// One interface; `None` if there is none of this index.
    pub fn get(&mut self, ifindex: u32) -> Result<Option<Link>, NetlinkError> {
        let mut header = [0; HEADER];
        for (to, from) in header.iter_mut().skip(4).zip(ifindex.to_ne_bytes()) {
            *to = from;
        }
        let mut found = None;
        let mut request = Request::new(RTM_GETLINK, ACK, &header);
        let answer = self.requests.exchange("look at an interface", &mut request, |message| {
            if let Some(link) = there(message) {
                found = Some(link);
            }
        });
        match answer {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
            Ok(_) => Ok(found),
        }
    }

    /// All addresses of this namespace's interfaces.
    pub fn addresses(&mut self) -> Result<Vec<Address>, NetlinkError> {
        let mut all = Vec::new();
        for family in FAMILIES {
            let request = address::request_own(family);
            all.extend(self.requests.dump("list the node's addresses", &request, |message| {
                address::parse(message.kind, message.payload)
                    .filter(|found| !found.gone)
                    .map(|found| found.address)
            })?);
        }
        // A kernel without IPv6 answers with the IPv4 ones.
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    pub(super) fn requests(&mut self) -> &mut Requests {
        &mut self.requests
    }
}

fn there(message: &Message<'_>) -> Option<Link> {
    match parse(message.kind, message.payload) {
        Some(LinkMessage::Is(link)) => Some(link),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dataplane::netlink::testing::Namespace;

    #[test]
    fn a_port_that_leaves_its_bridge_is_not_gone() {
        let mut payload = [0; HEADER];
        payload[4] = 9;
        assert_eq!(parse(RTM_DELLINK, &payload), Some(LinkMessage::Gone(9)));
        payload[0] = u8::try_from(libc::AF_BRIDGE).unwrap();
        assert_eq!(parse(RTM_DELLINK, &payload), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(mut bytes in prop::collection::vec(any::<u8>(), 1..256)) {
            bytes[0] = 0;
            let found = parse(RTM_DELLINK, &bytes);
            prop_assert_eq!(found.is_some(), bytes.len() >= 8);
            if let Some(LinkMessage::Is(link)) = parse(RTM_NEWLINK, &bytes) {
                prop_assert!(!link.name.is_empty());
            }
        }
    }

    #[test]
    fn both_ends_of_a_veth_are_seen_here_and_one_after_the_other_moved() {
        let (node, pod) = (Namespace::new(), Namespace::new());
        let thread = pod.thread;
        node.run(move || {
            let sh = super::super::testing::sh;
            sh("ip link add br0 type bridge; ip link add h0 type veth peer name p0");
            sh("ip link set h0 master br0 up");
            let mut links = Links::open().unwrap();
            let find = |all: &[Link], name: &str| all.iter().find(|l| &*l.name == name).cloned();
            let all = links.dump().unwrap();
            let (host, peer) = (find(&all, "h0").unwrap(), find(&all, "p0").unwrap());
            assert_eq!((&*host.kind, host.peer), ("veth", PeerNamespace::Here));
            assert_eq!(host.peer_ifindex, Some(peer.ifindex));
            assert_eq!(host.master, find(&all, "br0").map(|bridge| bridge.ifindex));
            assert!(host.up && host.mac.len() == 6 && !peer.up);
            assert_eq!(&*find(&all, "lo").unwrap().kind, "");

            sh(&format!("ip link set p0 netns {thread}"));
            let all = links.dump().unwrap();
            assert_eq!(find(&all, "p0"), None);
            let host = find(&all, "h0").unwrap();
            assert!(matches!(host.peer, PeerNamespace::Id(_)), "{host:?}");
            assert_eq!(links.get(host.ifindex).unwrap().map(|l| l.peer), Some(host.peer));
            assert_eq!(links.get(9999).unwrap(), None);
        });
    }

    #[test]
    fn packets_are_counted() {
        Namespace::new().run(|| {
            let mut links = Links::open().unwrap();
            let before = links.get(1).unwrap().unwrap();
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
            let after = links.get(1).unwrap().unwrap();
            assert_eq!(after.rx_packets, before.rx_packets + 1);
            assert_eq!(after.tx_packets, before.tx_packets + 1);
        });
    }
}
