//! The event rings, read by polling: the programs wake nobody, because waking costs the packet
//! more than the event does.

use enforcer_common::abi::lane;

use super::{
    DataplaneError, Kernel,
    maps::{RingMaps, failed},
    sys,
};

/// Most events taken at once, so that reading never starves the rest of the agent.
const BATCH: usize = 4096;

impl RingMaps {
    /// Hands every waiting event to `each`, verdicts and drops first and flows that have aged last:
    /// the bytes of an [`Event`] or a [`Closed`]. Returns how many there were; as many as a batch
    /// holds mean that there may be more.
    ///
    /// [`Event`]: enforcer_common::abi::Event
    /// [`Closed`]: enforcer_common::abi::Closed
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        let mut taken = 0;
        for ring in [&mut self.verdicts, &mut self.traces] {
            let mut left = BATCH;
            while left > 0
                && let Some(item) = ring.next()
            {
                left -= 1;
                taken += 1;
                each(&item);
            }
        }
        for closed in self.closed.try_iter().take(BATCH) {
            taken += 1;
            each(sys::bytes_of(&closed));
        }
        taken
    }

    /// Hands over what is counted of drops and was not told yet, if it is time to look: once a
    /// second. `now` is `CLOCK_MONOTONIC`, ns. Without it the last packets of a storm stay untold.
    pub fn sweep_drops(&mut self, now: u64, mut each: impl FnMut(&[u8])) -> usize {
        self.drops.sweep(now, |event| each(sys::bytes_of(event)))
    }
}

impl Kernel {
    /// Events lost by lane, summed over CPUs.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn lost(&self) -> Result<[u64; lane::COUNT as usize], DataplaneError> {
        let [verdict, trace, ..] = self.lanes()?;
        Ok([verdict, trace + self.maps.closings.lost()])
    }

    /// Events by lane that were not told because nobody wants them.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn untold(&self) -> Result<[u64; lane::COUNT as usize], DataplaneError> {
        let [.., verdict, trace] = self.lanes()?;
        Ok([verdict, trace + self.maps.closings.untold()])
    }

    fn lanes(&self) -> Result<[u64; lane::SLOTS as usize], DataplaneError> {
        let mut lanes = [0; lane::SLOTS as usize];
        for (index, sum) in (0..).zip(&mut lanes) {
            let values = self.maps.lost.get(&index, 0);
            *sum = values
                .map_err(|error| failed("read", enforcer_common::abi::MAP_LOST, error))?
                .iter()
                .sum();
        }
        Ok(lanes)
    }
}
