//! What is asked of the owning task, over the socket and by scrapers, and how it answers.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::{
    api::{StatusReply, StatusRequest},
    core::Core,
    holds::Hold,
    report,
    run::AgentError,
    socket::Service,
};
use crate::{
    dataplane::netlink::Discovery,
    metrics::{Scraped, Snapshot},
    source::Barrier,
};

/// A status request on its way to the owning task.
#[derive(Debug)]
pub(super) struct Question {
    request: StatusRequest,
    answer: oneshot::Sender<StatusReply>,
}

/// What the socket's and the metrics' tasks hold.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    questions: mpsc::Sender<Question>,
    give_way: mpsc::Sender<()>,
    scrapes: mpsc::Sender<oneshot::Sender<Snapshot>>,
}

/// What other tasks ask of the owning task.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) questions: mpsc::Receiver<Question>,
    pub(super) to_go: mpsc::Receiver<()>,
    pub(super) scrapes: mpsc::Receiver<oneshot::Sender<Snapshot>>,
    pub(super) holds: mpsc::Receiver<Hold>,
}

/// Questions on their way, at most.
const QUEUE: usize = 16;

/// Both ends: for the socket and the scrapers, for the gate, and for the owning task.
pub(super) fn channels() -> (Handle, mpsc::Sender<Hold>, Asked) {
    let (questions, asked) = mpsc::channel(QUEUE);
    let (give_way, to_go) = mpsc::channel(1);
    let (scrapes, scraped) = mpsc::channel(QUEUE);
    let (hold, holds) = mpsc::channel(QUEUE);
    let handle = Handle { questions, give_way, scrapes };
    (handle, hold, Asked { questions: asked, to_go, scrapes: scraped, holds })
}

impl Scraped for Handle {
    async fn snapshot(&self) -> Option<Snapshot> {
        let (answer, snapshot) = oneshot::channel();
        self.scrapes.send(answer).await.ok()?;
        snapshot.await.ok()
    }
}

impl Service for Handle {
    async fn status(&self, request: StatusRequest) -> StatusReply {
        let (answer, reply) = oneshot::channel();
        let ended = || StatusReply {
            failure: Some("the agent is ending".to_owned()),
            ..StatusReply::default()
        };
        if self.questions.send(Question { request, answer }).await.is_err() {
            return ended();
        }
        reply.await.unwrap_or_else(|_| ended())
    }

    async fn give_way(&self) {
        // It may be ending already.
        let _ending = self.give_way.send(()).await;
    }
}

/// A question that waits for everything to be in force.
#[derive(Debug)]
pub(super) struct Waiting {
    question: Question,
    barrier: Barrier,
    until: Instant,
    pub(super) next_look: Instant,
}

/// How often a waiting question is looked at while nothing happens.
const LOOK: Duration = Duration::from_millis(10);

/// Answers a question, or lets it wait.
pub(super) fn ask(
    core: &mut Core,
    discovery: &mut Discovery,
    question: Question,
    about: &report::About,
) -> Result<Option<Waiting>, AgentError> {
    let Some(seconds) = question.request.wait_seconds else {
        let reply = report::reply(core, about, &question.request, None);
        // The client may have gone.
        let _gone = question.answer.send(reply);
        return Ok(None);
    };
    // The barrier: what was written and made before the question counts.
    let (barrier, update) = core.source.barrier();
    core.source_changed(update)?;
    for event in discovery.rescan()? {
        core.discovered(event)?;
    }
    let now = Instant::now();
    let until = now.checked_add(Duration::from_secs(seconds)).unwrap_or(now);
    Ok(Some(Waiting { question, barrier, until, next_look: now }))
}

/// Answers the waiting questions whose condition holds or whose time is over.
pub(super) fn answer(core: &Core, waiting: &mut Vec<Waiting>, about: &report::About) {
    let now = Instant::now();
    let mut open = Vec::new();
    for mut one in waiting.drain(..) {
        if one.question.answer.is_closed() {
            continue;
        }
        let missing = report::missing(core, &one.question.request, one.barrier);
        if missing.is_some() && now < one.until {
            one.next_look = now + LOOK;
            open.push(one);
            continue;
        }
        let reply = report::reply(core, about, &one.question.request, missing);
        let _gone = one.question.answer.send(reply);
    }
    *waiting = open;
}
