//! Turns: every variant under every load, round by round, so that whatever else the machine does
//! meanwhile is there for all of them.

use std::{
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use super::{
    cpu::Processor,
    error::TrafficError,
    load::{Load, Turn},
    site::Site,
};

/// After a turn, until an agent has read what the kernel told of it.
const SETTLE: Duration = Duration::from_millis(100);

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Rounds that count. One more comes before, to warm up.
    pub(crate) rounds: u32,
    /// One variant's turn under one load.
    pub(crate) turn: Duration,
    /// The ends are on two processors, and not on one.
    pub(crate) apart: bool,
}

/// What one variant has done under one load, round by round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(pub(crate) Vec<Turn>);

/// Has all of them take turns: for each load the series of each site, in their order.
pub(crate) fn hold(
    sites: &mut [Site],
    loads: &[Load],
    size: Size,
) -> Result<Vec<Vec<Series>>, TrafficError> {
    let mut measured = vec![vec![Series::default(); sites.len()]; loads.len()];
    let since = Instant::now();
    for round in 0..=size.rounds {
        say(&format!("round {round} of {}, {} s", size.rounds, since.elapsed().as_secs()));
        for (load, series) in loads.iter().zip(&mut measured) {
            for at in order(sites.len(), round) {
                let (Some(site), Some(series)) = (sites.get_mut(at), series.get_mut(at)) else {
                    continue;
                };
                let turn = turn(site, *load, size)?;
                if round > 0 {
                    series.0.push(turn);
                }
            }
        }
    }
    Ok(measured)
}

fn turn(site: &mut Site, load: Load, size: Size) -> Result<Turn, TrafficError> {
    site.prepare(load)?;
    let failed =
        |source| TrafficError::Turn { variant: site.name().to_owned(), load: load.title(), source };
    let server_on = if size.apart { Processor::First } else { Processor::Last };
    let before = site.agent_time()?;
    let mut turn = load.turn(&site.ends(server_on)?, size.turn).map_err(failed)?;
    // Elsewhere an agent has next to nothing to read.
    if let Some(before) = before
        && load == Load::Connect
    {
        thread::sleep(SETTLE);
        let after = site.agent_time()?.unwrap_or(before);
        turn.agent = after.saturating_sub(before).as_secs_f64();
    }
    Ok(turn)
}

/// The order of a round: another one begins each time, and every other round runs backwards, so that
/// nobody always comes after the same.
fn order(sites: usize, round: u32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sites).collect();
    order.rotate_left(round as usize / 2 % sites.max(1));
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// Tells who waits how far it is.
pub(crate) fn say(what: &str) {
    // Nothing is wrong with the measurement if nobody hears it.
    writeln!(std::io::stderr(), "bench: {what}").ok();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_round_has_everybody_once() {
        for round in 0..20 {
            let order = order(7, round);
            assert_eq!(order.len(), 7);
            assert_eq!(order.into_iter().collect::<BTreeSet<_>>(), (0..7).collect());
        }
    }

    #[test]
    fn everybody_is_first_and_last_in_time() {
        let all: Vec<_> = (0..14).map(|round| order(7, round)).collect();
        for end in [0, 6] {
            let there: BTreeSet<_> = all.iter().map(|order| order[end]).collect();
            assert_eq!(there.len(), 7);
        }
        assert_eq!(order(3, 2), [1, 2, 0]);
        assert_eq!(order(3, 3), [0, 2, 1], "the same backwards");
    }
}
