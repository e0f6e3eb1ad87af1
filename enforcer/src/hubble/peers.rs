//! The nodes of the cluster that can be asked, and where.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use enforcer_hubble::peer::{ChangeNotification, ChangeNotificationType, Tls};

use super::origin::Origin;

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerNode {
    /// Name of its object.
    pub name: Arc<str>,
    /// Its addresses; first the one of each family by which other nodes reach it.
    pub addresses: Vec<IpAddr>,
}

/// All nodes, in the order of their names.
pub type PeerNodes = Arc<[PeerNode]>;

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

/// All that can be asked. The node itself is always among them.
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
        Reach::Port { port, tls } => nodes
            .iter()
            .filter_map(|node| {
                let address = SocketAddr::new(*node.addresses.first()?, *port);
                Some(peer(&node.name, address.to_string(), *tls))
            })
            .collect(),
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
        let told = peers(&nodes, &origin, &Reach::Port { port: 4244, tls: true });
        let told: Vec<_> = told.iter().map(|p| (&*p.name, &*p.address, p.tls.as_deref())).collect();
        assert_eq!(
            told,
            [
                ("w1", "10.0.0.1:4244", Some("w1.default.hubble-grpc.cilium.io")),
                ("w2", "[fd00::2]:4244", Some("w2.default.hubble-grpc.cilium.io")),
            ]
        );
        let plain = peers(&nodes, &origin, &Reach::Port { port: 4244, tls: false });
        assert!(plain.iter().all(|peer| peer.tls.is_none()));
        let local = peers(&nodes, &origin, &Reach::Local("/run/enforcer/hubble.sock".into()));
        assert_eq!((local.len(), &*local[0].address), (1, "unix:///run/enforcer/hubble.sock"));
    }

    #[test]
    fn only_what_changed_is_told() {
        use ChangeNotificationType::{PeerAdded, PeerDeleted, PeerUpdated};
        let origin = Origin::new("default", "w1");
        let of = |nodes: &[PeerNode]| peers(nodes, &origin, &Reach::Port { port: 1, tls: false });
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
