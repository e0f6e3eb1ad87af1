//! Coming, staying, going and coming back.

use super::{runtime::TIMEOUT, *};
use crate::gate::{
    proto::{Empty, RunPodSandboxRequest, StateChangeEvent},
    sandbox::tests::pod,
    ttrpc::Status,
};

const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn registers_asks_for_one_event_and_hears_what_runs() {
    let mut lab = Lab::before(Runtime::listening(), PATIENCE);
    let mut talk = lab.runtime.accept().await;
    let who = talk.registration().await;
    assert_eq!((who.plugin_name.as_str(), who.plugin_idx.as_str()), ("enforcer", "00"));
    talk.registered(None).await;
    // Field 2: event 1 only. Field 3: {1: fail the request, 2: keep the plugin}.
    assert_eq!(talk.configure().await, b"\x10\x01\x1a\x04\x08\x01\x10\x01");
    let own = [("network", "/var/run/netns/a")];
    let first = (0..50).map(|n| pod(&format!("web-{n}"), &["10.0.0.7"], &own)).collect();
    assert_eq!(talk.synchronize(first, true).await, b"\x10\x01", "more, in field 2");
    assert_eq!(talk.synchronize(vec![pod("db", &["nonsense"], &own)], true).await, b"\x10\x01");
    assert!(!lab.status.borrow().connected, "more is to come");
    assert_eq!(talk.synchronize(vec![pod("proxy", &[], &[("pid", "")])], false).await, b"");
    let status = lab.until("connected", |status| status.connected).await;
    assert_eq!(status.runtime.as_deref(), Some("fake v2"));
    assert_eq!(status.last_error, None);
    let running = lab.arming.running.lock().unwrap().clone();
    let names: Vec<&str> = running[0].iter().map(|sandbox| &*sandbox.pod.name).collect();
    assert_eq!((running.len(), names.len()), (1, 51), "all parts as one, without what is odd");
    assert_eq!((names[0], names[49], names[50]), ("web-0", "web-49", "proxy"));
    assert!(lab.questions.try_recv().is_err(), "what runs is not held");
}

#[tokio::test]
async fn configuration_may_overtake_the_answer_to_the_registration() {
    let mut lab = Lab::before(Runtime::listening(), PATIENCE);
    let mut talk = lab.runtime.accept().await;
    talk.registration().await;
    talk.configure().await;
    talk.registered(Some(Status { code: 0, message: String::new() })).await;
    talk.synchronize(Vec::new(), false).await;
    lab.until("connected", |status| status.connected).await;
}

#[tokio::test]
async fn both_ways_of_asking_are_heard_and_nothing_else_is_held() {
    let (mut lab, mut talk) = Lab::joined(PATIENCE).await;
    let own = [("network", "/var/run/netns/a")];
    let asked = [
        talk.start(pod("old", &[], &own)).await,
        talk.call("RunPodSandbox", &RunPodSandboxRequest { pod: Some(pod("new", &[], &own)) })
            .await,
    ];
    for (stream, name) in asked.into_iter().zip(["old", "new"]) {
        let question = lab.question().await;
        assert_eq!(&*question.sandbox.pod.name, name);
        question.answer.send(Held::Armed).unwrap();
        assert_eq!(talk.agreed(stream).await, b"");
    }
    let stopping = StateChangeEvent { event: 2, pod: Some(pod("old", &[], &own)) };
    let stopped = talk.call("StateChange", &stopping).await;
    talk.agreed(stopped).await;
    for (service, method) in
        [("nri.pkg.api.v1alpha1.Plugin", "CreateContainer"), ("grpc.health.v1.Health", "Check")]
    {
        let stream = talk.call_service(service, method, &Empty {}, TIMEOUT).await;
        let unknown = (12, format!("there is no {method} of {service}"));
        assert_eq!(talk.refused(stream).await, unknown);
    }
    assert!(lab.questions.try_recv().is_err());
}

#[tokio::test]
async fn says_what_is_missing_and_connects_when_it_comes() {
    let mut lab = Lab::before(Runtime::absent(), PATIENCE);
    let socket = lab.runtime.socket().display().to_string();
    let status = lab.until("told", |status| status.last_error.is_some()).await;
    let absent = status.last_error.unwrap();
    assert!(absent.starts_with(&format!("there is no NRI socket {socket}: ")), "{absent}");
    lab.runtime.start();
    lab.runtime.accept().await.take_in().await;
    lab.until("connected", |status| status.connected && status.last_error.is_none()).await;
}

#[tokio::test]
async fn comes_back_to_a_runtime_that_restarts_and_counts_who_got_away() {
    let (mut lab, mut talk) = Lab::joined(PATIENCE).await;
    let before = lab.status.borrow().since;
    talk.start(pod("web", &["10.0.0.7"], &[("network", "/n")])).await;
    let held = lab.question().await;
    lab.until("holding", |status| status.holding == 1).await;
    lab.runtime.stop();
    drop(talk);
    let status = lab.until("lost", |status| !status.connected).await;
    assert!(status.since > before);
    assert_eq!((status.holding, status.abandoned, status.held), (0, 1, 0));
    assert!(held.answer.is_closed(), "nobody waits for the answer");
    // The socket's file is there, but nobody listens.
    let refused = |status: &GateStatus| {
        status.last_error.as_ref().is_some_and(|error| error.starts_with("nobody answers"))
    };
    lab.until("refused", refused).await;
    std::fs::remove_file(lab.runtime.socket()).unwrap();
    lab.runtime.start();
    let mut talk = lab.runtime.accept().await;
    talk.take_in().await;
    lab.until("connected", |status| status.connected).await;
    let stream = talk.start(pod("web", &["10.0.0.7"], &[("network", "/n")])).await;
    lab.question().await.answer.send(Held::Armed).unwrap();
    talk.agreed(stream).await;
}

#[tokio::test]
async fn a_refused_registration_is_said_in_the_runtimes_words_and_tried_again() {
    let mut lab = Lab::before(Runtime::listening(), PATIENCE);
    let mut talk = lab.runtime.accept().await;
    talk.registration().await;
    talk.registered(Some(Status { code: 2, message: "no plugins today".into() })).await;
    talk.closed().await;
    let status = lab.until("told", |status| status.last_error.is_some()).await;
    let refused = "the container runtime refuses the plugin 00-enforcer: no plugins today";
    assert_eq!(status.last_error.as_deref(), Some(refused));
    // A runtime may also just hang up.
    drop(lab.runtime.accept().await);
    let unwelcome = |status: &GateStatus| {
        status.last_error.as_ref().is_some_and(|error| error.contains("before the plugin was"))
    };
    lab.until("told again", unwelcome).await;
    lab.runtime.accept().await.take_in().await;
    lab.until("connected", |status| status.connected).await;
}

#[tokio::test]
async fn the_runtimes_end_is_agreed_to_and_what_is_held_is_refused() {
    let (mut lab, mut talk) = Lab::joined(PATIENCE).await;
    let held = talk.start(pod("web", &[], &[("network", "/n")])).await;
    let _question = lab.question().await;
    let shutdown = talk.call("Shutdown", &Empty {}).await;
    talk.agreed(shutdown).await;
    let (code, text) = talk.refused(held).await;
    assert_eq!((code, text.split(',').next()), (9, Some("the container runtime is ending")));
    talk.closed().await;
    let status = lab.until("lost", |status| !status.connected).await;
    assert_eq!((status.failed, status.abandoned), (1, 0));
    lab.runtime.accept().await.take_in().await;
}

#[tokio::test]
async fn the_agents_end_refuses_what_is_held_before_it_hangs_up() {
    let (mut lab, mut talk) = Lab::joined(PATIENCE).await;
    let held = talk.start(pod("web", &[], &[("network", "/n")])).await;
    let _question = lab.question().await;
    lab.end().await;
    let (code, text) = talk.refused(held).await;
    assert_eq!((code, text.split(',').next()), (9, Some("the agent on this node is ending")));
    talk.closed().await;
    let status = lab.status.borrow().clone();
    assert_eq!((status.connected, status.holding, status.failed), (false, 0, 1));
}

#[tokio::test]
async fn the_agents_end_does_not_wait_for_a_runtime() {
    let mut lab = Lab::before(Runtime::absent(), PATIENCE);
    lab.until("told", |status| status.last_error.is_some()).await;
    lab.end().await;
}
