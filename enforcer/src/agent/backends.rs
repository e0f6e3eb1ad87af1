//! The thread that notes which backends flows to Services have.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tracing::debug;

use crate::{
    dataplane::{BackendNotes, DataplaneError},
    error_chain,
};

/// Flows are looked at this often at most.
const AT_MOST: Duration = Duration::from_millis(200);
/// Between two looks there is so many times what one takes.
const SHARE: u32 = 10;

/// The notes, on their way or not.
#[derive(Debug, Default)]
pub(super) struct Backends {
    work: Option<JoinHandle<Duration>>,
    begun: Option<Instant>,
    /// What the last look took.
    cost: Duration,
}

impl Backends {
    /// Begins a look if it is time for one. Returns whether it did. To be called within a runtime.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        open: impl FnOnce() -> Result<BackendNotes, DataplaneError>,
    ) -> bool {
        if !self.is_free() || !is_time(self.begun, self.cost, now) {
            return false;
        }
        self.begun = Some(now);
        match open() {
            Ok(mut notes) => {
                self.work = Some(tokio::task::spawn_blocking(move || {
                    let began = Instant::now();
                    notes.update().unwrap_or_else(|error| fail(&error));
                    began.elapsed()
                }));
            }
            Err(error) => fail(&error),
        }
        true
    }

    /// Whether no look is under way.
    fn is_free(&mut self) -> bool {
        let Some(work) = &mut self.work else { return true };
        let Some(done) = work.now_or_never() else { return false };
        self.work = None;
        // One that panicked says nothing of the next.
        self.cost = done.unwrap_or(self.cost);
        true
    }
}

fn is_time(begun: Option<Instant>, cost: Duration, now: Instant) -> bool {
    let apart = cost.saturating_mul(SHARE).max(AT_MOST);
    begun.is_none_or(|begun| now.saturating_duration_since(begun) >= apart)
}

fn fail(error: &DataplaneError) {
    debug!(
        error = error_chain(error),
        "the backends of flows to Services cannot be noted: they are judged packet by packet"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_apart_and_the_more_the_longer_they_take() {
        let now = Instant::now();
        let is_time = |ago: u64, cost: u64| {
            is_time(Some(now), Duration::from_millis(cost), now + Duration::from_millis(ago))
        };
        assert!(super::is_time(None, Duration::MAX, now), "the first");
        assert!(!is_time(199, 0) && is_time(200, 20));
        assert!(!is_time(2999, 300) && is_time(3000, 300));
    }

    #[tokio::test]
    async fn while_one_is_under_way_there_is_no_other() {
        let mut backends = Backends::default();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        backends.work = Some(tokio::task::spawn_blocking(move || {
            ended.recv().unwrap();
            Duration::from_millis(7)
        }));
        let never = || panic!("one is under way");
        assert!(!backends.begin(Instant::now(), never));
        end.send(()).unwrap();
        while !backends.is_free() {
            tokio::task::yield_now().await;
        }
        assert_eq!(backends.cost, Duration::from_millis(7));
        let refused = || Err(DataplaneError::Privilege);
        assert!(backends.begin(Instant::now(), refused), "it counts as a look");
        assert!(!backends.begin(Instant::now(), never), "not again at once");
    }
}
