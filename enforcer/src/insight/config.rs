//! When something is worth telling; each threshold can be set.

use std::{fmt, str::FromStr, time::Duration};

/// So many different things within a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; 0 for never.
    pub count: u16,
    /// Within this time.
    pub within: Duration,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.within.as_secs())
    }
}

/// What a rate must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be COUNT/SECONDS such as 20/60, with 2 to 1000 within 1 to 3600 s, or 0 for never")]
pub struct RateError;

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        if text == "0" {
            return Ok(Self { count: 0, within: Duration::from_secs(60) });
        }
        let (count, seconds) = text.split_once('/').ok_or(RateError)?;
        let number = |text: &str| text.parse::<u16>().ok();
        let count = number(count).filter(|n| (2..=1000).contains(n)).ok_or(RateError)?;
        let seconds = number(seconds).filter(|n| (1..=3600).contains(n)).ok_or(RateError)?;
        Ok(Self { count, within: Duration::from_secs(seconds.into()) })
    }
}

/// What is looked for, and from when on it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsightConfig {
    /// Ports of one destination that one source tried in vain.
    pub port_scan: Rate,
    /// Peers that one pod was denied.
    pub denied_peers: Rate,
    /// First contacts with addresses outside the cluster are told.
    pub first_outside: bool,
    /// Pods that ask the cloud's metadata address are told.
    pub metadata: bool,
    /// First contacts with the API server are told.
    pub first_api_server: bool,
    /// For so long from the first flow on, contacts are learned and not told: an agent that starts
    /// knows none.
    pub learning: Duration,
}

impl Default for InsightConfig {
    fn default() -> Self {
        let a_minute = Duration::from_secs(60);
        Self {
            port_scan: Rate { count: 20, within: a_minute },
            denied_peers: Rate { count: 20, within: a_minute },
            first_outside: true,
            metadata: true,
            first_api_server: true,
            learning: Duration::from_secs(600),
        }
    }
}

impl InsightConfig {
    /// [`Self::learning`] in the unit of flows' times.
    pub(super) fn learning_ns(&self) -> i64 {
        i64::try_from(self.learning.as_nanos()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_a_count_within_seconds() {
        let rate = |count, seconds| Rate { count, within: Duration::from_secs(seconds) };
        assert_eq!("20/60".parse(), Ok(rate(20, 60)));
        assert_eq!("0".parse(), Ok(rate(0, 60)));
        for wrong in ["", "20", "20/", "/60", "1/60", "1001/60", "20/0", "20/3601", "-3/4", "a/b"] {
            assert_eq!(wrong.parse::<Rate>(), Err(RateError), "{wrong}");
        }
    }
}
