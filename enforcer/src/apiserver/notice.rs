//! Kubernetes Events about objects that enforcement has trouble with, as `kubectl describe` and
//! `kubectl get events` show them. Sent in the background: whoever has something to say never waits.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::ApiServer;

/// Who reports.
const CONTROLLER: &str = "enforcer";
/// Events that wait to be sent; more are not worth the memory.
const QUEUE: usize = 256;
/// What one may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often one is tried.
const TRIES: u32 = 5;
/// Wait before the second try; it doubles.
const WAIT: Duration = Duration::from_millis(500);
/// The longest note that the API server takes (`events/v1` `Event.note`), in bytes.
const MOST: usize = 1024;

/// What an Event says has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A part of a policy cannot be enforced.
    PolicyNotEnforceable,
    /// A policy has an ipBlock for the addresses of Services, which matches nothing.
    IpBlockForServices,
    /// A Service shares its address, or is closed to pods because of where its backends are.
    ServiceNotEnforceable,
    /// Nothing can be enforced on a pod's interface.
    InterfaceNotEnforceable,
    /// A pod takes no new connections because a map in the kernel is full.
    MapFull,
    /// Somebody has switched enforcement off for a while.
    EnforcementDisabled,
    /// Another enforcer of network policy is on the node.
    OtherEnforcer,
    /// One pod tried many ports of one destination, in vain.
    PortScan,
    /// One pod was denied many peers.
    DeniedPeers,
    /// A workload's first flow to an address outside the cluster.
    FirstOutsideContact,
    /// A pod asked the address where clouds serve credentials.
    MetadataAccess,
    /// A workload's first flow to the API server.
    FirstApiServerContact,
}

impl Reason {
    fn name(self) -> String {
        format!("{self:?}")
    }
}

/// An object that an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Regarding {
    /// API version.
    pub api_version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Namespace; empty for what has none.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID; `kubectl describe` shows only Events that have the object's.
    pub uid: String,
}

impl Regarding {
    /// A pod.
    #[must_use]
    pub fn pod(namespace: &str, name: &str, uid: &str) -> Self {
        let (namespace, name, uid) = (namespace.to_owned(), name.to_owned(), uid.to_owned());
        Self { api_version: "v1", kind: "Pod", namespace, name, uid }
    }

    /// A NetworkPolicy.
    #[must_use]
    pub fn policy(namespace: &str, name: &str, uid: &str) -> Self {
        let api_version = "networking.k8s.io/v1";
        Self { api_version, kind: "NetworkPolicy", ..Self::pod(namespace, name, uid) }
    }

    /// A Service. Its UID is not known here.
    #[must_use]
    pub fn service(namespace: &str, name: &str) -> Self {
        Self { kind: "Service", ..Self::pod(namespace, name, "") }
    }

    /// A node. Its name stands for its UID, as in the kubelet's own Events.
    #[must_use]
    pub fn node(name: &str) -> Self {
        Self { kind: "Node", ..Self::pod("", name, name) }
    }

    fn reference(&self) -> ObjectReference {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        ObjectReference {
            api_version: Some(self.api_version.to_owned()),
            kind: Some(self.kind.to_owned()),
            namespace: some(&self.namespace),
            name: some(&self.name),
            uid: some(&self.uid),
            ..ObjectReference::default()
        }
    }
}

/// Something to say about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// About what.
    pub regarding: Regarding,
    /// What has happened.
    pub reason: Reason,
    /// More, for the reader.
    pub note: String,
}

/// Takes notices; its task ends with it.
#[derive(Debug)]
pub struct EventSink {
    queue: mpsc::Sender<Notice>,
    _task: JoinSet<()>,
}

impl EventSink {
    /// A sink of a node's agent. Must be called within a runtime.
    #[must_use]
    pub fn start(api: &ApiServer, node: &str) -> Self {
        let (queue, notices) = mpsc::channel(QUEUE);
        let instance = Some(format!("{CONTROLLER}-{node}"));
        let reporter = Reporter { controller: CONTROLLER.to_owned(), instance };
        let mut task = JoinSet::new();
        task.spawn(send_all(Recorder::new(api.client(), reporter), notices));
        Self { queue, _task: task }
    }

    /// Takes a notice if there is room. Returns whether there was.
    pub fn try_send(&self, notice: Notice) -> bool {
        self.queue.try_send(notice).is_ok()
    }
}

async fn send_all(recorder: Recorder, mut notices: mpsc::Receiver<Notice>) {
    let mut failing = false;
    while let Some(notice) = notices.recv().await {
        match send(&recorder, &notice).await {
            Ok(()) => failing = false,
            // The same for all, mostly: said once.
            Err(reason) if !std::mem::replace(&mut failing, true) => tracing::warn!(
                "Kubernetes Events cannot be written: {reason}; a ClusterRole must allow `create` \
                 and `patch` on `events` in `apiGroups: [\"events.k8s.io\"]`"
            ),
            Err(_) => {}
        }
    }
}

async fn send(recorder: &Recorder, notice: &Notice) -> Result<(), String> {
    let Notice { regarding, reason, note } = notice;
    let event = Event {
        type_: EventType::Warning,
        reason: reason.name(),
        note: Some(shorten(note)),
        action: "Enforce".to_owned(),
        secondary: None,
    };
    let reference = regarding.reference();
    let mut wait = WAIT;
    let mut tries = 1;
    loop {
        let error = match timeout(PATIENCE, recorder.publish(&event, &reference)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 400..=428) => {
                return Err(status.message);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        if tries == TRIES {
            return Err(error);
        }
        tries += 1;
        sleep(wait).await;
        wait *= 2;
    }
}

/// As much of a note as the API server takes.
fn shorten(note: &str) -> String {
    if note.len() <= MOST {
        return note.to_owned();
    }
    let end = (0..=MOST - 3).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &note[..end])
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::source::kubernetes::fake::{Fake, Fault};

    fn notice(name: &str, note: &str) -> Notice {
        Notice {
            regarding: Regarding::pod("n", name, "u"),
            reason: Reason::MapFull,
            note: note.to_owned(),
        }
    }

    /// Waits until so many requests were written.
    async fn written(fake: &Fake, count: usize) -> Vec<(String, String, serde_json::Value)> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let written = fake.state().written.clone();
            if written.len() >= count {
                return written;
            }
            assert!(Instant::now() < deadline, "{written:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn an_event_names_its_object_and_a_repetition_is_a_series() {
        let fake = Fake::start().await;
        let sink = EventSink::start(&fake.api(), "w1");
        assert!(sink.try_send(notice("a", "ROWS is full")));
        assert!(sink.try_send(notice("a", "ROWS is full")));
        let written = written(&fake, 2).await;
        let (method, path, event) = &written[0];
        assert_eq!(
            (method.as_str(), path.as_str()),
            ("POST", "/apis/events.k8s.io/v1/namespaces/n/events")
        );
        assert_eq!((&event["reason"], &event["type"]), (&"MapFull".into(), &"Warning".into()));
        assert_eq!(
            (&event["note"], &event["regarding"]["uid"]),
            (&"ROWS is full".into(), &"u".into())
        );
        assert_eq!(event["reportingInstance"], "enforcer-w1");
        let (method, _, event) = &written[1];
        assert_eq!((method.as_str(), &event["series"]["count"]), ("PATCH", &2.into()));
    }

    #[tokio::test]
    async fn a_busy_server_is_asked_again_and_a_refusal_is_not() {
        let fake = Fake::start().await;
        fake.fault("write", Fault::Status(503, "busy"));
        fake.fault("write", Fault::Status(403, "no"));
        let sink = EventSink::start(&fake.api(), "w1");
        for name in ["a", "b"] {
            assert!(sink.try_send(notice(name, "x")));
        }
        let names: Vec<_> =
            written(&fake, 3).await.into_iter().map(|(_, _, event)| event).collect();
        let names: Vec<_> = names.iter().map(|event| event["regarding"]["name"].clone()).collect();
        assert_eq!(names, ["a", "a", "b"]);
    }

    #[tokio::test]
    async fn a_full_queue_takes_nothing_and_nobody_waits() {
        let fake = Fake::start().await;
        let sink = EventSink::start(&fake.api(), "w1");
        let taken = (0..QUEUE + 10).filter(|i| sink.try_send(notice(&i.to_string(), "x"))).count();
        assert_eq!(taken, QUEUE);
    }

    #[test]
    fn long_notes_are_cut_between_characters() {
        assert_eq!(shorten("short"), "short");
        let cut = shorten(&"ä".repeat(1000));
        assert!(cut.len() <= MOST && cut.ends_with("ä…"), "{}", cut.len());
    }

    #[test]
    fn a_node_is_referred_to_as_the_kubelet_does() {
        let reference = Regarding::node("w1").reference();
        assert_eq!((reference.namespace, reference.uid.as_deref()), (None, Some("w1")));
    }
}
