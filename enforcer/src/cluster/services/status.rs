//! What is wrong with Services, and with policies that mean Services' addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use enforcer_common::abi::{ClassId, Direction, ServiceKey};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    frontends::Mixed,
    targets::{self, Target},
};
use crate::{
    cluster::{
        event::ObjectKey,
        index::Index,
        status::{BlockStatus, ObjectName},
    },
    policy::{
        peer::{IpBlock, Peer},
        rule::{Peers, Policy},
    },
};

/// The shortest prefixes that can be meant for Services, IPv4 and IPv6: a wider block is a network.
/// A range for Services is never wider than 20 bits of addresses (`--service-cluster-ip-range`), but
/// for `ServiceCIDR` objects of IPv6, for which the width of a network counts.
const WIDEST: [u8; 2] = [12, 64];

/// A Service with which something is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The object.
    pub service: ObjectName,
    /// What is.
    pub problems: Vec<String>,
}

/// `10.96.0.1 port 80/TCP`, or `node port 30080/TCP`.
fn title(key: &ServiceKey) -> String {
    use enforcer_common::verdict::proto;
    let protocol = match key.proto {
        proto::TCP => "TCP",
        proto::UDP => "UDP",
        _ => "SCTP",
    };
    match targets::address(key) {
        Some(address) => format!("{address} port {}/{protocol}", key.port),
        None => format!("node port {}/{protocol}", key.port),
    }
}

impl Index {
    /// Services with which something is wrong, by namespace and name.
    #[must_use]
    pub fn service_problems(&self) -> Vec<ServiceStatus> {
        let mut found: BTreeMap<&ObjectKey, Vec<String>> = BTreeMap::new();
        for (key, services) in self.services.frontends.shared() {
            for service in &services {
                let others: Vec<_> = services
                    .iter()
                    .filter(|other| *other != service)
                    .map(|other| format!("{}/{}", other.namespace, other.name))
                    .collect();
                let problem = format!(
                    "{} is also of {}: the backends of all of them count; give each its own",
                    title(&key),
                    others.join(", ")
                );
                found.entry(service).or_default().push(problem);
            }
        }
        for service in self.services.services() {
            for address in targets::virtual_addresses(service) {
                let Some(pod) = self.objects.owner(&address) else { continue };
                let problem = format!(
                    "{address} is also the address of the pod {}/{}: packets to it are judged as \
                     the Service's on the Service's ports; give one of the two another",
                    pod.key.namespace, pod.key.name
                );
                found.entry(&service.key).or_default().push(problem);
            }
        }
        for mixed in self.services.frontends.mixed() {
            let Some(problem) = self.closes(&mixed) else { continue };
            for service in &mixed.services {
                found.entry(service).or_default().push(problem.clone());
            }
        }
        for (service, demand) in self.services.share.refused() {
            found.entry(service).or_default().push(refused(demand, self.services.share.most()));
        }
        let status =
            |(service, problems)| ServiceStatus { service: ObjectName::from(service), problems };
        found.into_iter().map(status).collect()
    }

    /// The pods to which a Service is closed because a backend on this node is denied to them, while
    /// another is not.
    fn closes(&self, Mixed { key, node, others, .. }: &Mixed<'_>) -> Option<String> {
        let node: Vec<(ClassId, Target)> =
            node.iter().map(|target| (self.class_at(target.address), *target)).collect();
        let mut pods = BTreeSet::new();
        let mut denied = BTreeSet::new();
        for entry in self.interfaces.entries.values() {
            let (Some(installed), Some(named)) = (&entry.installed, &entry.named) else { continue };
            let Some(table) = self.tables.get(installed.table) else { continue };
            let allows = |class, port| table.allows(Direction::Egress, class, key.proto, port);
            let on_node = node.iter().filter(|(class, target)| !allows(*class, target.port));
            let on_node: Vec<Target> = on_node.map(|(_, target)| *target).collect();
            if !on_node.is_empty() && others.iter().any(|(class, port)| allows(*class, *port)) {
                denied.extend(on_node);
                pods.insert(format!("{}/{}", named.pod.key.namespace, named.pod.key.name));
            }
        }
        if pods.is_empty() {
            return None;
        }
        let list: Vec<_> = denied
            .iter()
            .map(|target| format!("{} port {}", target.address, target.port))
            .collect();
        Some(format!(
            "{} is closed to {} of this node's pods ({}): its backend {} is a process of this node \
             that their policies do not allow, and only others are; allow it with an ipBlock",
            title(key),
            pods.len(),
            shorten(&pods),
            list.join(", ")
        ))
    }

    /// Policies with ipBlocks that are meant for Services' addresses, and those blocks.
    ///
    /// An ipBlock is matched against the backend, so such a block matches nothing. Named is a block
    /// that contains a cluster address of some Service and no address of a pod or node that is
    /// known, and is not as wide as a network; and one that is just one virtual address of any kind.
    #[must_use]
    pub fn blocks_for_services(&self) -> Vec<BlockStatus> {
        let known = Known::new(self);
        let policies = self.objects.namespaces.values().flat_map(|n| n.policies.values());
        let mut found: Vec<_> = policies
            .filter_map(|policy| {
                let blocks: BTreeSet<_> = blocks(policy)
                    .filter(|block| known.is_for_services(block))
                    .map(|block| block.cidr().to_string())
                    .collect();
                let blocks = blocks.into_iter().collect::<Vec<_>>();
                let policy = ObjectName::from(&policy.key);
                (!blocks.is_empty()).then_some(BlockStatus { policy, blocks })
            })
            .collect();
        found.sort_unstable_by(|a, b| {
            (&a.policy.namespace, &a.policy.name).cmp(&(&b.policy.namespace, &b.policy.name))
        });
        found
    }

    /// The class of an address as the kernel's maps answer it.
    fn class_at(&self, address: IpAddr) -> ClassId {
        let own = self.objects.addresses.get(&address).and_then(|entry| entry.class);
        own.unwrap_or_else(|| {
            let mut members = Vec::new();
            self.atoms.match_address(address, &mut members);
            self.classes.find(members)
        })
    }
}

/// What is said of a Service that takes more than its share.
fn refused(demand: Option<usize>, most: Option<usize>) -> String {
    let why = match (demand, most) {
        (Some(demand), Some(most)) => format!(
            "its {demand} addresses and ports are more than its namespace's share of the {most} \
             that fit (see --service-entries)"
        ),
        _ => "it has too many ports for its number of endpoints".to_owned(),
    };
    format!(
        "{why}: it is open to isolated pods only where their policies allow its virtual address, \
         by an ipBlock, as well as the backend; give it fewer ports or addresses"
    )
}

/// A few names, and how many more there are.
fn shorten(names: &BTreeSet<String>) -> String {
    const MOST: usize = 3;
    let mut text = names.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    if let Some(more) = names.len().checked_sub(MOST).filter(|more| *more > 0) {
        text.push_str(&format!(", and {more} more"));
    }
    text
}

fn blocks(policy: &Policy) -> impl Iterator<Item = &IpBlock> {
    let peers = policy.rules.iter().flatten().flat_map(|rule| match &rule.peers {
        Peers::Any => &[][..],
        Peers::Of(peers) => peers,
    });
    peers.filter_map(|peer| match &**peer {
        Peer::Block(block) => Some(block),
        Peer::Pods(_) => None,
    })
}

/// The addresses that are known, by what they are.
struct Known<'a> {
    index: &'a Index,
    cluster: BTreeSet<IpAddr>,
    other: BTreeSet<IpAddr>,
    nodes: BTreeSet<IpAddr>,
}

impl<'a> Known<'a> {
    fn new(index: &'a Index) -> Self {
        let (mut cluster, mut other) = (BTreeSet::new(), BTreeSet::new());
        for service in index.services.services() {
            other.extend(targets::virtual_addresses(service));
            cluster.extend(service.cluster_ips.iter().map(IpAddr::to_canonical));
        }
        let nodes = index.services.nodes().flat_map(|node| node.addresses.iter().copied());
        let nodes = nodes.chain(index.services.own.addresses()).collect();
        Self { index, cluster, other, nodes }
    }

    fn is_for_services(&self, block: &IpBlock) -> bool {
        let cidr = block.cidr();
        let family = usize::from(matches!(cidr, IpNet::V6(_)));
        let within = |set: &BTreeSet<IpAddr>| {
            set.range(cidr.network()..=cidr.broadcast()).any(|address| block.contains(*address))
        };
        let is_one = cidr.prefix_len() == cidr.max_prefix_len();
        let virtual_ones = if is_one { &self.other } else { &self.cluster };
        let pods = self.index.objects.addresses.range(cidr.network()..=cidr.broadcast());
        let mut pods = pods.filter(|(address, _)| block.contains(**address));
        cidr.prefix_len() >= WIDEST[family]
            && within(virtual_ones)
            && !within(&self.nodes)
            && pods.all(|(_, entry)| entry.winner().is_none())
    }
}
