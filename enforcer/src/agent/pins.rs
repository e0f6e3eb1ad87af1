//! Looks after the pins: without them, what is in force would end with the agent.

use tracing::{error, warn};

use super::core::Core;
use crate::{error_chain, source::problem::Problem};

impl Core {
    /// Makes pins again that another hand removed.
    pub(super) fn look_after_pins(&mut self) {
        match self.kernel.restore_pins() {
            Ok(restored) => {
                if restored > 0 {
                    warn!(
                        restored,
                        "pins in the BPF filesystem had been removed and are there again"
                    );
                }
                self.pins_lost = None;
            }
            Err(error) => {
                let why = error_chain(&error);
                if self.pins_lost.as_ref() != Some(&why) {
                    error!(
                        error = why,
                        "pins are gone: policy is in force as long as this agent runs, and not after it"
                    );
                }
                self.pins_lost = Some(why);
            }
        }
    }
}

/// That pins are gone and cannot be made again.
pub(super) fn problem(core: &Core) -> Option<Problem> {
    core.pins_lost.as_ref().map(|why| Problem {
        object: Some("Node".to_owned()),
        reason: format!(
            "the BPF filesystem has lost our pins: policy is in force as long as this agent runs, and \
             pods are unguarded from its end until the next one is ready; mount it again ({why})"
        ),
        ..Problem::default()
    })
}
