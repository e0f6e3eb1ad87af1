//! When saved state comes into force, and when it goes. Time is a parameter.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::{
    cluster::event::{Event, ObjectKey},
    source::saved::Saved,
};

/// A clock that says that the file is from the future by more than this was set back: then nobody
/// knows how old the file is.
const SKEW: Duration = Duration::from_secs(60);

/// Saved state on its way into force and out of it.
#[derive(Debug)]
pub(super) enum Restore {
    /// There is none, or it has done its duty.
    Nothing,
    /// The API server may still be faster.
    Waiting { until: Instant },
    /// It is in force.
    InForce {
        confirmed: SystemTime,
        /// Pods of other nodes, and until when their addresses count.
        remote: Vec<ObjectKey>,
        until: Option<Instant>,
        /// Undoes what a list of pods, namespaces and policies does not.
        undo: Vec<Event>,
    },
}

impl Restore {
    /// When [`Self::take`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Nothing => None,
            Self::Waiting { until } => Some(*until),
            Self::InForce { until, .. } => *until,
        }
    }

    /// When what is in force was last known to be true.
    pub(super) fn in_force(&self) -> Option<SystemTime> {
        match self {
            Self::InForce { confirmed, .. } => Some(*confirmed),
            Self::Nothing | Self::Waiting { .. } => None,
        }
    }

    /// The server has told everything: what must be undone of what was saved, if it is in force.
    pub(super) fn end(&mut self) -> Vec<Event> {
        match std::mem::replace(self, Self::Nothing) {
            Self::InForce { undo, .. } => undo,
            Self::Nothing | Self::Waiting { .. } => Vec::new(),
        }
    }

    /// What happens now. What was saved is read when it is needed, because another agent may save
    /// until then. Addresses of other nodes' pods count for `remote` after they were last
    /// confirmed.
    pub(super) fn take(
        &mut self,
        now: Instant,
        wall: SystemTime,
        remote: Duration,
        read: impl FnOnce() -> Option<Saved>,
    ) -> Vec<Event> {
        if self.due().is_none_or(|due| now < due) {
            return Vec::new();
        }
        match std::mem::replace(self, Self::Nothing) {
            Self::Nothing => Vec::new(),
            Self::Waiting { .. } => {
                let Some(saved) = read() else { return Vec::new() };
                let Saved { confirmed, policies, namespaces, local, remote: others, .. } = saved;
                let Saved { services, slices, .. } = saved;
                let left = left(confirmed, wall, remote);
                let mut pods = local;
                let mut keys = Vec::new();
                if !left.is_zero() {
                    keys = others.iter().map(|pod| pod.key.clone()).collect();
                    pods.extend(others);
                }
                let services_gone =
                    services.iter().map(|one| Event::ServiceDeleted(one.key.clone()));
                let slices_gone = slices.iter().map(|one| Event::SliceDeleted(one.key.clone()));
                let undo = services_gone.chain(slices_gone).collect();
                *self = Self::InForce { confirmed, remote: keys, until: Some(now + left), undo };
                let services = services.into_iter().map(Box::new).map(Event::ServiceApplied);
                let slices = slices.into_iter().map(Event::SliceApplied);
                let relist = Event::Relist { pods, namespaces, policies };
                [relist].into_iter().chain(services).chain(slices).collect()
            }
            Self::InForce { confirmed, remote, undo, .. } => {
                *self = Self::InForce { confirmed, remote: Vec::new(), until: None, undo };
                remote.into_iter().map(Event::PodDeleted).collect()
            }
        }
    }
}

/// How long addresses of other nodes' pods still count.
fn left(confirmed: SystemTime, wall: SystemTime, remote: Duration) -> Duration {
    match wall.duration_since(confirmed) {
        Ok(age) => remote.saturating_sub(age),
        Err(early) if early.duration() <= SKEW => remote,
        Err(_) => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::event::{Labels, Pod};

    const REMOTE: Duration = Duration::from_secs(600);

    fn pod(name: &str) -> Pod {
        Pod {
            key: ObjectKey { namespace: "n".into(), name: name.into() },
            uid: "".into(),
            labels: Labels::new(),
            addresses: Vec::new(),
            host_network: false,
            finished: false,
            terminating: false,
            started: 0,
            containers_started: None,
            ports: Vec::new(),
            node: None,
            workload: None,
        }
    }

    /// Saved state that was confirmed this long ago.
    fn restore(age: Duration) -> (Restore, Saved, Instant, SystemTime) {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let saved = Saved {
            confirmed: wall - age,
            policies: Vec::new(),
            namespaces: Vec::new(),
            local: vec![pod("here")],
            remote: vec![pod("there")],
            services: Vec::new(),
            slices: Vec::new(),
        };
        (Restore::Waiting { until: now + Duration::from_secs(3) }, saved, now, wall)
    }

    fn names(events: &[Event]) -> Vec<String> {
        let of = |event: &Event| match event {
            Event::Relist { pods, .. } => pods.iter().map(|pod| pod.key.name.to_string()).collect(),
            Event::PodDeleted(key) => vec![format!("-{}", key.name)],
            other => panic!("{other:?}"),
        };
        events.iter().flat_map(of).collect()
    }

    #[test]
    fn it_waits_and_then_its_remote_addresses_count_for_ten_minutes() {
        let (mut restore, saved, now, wall) = restore(Duration::from_secs(500));
        let mut at = |seconds: u64| {
            let wait = Duration::from_secs(seconds);
            let events = restore.take(now + wait, wall + wait, REMOTE, || Some(saved.clone()));
            (names(&events), restore.in_force().is_some())
        };
        assert_eq!(at(2), (vec![], false));
        assert_eq!(at(3), (vec!["here".into(), "there".into()], true));
        assert_eq!(at(99), (vec![], true));
        assert_eq!(at(100), (vec!["-there".into()], true));
        assert_eq!(at(9999), (vec![], true), "the rest stays");
    }

    #[test]
    fn old_state_and_state_of_unknown_age_has_no_remote_addresses() {
        for (age, set_back, expected) in [
            (601, 0, &["here"][..]),
            // The clock was set back since, by hours or by days: nobody knows how old it is.
            (0, 61, &["here"]),
            (0, 900_000, &["here"]),
            (0, 59, &["here", "there"]),
        ] {
            let (mut restore, saved, now, wall) = restore(Duration::from_secs(age));
            let wall = wall - Duration::from_secs(set_back);
            let wait = Duration::from_secs(3);
            let events = restore.take(now + wait, wall, REMOTE, || Some(saved));
            assert_eq!(names(&events), expected, "{age} {set_back}");
            // Whatever the clock says meanwhile, they end by one that is never set.
            let events = restore.take(now + wait + REMOTE, wall - REMOTE, REMOTE, || None);
            assert_eq!(names(&events).len(), expected.len() - 1);
        }
    }

    #[test]
    fn nothing_is_nothing() {
        let mut none = Restore::Waiting { until: Instant::now() };
        let later = Instant::now() + Duration::from_secs(9);
        assert!(none.take(later, SystemTime::now(), REMOTE, || None).is_empty());
        assert!(none.due().is_none() && none.in_force().is_none());
    }
}
