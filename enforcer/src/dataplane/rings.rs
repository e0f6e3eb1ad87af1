//! The event rings, read by polling: the programs wake nobody, because waking costs the packet
//! more than the event does.

use super::maps::RingMaps;

/// Most events taken at once, so that reading never starves the rest of the agent.
const BATCH: usize = 4096;

impl RingMaps {
    /// Hands every waiting event to `each`, verdicts and drops first. Returns how many there were;
    /// as many as a batch holds mean that there may be more.
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
        taken
    }
}
