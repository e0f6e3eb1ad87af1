//! Tells the cluster what it should know of this node: Events about objects that cannot be enforced
//! as they say, and that the node is ready for pods.

use std::{collections::BTreeMap, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use super::{
    core::Core,
    insights::{self, Noticed},
    report::for_services,
    uncovered,
};
use crate::{
    apiserver::{
        ApiServer,
        notice::{EventSink, Notice, Reason, Regarding},
        taint,
    },
    cluster::{InterfaceState, event::ObjectKey},
    source::Source,
};

/// Between two looks while things change.
const SELDOM: Duration = Duration::from_secs(5);

/// What is wrong with an object, and how it is said.
type Troubles = BTreeMap<(Regarding, Reason), String>;

/// What may have changed what there is to say: changes, and what happens besides.
type Seen = (u64, (bool, u64, [usize; 2]));

/// The announcements of one agent.
#[derive(Debug)]
pub(super) struct Announcing {
    node: String,
    /// `None` where there is no API server, or all that is to be said has been.
    events: Option<EventSink>,
    taint: Option<ApiServer>,
    /// What was noticed in flows.
    noticed: Noticed,
    known: Troubles,
    /// State that was looked at last.
    seen: Option<Seen>,
    looked: Option<Instant>,
    tasks: JoinSet<()>,
}

/// What is done about the node's taint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taint {
    /// Nothing.
    Leave,
    /// It is removed when the agent is ready.
    Remove,
}

impl Announcing {
    /// Nothing is announced without an API server.
    pub(super) fn new(api: Option<&ApiServer>, node: &str, taint: Taint, noticed: Noticed) -> Self {
        Self {
            noticed,
            node: node.to_owned(),
            events: api.map(|api| EventSink::start(api, node)),
            taint: api.filter(|_| taint == Taint::Remove).cloned(),
            known: Troubles::new(),
            seen: None,
            looked: None,
            tasks: JoinSet::new(),
        }
    }

    /// Looks for what is new. To be called about once a second.
    pub(super) fn look(&mut self, core: &Core, now: Instant) {
        for insight in self.noticed.take(now) {
            insights::log(&insight);
            core.events().push_at(insight.time, insights::agent_event(&insight));
            self.tell(insights::notice(&insight, &self.node));
        }
        if !core.armed || !core.source.is_live() {
            return;
        }
        if let Some(api) = self.taint.take() {
            self.tasks.spawn(taint::remove(api, self.node.clone()));
        }
        // A map that is full, a switch or another enforcer change nothing else.
        let uncovered = core.uncovered.named(now.into_std()).len();
        let besides =
            (core.kernel.incomplete(), core.break_glass.state(), [core.rivals.len(), uncovered]);
        let state = (core.changes(), besides);
        let soon = self.looked.is_some_and(|looked| now - looked < SELDOM);
        if self.events.is_none() || self.seen == Some(state) || soon {
            return;
        }
        (self.seen, self.looked) = (Some(state), Some(now));
        let troubles = troubles(core, &self.node, now);
        for ((regarding, reason), note) in news(&self.known, &troubles) {
            self.tell(Some(Notice { regarding, reason, note }));
        }
        self.known = troubles;
    }

    fn tell(&self, notice: Option<Notice>) {
        let Some((events, notice)) = self.events.as_ref().zip(notice) else { return };
        if !events.try_send(notice) {
            tracing::debug!("more to tell than the API server takes");
        }
    }
}

/// What is wrong now that was not, or not like this.
fn news(before: &Troubles, now: &Troubles) -> Vec<((Regarding, Reason), String)> {
    let is_new = |(about, note): &(&(Regarding, Reason), &String)| before.get(about) != Some(note);
    now.iter().filter(is_new).map(|(about, note)| (about.clone(), note.clone())).collect()
}

fn troubles(core: &Core, node: &str, now: Instant) -> Troubles {
    let mut troubles = Troubles::new();
    let status = core.index.status();
    let uid_of = |namespace: &str, name: &str| match &core.source {
        Source::Kubernetes(source) => source.policy_uid(namespace, name).unwrap_or_default(),
        Source::Manifests(_) => String::new(),
    };
    for problem in &core.problems {
        let title =
            problem.object.as_deref().and_then(|title| title.strip_prefix("NetworkPolicy "));
        if let Some((namespace, name)) = title.and_then(|title| title.split_once('/')) {
            let regarding = Regarding::policy(namespace, name, &uid_of(namespace, name));
            let about = (regarding, Reason::PolicyNotEnforceable);
            troubles.entry(about).or_insert_with(|| problem.to_string());
        }
    }
    for policy in status.policies.iter().filter(|policy| !policy.problems.is_empty()) {
        let (namespace, name) = (&policy.policy.namespace, &policy.policy.name);
        let regarding = Regarding::policy(namespace, name, &uid_of(namespace, name));
        let note = policy.problems.join("; ");
        troubles.insert((regarding, Reason::PolicyNotEnforceable), note);
    }
    for one in core.index.blocks_for_services() {
        let (namespace, name) = (&one.policy.namespace, &one.policy.name);
        let regarding = Regarding::policy(namespace, name, &uid_of(namespace, name));
        troubles.insert((regarding, Reason::IpBlockForServices), for_services(&one.blocks));
    }
    for one in core.index.service_problems() {
        let regarding = Regarding::service(&one.service.namespace, &one.service.name);
        troubles.insert((regarding, Reason::ServiceNotEnforceable), one.problems.join("; "));
    }
    for interface in status.interfaces {
        if interface.state != InterfaceState::Unenforceable {
            continue;
        }
        let pod = interface.addresses.iter().find_map(|address| core.index.pod_at(*address));
        let regarding = match pod {
            Some(pod) => Regarding::pod(&pod.key.namespace, &pod.key.name, &pod.uid),
            None => Regarding::node(node),
        };
        let note = format!("interface {} {}", interface.interface, interface.reason);
        troubles.insert((regarding, Reason::InterfaceNotEnforceable), note);
    }
    for (key, uid) in core.uncovered.named(now.into_std()) {
        let regarding = Regarding::pod(&key.namespace, &key.name, uid);
        troubles.insert((regarding, Reason::InterfaceNotEnforceable), uncovered::REASON.to_owned());
    }
    if let Some(until) = core.break_glass.node() {
        let about = (Regarding::node(node), Reason::EnforcementDisabled);
        troubles
            .insert(about, format!("network policy is not enforced on this node until {until}"));
    }
    for (pod, until) in core.break_glass.pods() {
        let Some((namespace, name)) = pod.split_once('/') else { continue };
        let key = ObjectKey { namespace: namespace.into(), name: name.into() };
        let uid = core.index.pod_uid(&key).unwrap_or_default();
        let about = (Regarding::pod(namespace, name, &uid), Reason::EnforcementDisabled);
        troubles.insert(about, format!("network policy is not enforced on it until {until}"));
    }
    for rival in core.rivals.iter().filter(|rival| rival.enforces) {
        let note = format!(
            "{} is on this node too and enforces network policy: a packet passes only if both \
             let it ({})",
            rival.name,
            rival.evidence.join("; ")
        );
        troubles.insert((Regarding::node(node), Reason::OtherEnforcer), note);
    }
    for endpoint in status.endpoints {
        if !core.kernel.locked(endpoint.ifindex) {
            continue;
        }
        let pod = endpoint.addresses.iter().find_map(|address| core.index.pod_at(*address));
        let (namespace, name) = (&endpoint.pod.namespace, &endpoint.pod.name);
        let uid = pod.filter(|pod| *pod.key.name == **name).map_or("", |pod| &pod.uid);
        let regarding = Regarding::pod(namespace, name, uid);
        let why = core.failures.first().map_or("a map in the kernel is full", String::as_str);
        let note = format!("takes no new connections, because its policy cannot be written: {why}");
        troubles.insert((regarding, Reason::MapFull), note);
    }
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_changed_is_news() {
        let about = |name: &str| (Regarding::pod("n", name, "u"), Reason::MapFull);
        let before = Troubles::from([
            (about("same"), "x".to_owned()),
            (about("other"), "x".to_owned()),
            (about("gone"), "x".to_owned()),
        ]);
        let now = Troubles::from([
            (about("same"), "x".to_owned()),
            (about("other"), "y".to_owned()),
            (about("new"), "x".to_owned()),
        ]);
        let expected = [(about("new"), "x".to_owned()), (about("other"), "y".to_owned())];
        assert_eq!(news(&before, &now), expected);
        assert!(news(&now, &now).is_empty());
        assert_eq!(news(&Troubles::new(), &before).len(), 3, "told again after it was gone");
    }
}
