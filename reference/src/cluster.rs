//! The objects: what policy looks at, and nothing else of them.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::networking::v1::NetworkPolicy;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Namespace and name of an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Name {
    /// From both parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A protocol that a rule can name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// As the API writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// As the IP header has it.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// The protocol with a number of the IP header, if rules can name it.
#[must_use]
pub fn protocol(number: u8) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|protocol| protocol.number() == number)
}

/// A container port with a name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NamedPort {
    /// Name.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub number: u16,
}

/// A namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Namespace {
    /// Name.
    pub name: String,
    /// Labels, with the one that the API server adds.
    pub labels: Labels,
}

/// A pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pod {
    /// Namespace and name.
    pub name: Name,
    /// UID, may be empty.
    pub uid: String,
    /// Labels.
    pub labels: Labels,
    /// `status.podIPs`.
    pub addresses: Vec<IpAddr>,
    /// On the network of its node: no pod to policy.
    pub host_network: bool,
    /// Succeeded or failed: its addresses are no longer its own.
    pub finished: bool,
    /// It is being deleted.
    pub terminating: bool,
    /// When it started, seconds since the epoch.
    pub started: i64,
    /// Named ports of its containers.
    pub ports: Vec<NamedPort>,
}

/// One port of a Service, with what it leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Namespace and name.
    pub name: Name,
    /// Its virtual address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Addresses behind it, of its family; none are processes of this node.
    pub backends: Vec<IpAddr>,
    /// Port of all of them.
    pub target: u16,
}

/// Everything that a verdict depends on.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Cluster {
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// Policies.
    pub policies: Vec<NetworkPolicy>,
    /// Ports of Services.
    pub services: Vec<Service>,
    /// The own node's addresses.
    pub node: Vec<IpAddr>,
}

impl Cluster {
    /// The pod that has an address. Of several that claim it: one that stays before one that is
    /// being deleted, then the one that started last.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&Pod> {
        let claims =
            |pod: &&Pod| !pod.finished && !pod.host_network && pod.addresses.contains(&address);
        self.pods
            .iter()
            .filter(claims)
            .max_by_key(|pod| (!pod.terminating, pod.started, &pod.uid, &pod.name))
    }

    /// Labels of a namespace. One whose object is not known has the label with its name.
    #[must_use]
    pub fn namespace_labels(&self, name: &str) -> Labels {
        let known = self.namespaces.iter().find(|namespace| namespace.name == name);
        known.map_or_else(
            || Labels::from([("kubernetes.io/metadata.name".to_owned(), name.to_owned())]),
            |namespace| namespace.labels.clone(),
        )
    }
}
