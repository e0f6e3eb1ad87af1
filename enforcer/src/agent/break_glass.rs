//! Enforcement that somebody has switched off for a time: seen, logged when it begins and ends, and
//! shown.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tracing::warn;

use crate::{dataplane::Disabled, rfc3339};

/// What is switched off, by name; times are `CLOCK_MONOTONIC`, ns.
#[derive(Debug, Default)]
pub(super) struct BreakGlass {
    node: Option<u64>,
    endpoints: BTreeMap<u32, (Arc<str>, u64)>,
    wall_offset: Duration,
}

impl BreakGlass {
    pub(super) fn new(wall_offset: Duration) -> Self {
        Self { wall_offset, ..Self::default() }
    }

    /// Takes in what is switched off now, and logs what has changed.
    pub(super) fn look(&mut self, now: &Disabled, name: impl Fn(u32) -> Arc<str>) {
        if self.node != now.node {
            match now.node {
                Some(until) => {
                    let until = self.wall(until);
                    warn!(%until, "enforcement is DISABLED on this node: nothing is dropped");
                }
                None => warn!("enforcement is in force again on this node"),
            }
        }
        self.node = now.node;
        let endpoints: BTreeMap<u32, (Arc<str>, u64)> = now
            .endpoints
            .iter()
            .map(|(ifindex, until)| (*ifindex, (name(*ifindex), *until)))
            .collect();
        for (ifindex, (pod, until)) in &endpoints {
            if self.endpoints.get(ifindex).is_none_or(|(_, before)| before != until) {
                let until = self.wall(*until);
                warn!(%pod, %until, "enforcement is DISABLED for a pod: nothing of it is dropped");
            }
        }
        for (ifindex, (pod, _)) in &self.endpoints {
            if !endpoints.contains_key(ifindex) {
                warn!(%pod, "enforcement is in force again for a pod");
            }
        }
        self.endpoints = endpoints;
    }

    /// Until when the node is switched off, RFC 3339.
    pub(super) fn node(&self) -> Option<String> {
        self.node.map(|until| self.wall(until))
    }

    /// The same of an interface.
    pub(super) fn endpoint(&self, ifindex: u32) -> Option<String> {
        self.endpoints.get(&ifindex).map(|(_, until)| self.wall(*until))
    }

    /// The pods that are switched off, by name, and until when, RFC 3339.
    pub(super) fn pods(&self) -> impl Iterator<Item = (&str, String)> {
        self.endpoints.values().map(|(pod, until)| (&**pod, self.wall(*until)))
    }

    /// What is switched off and until when, as a number that changes with it.
    pub(super) fn state(&self) -> u64 {
        let untils =
            self.endpoints.iter().map(|(at, (_, until))| until.wrapping_mul(u64::from(*at)));
        untils.chain(self.node).fold(0, u64::wrapping_add)
    }

    /// Why the answer of a status is no; `None` if all is enforced.
    pub(super) fn failure(&self) -> Option<String> {
        if let Some(until) = self.node() {
            return Some(format!("enforcement is disabled on this node until {until}"));
        }
        let (pod, until) = self.endpoints.values().next()?;
        let until = self.wall(*until);
        Some(match self.endpoints.len() {
            1 => format!("enforcement is disabled for {pod} until {until}"),
            n => format!("enforcement is disabled for {n} pods, the first: {pod}, until {until}"),
        })
    }

    /// Wall clock less the clock of events is this by now.
    pub(super) fn note_wall_offset(&mut self, offset: Duration) {
        self.wall_offset = offset;
    }

    fn wall(&self, until: u64) -> String {
        let time = self.wall_offset.saturating_add(Duration::from_nanos(until));
        rfc3339::timestamp(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(node: Option<u64>, endpoints: &[(u32, u64)]) -> Disabled {
        Disabled { node, endpoints: endpoints.to_vec() }
    }

    #[test]
    fn what_is_off_is_named_with_its_end() {
        let mut glass = BreakGlass::new(Duration::from_secs(1_700_000_000));
        let name = |ifindex: u32| Arc::from(format!("shop/pod-{ifindex}"));
        glass.look(&at(None, &[]), name);
        assert_eq!((glass.node(), glass.endpoint(5), glass.failure()), (None, None, None));
        glass.look(&at(None, &[(5, 60_000_000_000)]), name);
        let until = "2023-11-14T22:14:20.000000000Z";
        assert_eq!(glass.endpoint(5).as_deref(), Some(until));
        let failure = format!("enforcement is disabled for shop/pod-5 until {until}");
        assert_eq!(glass.failure(), Some(failure));
        glass.look(&at(Some(60_000_000_000), &[(5, 1), (6, 2)]), name);
        let failure = format!("enforcement is disabled on this node until {until}");
        assert_eq!(glass.failure(), Some(failure));
        glass.look(&at(None, &[(5, 1), (6, 2)]), name);
        assert!(glass.failure().is_some_and(|text| text.contains("2 pods, the first: shop/pod-5")));
        glass.look(&at(None, &[]), name);
        assert_eq!((glass.failure(), glass.endpoint(6)), (None, None));
    }
}
