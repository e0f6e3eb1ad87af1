//! Taking over from a version of the maps before ours.

use tracing::{info, warn};

use super::core::Core;
use crate::{dataplane::Upgraded, error_chain};

impl Core {
    /// Goes on taking over from the version before, while that is in force.
    pub(super) fn take_over(&mut self) {
        if !self.kernel.upgrading() {
            return;
        }
        match self.kernel.finish_upgrade() {
            Ok(Upgraded { interfaces, lost_flows, .. }) => {
                if lost_flows > 0 {
                    warn!(lost_flows, "conntrack has no room for flows of the version before");
                }
                let done = !self.kernel.upgrading();
                if interfaces == 0 && !done {
                    return;
                }
                info!(interfaces, done, "took over from the version before");
            }
            Err(error) => {
                warn!(error = error_chain(&error), "the version before cannot be removed yet");
            }
        }
    }
}
