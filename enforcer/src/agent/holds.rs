//! Sandboxes that the gate holds until their interfaces are armed: the owning task's side.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::core::Core;
use crate::{
    cluster::{SandboxState, event},
    dataplane::{self, DataplaneError, netlink::Discovery},
    error_chain,
    gate::{Arming, Held, Sandbox},
    metrics::Metrics,
    source::cni::CniCache,
};

/// How long the API server is waited for, where the interface is closed already: the runtime starts
/// no other pod meanwhile, and nothing passes a closed interface.
const FOR_THE_OBJECT: Duration = Duration::from_millis(500);

/// A sandbox that waits.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) sandbox: Sandbox,
    since: Instant,
    until: Instant,
    answer: oneshot::Sender<Held>,
}

/// The gate's side: asks the owning task.
#[derive(Clone, Debug)]
pub(super) struct Doorkeeper {
    pub(super) holds: mpsc::Sender<Hold>,
    pub(super) metrics: Metrics,
}

impl Arming for Doorkeeper {
    async fn armed(&self, sandbox: Sandbox, within: Duration) -> Held {
        let (answer, held) = oneshot::channel();
        let since = Instant::now();
        // A little earlier than the gate gives up, to say what is missing.
        let until = since + within.saturating_sub(within / 16);
        let ending = || Held::NotInTime("the agent is ending".to_owned());
        if self.holds.send(Hold { sandbox, since, until, answer }).await.is_err() {
            return ending();
        }
        held.await.unwrap_or_else(|_| ending())
    }

    fn decided(&self, time: Duration, _held: &Held) {
        self.metrics.gate_hold.observe(time);
    }
}

impl Hold {
    /// Whether the gate still waits for an answer.
    pub(super) fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }

    /// When it must be looked at next, if nothing happens.
    pub(super) fn next_look(&self, now: Instant) -> Instant {
        let object = self.since + FOR_THE_OBJECT;
        if object > now { object.min(self.until) } else { self.until }
    }

    /// The answer, if there is one now.
    pub(super) fn decide(&self, state: &SandboxState, armed: bool, now: Instant) -> Option<Held> {
        match state {
            SandboxState::Bound if armed => Some(Held::Armed),
            SandboxState::Starting if armed && now >= self.since + FOR_THE_OBJECT => {
                Some(Held::Armed)
            }
            _ if now < self.until => None,
            SandboxState::Unknown => Some(Held::NotInTime(
                "no interface of it was found on this node, so no policy can be enforced on it; \
                 is the network plugin's interface a veth?"
                    .to_owned(),
            )),
            SandboxState::Unenforceable(reason) => Some(Held::NotInTime(reason.clone())),
            SandboxState::Starting | SandboxState::Bound => Some(Held::NotInTime(
                "its interface could not be armed in time; see `enforcer status`".to_owned(),
            )),
        }
    }

    /// Answers the gate.
    pub(super) fn answer(self, held: Held) {
        // The runtime may have given the sandbox up.
        let _given_up = self.answer.send(held);
    }
}

/// Takes in that the gate asks. All is looked at first: a pod's UID may still be known by the
/// interfaces of its sandbox before, and those of this one may not be known yet.
///
/// # Errors
/// If what was found cannot be brought into force.
pub(super) fn take(
    core: &mut Core,
    discovery: &mut Discovery,
    hold: Hold,
) -> Result<(), DataplaneError> {
    let events = match discovery.rescan() {
        Ok(events) => events,
        Err(error) => {
            let reason = format!("the node's interfaces cannot be read: {}", error_chain(&error));
            hold.answer(Held::NotInTime(reason));
            return Ok(());
        }
    };
    for event in events {
        core.discovered(event);
    }
    core.sandboxes_changed();
    core.hold(hold);
    Ok(())
}

/// Sandboxes that only the gate has told of, at most: a bound interface needs no word any more.
const MOST_TOLD: usize = 512;

impl Core {
    /// The gate asks: what it tells of the sandbox counts where the plugins' cache is not read.
    pub(super) fn hold(&mut self, hold: Hold) {
        let cache = self.cni.as_ref().is_some_and(CniCache::is_readable);
        if !cache && !hold.sandbox.addresses.is_empty() {
            let sandbox = &hold.sandbox;
            let id: Arc<str> = format!("nri/{}", sandbox.id).into();
            self.tell_sandbox(event::Sandbox {
                id: Arc::clone(&id),
                pod: sandbox.pod.clone(),
                uid: sandbox.uid.as_str().into(),
                interfaces: Vec::new(),
                addresses: sandbox.addresses.clone(),
                told: i64::try_from(dataplane::monotonic()).unwrap_or(i64::MAX),
            });
            self.gate_told.push_back(id);
            if self.gate_told.len() > MOST_TOLD
                && let Some(oldest) = self.gate_told.pop_front()
            {
                self.forget_sandbox(oldest);
            }
        }
        self.holds.push(hold);
    }

    /// Answers the holds that can be answered now.
    pub(super) fn answer_holds(&mut self, now: Instant) {
        let mut open = Vec::new();
        for hold in std::mem::take(&mut self.holds) {
            if !hold.is_wanted() {
                continue;
            }
            let (state, interfaces) = self.index.sandbox_state(&hold.sandbox.uid);
            let armed =
                |ifindex: &u32| self.kernel.is_attached(*ifindex) && !self.kernel.locked(*ifindex);
            match hold.decide(&state, interfaces.iter().all(armed), now) {
                Some(held) => hold.answer(held),
                None => open.push(hold),
            }
        }
        self.holds = open;
    }

    /// When a hold must be looked at if nothing happens.
    pub(super) fn next_hold(&self, now: Instant) -> Option<Instant> {
        self.holds.iter().map(|hold| hold.next_look(now)).min()
    }
}

#[cfg(test)]
#[path = "holds_tests.rs"]
mod tests;
