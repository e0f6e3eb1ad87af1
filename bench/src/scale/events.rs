//! Single events in a cluster that is known: each changes something and changes it back, again and
//! again, at other objects every time.

use enforcer::{
    cluster::event::{Event, Interface},
    source::shared::Shared,
};
use serde_json::json;

use super::{
    AnyError,
    cluster::{self, Cluster, Pod, address},
    node::{Done, Node},
    tell,
};

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Status,
    Arrival,
    Churn,
    Label,
    LocalLabel,
    LocalStart,
    Policy,
    LocalPolicy,
    Namespace,
    Slice,
}

impl Kind {
    pub(super) const ALL: [Self; 10] = [
        Self::Status,
        Self::Arrival,
        Self::Churn,
        Self::Label,
        Self::LocalLabel,
        Self::LocalStart,
        Self::Policy,
        Self::LocalPolicy,
        Self::Namespace,
        Self::Slice,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Status => "a pod's status changes",
            Self::Arrival => "a pod on another node comes or goes",
            Self::Churn => "a label changes that no policy names",
            Self::Label => "a label changes that policies name",
            Self::LocalLabel => "a local pod's label brings other policies",
            Self::LocalStart => "a local pod starts or ends",
            Self::Policy => "a policy of no local pod changes",
            Self::LocalPolicy => "a policy of local pods changes",
            Self::Namespace => "a namespace is relabelled",
            Self::Slice => "a Service's endpoint comes or goes",
        }
    }

    /// Changes in each direction.
    pub(super) const fn times(self) -> usize {
        match self {
            Self::Namespace | Self::LocalStart => 20,
            _ => 100,
        }
    }
}

/// Every change there and back; what each cost.
pub(super) fn run(node: &mut Node, cluster: &Cluster, kind: Kind) -> Result<Vec<Done>, AnyError> {
    let mut done = Vec::new();
    for turn in 0..kind.times() {
        let [there, back] = change(cluster, kind, turn)?;
        done.push(node.take(there)?);
        done.push(node.take(back)?);
    }
    Ok(done)
}

/// A change and what takes it back.
fn change(cluster: &Cluster, kind: Kind, turn: usize) -> Result<[Vec<Event>; 2], AnyError> {
    let applied = |pod: &Pod| vec![Event::PodApplied(tell::pod(pod, &mut Shared::default()))];
    let relabelled = |pod: &Pod, key: &str, value: &str| {
        let mut pod = pod.clone();
        pod.labels.insert(key.to_owned(), value.to_owned());
        vec![Event::PodApplied(tell::pod(&pod, &mut Shared::default()))]
    };
    let remote = some(cluster.pods.iter().filter(|pod| !pod.local && !pod.host_network), turn)
        .or_else(|| some(cluster.pods.iter(), turn))
        .ok_or("no pods")?;
    let local = some(cluster.local(), turn).ok_or("no local pods")?;
    Ok(match kind {
        Kind::Status => {
            let mut pod = tell::pod(remote, &mut Shared::default());
            pod.containers_started = Some(7);
            [vec![Event::PodApplied(pod)], applied(remote)]
        }
        Kind::Arrival => {
            let new = newcomer(remote, cluster, turn);
            [applied(&new), gone(&new)]
        }
        Kind::Churn => [relabelled(remote, "job-uid", "another"), applied(remote)],
        Kind::Label => {
            let at = cluster::APPS.iter().position(|app| *app == remote.app).unwrap_or(0);
            let app = cluster::APPS[(at + 1) % cluster::APPS.len()];
            [relabelled(remote, "app.kubernetes.io/name", app), applied(remote)]
        }
        Kind::LocalLabel => {
            let at = cluster::APPS.iter().position(|app| *app == local.app).unwrap_or(0);
            let app = cluster::APPS[(at + 1) % cluster::APPS.len()];
            [relabelled(local, "app.kubernetes.io/name", app), applied(local)]
        }
        Kind::LocalStart => {
            let new = newcomer(local, cluster, turn);
            let interface = Interface {
                // The interface that every namespace has: programs can be attached to it.
                ifindex: 1,
                name: "lo".into(),
                peer_addresses: vec![new.address],
                kind: "veth".into(),
            };
            let mut there = vec![Event::InterfaceAppeared(interface)];
            there.extend(applied(&new));
            let mut back = gone(&new);
            back.push(Event::InterfaceLost(1));
            [there, back]
        }
        Kind::Policy | Kind::LocalPolicy => {
            let mut theirs = Vec::from_iter(cluster.local().map(|pod| pod.namespace.as_str()));
            theirs.sort_unstable();
            let concerns = |name: &str| theirs.binary_search(&name).is_ok();
            let wanted = kind == Kind::LocalPolicy;
            let of = cluster.policies.iter().filter(|policy| {
                policy["metadata"]["namespace"].as_str().is_some_and(concerns) == wanted
            });
            let Some(policy) = some(of, turn) else { return Ok([Vec::new(), Vec::new()]) };
            let mut changed = policy.clone();
            changed["spec"]["policyTypes"] = json!(["Ingress"]);
            changed["spec"]["ingress"] = json!([
                {"from": [{"podSelector": {"matchLabels": {"access": "granted"}}}],
                 "ports": [{"port": 9999}]}]);
            [changed, policy.clone()]
                .map(serde_json::from_value)
                .map(|policy| policy.map(|policy| vec![Event::PolicyApplied(policy)]))
                .into_iter()
                .collect::<Result<Vec<_>, _>>()?
                .try_into()
                .map_err(|_both| "two policies")?
        }
        Kind::Namespace => {
            let of = &cluster.namespaces[turn % cluster.namespaces.len()];
            let mut other = of.clone();
            other.labels.insert("team".into(), "team-0".into());
            other.labels.insert("stage".into(), "live".into());
            [&other, of].map(|of| vec![Event::NamespaceApplied(tell::namespace(of))])
        }
        Kind::Slice => {
            let services = cluster.services.iter();
            let service = some(services, turn).ok_or("no Services")?;
            let mut fewer = service.clone();
            fewer.endpoints.truncate(service.endpoints.len() / 2);
            [&fewer, service].map(|service| {
                let slices = tell::service(service);
                slices.filter(|event| matches!(event, Event::SliceApplied(_))).take(1).collect()
            })
        }
    })
}

/// One of several, far from the one of the turn before.
fn some<T>(of: impl Iterator<Item = T> + Clone, turn: usize) -> Option<T> {
    let count = of.clone().count();
    of.into_iter().nth(turn * 7919 % count.max(1))
}

/// A pod like another, with a name and an address of its own.
fn newcomer(like: &Pod, cluster: &Cluster, turn: usize) -> Pod {
    let number = u32::try_from(cluster.pods.len() + 1 + turn).unwrap_or(u32::MAX);
    Pod {
        name: format!("newcomer-{turn}"),
        uid: format!("newcomer-{turn}"),
        address: address(number),
        ..like.clone()
    }
}

fn gone(pod: &Pod) -> Vec<Event> {
    vec![Event::PodDeleted(tell::key(&pod.namespace, &pod.name))]
}
