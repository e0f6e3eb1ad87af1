//! The source against an API server that misbehaves as it is told.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    fake::{Fake, Fault},
    *,
};
use crate::source::report::WatchState;

const NAMESPACES: &str = "/api/v1/namespaces";
pub(super) const PODS: &str = "/api/v1/pods";
const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";
const SERVICES: &str = "/api/v1/services";
pub(super) const NODE: &str = "w1";

/// Long enough for a slow machine; nothing waits for it where all is well.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn quick() -> Timing {
    Timing {
        watch: Duration::from_secs(20),
        slack: Duration::from_millis(300),
        answer: Duration::from_secs(5),
        piece: Duration::from_millis(500),
        wait: Duration::from_millis(10),
        longest_wait: Duration::from_millis(50),
        start: Duration::ZERO,
        hurry: Duration::from_secs(1),
        catch_up: Duration::from_millis(300),
        outage: PATIENCE,
        few: 1000,
        patience: Duration::from_millis(300),
        remote: Duration::from_secs(600),
    }
}

pub(super) fn pod(name: &str, node: &str, phase: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "n", "uid": format!("uid-{name}")},
           "spec": {"nodeName": node}, "status": {"phase": phase}})
}

pub(super) fn policy(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"podSelector": {}}})
}

fn namespace(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"a": "b"}}})
}

/// Where things are saved.
pub(super) fn at(dir: &Path) -> Places<'_> {
    Places { state: dir, run: dir }
}

/// No state is saved here.
fn nowhere() -> Places<'static> {
    at(Path::new("/nonexistent"))
}

/// A source, and what its events add up to.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) source: KubernetesSource,
    pub(super) pods: BTreeMap<String, Pod>,
    pub(super) policies: BTreeSet<String>,
    pub(super) namespaces: BTreeSet<String>,
    pub(super) services: BTreeSet<String>,
    pub(super) problems: Vec<String>,
    pub(super) relists: usize,
    pub(super) events: usize,
}

impl Client {
    pub(super) fn new(fake: &Fake, timing: Timing) -> Self {
        Self::with_state(fake, timing, nowhere(), Enforced::Nothing)
    }

    pub(super) fn with_state(
        fake: &Fake,
        timing: Timing,
        places: Places<'_>,
        enforced: Enforced,
    ) -> Self {
        let chance = &mut Chance::new(7);
        let mut source = KubernetesSource::start(&fake.api(), NODE, places, timing, chance);
        source.begin(enforced);
        Self {
            source,
            pods: BTreeMap::new(),
            policies: BTreeSet::new(),
            namespaces: BTreeSet::new(),
            services: BTreeSet::new(),
            problems: Vec::new(),
            relists: 0,
            events: 0,
        }
    }

    pub(super) async fn live(fake: &Fake) -> Self {
        let mut client = Self::new(fake, quick());
        client.until("live", |c| c.source.is_live()).await;
        client
            .until("all watched", |c| c.source.watches.iter().all(|(_, health)| health.complete))
            .await;
        client
    }

    pub(super) fn take(&mut self) {
        let update = self.source.refresh();
        self.problems = update.problems.iter().map(ToString::to_string).collect();
        self.events += update.events.len();
        for event in update.events {
            match event {
                Event::Relist { pods, namespaces, policies } => {
                    self.relists += 1;
                    self.pods =
                        pods.into_iter().map(|pod| (pod.key.name.to_string(), pod)).collect();
                    self.namespaces = namespaces.iter().map(|one| one.name.to_string()).collect();
                    self.policies =
                        policies.into_iter().filter_map(|one| one.metadata.name).collect();
                }
                Event::PodApplied(pod) => {
                    self.pods.insert(pod.key.name.to_string(), pod);
                }
                Event::PodDeleted(key) => {
                    assert!(self.pods.remove(&*key.name).is_some(), "{key:?}");
                }
                Event::NamespaceApplied(one) => drop(self.namespaces.insert(one.name.to_string())),
                Event::NamespaceDeleted(name) => assert!(self.namespaces.remove(&*name)),
                Event::PolicyApplied(one) => drop(self.policies.insert(one.metadata.name.unwrap())),
                Event::PolicyDeleted(key) => assert!(self.policies.remove(&*key.name)),
                Event::ServiceApplied(one) => drop(self.services.insert(one.key.name.to_string())),
                Event::ServiceDeleted(key) | Event::SliceDeleted(key) => {
                    assert!(self.services.remove(&*key.name));
                }
                Event::SliceApplied(one) => drop(self.services.insert(one.key.name.to_string())),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Follows the source until this holds.
    pub(super) async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        self.take();
        while !holds(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what}: {:?}", self.source.report());
            if tokio::time::timeout(left, self.source.changed()).await.is_ok() {
                self.take();
            }
        }
    }

    /// Follows the source until a barrier is reached.
    pub(super) async fn caught_up(&mut self) {
        let request = self.source.catch_up();
        self.until("caught up", |c| c.source.awaited(request).is_none()).await;
    }

    pub(super) fn state(&self, watch: &str) -> (WatchState, String) {
        let report = self.source.report();
        let one = report.watches.into_iter().find(|one| one.resource == watch).unwrap();
        (one.state, one.reason.unwrap_or_default())
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.pods.keys().map(String::as_str).collect()
    }
}

/// A cluster with a few objects.
pub(super) async fn cluster() -> Fake {
    let fake = Fake::start().await;
    fake.put(NAMESPACES, namespace("n"));
    fake.put(PODS, pod("here", NODE, "Running"));
    fake.put(PODS, pod("there", "w2", "Running"));
    fake.put(PODS, pod("done", "w2", "Succeeded"));
    fake.put(POLICIES, policy("deny"));
    fake.put(SERVICES, json!({"metadata": {"name": "s", "namespace": "n"}}));
    fake
}

#[tokio::test]
async fn the_first_list_of_all_comes_at_once_and_changes_follow() {
    let fake = cluster().await;
    fake.fault("networkpolicies", Fault::Status(503, "not yet"));
    fake.fault("networkpolicies", Fault::Status(503, "not yet"));
    let mut client = Client::live(&fake).await;
    assert_eq!((client.relists, client.names()), (1, vec!["here", "there"]));
    assert!(client.policies.contains("deny") && client.namespaces.contains("n"));
    assert!(client.services.contains("s"));

    fake.put(PODS, pod("new", "w3", "Running"));
    fake.delete(PODS, "n/there");
    fake.put(POLICIES, policy("more"));
    fake.delete(POLICIES, "n/deny");
    client.until("changes", |c| c.pods.contains_key("new") && !c.policies.contains("deny")).await;
    assert_eq!(client.names(), ["here", "new"]);
    assert_eq!(client.policies, BTreeSet::from(["more".to_owned()]));
    assert_eq!(client.relists, 1);
    assert_eq!(client.source.policies().count(), 1);
}

#[tokio::test]
async fn nothing_is_told_while_a_list_is_missing() {
    let fake = cluster().await;
    for _ in 0..1000 {
        fake.fault("pods", Fault::Status(403, "pods is forbidden: User \"x\" cannot watch"));
    }
    let mut client = Client::new(&fake, quick());
    client.until("refused", |c| c.state("pods").0 == WatchState::Failing).await;
    client.until("others", |c| c.state("services").0 == WatchState::Complete).await;
    assert_eq!((client.events, client.source.is_live()), (0, false));
    let missing = client.source.missing().unwrap();
    assert!(missing.starts_with("pods are not read: the agent may not watch pods: "), "{missing}");
    fake.state().forgive("pods");
    client.until("live", |c| c.source.is_live()).await;
    assert_eq!(client.relists, 1);
}

#[tokio::test]
async fn nothing_is_told_before_virtual_addresses_are_known() {
    for kind in ["nodes", "services", "endpointslices"] {
        let fake = cluster().await;
        for _ in 0..1000 {
            fake.fault(kind, Fault::Status(404, "the server could not find it"));
        }
        let mut client = Client::new(&fake, quick());
        client.until("refused", |c| c.state(kind).0 == WatchState::Failing).await;
        client.until("others", |c| c.state("pods").0 == WatchState::Complete).await;
        assert_eq!((client.events, client.source.is_live()), (0, false), "{kind}");
        let missing = client.source.missing().unwrap();
        let expected = format!("{kind} are not read: the API server at hand has no {kind}");
        assert!(missing.starts_with(&expected), "{missing}");
        fake.state().forgive(kind);
        client.until("live", |c| c.source.is_live()).await;
        assert!(client.services.contains("s"));
    }
}

#[tokio::test]
async fn servers_without_streamed_lists_are_listed_in_chunks_or_from_their_cache() {
    for code in [422, 500] {
        let fake = Fake::start().await;
        fake.state().old = Some(code);
        for i in 0..1203 {
            fake.put(NAMESPACES, namespace(&format!("n{i}")));
            fake.put(PODS, pod(&format!("p{i}"), "w2", "Running"));
        }
        let client = Client::live(&fake).await;
        assert_eq!((client.pods.len(), client.namespaces.len()), (1203, 1203));
        assert_eq!(fake.requests(&["/namespaces?", "continue="]), 2);
        assert_eq!(fake.requests(&["/namespaces?", "sendInitialEvents"]), 1);
        // Pods may be too many for the server's store: it is only asked how far it is.
        assert_eq!(fake.requests(&["/pods?", "Succeeded", "sendInitialEvents"]), 1);
        assert_eq!(fake.requests(&["/pods?", "Succeeded", "NotOlderThan"]), 2);
        assert_eq!(fake.requests(&["/pods?", "Succeeded", "limit="]), 0);
        assert_eq!(fake.requests(&["/pods?limit=1"]), 2, "one for each watch");
        // Of few objects the cache may never be as far as the store.
        assert_eq!(fake.requests(&["/endpointslices?resourceVersion="]), 0);
        let report = client.source.report();
        assert!(report.watches.iter().all(|watch| watch.failures == 0), "{report:?}");
    }
}

#[tokio::test]
async fn after_missed_changes_what_is_not_listed_is_deleted() {
    let fake = cluster().await;
    let mut client = Client::live(&fake).await;
    for watch in ["pods", "local pods", "networkpolicies", "namespaces"] {
        fake.hold(watch, true);
    }
    fake.delete(PODS, "n/here");
    fake.delete(PODS, "n/there");
    fake.put(PODS, pod("new", "w2", "Running"));
    fake.delete(POLICIES, "n/deny");
    fake.delete(NAMESPACES, "n");
    fake.compact();
    fake.tear();
    client.until("deleted", |c| c.policies.is_empty() && c.namespaces.is_empty()).await;
    client.until("relisted", |c| c.names() == ["new"]).await;
    assert_eq!(client.relists, 1, "differences only");
}

#[tokio::test]
async fn broken_connections_go_on_where_they_were() {
    let fake = cluster().await;
    let mut client = Client::live(&fake).await;
    let lists = fake.requests(&["sendInitialEvents"]);
    for round in 0..3 {
        fake.tear();
        fake.put(PODS, pod(&format!("p{round}"), "w2", "Running"));
        let name = format!("p{round}");
        client.until("followed", |c| c.pods.contains_key(&name)).await;
    }
    assert_eq!(fake.requests(&["sendInitialEvents"]), lists, "no list anew");
    client.until("well again", |c| c.state("pods") == (WatchState::Complete, String::new())).await;
}

#[tokio::test]
async fn a_silent_connection_is_given_up() {
    let fake = cluster().await;
    let mut client = Client::new(&fake, Timing { watch: Duration::from_secs(1), ..quick() });
    client.until("live", |c| c.source.is_live()).await;
    for _ in 0..2 {
        fake.fault("pods", Fault::Silence);
    }
    fake.tear();
    client.until("noticed", |c| c.state("pods").1.contains("sent nothing for")).await;
    assert_eq!(client.names(), ["here", "there"], "what was known stays");
    fake.put(PODS, pod("new", "w2", "Running"));
    client.until("followed", |c| c.pods.contains_key("new")).await;
}

#[tokio::test]
async fn a_list_that_breaks_off_is_not_believed() {
    let fake = cluster().await;
    let half = json!({"type": "ADDED", "object": pod("half", "w2", "Running")}).to_string();
    fake.fault("pods", Fault::Torn(format!("{half}\n{half}")));
    // Then as one answer, which breaks off as well.
    fake.fault("pods", Fault::Torn("{\"items\":[{\"metadata\":{\"name\":\"half\"".to_owned()));
    let client = Client::live(&fake).await;
    assert_eq!(client.names(), ["here", "there"]);
}

#[tokio::test]
async fn what_answers_but_is_no_api_server_is_named() {
    let fake = cluster().await;
    for _ in 0..100 {
        fake.fault("nodes", Fault::Torn("<html>Sign in, please</html>\n".to_owned()));
    }
    let mut client = Client::new(&fake, quick());
    client.until("told", |c| c.state("nodes").1.contains("is no API server")).await;
}

#[tokio::test]
async fn one_bad_object_stops_nothing_and_keeps_its_last_good_state() {
    let fake = cluster().await;
    let mut bad = pod("bad", "w2", "Running");
    bad["spec"]["hostNetwork"] = "yes".into();
    fake.put(PODS, bad.clone());
    let mut client = Client::live(&fake).await;
    assert_eq!(client.names(), ["here", "there"]);
    assert_eq!(client.problems.len(), 1);
    assert!(client.problems[0].starts_with("Pod n/bad: spec.hostNetwork: "));
    let mut was_good = pod("there", "w2", "Running");
    was_good["status"]["podIPs"] = json!([{"ip": "10.0.0.300"}]);
    fake.put(PODS, was_good);
    client.until("second problem", |c| c.problems.len() == 2).await;
    assert!(client.problems[1].ends_with("(the last good state stays in force)"));
    assert_eq!(client.names(), ["here", "there"]);
    // A relist does not take the kept one away, its own end does.
    fake.compact();
    fake.tear();
    client.caught_up().await;
    assert_eq!(client.names(), ["here", "there"]);
    bad["spec"]["hostNetwork"] = true.into();
    fake.put(PODS, bad);
    fake.delete(PODS, "n/there");
    client.until("healed", |c| c.problems.is_empty()).await;
    assert_eq!(client.names(), ["bad", "here"]);
}

#[tokio::test]
async fn a_policy_with_a_mistake_isolates_all_the_same() {
    let fake = cluster().await;
    let odd = |name: &str| {
        let mut odd = policy(name);
        odd["spec"]["ingress"] = json!([{"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}]);
        odd
    };
    fake.put(POLICIES, odd("new"));
    let mut client = Client::live(&fake).await;
    assert!(client.policies.contains("new"));
    assert!(client.problems[0].ends_with("in force, and this allows nothing"), "{client:?}");
    let events = client.events;
    fake.put(POLICIES, odd("deny"));
    client.until("second", |c| c.problems.len() == 2).await;
    assert!(client.problems[0].ends_with("(the last good state stays in force)"), "{client:?}");
    assert_eq!(client.events, events);
}

#[tokio::test]
async fn a_finished_pod_of_this_node_is_told_as_finished() {
    let fake = cluster().await;
    let mut client = Client::live(&fake).await;
    // The general watch is first.
    fake.hold("local pods", true);
    fake.put(PODS, pod("here", NODE, "Succeeded"));
    fake.put(PODS, pod("there", "w2", "Failed"));
    client.until("gone", |c| !c.pods.contains_key("there")).await;
    assert!(!client.pods["here"].finished);
    fake.hold("local pods", false);
    client.until("finished", |c| c.pods["here"].finished).await;
    fake.delete(PODS, "n/here");
    client.until("deleted", |c| c.pods.is_empty()).await;
}

#[tokio::test]
async fn the_local_watch_is_believed_before_the_general_one() {
    let fake = cluster().await;
    let mut client = Client::live(&fake).await;
    fake.hold("pods", true);
    fake.put(PODS, pod("fast", NODE, "Pending"));
    client.until("fast", |c| c.pods.contains_key("fast")).await;
    fake.delete(PODS, "n/fast");
    client.until("deleted", |c| !c.pods.contains_key("fast")).await;
    let events = client.events;
    fake.hold("pods", false);
    fake.put(PODS, pod("last", "w2", "Running"));
    client.until("followed", |c| c.pods.contains_key("last")).await;
    assert_eq!(client.events, events + 1, "the old words about the deleted pod say nothing");
    assert_eq!(client.names(), ["here", "last", "there"]);
}

#[tokio::test]
async fn a_barrier_lists_few_objects_anew() {
    let fake = cluster().await;
    let mut client = Client::live(&fake).await;
    for watch in ["pods", "local pods", "networkpolicies"] {
        fake.hold(watch, true);
    }
    fake.put(PODS, pod("unseen", "w2", "Running"));
    fake.put(POLICIES, policy("unseen"));
    client.caught_up().await;
    assert!(client.pods.contains_key("unseen") && client.policies.contains("unseen"));
}

#[tokio::test]
async fn a_barrier_waits_for_bookmarks_where_there_is_much() {
    let fake = cluster().await;
    fake.state().bookmarks = true;
    let mut client = Client::new(&fake, Timing { few: 0, ..quick() });
    client.until("live", |c| c.source.is_live()).await;
    fake.put(PODS, pod("new", "w2", "Running"));
    fake.pass();
    client.caught_up().await;
    assert!(client.pods.contains_key("new"));
    assert_eq!(fake.requests(&["/pods?", "sendInitialEvents"]), 2, "no list anew");
    assert_eq!(fake.requests(&["/pods?", "limit=1"]), 2);
}

#[tokio::test]
async fn a_barrier_without_bookmarks_lists_in_the_end() {
    let fake = cluster().await;
    let mut client = Client::new(&fake, Timing { few: 0, ..quick() });
    client.until("live", |c| c.source.is_live()).await;
    fake.pass();
    let lists = fake.requests(&["sendInitialEvents"]);
    client.caught_up().await;
    assert!(fake.requests(&["sendInitialEvents"]) > lists);
}

#[tokio::test]
async fn barriers_one_after_the_other_do_not_keep_each_other_waiting() {
    let fake = cluster().await;
    let mut client = Client::new(&fake, Timing { few: 0, ..quick() });
    client.until("live", |c| c.source.is_live()).await;
    // No server tells of it: nothing of these kinds has changed.
    fake.pass();
    let first = client.source.catch_up();
    let deadline = Instant::now() + PATIENCE;
    while let Some(awaited) = client.source.awaited(first) {
        assert!(Instant::now() < deadline, "{awaited}");
        client.source.catch_up();
        let soon = Duration::from_millis(50);
        if tokio::time::timeout(soon, client.source.changed()).await.is_ok() {
            client.take();
        }
    }
}

#[tokio::test]
async fn a_barrier_says_what_keeps_it() {
    let fake = cluster().await;
    let mut client = Client::live(&fake).await;
    for _ in 0..1000 {
        fake.fault("networkpolicies", Fault::Status(401, "Unauthorized"));
    }
    fake.tear();
    let request = client.source.catch_up();
    client
        .until("refused", |c| {
            c.source.awaited(request).is_some_and(|why| why.contains("our credentials"))
        })
        .await;
    assert!(client.source.is_live() && !client.source.is_in_contact());
    assert_eq!(client.names(), ["here", "there"], "what was known stays");
}

#[tokio::test]
async fn a_server_set_back_by_a_backup_is_believed() {
    let fake = cluster().await;
    for _ in 0..50 {
        fake.pass();
    }
    fake.put(PODS, pod("late", "w2", "Running"));
    let mut client = Client::live(&fake).await;
    assert!(client.pods.contains_key("late"));
    // As after a restore: versions are smaller and the last objects never were. A watch from a
    // version to come is taken, and tells nothing but bookmarks.
    fake.state().restore(20);
    fake.state().bookmarks = true;
    fake.tear();
    client.until("set back", |c| !c.pods.contains_key("late")).await;
    fake.put(PODS, pod("here", NODE, "Failed"));
    client.until("followed", |c| c.pods["here"].finished).await;
}

/// What a former agent has enforced already is not taken back because a server's cache is behind.
#[tokio::test]
async fn the_first_list_is_as_of_now_though_the_servers_cache_is_not() {
    for old in [None, Some(422)] {
        let fake = cluster().await;
        fake.state().old = old;
        fake.put(PODS, pod("kept", "w2", "Running"));
        fake.freeze_cache();
        fake.delete(POLICIES, "n/deny");
        fake.put(POLICIES, policy("late"));
        fake.put(PODS, pod("here", NODE, "Failed"));
        fake.delete(PODS, "n/there");
        let mut client = Client::new(&fake, quick());
        client.until("live", |c| c.source.is_live()).await;
        assert_eq!(client.policies, BTreeSet::from(["late".to_owned()]), "{old:?}");
        assert_eq!(client.names(), ["here", "kept"], "{old:?}");
        assert!(client.pods["here"].finished);
    }
}

/// The versions are past those that were known, and yet it is another past.
#[tokio::test]
async fn a_server_set_back_that_went_on_unseen_is_believed() {
    let fake = cluster().await;
    let before = fake.state().version();
    let mut changed = policy("deny");
    changed["spec"]["podSelector"] = json!({"matchLabels": {"a": "b"}});
    fake.put(POLICIES, changed);
    fake.put(POLICIES, policy("lost"));
    let timing = Timing { outage: Duration::ZERO, ..quick() };
    let mut client = Client::new(&fake, timing);
    client.until("live", |c| c.source.is_live()).await;
    client.until("known", |c| c.policies.contains("lost")).await;
    fake.state().restore(before);
    (0..9).for_each(|_| fake.pass());
    for _ in 0..2 {
        fake.fault("networkpolicies", Fault::Status(503, "starting"));
    }
    fake.tear();
    client.until("set back", |c| !c.policies.contains("lost")).await;
    let deny = client.source.policies().next().unwrap();
    let deny = serde_json::to_value(deny).unwrap();
    assert_eq!(deny["spec"]["podSelector"], json!({}));
}

#[tokio::test]
async fn no_server_is_a_sentence_and_its_return_is_noticed() {
    let unused = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = unused.local_addr().unwrap().port();
    drop(unused);
    let url = format!("http://127.0.0.1:{port}").parse().unwrap();
    let api = ApiServer::new(kube::Config::new(url)).unwrap();
    let mut source = KubernetesSource::start(&api, NODE, nowhere(), quick(), &mut Chance::new(7));
    let deadline = Instant::now() + PATIENCE;
    while !source.missing().is_some_and(|why| why.contains("no API server answers at")) {
        assert!(Instant::now() < deadline);
        source.changed().await;
        source.refresh();
    }
}
