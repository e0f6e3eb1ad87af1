//! The stream of flows of one client.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use enforcer_hubble::{
    flow::{Flow as ProtoFlow, LostEventSource},
    mask::FieldMask,
    observer::{GetFlowsRequest, GetFlowsResponse, get_flows_response::ResponseTypes},
};
use prost::Message as _;
use tokio::{sync::mpsc, time::Instant};
use tonic::Status;

use super::{Shared, now, range::Range};
use crate::{
    flow::event::Flow,
    hubble::{
        convert::{self, Loss},
        filter::Filters,
    },
};

/// Flows looked at without giving way to other clients.
const BATCH: usize = 256;
/// A loss is told this long after another at the earliest.
const BETWEEN_LOSSES: Duration = Duration::from_secs(1);
/// How long a client that follows an end may wait for it after it has passed: flows are told a
/// little later than they happen.
const LATE: Duration = Duration::from_millis(100);

/// Where the answer goes.
pub(super) type Answer = mpsc::Sender<Result<GetFlowsResponse, Status>>;

/// The client is gone, or has all that it asked for.
struct Over;

/// What a client asked for, understood.
#[derive(Debug)]
pub(super) struct Wish {
    range: Range,
    filters: Filters,
    mask: FieldMask,
}

impl Wish {
    /// Understands a request.
    pub(super) fn of(request: &GetFlowsRequest, shared: &Shared) -> Result<Self, Status> {
        let GetFlowsRequest { number, first, follow, since, until, .. } = request;
        let range = Range::of(*number, *first, *follow, since.as_ref(), until.as_ref())?;
        let invalid = |error: &dyn std::error::Error| Status::invalid_argument(error.to_string());
        let origin = &shared.observed.origin;
        let filters = Filters::compile(&request.whitelist, &request.blacklist, origin);
        let filters = filters.map_err(|error| invalid(&error))?;
        let paths = request.field_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
        let mask = FieldMask::of_flow(paths).map_err(|error| invalid(&error))?;
        Ok(Self { range, filters, mask })
    }

    fn wants(&self, flow: &Flow) -> bool {
        self.range.has(flow.time) && self.filters.matches(flow)
    }
}

/// Answers until all is told or the client is gone.
pub(super) async fn answer(shared: Arc<Shared>, wish: Wish, answer: Answer) {
    let mut stream = Stream {
        shared: &shared,
        wish: &wish,
        answer: &answer,
        left: u64::MAX,
        losses: Losses::new(Instant::now()),
    };
    tokio::select! {
        // Told or gone: either ends it.
        _over = stream.run() => {}
        () = answer.closed() => {}
    }
}

struct Stream<'a> {
    shared: &'a Shared,
    wish: &'a Wish,
    answer: &'a Answer,
    /// Flows that may still be told.
    left: u64,
    losses: Losses,
}

impl Stream<'_> {
    async fn run(&mut self) -> Result<(), Over> {
        let ring = &self.shared.observed.flows;
        let end = ring.next();
        let range = &self.wish.range;
        let mut next = match range.number {
            _ if range.starts_now() => end,
            Some(number) if !range.first => self.rewind(end, number).await,
            _ => ring.oldest(),
        };
        if !range.follow {
            self.left = range.number.unwrap_or(u64::MAX);
        }
        self.losses.in_kernel_before = self.lost_in_kernel();
        while next < end && self.left > 0 {
            let most = usize::try_from(end - next).unwrap_or(BATCH).min(BATCH);
            next = self.read(next, most).await?;
            tokio::task::yield_now().await;
        }
        if range.follow {
            self.follow(next).await?;
        }
        self.tell_losses().await
    }

    /// The number of the oldest flow among the `number` newest that are wanted.
    async fn rewind(&self, end: u64, number: u64) -> u64 {
        let ring = &self.shared.observed.flows;
        let (mut at, mut left) = (end, number);
        loop {
            let oldest = ring.oldest();
            if at <= oldest {
                return oldest;
            }
            let start = at.saturating_sub(BATCH as u64).max(oldest);
            let most = usize::try_from(at - start).unwrap_or(BATCH);
            let batch = ring.read(start, most);
            let first = batch.next - batch.kept.len() as u64;
            let numbered = (first..at).zip(&batch.kept).collect::<Vec<_>>();
            for (place, flow) in numbered.into_iter().rev() {
                if self.wish.wants(flow) {
                    left -= 1;
                    if left == 0 {
                        return place;
                    }
                }
            }
            // Flows are in the order in which they were told, which is nearly that of their times.
            let before = |since| batch.kept.iter().all(|flow| flow.time < since);
            if self.wish.range.since.is_some_and(before) {
                return at;
            }
            at = start;
            tokio::task::yield_now().await;
        }
    }

    async fn follow(&mut self, mut next: u64) -> Result<(), Over> {
        let ring = &self.shared.observed.flows;
        let end = self.wish.range.until.map(|until| {
            let left = u64::try_from(until.saturating_sub(now())).unwrap_or(0);
            Instant::now() + Duration::from_nanos(left) + LATE
        });
        loop {
            let wake = [end, self.losses.due()].into_iter().flatten().min();
            let woken = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = ring.appended(next) => next = self.read(next, BATCH).await?,
                () = woken => {}
            }
            self.note_kernel_losses();
            if self.losses.due().is_some_and(|due| due <= Instant::now()) {
                self.tell_losses().await?;
            }
            if end.is_some_and(|end| end <= Instant::now()) {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    /// Tells what is wanted of some flows; returns where to read on.
    async fn read(&mut self, from: u64, most: usize) -> Result<u64, Over> {
        let batch = self.shared.observed.flows.read(from, most);
        if batch.lost > 0 {
            self.losses.note(LostEventSource::HubbleRingBuffer, batch.lost);
            self.shared.observed.lost_by_clients.inc_by(batch.lost);
            self.tell_losses_if_due().await?;
        }
        for flow in &batch.kept {
            if self.left == 0 {
                break;
            }
            if self.wish.wants(flow) {
                self.left -= 1;
                let response = self.response(flow);
                self.send(response).await?;
            }
        }
        Ok(batch.next)
    }

    /// The flow with the fields that are wanted.
    fn response(&self, flow: &Flow) -> Result<GetFlowsResponse, Status> {
        let mut response = convert::response(flow, &self.shared.observed.origin);
        if !self.wish.mask.is_all()
            && let Some(ResponseTypes::Flow(flow)) = &mut response.response_types
        {
            let broken = |error: prost::DecodeError| Status::internal(error.to_string());
            let pruned = self.wish.mask.prune(&flow.encode_to_vec()).map_err(broken)?;
            **flow = ProtoFlow::decode(&*pruned).map_err(broken)?;
        }
        Ok(response)
    }

    fn lost_in_kernel(&self) -> u64 {
        self.shared.observed.lost_in_kernel.load(Ordering::Relaxed)
    }

    fn note_kernel_losses(&mut self) {
        let lost = self.lost_in_kernel();
        let since = lost.saturating_sub(self.losses.in_kernel_before);
        self.losses.in_kernel_before = lost;
        if since > 0 {
            self.losses.note(LostEventSource::PerfEventRingBuffer, since);
        }
    }

    async fn tell_losses_if_due(&mut self) -> Result<(), Over> {
        if self.losses.due().is_some_and(|due| due <= Instant::now()) {
            self.tell_losses().await?;
        }
        Ok(())
    }

    async fn tell_losses(&mut self) -> Result<(), Over> {
        for loss in self.losses.take(Instant::now()) {
            let lost = convert::lost(&loss, &self.shared.observed.origin);
            self.send(Ok(lost)).await?;
        }
        Ok(())
    }

    /// Hands a line to the connection, which takes it as the client reads.
    async fn send(&self, line: Result<GetFlowsResponse, Status>) -> Result<(), Over> {
        self.answer.send(line).await.map_err(|_closed| Over)
    }
}

/// Losses that are not told yet, by where they happened.
#[derive(Debug)]
struct Losses {
    untold: Vec<Loss>,
    /// When the next may be told.
    next: Instant,
    in_kernel_before: u64,
}

impl Losses {
    fn new(now: Instant) -> Self {
        Self { untold: Vec::new(), next: now, in_kernel_before: 0 }
    }

    fn note(&mut self, source: LostEventSource, count: u64) {
        let time = now();
        match self.untold.iter_mut().find(|loss| loss.source == source) {
            Some(loss) => {
                loss.count = loss.count.saturating_add(count);
                loss.last = time;
            }
            None => self.untold.push(Loss { source, count, first: time, last: time }),
        }
    }

    /// From when on they may be told; `None` if there are none.
    fn due(&self) -> Option<Instant> {
        (!self.untold.is_empty()).then_some(self.next)
    }

    fn take(&mut self, now: Instant) -> Vec<Loss> {
        if !self.untold.is_empty() {
            self.next = now + BETWEEN_LOSSES;
        }
        std::mem::take(&mut self.untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_added_up_and_told_once_a_second() {
        let start = Instant::now();
        let mut losses = Losses::new(start);
        assert_eq!(losses.due(), None);
        losses.note(LostEventSource::HubbleRingBuffer, 3);
        assert_eq!(losses.due(), Some(start));
        let counts = |losses: Vec<Loss>| losses.iter().map(|loss| loss.count).collect::<Vec<_>>();
        assert_eq!(counts(losses.take(start)), [3]);
        losses.note(LostEventSource::HubbleRingBuffer, 1);
        losses.note(LostEventSource::PerfEventRingBuffer, 9);
        losses.note(LostEventSource::HubbleRingBuffer, 1);
        assert_eq!(losses.due(), Some(start + BETWEEN_LOSSES));
        assert_eq!(counts(losses.take(start + BETWEEN_LOSSES)), [2, 9]);
        assert_eq!(losses.due(), None);
    }
}
