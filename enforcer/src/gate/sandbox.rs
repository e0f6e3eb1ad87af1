//! A pod sandbox as the gate sees it, parsed once.

use std::{
    net::{AddrParseError, IpAddr},
    path::PathBuf,
};

use super::proto::PodSandbox;
use crate::cluster::event::ObjectKey;

/// The first process's network namespace, which is the node's.
const NODE_NAMESPACE: &str = "/proc/1/ns/net";

/// Where a sandbox has its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// In the node's namespace: there is nothing to arm.
    Node,
    /// In the namespace that is mounted here, on the runtime's file system.
    Namespace(PathBuf),
    /// The runtime does not say, as with pods in virtual machines.
    Unknown,
}

/// A pod sandbox, as the runtime reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's id: new with every attempt to start the pod.
    pub id: String,
    /// The pod.
    pub pod: ObjectKey,
    /// The pod's UID. Of a static pod it is the kubelet's, not that of the API's mirror.
    pub uid: String,
    /// What the CNI plugin gave, before the API knows of it. Empty in the node's namespace, and from
    /// containerd 1.7, which does not tell.
    pub addresses: Vec<IpAddr>,
    /// Where its network is.
    pub network: Network,
}

/// Why a sandbox cannot be understood.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum SandboxError {
    #[error("the runtime's request names no pod")]
    NoPod,
    #[error("the runtime's request has {0:?} as an address of the pod: {1}")]
    Address(String, #[source] AddrParseError),
}

impl TryFrom<PodSandbox> for Sandbox {
    type Error = SandboxError;

    fn try_from(pod: PodSandbox) -> Result<Self, SandboxError> {
        let PodSandbox { id, name, uid, namespace, linux, ips } = pod;
        if name.is_empty() || namespace.is_empty() {
            return Err(SandboxError::NoPod);
        }
        let address = |text: String| text.parse().map_err(|e| SandboxError::Address(text, e));
        let addresses = ips.into_iter().map(address).collect::<Result<_, _>>()?;
        let pod = ObjectKey { namespace: namespace.into(), name: name.into() };
        let namespaces = linux.map(|linux| linux.namespaces).unwrap_or_default();
        let own = namespaces.iter().find(|namespace| namespace.kind == "network");
        let network = match own {
            Some(own) if own.path == NODE_NAMESPACE => Network::Node,
            Some(own) if own.path.is_empty() => Network::Unknown,
            Some(own) => Network::Namespace(own.path.clone().into()),
            // The list leaves out what is shared with the node. No list at all says nothing.
            None if namespaces.is_empty() => Network::Unknown,
            None => Network::Node,
        };
        Ok(Self { id, pod, uid, addresses, network })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::gate::proto::{LinuxNamespace, LinuxPodSandbox};

    /// A pod as a runtime sends it; `namespaces` are types and paths.
    pub(in crate::gate) fn pod(
        name: &str,
        ips: &[&str],
        namespaces: &[(&str, &str)],
    ) -> PodSandbox {
        let namespace = |(kind, path): &(&str, &str)| LinuxNamespace {
            kind: (*kind).to_owned(),
            path: (*path).to_owned(),
        };
        PodSandbox {
            id: format!("id-{name}"),
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "shop".to_owned(),
            linux: Some(LinuxPodSandbox { namespaces: namespaces.iter().map(namespace).collect() }),
            ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
        }
    }

    fn network(namespaces: &[(&str, &str)]) -> Network {
        Sandbox::try_from(pod("web", &[], namespaces)).unwrap().network
    }

    #[test]
    fn the_network_is_the_nodes_only_if_the_runtime_says_so() {
        let mounted = Network::Namespace("/var/run/netns/cni-1".into());
        assert_eq!(network(&[("pid", ""), ("network", "/var/run/netns/cni-1")]), mounted);
        assert_eq!(network(&[("pid", ""), ("ipc", "")]), Network::Node);
        assert_eq!(network(&[("network", "/proc/1/ns/net")]), Network::Node);
        assert_eq!(network(&[("pid", ""), ("network", "")]), Network::Unknown);
        assert_eq!(network(&[]), Network::Unknown);
        let virtual_machine = PodSandbox { linux: None, ..pod("web", &[], &[]) };
        assert_eq!(Sandbox::try_from(virtual_machine).unwrap().network, Network::Unknown);
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        let sandbox = Sandbox::try_from(pod("web", &["10.0.0.7", "fd00::7"], &[])).unwrap();
        let expected = ["10.0.0.7", "fd00::7"].map(|ip| ip.parse::<IpAddr>().unwrap());
        assert_eq!(sandbox.addresses, expected);
    }

    #[test]
    fn what_cannot_be_understood_is_an_error() {
        let unnamed = PodSandbox { name: String::new(), ..pod("web", &[], &[]) };
        assert_eq!(Sandbox::try_from(unnamed), Err(SandboxError::NoPod));
        let odd = Sandbox::try_from(pod("web", &["10.0.0"], &[]));
        assert!(matches!(odd, Err(SandboxError::Address(text, _)) if text == "10.0.0"));
    }
}
