//! What a turn has come to, by the clock on the wall and by that of the processor.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::traffic::cpu;

/// What was done in a turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turn {
    /// How much went through, in the load's unit.
    pub(crate) units: f64,
    /// Seconds on the wall.
    pub(crate) wall: f64,
    /// Seconds of the processor that both ends took, the kernel's work for them included.
    pub(crate) ends: f64,
    /// Seconds of the processor that an agent took meanwhile and shortly after.
    pub(crate) agent: f64,
}

impl Turn {
    /// Units a second of the processor that both ends share: the rate that they would have if
    /// nobody else ran on it.
    pub(crate) fn pace(&self) -> f64 {
        self.units / self.ends
    }

    /// Units a second on the wall.
    pub(crate) fn rate(&self) -> f64 {
        self.units / self.wall
    }

    /// Microseconds of the processor for a unit, at both ends and on the way.
    pub(crate) fn cost(&self) -> f64 {
        self.ends * 1e6 / self.units
    }

    /// The same and what the agent took.
    pub(crate) fn whole_cost(&self) -> f64 {
        (self.ends + self.agent) * 1e6 / self.units
    }
}

/// Both clocks, from the start of a turn on.
pub(super) struct Meter {
    since: Instant,
    spent: Duration,
    until: Instant,
}

impl Meter {
    /// A turn that is to take so long.
    pub(super) fn start(time: Duration) -> io::Result<Self> {
        let spent = cpu::own_time()?;
        let since = Instant::now();
        Ok(Self { since, spent, until: since + time })
    }

    /// Whether there is time left.
    pub(super) fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    /// The end of the turn.
    pub(super) fn stop(self, units: f64) -> io::Result<Turn> {
        let wall = self.since.elapsed().as_secs_f64();
        let ends = cpu::own_time()?.saturating_sub(self.spent).as_secs_f64();
        Ok(Turn { units, wall, ends, agent: 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_by_the_wall_and_paces_and_costs_by_the_processor() {
        let turn = Turn { units: 1_000.0, wall: 0.5, ends: 0.02, agent: 0.01 };
        let near = |left: f64, right: f64| assert!((left - right).abs() < 1e-9, "{left} {right}");
        near(turn.rate(), 2_000.0);
        near(turn.pace(), 50_000.0);
        near(turn.cost(), 20.0);
        near(turn.whole_cost(), 30.0);
    }

    #[test]
    fn a_turn_lasts_as_long_as_it_is_to() {
        let meter = Meter::start(Duration::from_millis(5)).unwrap();
        while meter.goes_on() {}
        let turn = meter.stop(1.0).unwrap();
        assert!(turn.wall >= 0.005 && turn.ends > 0.0, "{turn:?}");
    }
}
