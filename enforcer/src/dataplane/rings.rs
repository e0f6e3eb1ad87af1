//! The event rings, read by polling: the programs wake nobody, because waking costs the packet
//! more than the event does.

use enforcer_common::abi::lane;

use super::maps::RingMaps;
use crate::flow::reading::{Exhausted, Records};

/// Most events taken at once, so that reading never starves the rest of the agent.
const BATCH: usize = 4096;

impl RingMaps {
    /// Hands every waiting event to `each`, verdicts and drops first. Returns how many there were;
    /// as many as a batch holds mean that there may be more.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        let mut taken = 0;
        let _exhausted = self.read(&mut |_lane, bytes| {
            taken += 1;
            each(bytes);
        });
        taken
    }
}

impl Records for RingMaps {
    fn read(&mut self, each: &mut dyn FnMut(u32, &[u8])) -> Exhausted {
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
        exhausted
    }
}
