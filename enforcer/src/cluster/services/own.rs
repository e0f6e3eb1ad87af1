//! This node's own addresses, and which of them serve node ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Which of this node's addresses serve node ports: what the node's proxy was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodePortAddresses {
    /// The first IPv4 and the first IPv6 address of its Node object: kube-proxy's default in
    /// nftables mode
    #[default]
    Primary,
    /// All of them: kube-proxy's default in iptables and ipvs mode
    All,
}

/// What one of the node's own addresses is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeAddress {
    /// Processes of the node only.
    Plain,
    /// Node ports too.
    NodePorts,
}

/// The node's own addresses.
#[derive(Debug, Default)]
pub(super) struct Own {
    addresses: BTreeSet<IpAddr>,
    /// Its Node object's name; `None` where objects do not tell which node this is.
    pub(super) node: Option<Arc<str>>,
    serving: NodePortAddresses,
    changed: bool,
}

impl Own {
    pub(super) fn new(node: Option<Arc<str>>, serving: NodePortAddresses) -> Self {
        Self { addresses: BTreeSet::new(), node, serving, changed: false }
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied()
    }

    /// Makes the addresses these; returns those that came or went.
    pub(super) fn set(&mut self, addresses: BTreeSet<IpAddr>) -> Vec<IpAddr> {
        let moved: Vec<_> = self.addresses.symmetric_difference(&addresses).copied().collect();
        self.changed |= !moved.is_empty();
        self.addresses = addresses;
        moved
    }

    /// A Node object has changed.
    pub(super) fn node_changed(&mut self, name: &str) {
        self.changed |= self.node.as_deref() == Some(name);
    }

    /// Whether it may be another answer than at the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What each address is for, given those that the Node object names first in their family.
    /// Without them all serve.
    pub(super) fn purposes(&self, primary: Option<&[IpAddr]>) -> BTreeMap<IpAddr, NodeAddress> {
        let primary = match self.serving {
            NodePortAddresses::Primary => primary,
            NodePortAddresses::All => None,
        };
        let serves = |address| primary.is_none_or(|primary| primary.contains(address));
        let purpose = |a| if serves(a) { NodeAddress::NodePorts } else { NodeAddress::Plain };
        self.addresses.iter().map(|address| (*address, purpose(address))).collect()
    }
}
