//! How long starting pods waited for their policy.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::core::Core;
use crate::cluster::event::{Event, Pod};

/// Pods whose containers' start is waited for, at most.
const MOST: usize = 1024;

/// When the policy of pods came into force whose containers' start is not known yet, by UID; since
/// the epoch.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    in_force: HashMap<Arc<str>, Duration>,
}

/// How long a process in the pod was certainly without its policy: the API tells the start by the
/// second, and what may have been before it does not count.
fn certain(started: i64, in_force: Duration) -> Duration {
    let next_second = u64::try_from(started).unwrap_or(0).saturating_add(1);
    in_force.saturating_sub(Duration::from_secs(next_second))
}

impl Core {
    /// The policy of a pod that starts is in force now, after `since_link`.
    pub(super) fn came_into_force(&mut self, ifindex: u32, since_link: Duration, wall: Duration) {
        self.metrics.start_gap.link.observe(since_link);
        let Some(pod) = self.index.pod_behind(ifindex) else { return };
        match pod.containers_started {
            Some(started) => self.metrics.start_gap.container.observe(certain(started, wall)),
            None if self.gaps.in_force.len() < MOST && !pod.uid.is_empty() => {
                self.gaps.in_force.insert(Arc::clone(&pod.uid), wall);
            }
            None => {}
        }
    }

    /// The source tells of something: perhaps of a container's start.
    pub(super) fn containers_started(&mut self, event: &Event) {
        match event {
            Event::PodApplied(Pod { uid, containers_started: Some(started), .. }) => {
                if let Some(in_force) = self.gaps.in_force.remove(uid) {
                    self.metrics.start_gap.container.observe(certain(*started, in_force));
                }
            }
            Event::PodDeleted(key) => {
                if let Some(uid) = self.index.pod_uid(key) {
                    self.gaps.in_force.remove(&uid);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certain_counts() {
        let at = Duration::from_millis;
        assert_eq!(certain(100, at(99_900)), Duration::ZERO, "in force before");
        assert_eq!(certain(100, at(100_900)), Duration::ZERO, "within the second");
        assert_eq!(certain(100, at(101_250)), at(250));
        assert_eq!(certain(-5, at(1_250)), at(250));
    }
}
