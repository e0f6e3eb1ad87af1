//! What is held, for how long, and what the runtime hears of it.

use std::time::Instant;

use super::*;
use crate::{cluster::event::ObjectKey, gate::sandbox::tests::pod};

const OWN: [(&str, &str); 2] = [("pid", ""), ("network", "/var/run/netns/cni-1")];

#[tokio::test]
async fn sandboxes_wait_side_by_side_and_go_as_they_are_armed() {
    let (mut lab, mut talk) = Lab::joined(Duration::from_secs(9)).await;
    let first = talk.start(pod("first", &["10.0.0.7", "fd00::7"], &OWN)).await;
    let second = talk.start(pod("second", &["10.0.0.8"], &OWN)).await;
    let (one, two) = (lab.question().await, lab.question().await);
    assert_eq!(lab.until("holding", |status| status.holding == 2).await.held, 0);
    let expected = Sandbox {
        id: "id-first".into(),
        pod: ObjectKey { namespace: "shop".into(), name: "first".into() },
        uid: "uid-first".into(),
        addresses: vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
        network: Network::Namespace("/var/run/netns/cni-1".into()),
    };
    assert_eq!(one.sandbox, expected);
    // The runtime waits 10 s: 8.75 s are left after the margin, and patience is longer.
    assert_eq!(one.within, Duration::from_millis(8750));
    two.answer.send(Held::Armed).unwrap();
    talk.agreed(second).await;
    one.answer.send(Held::Armed).unwrap();
    talk.agreed(first).await;
    let status = lab.until("let go", |status| status.held == 2).await;
    assert_eq!((status.holding, status.failed, status.abandoned), (0, 0, 0));
    let decided = lab.arming.decided.lock().unwrap().clone();
    assert_eq!(decided.len(), 2);
    assert!(decided.iter().all(|(time, held)| *time < LONG && *held == Held::Armed));
    assert!(decided[0].0 <= decided[1].0);
}

#[tokio::test]
async fn what_is_not_armed_is_refused_with_the_reason() {
    let (mut lab, mut talk) = Lab::joined(Duration::from_secs(5)).await;
    let stream = talk.start(pod("web", &[], &OWN)).await;
    let missing = "no veth has 10.0.0.7".to_owned();
    lab.question().await.answer.send(Held::NotInTime(missing)).unwrap();
    let (code, text) = talk.refused(stream).await;
    assert_eq!(code, 9);
    assert!(text.starts_with("the network of shop/web is not armed after "), "{text}");
    assert!(text.contains("(no veth has 10.0.0.7)"), "{text}");
    let status = lab.until("failed", |status| status.failed == 1).await;
    assert_eq!((status.connected, status.holding), (true, 0));
    assert_eq!(status.last_error, Some(text));
}

#[tokio::test]
async fn an_arming_side_that_says_nothing_does_not_outlast_patience() {
    let (mut lab, mut talk) = Lab::joined(Duration::from_millis(60)).await;
    let start = Instant::now();
    let stream = talk.start(pod("web", &[], &OWN)).await;
    let question = lab.question().await;
    assert_eq!(question.within, Duration::from_millis(60));
    let (code, text) = talk.refused(stream).await;
    assert!((Duration::from_millis(60)..Duration::from_secs(5)).contains(&start.elapsed()));
    assert_eq!(code, 9);
    assert!(text.contains("(no answer within 60 ms)"), "{text}");
    assert!(question.answer.is_closed(), "nobody waits for the answer");
}

#[tokio::test]
async fn the_answer_is_there_before_a_runtime_of_less_patience_gives_up() {
    let (mut lab, mut talk) = Lab::joined(Duration::from_secs(60)).await;
    let start = Instant::now();
    let event = proto::StateChangeEvent { event: 1, pod: Some(pod("web", &[], &OWN)) };
    let stream = talk.call_within("StateChange", &event, Duration::from_millis(800)).await;
    let question = lab.question().await;
    assert_eq!(question.within, Duration::from_millis(700));
    talk.refused(stream).await;
    assert!((question.within..LONG).contains(&start.elapsed()));
}

#[tokio::test]
async fn the_nodes_own_network_is_not_held() {
    let (mut lab, mut talk) = Lab::joined(Duration::from_secs(5)).await;
    let stream = talk.start(pod("proxy", &[], &[("pid", ""), ("ipc", "")])).await;
    talk.agreed(stream).await;
    assert!(lab.questions.try_recv().is_err());
    // Where the runtime does not say it, the arming side is asked.
    let unknown = talk.start(pod("vm", &[], &[])).await;
    let question = lab.question().await;
    assert_eq!(question.sandbox.network, Network::Unknown);
    question.answer.send(Held::Armed).unwrap();
    talk.agreed(unknown).await;
}

#[tokio::test]
async fn what_is_not_understood_does_not_run() {
    let (mut lab, mut talk) = Lab::joined(Duration::from_secs(5)).await;
    let odd = talk.start(pod("web", &["10.0.0.999"], &OWN)).await;
    let (code, text) = talk.refused(odd).await;
    assert_eq!(code, 3);
    assert!(text.contains("\"10.0.0.999\" as an address"), "{text}");
    let nobody = proto::RunPodSandboxRequest { pod: None };
    let nobody = talk.call("RunPodSandbox", &nobody).await;
    assert_eq!(talk.refused(nobody).await, (3, "the runtime's request names no pod".to_owned()));
    let status = lab.until("counted", |status| status.failed == 2).await;
    assert!(status.connected);
    assert!(lab.questions.try_recv().is_err());
}

#[tokio::test]
async fn no_more_than_so_many_are_held() {
    let (mut lab, mut talk) = Lab::joined(Duration::from_secs(5)).await;
    let mut kept = Vec::new();
    for n in 0..1024 {
        talk.start(pod(&format!("web-{n}"), &[], &OWN)).await;
        kept.push(lab.question().await);
    }
    let stream = talk.start(pod("straw", &[], &OWN)).await;
    let (code, text) = talk.refused(stream).await;
    assert_eq!((code, text.as_str()), (8, "1024 pod sandboxes are being held already"));
    kept.pop().unwrap().answer.send(Held::Armed).unwrap();
    assert_eq!(talk.answer().await.1, Ok(Vec::new()));
    let next = talk.start(pod("web", &[], &OWN)).await;
    lab.question().await.answer.send(Held::Armed).unwrap();
    talk.agreed(next).await;
}
