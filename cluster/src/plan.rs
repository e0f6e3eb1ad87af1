//! What cluster is asked for, and the names and addresses that follow from it.
//!
//! Names and address ranges are fixed, so that what a killed run has left can be found; they are
//! chosen to meet neither common cluster ranges nor this project's laboratory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// The network namespace of the control plane, which also has the bridge between the nodes.
pub(crate) const CONTROL: &str = "enfk-control";
/// First part of the name of each node's network namespace and cgroup.
pub(crate) const NODE_PREFIX: &str = "enfk-";
/// The host's end of its link to the cluster.
pub(crate) const HOST_LINK: &str = "enfk-host";
/// The bridge between the nodes.
pub(crate) const BRIDGE: &str = "enfk-br";
/// The port of the API server.
pub(crate) const API_PORT: u16 = 6443;
/// More would be possible; nobody has needed them.
pub(crate) const MAX_NODES: u8 = 9;

/// Address families of pods, Services and nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Families {
    /// IPv4 alone.
    #[default]
    V4,
    /// IPv4 first, and IPv6.
    Dual,
}

/// How kube-proxy does its work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// With nftables.
    #[default]
    Nftables,
    /// With iptables.
    Iptables,
}

impl ProxyMode {
    /// As kube-proxy's configuration names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// What cluster is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// How many nodes, 0 for a control plane alone.
    pub nodes: u8,
    /// Address families.
    pub families: Families,
    /// How kube-proxy works.
    pub proxy: ProxyMode,
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes: 1, families: Families::default(), proxy: ProxyMode::default() }
    }
}

impl Options {
    /// The nodes, in the order of their numbers.
    pub(crate) fn node_plans(self) -> impl Iterator<Item = NodePlan> {
        (1..=self.nodes).map(move |number| NodePlan { number, families: self.families })
    }

    /// Pod ranges of the whole cluster, separated by commas.
    pub(crate) fn pod_ranges(self) -> String {
        self.families.join("10.212.0.0/16", "fd4e:f0ce:1::/56")
    }

    /// Service ranges, separated by commas.
    pub(crate) fn service_ranges(self) -> String {
        self.families.join("10.213.0.0/16", "fd4e:f0ce:2::/112")
    }
}

impl Families {
    fn join(self, v4: &str, v6: &str) -> String {
        match self {
            Self::V4 => v4.to_owned(),
            Self::Dual => format!("{v4},{v6}"),
        }
    }

    /// Both addresses or the first one.
    pub(crate) fn choose<T>(self, v4: T, v6: T) -> Vec<T> {
        match self {
            Self::V4 => vec![v4],
            Self::Dual => vec![v4, v6],
        }
    }
}

/// The API server's address: for nodes, for the host and in certificates.
pub(crate) const API_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 211, 0, 1);
/// The control plane's address in the nodes' IPv6 network.
pub(crate) const CONTROL_V6: Ipv6Addr = Ipv6Addr::new(0xfd4e, 0xf0ce, 0, 0, 0, 0, 0, 1);
/// The host's address in the nodes' network.
pub(crate) const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 211, 0, 254);
/// The address of the API server's Service.
pub(crate) const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 1);
/// Prefix lengths of the nodes' networks.
pub(crate) const NODE_NET_BITS: (u8, u8) = (24, 64);

/// The names and addresses of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodePlan {
    /// From 1.
    pub(crate) number: u8,
    /// Its address families.
    pub(crate) families: Families,
}

impl NodePlan {
    /// As Kubernetes knows it.
    pub(crate) fn name(self) -> String {
        format!("node{}", self.number)
    }

    /// Its network namespace, and its cgroup.
    pub(crate) fn netns(self) -> String {
        format!("{NODE_PREFIX}{}", self.name())
    }

    /// The bridge's end of its link.
    pub(crate) fn port(self) -> String {
        format!("{NODE_PREFIX}n{}", self.number)
    }

    /// Its addresses, IPv4 first.
    pub(crate) fn addresses(self) -> Vec<IpAddr> {
        let last = 10 + self.number;
        self.families.choose(
            IpAddr::V4(Ipv4Addr::new(10, 211, 0, last)),
            IpAddr::V6(Ipv6Addr::new(0xfd4e, 0xf0ce, 0, 0, 0, 0, 0, u16::from(last))),
        )
    }

    /// The ranges of its pods, in the order of [`Self::addresses`].
    pub(crate) fn pod_ranges(self) -> Vec<String> {
        let number = self.number;
        self.families
            .choose(format!("10.212.{number}.0/24"), format!("fd4e:f0ce:1:{number:x}::/64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_addresses_of_every_family_in_use() {
        let nodes: Vec<NodePlan> =
            Options { nodes: 2, families: Families::Dual, ..Options::default() }
                .node_plans()
                .collect();
        assert_eq!(nodes.len(), 2);
        let addresses: Vec<String> = nodes[1].addresses().iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.211.0.12", "fd4e:f0ce::c"]);
        assert_eq!(nodes[1].pod_ranges(), ["10.212.2.0/24", "fd4e:f0ce:1:2::/64"]);
        assert_eq!(Options::default().pod_ranges(), "10.212.0.0/16");
        assert_eq!(NodePlan { number: 1, families: Families::V4 }.addresses().len(), 1);
    }

    #[test]
    fn names_of_links_are_short_enough_for_the_kernel() {
        // IFNAMSIZ is 16 with the zero at the end.
        let node = NodePlan { number: MAX_NODES, families: Families::V4 };
        for name in [node.port(), HOST_LINK.to_owned(), BRIDGE.to_owned()] {
            assert!(name.len() < 16, "{name}");
        }
    }
}
