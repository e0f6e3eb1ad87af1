//! The kernel's verdicts, held against the words of the API while the agent works.
//!
//! A sample of what the kernel has judged is judged once more by `enforcer_reference`, from objects
//! that are kept here apart from the index. The two share nothing between an object and a verdict, so
//! what is wrong in the index, the compiler, the maps or the programs shows as a difference.
//!
//! What was in force when a packet was judged is not known to the nanosecond. So a sample waits until
//! everything is here that was known at its time, and is passed over if anything changed between.

pub(crate) mod convert;
mod mirror;
mod sample;

use std::{collections::VecDeque, fmt, time::Duration};

use enforcer_common::reason::Reason;
use enforcer_reference::Answer;

pub use self::{mirror::Mirror, sample::Sample};
use crate::cluster::event::Event;

/// How long a sample waits for what was known at its time: the owner of the index tells each change
/// before it brings it into force, and the kernel's records are read within some milliseconds.
const PATIENCE: Duration = Duration::from_millis(250);
/// Samples that wait; more are passed over.
const MOST: usize = 1024;

/// A verdict that is not what policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What the kernel judged.
    pub sample: Sample,
    /// What the reference says.
    pub expected: Answer,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; by the objects it is ", self.sample)?;
        let names = |names: Vec<String>| names.join(", ");
        match &self.expected {
            Answer::NotIsolated => f.write_str("not isolated"),
            Answer::Allowed(rules) => {
                let name = |rule: &enforcer_reference::Rule| {
                    let enforcer_reference::Rule { policy, index, .. } = rule;
                    format!("{}/{} rule {index}", policy.namespace, policy.name)
                };
                write!(f, "allowed by {}", names(rules.iter().map(name).collect()))
            }
            Answer::Denied(policies) => {
                let name =
                    |name: &enforcer_reference::Name| format!("{}/{}", name.namespace, name.name);
                write!(f, "denied, isolated by {}", names(policies.iter().map(name).collect()))
            }
        }
    }
}

/// What became of a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Kernel and reference say the same.
    Agrees,
    /// They do not.
    Differs(Box<Difference>),
    /// Something changed about its time, or its pod is not known here.
    PassedOver,
}

/// Checks samples. `now` and all times are of `CLOCK_MONOTONIC`, in ns.
#[derive(Debug, Default)]
pub struct Checker {
    mirror: Mirror,
    waiting: VecDeque<Sample>,
    /// Since when everything is in force that is known; `None` while something is not.
    settled: Option<u64>,
}

impl Checker {
    /// Something changes: it is not in force yet.
    pub fn changes(&mut self, event: &Event) {
        if self.mirror.apply(event) {
            self.settled = None;
        }
    }

    /// All that was told is in force since `now`, unless something could not be written.
    pub fn settles(&mut self, now: u64, whole: bool) {
        if !whole {
            self.settled = None;
        } else if self.settled.is_none() {
            self.settled = Some(now);
        }
    }

    /// Takes in what the kernel has judged, in the order of its times. What comes back was pushed
    /// aside unchecked.
    pub fn take(&mut self, sample: Sample) -> Option<Sample> {
        self.waiting.push_back(sample);
        if self.waiting.len() > MOST { self.waiting.pop_front() } else { None }
    }

    /// Checks the next sample that has waited long enough.
    pub fn check(&mut self, now: u64) -> Option<Checked> {
        let due =
            |sample: &mut Sample| u128::from(now) >= u128::from(sample.time) + PATIENCE.as_nanos();
        let sample = self.waiting.pop_front_if(due)?;
        if self.settled.is_none_or(|since| since >= sample.time) {
            return Some(Checked::PassedOver);
        }
        let Some((cluster, subject)) = self.mirror.about(&sample) else {
            return Some(Checked::PassedOver);
        };
        let expected = cluster.by_policy(&subject, &sample.packet());
        let agrees = match (&expected, sample.reason) {
            (Answer::NotIsolated, Reason::NotIsolated)
            | (Answer::Denied(_), Reason::PolicyDenied) => true,
            (Answer::Allowed(rules), Reason::Allowed) => {
                sample.rule.as_ref().is_none_or(|named| rules.contains(named))
            }
            _ => false,
        };
        Some(if agrees {
            Checked::Agrees
        } else {
            Checked::Differs(Box::new(Difference { sample, expected }))
        })
    }
}

#[cfg(test)]
mod tests;
