//! Whether the agent lives and is ready, as its owner last said.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How long the owner may be silent. It says that it lives many times a second; the longest thing
/// it does in between is the first plan of a large cluster, which takes seconds.
const SILENCE: Duration = Duration::from_secs(60);

/// Life and readiness.
#[derive(Debug)]
pub struct Health {
    made: Instant,
    /// When the owner last said that it lives, in ms after `made`; 0 before the first time.
    beat: AtomicU64,
    /// Why it is not ready.
    not_ready: Mutex<Option<String>>,
}

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        let not_ready = Some("the first complete plan is not in force yet".to_owned());
        Self { made: now, beat: AtomicU64::new(0), not_ready: Mutex::new(not_ready) }
    }

    /// The owner's loop came round.
    pub fn beat(&self, now: Instant) {
        // Relaxed: the number says nothing about any other.
        self.beat.store(self.at(now).max(1), Ordering::Relaxed);
    }

    /// The first complete plan is in force, from whatever source, or the reason why not.
    pub fn set_ready(&self, ready: Result<(), String>) {
        *self.not_ready.lock().unwrap_or_else(PoisonError::into_inner) = ready.err();
    }

    /// Whether the owner lives. Before it has begun it is given all the time it needs: that is
    /// what readiness is for.
    ///
    /// # Errors
    /// The reason why not.
    pub fn alive(&self, now: Instant) -> Result<(), String> {
        let beat = self.beat.load(Ordering::Relaxed);
        let silence = self.at(now).saturating_sub(beat);
        if beat == 0 || u128::from(silence) <= SILENCE.as_millis() {
            return Ok(());
        }
        Err(format!("the agent has been stuck for {} s; policy stays in force", silence / 1000))
    }

    /// Whether a complete plan is in force.
    ///
    /// # Errors
    /// The reason why not.
    pub fn ready(&self) -> Result<(), String> {
        let reason = self.not_ready.lock().unwrap_or_else(PoisonError::into_inner);
        reason.as_ref().map_or(Ok(()), |reason| Err(reason.clone()))
    }

    fn at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.made);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_death_only_after_the_first_word() {
        let start = Instant::now();
        let health = Health::new(start);
        assert_eq!(health.alive(start + Duration::from_secs(3600)), Ok(()));
        health.beat(start + Duration::from_secs(1));
        assert_eq!(health.alive(start + Duration::from_secs(61)), Ok(()));
        let stuck = health.alive(start + Duration::from_secs(75)).unwrap_err();
        assert_eq!(stuck, "the agent has been stuck for 74 s; policy stays in force");
        health.beat(start + Duration::from_secs(76));
        assert_eq!(health.alive(start + Duration::from_secs(77)), Ok(()));
    }

    #[test]
    fn readiness_is_what_the_owner_said_last() {
        let health = Health::new(Instant::now());
        assert!(health.ready().unwrap_err().starts_with("the first complete plan"));
        health.set_ready(Ok(()));
        assert_eq!(health.ready(), Ok(()));
        health.set_ready(Err("a reason".to_owned()));
        assert_eq!(health.ready(), Err("a reason".to_owned()));
    }
}
