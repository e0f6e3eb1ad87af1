//! The API server as the source of objects.
//!
//! Each watch is a task of its own that sends on what the server tells; here the words of all are
//! put together. Nothing is emitted before every watch that verdicts depend on has brought its
//! first whole list. From then on what is known stays in force, whatever becomes of the server.
//!
//! The watches are our own and not kube's: its stream hides bookmarks and versions, and without
//! them it cannot be told how far a watch is, which `status --wait` must know.

mod framing;
mod health;
mod kept;
mod lanes;
mod list;
pub(super) mod objects;
mod resource;
mod restore;
mod timing;
mod watch;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Serialize;
use tokio::{
    sync::{mpsc, watch as signal},
    task::JoinSet,
    time::{Instant, sleep_until},
};

pub(crate) use self::timing::{Chance, Timing};
use self::{
    health::Health,
    kept::Kept,
    lanes::{Lanes, Width, Word},
    resource::{Item, Kind, Object, Watch},
    restore::Restore,
    watch::{Message, News, Watcher},
};
use super::{
    SourceUpdate,
    problem::Problem,
    report::{SourceKind, SourceReport},
    saved::{self, Identity, Places, Saved},
    unsaved::{self, Unsaved},
};
use crate::{
    apiserver::ApiServer,
    cluster::event::{Event, Namespace, ObjectKey, Pod},
};

/// Messages on their way, at most. Watches wait where there are more.
const QUEUE: usize = 256;

/// What is known before the first list of all is complete.
#[derive(Debug, Default)]
struct Staged {
    pods: HashMap<ObjectKey, Pod>,
    namespaces: HashMap<Arc<str>, Namespace>,
    policies: BTreeMap<ObjectKey, Box<NetworkPolicy>>,
}

/// What the kernel enforces when an agent gets the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforced {
    /// Nothing.
    Nothing,
    /// What an agent has written.
    Something,
}

/// The source.
#[derive(Debug)]
pub struct KubernetesSource {
    url: String,
    watches: Vec<(Watch, Health)>,
    /// They end with this.
    _tasks: JoinSet<()>,
    messages: mpsc::Receiver<Message>,
    /// Came with [`Self::changed`] and is not taken yet.
    arrived: Vec<Message>,
    catch_up: signal::Sender<u64>,
    objects: BTreeMap<Kind, Lanes>,
    /// Until all is complete.
    staged: Option<Staged>,
    policies: BTreeMap<ObjectKey, Kept>,
    events: Vec<Event>,
    /// Of objects with a name; the last good state of some stays in force.
    problems: BTreeMap<(Kind, ObjectKey), Vec<Problem>>,
    /// Of objects without, by watch.
    nameless: BTreeMap<usize, Vec<Problem>>,
    problems_changed: bool,
    timing: Timing,
    restore: Restore,
    whose: Identity,
    state: PathBuf,
    run: PathBuf,
    /// What was enforced when this agent got the node; before that nothing saved is of use.
    enforced: Option<Enforced>,
}

impl KubernetesSource {
    /// Begins to watch, as the agent of a node. What was saved is there for the case that the
    /// server is not. Must be called within a runtime.
    #[must_use]
    pub(crate) fn start(
        api: &ApiServer,
        node: &str,
        places: Places<'_>,
        timing: Timing,
        chance: &mut Chance,
    ) -> Self {
        let whose = Identity::here(node, api);
        let (out, messages) = mpsc::channel(QUEUE);
        let (catch_up, asked) = signal::channel(0);
        let watches = resource::all(node);
        let mut tasks = JoinSet::new();
        for (number, watch) in watches.iter().enumerate() {
            let chance = Chance::new(chance.next());
            let (watch, asked) = ((number, watch.clone()), asked.clone());
            let watcher = Watcher::new(api.clone(), watch, timing, chance, out.clone(), asked);
            tasks.spawn(watcher.run());
        }
        let width = |kind| if kind == Kind::Pod { Width::Two } else { Width::One };
        Self {
            url: api.url().to_owned(),
            watches: watches.into_iter().map(|watch| (watch, Health::default())).collect(),
            _tasks: tasks,
            messages,
            arrived: Vec::new(),
            catch_up,
            objects: Kind::ALL.map(|kind| (kind, Lanes::new(width(kind)))).into(),
            staged: Some(Staged::default()),
            policies: BTreeMap::new(),
            events: Vec::new(),
            problems: BTreeMap::new(),
            nameless: BTreeMap::new(),
            problems_changed: false,
            timing,
            restore: Restore::Waiting { until: Instant::now() + timing.patience },
            whose,
            state: places.state.to_owned(),
            run: places.run.to_owned(),
            enforced: None,
        }
    }

    /// The agent has the node: from now on what was saved may come into force.
    pub fn begin(&mut self, enforced: Enforced) {
        self.enforced = Some(enforced);
    }

    /// The node whose agent this is.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.whose.node
    }

    /// Whose state is to be saved.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.whose
    }

    /// Waits until something may have changed: then call [`Self::refresh`]. Safe to be dropped at
    /// any await.
    pub async fn changed(&mut self) {
        if !self.arrived.is_empty() {
            return;
        }
        let due = self.restore.due().filter(|_| self.enforced.is_some());
        tokio::select! {
            // The watches never end before their receiver.
            Some(message) = self.messages.recv() => self.arrived.push(message),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            else => std::future::pending().await,
        }
    }

    /// Takes what has come.
    pub fn refresh(&mut self) -> SourceUpdate {
        for message in std::mem::take(&mut self.arrived) {
            self.take(message);
        }
        while let Ok(message) = self.messages.try_recv() {
            self.take(message);
        }
        let mut update = SourceUpdate { settled: true, ..SourceUpdate::default() };
        if self.staged.is_some() && self.is_complete() {
            self.bring_first();
        }
        if self.staged.is_none() {
            update.events = std::mem::take(&mut self.events);
        } else {
            update.events = self.restore();
        }
        update.changed = !update.events.is_empty() || std::mem::take(&mut self.problems_changed);
        let problems = self.problems.values().chain(self.nameless.values());
        update.problems = problems.flatten().cloned().collect();
        update
    }

    /// Whether every watch has brought a whole list: verdicts depend on all of them.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.staged.is_none()
    }

    /// Whether some watch has heard of the server and none is in trouble.
    #[must_use]
    pub fn is_in_contact(&self) -> bool {
        self.is_live() && self.watches.iter().all(|(_, health)| health.trouble().is_none())
    }

    /// The policies in force, to be written as the API has them.
    pub fn policies(&self) -> impl Iterator<Item = impl Serialize> {
        self.policies.values()
    }

    /// The UID of a policy in force.
    #[must_use]
    pub fn policy_uid(&self, namespace: &str, name: &str) -> Option<String> {
        let key = ObjectKey { namespace: namespace.into(), name: name.into() };
        self.policies.get(&key)?.uid().map(str::to_owned)
    }

    /// Asks every watch to be as far as the server is now. Returns the number for
    /// [`Self::awaited`].
    pub fn catch_up(&mut self) -> u64 {
        let mut request = 0;
        self.catch_up.send_modify(|last| {
            *last += 1;
            request = *last;
        });
        request
    }

    /// What is still to come of a request to catch up; `None` if nothing is.
    #[must_use]
    pub fn awaited(&self, request: u64) -> Option<String> {
        let (watch, health) = self.watches.iter().find(|(_, health)| health.caught_up < request)?;
        Some(match health.trouble() {
            Some(sentence) => format!("{} are not read: {sentence}", watch.name),
            None => format!("the watch of {} is not as far as the API server yet", watch.name),
        })
    }

    /// What keeps the first list of all from being complete.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        let (watch, health) = self.watches.iter().find(|(_, health)| !health.complete)?;
        Some(match health.trouble() {
            Some(sentence) => format!("{} are not read: {sentence}", watch.name),
            None => format!("{} are being listed", watch.name),
        })
    }

    /// When what was saved was last known to be true, if it is in force.
    #[must_use]
    pub fn saved(&self) -> Option<SystemTime> {
        self.restore.in_force()
    }

    /// For the status.
    #[must_use]
    pub fn report(&self) -> SourceReport {
        let saved = self.saved();
        let watches = self.watches.iter();
        SourceReport {
            kind: SourceKind::Kubernetes,
            location: self.url.clone(),
            state: health::state(self.is_live(), saved.is_some()),
            confirmed: saved.map(health::time),
            watches: watches
                .map(|(watch, health)| {
                    let objects = self.objects.get(&watch.kind).map_or(0, Lanes::len);
                    health.report(watch, objects)
                })
                .collect(),
        }
    }

    /// Says what is wrong with a watch, once if it is the same with all.
    fn tell_trouble(&self, number: usize) {
        let Some((watch, health)) = self.watches.get(number) else { return };
        let Some(sentence) = health.trouble() else { return };
        let mut others = self.watches.iter().enumerate().filter(|(other, _)| *other != number);
        if others.any(|(_, (_, health))| health.trouble() == Some(sentence)) {
            tracing::debug!(watch = watch.name, "{sentence}");
        } else {
            tracing::warn!(watch = watch.name, "{sentence}");
        }
    }

    fn is_complete(&self) -> bool {
        self.watches.iter().all(|(_, health)| health.complete)
    }

    /// What was saved comes into force, or a part of it goes.
    fn restore(&mut self) -> Vec<Event> {
        let Some(enforced) = self.enforced else { return Vec::new() };
        let before = self.restore.in_force();
        let mut restore = std::mem::replace(&mut self.restore, Restore::Nothing);
        let (now, wall) = (Instant::now(), SystemTime::now());
        let events = restore.take(now, wall, self.timing.remote, || self.read(enforced));
        self.restore = restore;
        match (before, self.restore.in_force()) {
            (None, Some(confirmed)) => tracing::warn!(
                "the API server has not been read: what was saved is enforced, as of {}; {}",
                health::time(confirmed),
                self.missing().unwrap_or_default()
            ),
            (Some(_), _) if !events.is_empty() => tracing::warn!(
                pods = events.len(),
                "the addresses of other nodes' pods that were saved are too old: they match no \
                 selector any more"
            ),
            _ => {}
        }
        events
    }

    /// What was saved, as far as nothing newer is in force.
    fn read(&self, enforced: Enforced) -> Option<Saved> {
        let saved = saved::read(&self.state, &self.whose).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            None
        })?;
        match (unsaved::read(&self.run, &self.whose.boot), enforced) {
            (Unsaved::Nothing, _) => Some(saved),
            (Unsaved::Pods(pods), _) => Some(saved.without(&pods)),
            (Unsaved::Everything, Enforced::Something) => {
                tracing::warn!(
                    "the API server has not been read, and what was saved is older than what is \
                     enforced: that stays; {}",
                    self.missing().unwrap_or_default()
                );
                None
            }
            // It is better than nothing.
            (Unsaved::Everything, Enforced::Nothing) => Some(saved),
        }
    }

    /// The first list of all, and what has come besides.
    fn bring_first(&mut self) {
        let Some(Staged { pods, namespaces, policies }) = self.staged.take() else { return };
        let undo = self.restore.end();
        let relist = Event::Relist {
            pods: pods.into_values().collect(),
            namespaces: namespaces.into_values().collect(),
            policies: policies.into_values().map(|policy| *policy).collect(),
        };
        // What the server has told of Services comes after.
        self.events.splice(0..0, [relist].into_iter().chain(undo));
    }

    fn take(&mut self, message: Message) {
        let Message { watch: number, at, news } = message;
        let Some((watch, health)) = self.watches.get_mut(number) else { return };
        if let News::Failed { error, verb } = &news {
            if health.failed(watch, verb, error, at) {
                self.tell_trouble(number);
            }
            return;
        }
        let healed = health.contact(at);
        health.complete |= matches!(news, News::Listed { .. });
        if let News::CaughtUp { request } = news {
            health.caught_up = request;
            return;
        }
        let (kind, lane) = (watch.kind, watch.lane);
        if healed && self.watches.iter().all(|(_, health)| health.trouble().is_none()) {
            tracing::info!("the API server tells all changes again");
        }
        let Some(mut lanes) = self.objects.remove(&kind) else { return };
        match news {
            News::Listed { items, nameless, version } => {
                self.set_nameless(number, nameless);
                let versions = items.iter().map(|item| (&item.key, item.version));
                lanes.listing(lane, versions, version);
                let mut listed = HashSet::with_capacity(items.len());
                for item in items {
                    listed.insert(item.key.clone());
                    if lanes.applied(lane, &item.key, item.version) == Word::News {
                        self.apply(kind, item, &mut lanes);
                    }
                }
                for key in lanes.listed(lane, &listed, version) {
                    self.delete(kind, key);
                }
            }
            News::Applied(item) => {
                if lanes.applied(lane, &item.key, item.version) == Word::News {
                    self.apply(kind, *item, &mut lanes);
                }
            }
            News::Deleted(item) => {
                if lanes.deleted(lane, &item.key, item.version) {
                    self.delete(kind, item.key);
                }
            }
            News::Nameless(problem) => {
                let mut all = self.nameless.get(&number).cloned().unwrap_or_default();
                if !all.contains(&problem) {
                    all.push(*problem);
                }
                self.set_nameless(number, all);
            }
            News::Seen { version } => lanes.seen(lane, version),
            News::CaughtUp { .. } | News::Failed { .. } => {}
        }
        self.objects.insert(kind, lanes);
    }

    fn set_nameless(&mut self, number: usize, problems: Vec<Problem>) {
        let before = if problems.is_empty() {
            self.nameless.remove(&number)
        } else {
            self.nameless.insert(number, problems)
        };
        self.problems_changed |= before.as_ref() != self.nameless.get(&number);
    }

    fn apply(&mut self, kind: Kind, item: Item, lanes: &mut Lanes) {
        let Item { key, object, closed, .. } = item;
        let keeps = lanes.understood(&key, object.is_ok());
        let before = match &object {
            Ok(_) => self.problems.remove(&(kind, key.clone())),
            Err(problems) => {
                let problem = |one: &Problem| {
                    let mut problem = one.clone().keeping(keeps);
                    if closed.is_some() && !keeps {
                        problem
                            .reason
                            .push_str("; the policy is in force, and this allows nothing");
                    }
                    problem
                };
                let problems = problems.iter().map(problem).collect();
                self.problems.insert((kind, key.clone()), problems)
            }
        };
        self.problems_changed |= before.is_some() || object.is_err();
        let Some(object) = object.ok().or(closed.filter(|_| !keeps)) else { return };
        match (object, &mut self.staged) {
            (Object::Namespace(namespace), Some(staged)) => {
                staged.namespaces.insert(Arc::clone(&namespace.name), namespace);
            }
            (Object::Namespace(namespace), None) => {
                self.events.push(Event::NamespaceApplied(namespace));
            }
            (Object::Pod(pod), Some(staged)) => drop(staged.pods.insert(pod.key.clone(), pod)),
            (Object::Pod(pod), None) => self.events.push(Event::PodApplied(pod)),
            (Object::NetworkPolicy(policy), staged) => {
                self.policies.insert(key.clone(), Kept::of(&policy));
                match staged {
                    Some(staged) => drop(staged.policies.insert(key, policy)),
                    None => self.events.push(Event::PolicyApplied(policy)),
                }
            }
            (Object::Node(node), _) => self.events.push(Event::NodeApplied(node)),
            (Object::Service(service), _) => self.events.push(Event::ServiceApplied(service)),
            (Object::EndpointSlice(slice), _) => self.events.push(Event::SliceApplied(slice)),
        }
    }

    fn delete(&mut self, kind: Kind, key: ObjectKey) {
        self.problems_changed |= self.problems.remove(&(kind, key.clone())).is_some();
        let event = match (kind, &mut self.staged) {
            (Kind::Namespace, Some(staged)) => {
                staged.namespaces.remove(&key.name);
                return;
            }
            (Kind::Pod, Some(staged)) => {
                staged.pods.remove(&key);
                return;
            }
            (Kind::NetworkPolicy, staged) => {
                self.policies.remove(&key);
                if let Some(staged) = staged {
                    staged.policies.remove(&key);
                    return;
                }
                Event::PolicyDeleted(key)
            }
            (Kind::Namespace, None) => Event::NamespaceDeleted(key.name),
            (Kind::Pod, None) => Event::PodDeleted(key),
            (Kind::Node, _) => Event::NodeDeleted(key.name),
            (Kind::Service, _) => Event::ServiceDeleted(key),
            (Kind::EndpointSlice, _) => Event::SliceDeleted(key),
        };
        self.events.push(event);
    }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod saved_tests;
#[cfg(test)]
mod tests;
