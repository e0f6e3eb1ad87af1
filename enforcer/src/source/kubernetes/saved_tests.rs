//! What was saved, while the API server is not there.

use super::fake::{Fake, Fault};
use std::{collections::BTreeSet, time::Duration};

use super::{tests::*, *};
use crate::{
    cluster::event::{EndpointSlice, EndpointsFrom, Service, SessionAffinity, TrafficPolicy},
    source::report::{SourceState, WatchState},
};

fn saved_key(name: &str) -> ObjectKey {
    ObjectKey { namespace: "n".into(), name: name.into() }
}

fn service(name: &str) -> Service {
    Service {
        key: saved_key(name),
        cluster_ips: vec![[10, 96, 0, 1].into()],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        ports: Vec::new(),
        endpoints_from: EndpointsFrom::Elsewhere,
        headless: false,
        affinity: SessionAffinity::None,
        external_traffic: TrafficPolicy::Cluster,
        internal_traffic: TrafficPolicy::Cluster,
    }
}

fn slice(name: &str) -> EndpointSlice {
    EndpointSlice {
        key: saved_key(name),
        service: Some("old".into()),
        ports: Vec::new(),
        endpoints: Vec::new(),
    }
}

/// State that an agent saved: pods `here` of this node and `there` of another, and a policy.
fn saved_state(fake: &Fake) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let pod = |name: &str, node: &str| {
        let object = pod(name, node, "Running");
        Arc::new(
            crate::source::pod::pod(&object, &mut crate::source::shared::Shared::default())
                .unwrap(),
        )
    };
    let remembered = crate::cluster::Remembered {
        namespaces: vec![("n".into(), Arc::default())],
        local: vec![pod("here", NODE)],
        remote: vec![pod("there", "w2")],
        services: vec![service("old"), service("s")],
        slices: vec![slice("old-x")],
    };
    let policy: NetworkPolicy = serde_json::from_value(policy("saved")).unwrap();
    let whose = Identity::here(NODE, &fake.api());
    let content = saved::encode(&whose, [policy].iter(), &remembered).unwrap();
    saved::write(dir.path(), &content).unwrap();
    dir
}

#[tokio::test]
async fn without_a_server_what_was_saved_comes_into_force_until_it_is_back() {
    let fake = cluster().await;
    for watch in ["pods", "networkpolicies"] {
        (0..1000).for_each(|_| fake.fault(watch, Fault::Status(503, "starting")));
    }
    let state = saved_state(&fake);
    let mut client = Client::with_state(&fake, quick(), at(state.path()), Enforced::Nothing);
    client.take();
    assert_eq!((client.relists, client.source.saved()), (0, None), "it is waited for the server");
    client.until("saved state", |c| c.source.saved().is_some()).await;
    assert_eq!((client.relists, client.names()), (1, vec!["here", "there"]));
    assert!(client.policies.contains("saved") && !client.source.is_live());
    assert_eq!(client.source.report().state, SourceState::Saved);
    // What some watches have seen does not mix with it.
    client.until("services", |c| c.state("services").0 == WatchState::Complete).await;
    fake.put(PODS, pod("new", NODE, "Running"));
    fake.state().forgive("pods");
    client.until("pods", |c| c.state("pods").0 == WatchState::Complete).await;
    assert!(!client.pods.contains_key("new"));
    assert_eq!(client.services, BTreeSet::from(["old", "old-x", "s"].map(str::to_owned)));
    fake.state().forgive("networkpolicies");
    client.until("live", |c| c.source.is_live()).await;
    assert_eq!(client.names(), ["here", "new", "there"]);
    assert_eq!(client.policies, BTreeSet::from(["deny".to_owned()]));
    assert_eq!((client.relists, client.source.saved()), (2, None));
    // Of what was saved nothing stays that the server does not know; what it knows is as it says.
    assert_eq!(client.services, BTreeSet::from(["s".to_owned()]));
}

#[tokio::test]
async fn a_server_that_is_there_is_faster_than_what_was_saved() {
    let fake = cluster().await;
    let state = saved_state(&fake);
    let timing = Timing { patience: PATIENCE, ..quick() };
    let mut client = Client::with_state(&fake, timing, at(state.path()), Enforced::Nothing);
    client.until("live", |c| c.source.is_live()).await;
    assert_eq!((client.relists, client.policies.contains("saved")), (1, false));
}

#[tokio::test]
async fn saved_addresses_of_other_nodes_end() {
    let fake = cluster().await;
    (0..1000).for_each(|_| fake.fault("pods", Fault::Status(503, "starting")));
    let state = saved_state(&fake);
    let timing = Timing { remote: Duration::from_secs(2), ..quick() };
    let mut client = Client::with_state(&fake, timing, at(state.path()), Enforced::Nothing);
    client.until("saved state", |c| c.names() == ["here", "there"]).await;
    client.until("too old", |c| c.names() == ["here"]).await;
    assert!(client.source.saved().is_some());
}

/// Pods of which something else is in force, and what was saved at all.
#[tokio::test]
async fn what_was_saved_does_not_take_back_what_is_in_force() {
    let key = ObjectKey { namespace: "n".into(), name: "there".into() };
    let pods = Unsaved::Pods([key].into());
    for (noted, enforced, expected) in [
        (pods.clone(), Enforced::Something, Some(vec!["here"])),
        (pods, Enforced::Nothing, Some(vec!["here"])),
        (Unsaved::Everything, Enforced::Something, None),
        (Unsaved::Everything, Enforced::Nothing, Some(vec!["here", "there"])),
    ] {
        let fake = cluster().await;
        (0..1000).for_each(|_| fake.fault("pods", Fault::Status(503, "starting")));
        let state = saved_state(&fake);
        let boot = Identity::here(NODE, &fake.api()).boot;
        let mut journal = unsaved::Journal::open(state.path(), state.path(), &boot);
        let mut client = Client::with_state(&fake, quick(), at(state.path()), enforced);
        // Also what is noted after this agent has started: it may be another that has the node.
        journal.note(noted.clone());
        let over = |c: &Client| c.source.saved().is_some() || c.source.restore.due().is_none();
        client.until("decided", over).await;
        assert_eq!((expected.is_some()).then(|| client.names()), expected, "{noted:?}");
        assert_eq!(client.source.saved().is_some(), expected.is_some(), "{noted:?} {enforced:?}");
        assert_eq!(client.policies.contains("saved"), expected.is_some());
        fake.state().forgive("pods");
        client.until("live", |c| c.source.is_live()).await;
        assert_eq!(client.names(), ["here", "there"]);
    }
}

/// Before it has the node an agent brings nothing saved into force: its owner goes on saving.
#[tokio::test]
async fn who_has_not_the_node_leaves_what_was_saved() {
    let fake = cluster().await;
    (0..1000).for_each(|_| fake.fault("pods", Fault::Status(503, "starting")));
    let state = saved_state(&fake);
    let timing = Timing { patience: Duration::ZERO, ..quick() };
    let mut client = Client::with_state(&fake, timing, at(state.path()), Enforced::Nothing);
    client.source.enforced = None;
    client.until("tried", |c| c.state("pods").0 == WatchState::Failing).await;
    assert_eq!((client.relists, client.source.saved()), (0, None));
    client.source.begin(Enforced::Something);
    client.until("saved state", |c| c.source.saved().is_some()).await;
    assert_eq!(client.relists, 1);
}
