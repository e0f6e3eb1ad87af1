//! What can happen to the index: one closed enum, and the slim objects that it carries.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::api::networking::v1::NetworkPolicy;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Namespace and name of a namespaced object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// Transport protocol of a port (`core/v1` `Protocol`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A container port with a name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NamedPort {
    /// IANA_SVC_NAME.
    pub name: Arc<str>,
    /// Protocol; part of what a name means (`core/v1` `ContainerPort`).
    pub protocol: Protocol,
    /// Number on the pod.
    pub number: u16,
}

/// What policy needs to know of a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID; empty where the source has none (manifests may leave it out).
    pub uid: Arc<str>,
    /// Labels.
    pub labels: Labels,
    /// `status.podIPs`, or `podIP`; empty while not assigned.
    pub addresses: Vec<IpAddr>,
    /// On the node's network: no subject of policy and no pod to any selector.
    pub host_network: bool,
    /// Phase is Succeeded or Failed: its addresses are no longer its own.
    pub finished: bool,
    /// Start or creation time, seconds since the epoch, 0 if unknown: of two unfinished pods that
    /// claim one address the later-started counts.
    pub started: i64,
    /// Named ports of containers and restartable init containers.
    pub ports: Vec<NamedPort>,
    /// `spec.nodeName`, for flows.
    pub node: Option<Arc<str>>,
}

/// What policy needs to know of a namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Namespace {
    /// Name.
    pub name: Arc<str>,
    /// Labels, with the API server's `kubernetes.io/metadata.name`.
    pub labels: Labels,
}

/// A host-side interface whose peer is in another network namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Index on this node.
    pub ifindex: u32,
    /// Name on this node.
    pub name: Arc<str>,
    /// Addresses that its peer has now (link-local ones left out).
    pub peer_addresses: Vec<IpAddr>,
    /// Kind as netlink names it (`veth`, `netkit`, …). Only `veth` can be enforced on.
    pub kind: Arc<str>,
}

/// An interface that an earlier agent armed, as the kernel's maps remember it: binding holds for
/// the life of the interface, whatever the peer's addresses are now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdoptedInterface {
    /// The interface as it is now.
    pub interface: Interface,
    /// The addresses it was armed with.
    pub bound_addresses: Vec<IpAddr>,
}

/// A pod's sandbox, as the container runtime or its network plugins tell of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sandbox {
    /// Id of the sandbox and, where one has several networks, of the network.
    pub id: Arc<str>,
    /// The pod.
    pub pod: ObjectKey,
    /// The pod's UID.
    pub uid: Arc<str>,
    /// Host-side interfaces by name; empty where the plugins do not name them.
    pub interfaces: Vec<Arc<str>>,
    /// Addresses that the plugins gave it.
    pub addresses: Vec<IpAddr>,
    /// When it was told, nanoseconds since the epoch: of two that claim one interface the later
    /// one counts.
    pub told: i64,
}

/// What a pod may do whose policy is not in force yet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum StartPolicy {
    /// Everything: its interface is not armed before its pod is known.
    #[default]
    Open,
    /// Nothing, but to be reached by its own node.
    Closed,
    /// Ask these addresses for names, by UDP and TCP on port 53.
    ClosedExceptDns(Vec<IpAddr>),
}

/// Everything that can change the plan.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// A pod is new or changed.
    PodApplied(Pod),
    /// A pod object is gone.
    PodDeleted(ObjectKey),
    /// A namespace is new or changed.
    NamespaceApplied(Namespace),
    /// A namespace object is gone.
    NamespaceDeleted(Arc<str>),
    /// A NetworkPolicy is new or changed. It has passed validation.
    PolicyApplied(Box<NetworkPolicy>),
    /// A NetworkPolicy is gone.
    PolicyDeleted(ObjectKey),
    /// A whole list from a source: what it does not name is gone.
    Relist {
        /// All pods.
        pods: Vec<Pod>,
        /// All namespaces.
        namespaces: Vec<Namespace>,
        /// All policies.
        policies: Vec<NetworkPolicy>,
    },
    /// An interface was found that is older than the agent, or one has changed.
    InterfaceFound(Interface),
    /// An interface has come that is younger than the agent: see [`StartPolicy`].
    InterfaceAppeared(Interface),
    /// An interface that was armed before this agent started.
    InterfaceAdopted(AdoptedInterface),
    /// An interface is gone.
    InterfaceLost(u32),
    /// A sandbox is there, or more is known of it.
    SandboxFound(Sandbox),
    /// The sandbox of this id is gone.
    SandboxLost(Arc<str>),
    /// From now on this is what a pod may do whose policy is not in force yet.
    StartPolicyChanged(StartPolicy),
}
