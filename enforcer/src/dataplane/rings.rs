//! The event rings, read by polling: the programs wake nobody, because waking costs the packet
//! more than the event does.

use enforcer_common::abi::lane;

use super::{
    DataplaneError, Kernel,
    maps::{RingMaps, failed},
    monotonic, sys,
};
use crate::flow::reading::{Exhausted, Records};

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
        let _exhausted = self.rings_and_closed(&mut |_lane, bytes| {
            taken += 1;
            each(bytes);
        });
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

impl RingMaps {
    fn rings_and_closed(&mut self, each: &mut dyn FnMut(u32, &[u8])) -> Exhausted {
        let mut exhausted = [false; lane::COUNT as usize];
        let rings = [(lane::VERDICT, &mut self.verdicts), (lane::TRACE, &mut self.traces)];
        for ((lane, ring), exhausted) in rings.into_iter().zip(&mut exhausted) {
            let mut left = BATCH;
            while left > 0 {
                let Some(item) = ring.next() else {
                    *exhausted = true;
                    break;
                };
                left -= 1;
                each(lane, &item);
            }
        }
        for closed in self.closed.try_iter().take(BATCH) {
            each(lane::TRACE, sys::bytes_of(&closed));
        }
        exhausted
    }
}

impl Records for RingMaps {
    fn read(&mut self, each: &mut dyn FnMut(u32, &[u8])) -> Exhausted {
        let exhausted = self.rings_and_closed(each);
        self.sweep_drops(monotonic(), |bytes| each(lane::VERDICT, bytes));
        exhausted
    }
}
