//! Which part of a ring a request asks for: the same for flows and for the agent's events.

use prost_types::Timestamp;
use tonic::Status;

use crate::hubble::convert::nanoseconds;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// At most so many; `None` for no limit.
    pub(super) number: Option<u64>,
    /// The oldest instead of the newest.
    pub(super) first: bool,
    /// Go on with new ones.
    pub(super) follow: bool,
    /// Not before (ns since the epoch).
    pub(super) since: Option<i64>,
    /// Not after (ns since the epoch).
    pub(super) until: Option<i64>,
}

impl Range {
    /// What a request's fields say.
    pub(super) fn of(
        number: u64,
        first: bool,
        follow: bool,
        since: Option<&Timestamp>,
        until: Option<&Timestamp>,
    ) -> Result<Self, Status> {
        if first && follow {
            return Err(Status::invalid_argument("first cannot be specified with follow"));
        }
        for (field, time) in [("since", since), ("until", until)] {
            if time.is_some_and(|time| !(0..1_000_000_000).contains(&time.nanos)) {
                return Err(Status::invalid_argument(format!("{field} is no time")));
            }
        }
        let number = (number > 0).then_some(number);
        let (since, until) = (since.map(nanoseconds), until.map(nanoseconds));
        Ok(Self { number, first, follow, since, until })
    }

    /// Whether nothing that is there already is wanted.
    pub(super) fn starts_now(&self) -> bool {
        self.follow && self.number.is_none() && self.since.is_none()
    }

    /// Whether a time is within.
    pub(super) fn has(&self, time: i64) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }
}
