//! The stream of the agent's events of one client.

use std::{sync::Arc, time::Duration};

use enforcer_hubble::observer::GetAgentEventsResponse;
use tokio::{sync::mpsc, time::Instant};
use tonic::Status;

use super::{Shared, now, range::Range};
use crate::hubble::events::{self, Stamped};

/// Where the answer goes.
pub(super) type Answer = mpsc::Sender<Result<GetAgentEventsResponse, Status>>;

/// Answers until all is told or the client is gone.
pub(super) async fn answer(shared: Arc<Shared>, range: Range, answer: Answer) {
    tokio::select! {
        () = tell(&shared, &range, &answer) => {}
        () = answer.closed() => {}
    }
}

async fn tell(shared: &Shared, range: &Range, answer: &Answer) {
    let ring = &shared.observed.events;
    let mut next = ring.next();
    if !range.starts_now() {
        let (kept, end) = ring.read(0);
        next = end;
        for event in choose(kept, range) {
            if send(shared, answer, &event).await.is_err() {
                return;
            }
        }
    }
    if !range.follow {
        return;
    }
    let end = range.until.map(|until| {
        let left = u64::try_from(until.saturating_sub(now())).unwrap_or(0);
        Instant::now() + Duration::from_nanos(left)
    });
    let ended = async {
        match end {
            Some(end) => tokio::time::sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(ended);
    loop {
        tokio::select! {
            () = ring.appended(next) => {}
            () = &mut ended => return,
        }
        let (events, end) = ring.read(next);
        next = end;
        for event in events.iter().filter(|event| range.has(event.time)) {
            if send(shared, answer, event).await.is_err() {
                return;
            }
        }
    }
}

/// Those of the kept events that are asked for.
fn choose(kept: Vec<Arc<Stamped>>, range: &Range) -> Vec<Arc<Stamped>> {
    let mut wanted: Vec<_> = kept.into_iter().filter(|event| range.has(event.time)).collect();
    let number = range.number.and_then(|number| usize::try_from(number).ok());
    let number = number.unwrap_or(usize::MAX).min(wanted.len());
    if range.first {
        wanted.truncate(number);
    } else {
        wanted.drain(..wanted.len() - number);
    }
    wanted
}

async fn send(
    shared: &Shared,
    answer: &Answer,
    event: &Stamped,
) -> Result<(), mpsc::error::SendError<Result<GetAgentEventsResponse, Status>>> {
    answer.send(Ok(events::response(event, &shared.observed.origin))).await
}
