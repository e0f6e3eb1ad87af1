//! Who tells: the node and its cluster.

/// A cluster's name where none is given.
pub const DEFAULT_CLUSTER: &str = "default";
/// What reports, as flows name it.
pub const EMITTER: &str = "enforcer";
/// Our version, as semantic versioning writes it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The node and its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    cluster: String,
    node: String,
    name: String,
}

impl Origin {
    /// The node `node` of the cluster `cluster`.
    #[must_use]
    pub fn new(cluster: &str, node: &str) -> Self {
        let name = format!("{cluster}/{node}");
        Self { cluster: cluster.to_owned(), node: node.to_owned(), name }
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// `cluster/node`, as flows name it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Another node of the cluster as peers are named: without the cluster, if that has no name of
    /// its own.
    #[must_use]
    pub fn peer_name(&self, node: &str) -> String {
        if self.cluster == DEFAULT_CLUSTER {
            node.to_owned()
        } else {
            format!("{}/{node}", self.cluster)
        }
    }

    /// The name that the certificate of a node's observer is for. Every node's is at the same level
    /// of the domain, so that one wildcard fits: dots within names become hyphens.
    #[must_use]
    pub fn tls_server_name(&self, node: &str) -> String {
        let (node, cluster) = (node.replace('.', "-"), self.cluster.replace('.', "-"));
        format!("{node}.{cluster}.hubble-grpc.cilium.io")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hubbles() {
        let origin = Origin::new(DEFAULT_CLUSTER, "w1.example.org");
        assert_eq!(origin.name(), "default/w1.example.org");
        assert_eq!(origin.peer_name("w2"), "w2");
        assert_eq!(
            origin.tls_server_name(origin.node()),
            "w1-example-org.default.hubble-grpc.cilium.io"
        );
        let origin = Origin::new("eu.west", "w1");
        assert_eq!(origin.peer_name("w2"), "eu.west/w2");
        assert_eq!(origin.tls_server_name("w2"), "w2.eu-west.hubble-grpc.cilium.io");
    }
}
