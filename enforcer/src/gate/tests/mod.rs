//! The gate against a runtime that these tests play, over a real socket.

mod holds;
mod hostile;
mod life;
mod runtime;
mod transcript;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use super::*;
use runtime::{Conversation, Runtime};

/// No step of a test takes longer.
const LONG: Duration = Duration::from_secs(20);

/// A sandbox that the gate holds, waiting for the test's word.
struct Question {
    sandbox: Sandbox,
    within: Duration,
    answer: oneshot::Sender<Held>,
}

/// An arming side that asks the test.
#[derive(Clone)]
struct Asking {
    questions: mpsc::UnboundedSender<Question>,
    running: Arc<Mutex<Vec<Vec<Sandbox>>>>,
    decided: Arc<Mutex<Vec<(Duration, Held)>>>,
}

impl Arming for Asking {
    async fn armed(&self, sandbox: Sandbox, within: Duration) -> Held {
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question { sandbox, within, answer }).unwrap();
        // A test that drops the question leaves the sandbox waiting for ever.
        match answered.await {
            Ok(held) => held,
            Err(_) => std::future::pending().await,
        }
    }

    fn running(&self, sandboxes: Vec<Sandbox>) {
        self.running.lock().unwrap().push(sandboxes);
    }

    fn decided(&self, time: Duration, held: &Held) {
        self.decided.lock().unwrap().push((time, held.clone()));
    }
}

/// A gate and the runtime that it plugs into.
struct Lab {
    runtime: Runtime,
    questions: mpsc::UnboundedReceiver<Question>,
    status: watch::Receiver<GateStatus>,
    arming: Asking,
    stop: Option<oneshot::Sender<()>>,
    gate: JoinHandle<()>,
}

impl Lab {
    /// A gate at a runtime's socket that may not be there yet.
    fn before(runtime: Runtime, patience: Duration) -> Self {
        let config = GateConfig { socket: runtime.socket(), patience, ..GateConfig::default() };
        let (gate, status) = Gate::new(config);
        let (questions, asked) = mpsc::unbounded_channel();
        let arming = Asking { questions, running: Arc::default(), decided: Arc::default() };
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            let _told_or_dropped = stopped.await;
        };
        let gate = tokio::spawn(gate.run(arming.clone(), || 7, shutdown));
        Self { runtime, questions: asked, status, arming, stop: Some(stop), gate }
    }

    /// A gate that has joined a runtime without pods.
    async fn joined(patience: Duration) -> (Self, Conversation) {
        let mut lab = Self::before(Runtime::listening(), patience);
        let mut talk = lab.runtime.accept().await;
        talk.take_in().await;
        lab.until("connected", |status| status.connected).await;
        (lab, talk)
    }

    /// Waits until the status is as wanted, and gives it.
    async fn until(&mut self, what: &str, wanted: impl FnMut(&GateStatus) -> bool) -> GateStatus {
        let reached = timeout(LONG, self.status.wait_for(wanted)).await.map(|s| s.unwrap().clone());
        reached.unwrap_or_else(|_| panic!("not {what}: {:?}", self.status.borrow()))
    }

    /// The next sandbox that the gate asks about.
    async fn question(&mut self) -> Question {
        timeout(LONG, self.questions.recv()).await.expect("a sandbox is held").unwrap()
    }

    /// Tells the agent to end and waits until the gate has.
    async fn end(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        timeout(LONG, &mut self.gate).await.expect("the gate ends").unwrap();
    }
}

#[test]
fn an_index_is_two_digits() {
    for good in ["00", "07", "99"] {
        assert_eq!(good.parse::<PluginIndex>().unwrap().to_string(), good);
    }
    for bad in ["", "7", "100", "+7", "-1", "0x", "٣٣"] {
        let error = bad.parse::<PluginIndex>().unwrap_err().to_string();
        assert_eq!(
            error,
            format!("{bad:?} is no index of an NRI plugin: write two digits, 00 to 99")
        );
    }
}
