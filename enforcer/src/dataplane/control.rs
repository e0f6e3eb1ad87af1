//! The node's flags in the control map, and what they say of an agent that died while it wrote.

use std::{mem::offset_of, sync::atomic::Ordering};

use enforcer_common::abi::{CONTROL_AUDIT, CONTROL_WRITING, Control};

use super::Kernel;

impl Kernel {
    /// Has interfaces without an endpoint audited only, or closed.
    pub fn audit_unknown(&self, audit: bool) {
        self.set_control(CONTROL_AUDIT, audit);
    }

    /// Whether interfaces of nobody are audited only.
    pub(super) fn audits_unknown(&self) -> bool {
        self.control() & CONTROL_AUDIT != 0
    }

    fn control(&self) -> u32 {
        self.maps.control.u32(0, offset_of!(Control, flags)).load(Ordering::SeqCst)
    }

    pub(super) fn set_control(&self, bit: u32, set: bool) {
        let flags = self.maps.control.u32(0, offset_of!(Control, flags));
        if set {
            flags.fetch_or(bit, Ordering::SeqCst);
        } else {
            flags.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// From here on classes may be written whose endpoints' generations are not.
    pub(super) fn writing(&self) {
        self.set_control(CONTROL_WRITING, true);
    }

    /// Notes that nothing is half written, if that is so. After an agent that died in the middle it
    /// is only when the first plan is in force, which judges every flow anew.
    pub(super) fn written(&self) {
        if !self.incomplete() && !self.interrupted {
            self.set_control(CONTROL_WRITING, false);
        }
    }

    /// The first plan is in force.
    pub(super) fn begun(&mut self) {
        self.interrupted = false;
        self.written();
    }

    /// Whether the agent before died in the middle of a plan.
    pub(super) fn is_half_written(&self) -> bool {
        self.control() & CONTROL_WRITING != 0
    }
}
