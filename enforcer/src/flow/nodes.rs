//! The cluster's nodes as other tasks need to know them: who else tells flows, and where.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use tokio::sync::watch;

use crate::cluster::event::{Event, Node};

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerNode {
    /// Name of its object.
    pub name: Arc<str>,
    /// Its addresses; first the one of each family by which other nodes reach it.
    pub addresses: Vec<IpAddr>,
}

/// All nodes, in the order of their names. What [`Nodes::watch`] gives.
pub type PeerNodes = Arc<[PeerNode]>;

/// The nodes by what the source tells.
#[derive(Debug)]
pub struct Nodes {
    known: BTreeMap<Arc<str>, PeerNode>,
    tell: watch::Sender<PeerNodes>,
}

impl Default for Nodes {
    fn default() -> Self {
        Self { known: BTreeMap::new(), tell: watch::Sender::new(Arc::new([])) }
    }
}

impl Nodes {
    /// The nodes of this moment, and whenever they change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<PeerNodes> {
        self.tell.subscribe()
    }

    /// Takes in what of these events is about nodes, and tells if that changes anything.
    pub fn take<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) {
        let mut changed = false;
        for event in events {
            changed |= match event {
                Event::NodeApplied(node) => {
                    let peer = peer(node);
                    let before = self.known.insert(Arc::clone(&node.name), peer.clone());
                    before.as_ref() != Some(&peer)
                }
                Event::NodeDeleted(name) => self.known.remove(name).is_some(),
                _ => false,
            };
        }
        if changed {
            self.tell.send_replace(self.known.values().cloned().collect());
        }
    }
}

fn peer(node: &Node) -> PeerNode {
    let mut addresses = node.primary.clone();
    for address in &node.addresses {
        if !addresses.contains(address) {
            addresses.push(*address);
        }
    }
    PeerNode { name: Arc::clone(&node.name), addresses }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, addresses: &[u8], primary: u8) -> Event {
        let ip = |last: &u8| IpAddr::from([10, 0, 0, *last]);
        Event::NodeApplied(Node {
            name: name.into(),
            addresses: addresses.iter().map(ip).collect(),
            primary: vec![ip(&primary)],
        })
    }

    fn told(watch: &mut watch::Receiver<PeerNodes>) -> Vec<String> {
        let nodes = watch.borrow_and_update();
        nodes.iter().map(|node| format!("{} {:?}", node.name, node.addresses)).collect()
    }

    #[test]
    fn nodes_are_told_with_the_address_that_others_use_first_and_only_when_they_change() {
        let mut nodes = Nodes::default();
        let mut watch = nodes.watch();
        nodes.take(&[node("w2", &[2], 2), node("w1", &[1, 9], 9)]);
        assert!(watch.has_changed().unwrap());
        assert_eq!(told(&mut watch), ["w1 [10.0.0.9, 10.0.0.1]", "w2 [10.0.0.2]"]);
        nodes.take(&[node("w2", &[2], 2), Event::NodeDeleted("w7".into())]);
        assert!(!watch.has_changed().unwrap());
        nodes.take(&[Event::NodeDeleted("w2".into())]);
        assert_eq!(told(&mut watch), ["w1 [10.0.0.9, 10.0.0.1]"]);
        assert_eq!(told(&mut nodes.watch()), told(&mut watch));
    }
}
