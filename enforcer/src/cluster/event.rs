//! What can happen to the index: one closed enum, and the slim objects that it carries.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use enforcer_common::abi::{self, ServiceKey};
use k8s_openapi::api::networking::v1::NetworkPolicy;

pub use super::labels::Labels;

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

/// What a pod is part of, as people name it: the object that they made, not the one in between.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Workload {
    /// `Deployment`, `CronJob`, …; `Pod` for one that nobody controls.
    pub kind: Arc<str>,
    /// Name, in the pod's namespace.
    pub name: Arc<str>,
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
    /// It is being deleted (`metadata.deletionTimestamp`): of several that claim one address it
    /// counts least.
    pub terminating: bool,
    /// Start or creation time, seconds since the epoch, 0 if unknown: of two unfinished pods that
    /// claim one address the later-started counts.
    pub started: i64,
    /// When the first of its containers that run was started, seconds since the epoch: as exact as
    /// the API tells it. Policy does not look at it.
    pub containers_started: Option<i64>,
    /// Named ports of containers and restartable init containers.
    pub ports: Vec<NamedPort>,
    /// `spec.nodeName`, for flows.
    pub node: Option<Arc<str>>,
    /// What it is part of, for flows; `None` while its object is not known.
    pub workload: Option<Workload>,
}

/// What policy needs to know of a namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Namespace {
    /// Name.
    pub name: Arc<str>,
    /// Labels, with the API server's `kubernetes.io/metadata.name`.
    pub labels: Labels,
}

/// What is known of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Name.
    pub name: Arc<str>,
    /// `status.addresses` that are IP addresses.
    pub addresses: Vec<IpAddr>,
    /// The first of each family, internal ones before external ones: where a node's proxy serves
    /// node ports.
    pub primary: Vec<IpAddr>,
}

/// Where a Service may send what it gets (`internalTrafficPolicy`, `externalTrafficPolicy`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TrafficPolicy {
    /// To any endpoint.
    #[default]
    Cluster,
    /// To endpoints on the node that got it.
    Local,
}

/// Which endpoint a Service chooses for a client's next connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SessionAffinity {
    /// Any.
    #[default]
    None,
    /// The one that the client's address had last.
    ClientIp,
}

/// Who names a Service's endpoints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndpointsFrom {
    /// A selector of pods.
    Selector,
    /// Somebody else, who writes the slices.
    Elsewhere,
}

/// The port of a Service's endpoints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a pod's port.
    Name(Arc<str>),
}

/// A port of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePort {
    /// Name; empty if it is the only one.
    pub name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Number on the Service's addresses.
    pub port: u16,
    /// Number on its endpoints.
    pub target: TargetPort,
    /// Number on nodes' addresses.
    pub node_port: Option<u16>,
}

/// What is known of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `clusterIPs`; empty for a headless one.
    pub cluster_ips: Vec<IpAddr>,
    /// `externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress` that are IP addresses and translated on the node, which those
    /// of `ipMode` `Proxy` are not.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Who names its endpoints.
    pub endpoints_from: EndpointsFrom,
    /// `clusterIP: None`: names lead to its endpoints themselves.
    pub headless: bool,
    /// Choice of endpoint.
    pub affinity: SessionAffinity,
    /// For what comes from outside the cluster.
    pub external_traffic: TrafficPolicy,
    /// For what comes to its cluster addresses.
    pub internal_traffic: TrafficPolicy,
}

#[cfg(test)]
impl Service {
    /// A Service with these cluster addresses and defaults in the rest.
    pub(crate) fn at(key: ObjectKey, cluster_ips: Vec<IpAddr>) -> Self {
        Self {
            key,
            cluster_ips,
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            ports: Vec::new(),
            endpoints_from: EndpointsFrom::Selector,
            headless: false,
            affinity: SessionAffinity::None,
            external_traffic: TrafficPolicy::Cluster,
            internal_traffic: TrafficPolicy::Cluster,
        }
    }
}

/// A port of an EndpointSlice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlicePort {
    /// Name of the Service's port.
    pub name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Number on the endpoints; `None` means all.
    pub port: Option<u16>,
}

/// An endpoint of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Addresses, of which the first counts.
    pub addresses: Vec<IpAddr>,
    /// Takes new connections.
    pub ready: bool,
    /// Could take new connections, terminating or not.
    pub serving: bool,
    /// Is on its way out.
    pub terminating: bool,
    /// Node that it is on.
    pub node: Option<Arc<str>>,
    /// Pod that it is.
    pub pod: Option<ObjectKey>,
}

/// A part of a Service's endpoints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The Service, by its label `kubernetes.io/service-name`.
    pub service: Option<Arc<str>>,
    /// Ports of all its endpoints.
    pub ports: Vec<SlicePort>,
    /// Endpoints; none if they are names instead of addresses.
    pub endpoints: Vec<Endpoint>,
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
    /// A whole list from a source: what it does not name is gone. Of nodes, Services and slices it
    /// says nothing.
    Relist {
        /// All pods.
        pods: Vec<Pod>,
        /// All namespaces.
        namespaces: Vec<Namespace>,
        /// All policies.
        policies: Vec<NetworkPolicy>,
    },
    /// A node is new or changed.
    NodeApplied(Node),
    /// A Node object is gone.
    NodeDeleted(Arc<str>),
    /// A Service is new or changed.
    ServiceApplied(Box<Service>),
    /// A Service is gone.
    ServiceDeleted(ObjectKey),
    /// An EndpointSlice is new or changed.
    SliceApplied(EndpointSlice),
    /// An EndpointSlice is gone.
    SliceDeleted(ObjectKey),
    /// These entries for Services an earlier agent left in the kernel. What no object speaks for,
    /// now or later, goes by [`Self::ProxiesHadTime`].
    ServicesFound(BTreeMap<ServiceKey, abi::Service>),
    /// Proxies have had time to notice which Services were gone when this was last said: their
    /// virtual addresses are nobody's.
    ProxiesHadTime,
    /// These are the node's own addresses.
    NodeAddressesFound(Vec<IpAddr>),
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
