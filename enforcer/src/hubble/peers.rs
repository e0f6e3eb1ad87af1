//! The nodes of the cluster that can be asked, and where.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use enforcer_hubble::peer::{ChangeNotification, ChangeNotificationType, Tls};

use super::origin::Origin;
pub use crate::flow::nodes::{PeerNode, PeerNodes};

/// Where the observers of the cluster listen: all in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// On this socket of their nodes only: nobody else can be asked.
    Local(PathBuf),
    /// On this port.
    Port {
        /// The port.
        port: u16,
        /// Whether they speak TLS.
        tls: bool,
        /// Where this node listens, should no object tell its address.
        own: Option<IpAddr>,
    },
}

/// One node's observer, as clients need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The name by which it is announced.
    pub name: String,
    /// `address:port`, or a socket's path after `unix://`.
    pub address: String,
    /// The name that its certificate is for; `None` for plain text.
    pub tls: Option<String>,
}

/// All that can be asked. The node itself is among them as soon as it is known where.
#[must_use]
pub fn peers(nodes: &[PeerNode], origin: &Origin, reach: &Reach) -> Vec<Peer> {
    let peer = |name: &str, address: String, tls: bool| Peer {
        name: origin.peer_name(name),
        address,
        tls: tls.then(|| origin.tls_server_name(name)),
    };
    match reach {
        Reach::Local(path) => {
            vec![peer(origin.node(), format!("unix://{}", path.display()), false)]
        }
        Reach::Port { port, tls, own } => {
            let at = |name: &str, address: IpAddr| {
                peer(name, SocketAddr::new(address, *port).to_string(), *tls)
            };
            let known =
                nodes.iter().filter_map(|node| Some((&*node.name, *node.addresses.first()?)));
            let mut all: Vec<_> = known.map(|(name, address)| at(name, address)).collect();
            let here = origin.peer_name(origin.node());
            if let Some(own) = own
                && all.iter().all(|peer| peer.name != here)
            {
                all.push(at(origin.node(), *own));
            }
            all
        }
    }
}

/// What must be told a client that knows `before`, so that it knows `now`.
#[must_use]
pub fn changes(before: &[Peer], now: &[Peer]) -> Vec<ChangeNotification> {
    let by_name = |peers: &[Peer]| -> BTreeMap<String, Peer> {
        peers.iter().map(|peer| (peer.name.clone(), peer.clone())).collect()
    };
    let (before, now) = (by_name(before), by_name(now));
    let gone = before.iter().filter(|(name, _)| !now.contains_key(*name));
    let gone = gone.map(|(_, peer)| told(peer, ChangeNotificationType::PeerDeleted));
    let new = now.iter().filter_map(|(name, peer)| match before.get(name) {
        None => Some(told(peer, ChangeNotificationType::PeerAdded)),
        Some(known) if known != peer => Some(told(peer, ChangeNotificationType::PeerUpdated)),
        Some(_) => None,
    });
    gone.chain(new).collect()
}

fn told(peer: &Peer, change: ChangeNotificationType) -> ChangeNotification {
    ChangeNotification {
        name: peer.name.clone(),
        address: peer.address.clone(),
        r#type: change.into(),
        tls: peer.tls.clone().map(|server_name| Tls { server_name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, addresses: &[&str]) -> PeerNode {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        PeerNode { name: name.into(), addresses }
    }

    #[test]
    fn peers_are_told_with_port_and_name_to_check() {
        let origin = Origin::new("default", "w1");
        let nodes =
            [node("w1", &["10.0.0.1", "fd00::1"]), node("w2", &["fd00::2"]), node("w3", &[])];
        let told = peers(&nodes, &origin, &Reach::Port { port: 4244, tls: true, own: None });
        let told: Vec<_> = told.iter().map(|p| (&*p.name, &*p.address, p.tls.as_deref())).collect();
        assert_eq!(
            told,
            [
                ("w1", "10.0.0.1:4244", Some("w1.default.hubble-grpc.cilium.io")),
                ("w2", "[fd00::2]:4244", Some("w2.default.hubble-grpc.cilium.io")),
            ]
        );
        let plain = peers(&nodes, &origin, &Reach::Port { port: 4244, tls: false, own: None });
        assert!(plain.iter().all(|peer| peer.tls.is_none()));
        let own = Some("10.0.0.9".parse().unwrap());
        let alone = peers(&[], &origin, &Reach::Port { port: 1, tls: false, own });
        assert_eq!(alone[0].address, "10.0.0.9:1");
        let told = peers(&nodes, &origin, &Reach::Port { port: 4244, tls: false, own });
        assert_eq!((told.len(), &*told[0].address), (2, "10.0.0.1:4244"));
        let local = peers(&nodes, &origin, &Reach::Local("/run/enforcer/hubble.sock".into()));
        assert_eq!((local.len(), &*local[0].address), (1, "unix:///run/enforcer/hubble.sock"));
    }

    #[test]
    fn only_what_changed_is_told() {
        use ChangeNotificationType::{PeerAdded, PeerDeleted, PeerUpdated};
        let origin = Origin::new("default", "w1");
        let of = |nodes: &[PeerNode]| {
            peers(nodes, &origin, &Reach::Port { port: 1, tls: false, own: None })
        };
        let before =
            of(&[node("a", &["10.0.0.1"]), node("b", &["10.0.0.2"]), node("c", &["10.0.0.3"])]);
        let now =
            of(&[node("b", &["10.0.0.9"]), node("c", &["10.0.0.3"]), node("d", &["10.0.0.4"])]);
        let told = changes(&before, &now);
        let told: Vec<_> = told.iter().map(|change| (&*change.name, change.r#type())).collect();
        assert_eq!(told, [("a", PeerDeleted), ("b", PeerUpdated), ("d", PeerAdded)]);
        assert_eq!(changes(&now, &now), []);
    }
}
