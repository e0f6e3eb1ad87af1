//! The kernel's own cost: a program without policy at the four places where ours are.

use std::error::Error;

use aya::{
    Ebpf,
    programs::{SchedClassifier, TcAttachType, tc},
    util::KernelVersion,
};
use enforcer_tests::Netns;

use super::error::TrafficError;
use crate::program::BASELINE;

/// A program of the baseline, attached for as long as this lives.
#[derive(Debug)]
pub(crate) struct Baseline {
    program: &'static str,
    interfaces: Vec<String>,
    loaded: Option<Ebpf>,
}

impl Baseline {
    /// Attaches `program` to both directions of these interfaces of the node.
    pub(crate) fn attach(
        node: &Netns,
        program: &'static str,
        interfaces: Vec<String>,
    ) -> Result<Self, TrafficError> {
        let mut baseline = Self { program, interfaces, loaded: None };
        baseline.renew(node)?;
        Ok(baseline)
    }

    /// Attaches it anew, with an empty table: what a turn before has inserted would only be found.
    pub(crate) fn renew(&mut self, node: &Netns) -> Result<(), TrafficError> {
        self.loaded = None;
        let (program, interfaces) = (self.program, &self.interfaces);
        let loaded = node.run(|| attach(program, interfaces))?;
        self.loaded = Some(loaded.map_err(TrafficError::Baseline)?);
        Ok(())
    }
}

fn attach(program: &str, interfaces: &[String]) -> Result<Ebpf, Box<dyn Error + Send + Sync>> {
    let mut loaded = Ebpf::load(BASELINE)?;
    let program: &mut SchedClassifier =
        loaded.program_mut(program).ok_or("there is no such program")?.try_into()?;
    program.load()?;
    let with_tcx = KernelVersion::current()? >= KernelVersion::new(6, 6, 0);
    for interface in interfaces {
        if !with_tcx {
            tc::qdisc_add_clsact(interface)?;
        }
        for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
            program.attach(interface, hook)?;
        }
    }
    Ok(loaded)
}
