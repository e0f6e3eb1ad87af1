//! The node's flags in the control map, and what they say of an agent that died while it wrote.

use std::{mem::offset_of, sync::atomic::Ordering};

use clap::ValueEnum;
use enforcer_common::abi::{
    CONTROL_AUDIT, CONTROL_NO_DROPS, CONTROL_NO_TRACES, CONTROL_NO_VERDICTS, CONTROL_WRITING,
    Control,
};

use super::Kernel;

/// Which events the kernel tells. Packets are counted all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FlowEvents {
    /// Verdicts, drops, replies, and the ends of flows with what they have carried
    #[default]
    All,
    /// Verdicts and drops
    Verdicts,
    /// Drops, and what would be dropped
    Drops,
    /// Nothing
    None,
}

impl FlowEvents {
    /// `CONTROL_NO_…` bits.
    const fn unwanted(self) -> u32 {
        match self {
            Self::All => 0,
            Self::Verdicts => CONTROL_NO_TRACES,
            Self::Drops => CONTROL_NO_TRACES | CONTROL_NO_VERDICTS,
            Self::None => CONTROL_NO_TRACES | CONTROL_NO_VERDICTS | CONTROL_NO_DROPS,
        }
    }
}

impl Kernel {
    /// Which events are told: of allowed flows and their traces only one flow of `one_of`, by its
    /// tuple; 0 and 1 mean all. Drops are not sampled, nor flows to Services that are judged behind
    /// the translation.
    pub fn tell_flows(&self, events: FlowEvents, one_of: u32) {
        let sampling = self.maps.control.u32(0, offset_of!(Control, sampling));
        sampling.store(one_of, Ordering::SeqCst);
        for bit in [CONTROL_NO_TRACES, CONTROL_NO_VERDICTS, CONTROL_NO_DROPS] {
            self.set_control(bit, events.unwanted() & bit != 0);
        }
    }

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
